"""Seconds per training epoch: both engines as `train.py` runs them, against bare matrix products and other libraries.

    python benchmarks/epoch.py                      (or: make bench)
    python benchmarks/epoch.py --threads 1 --batch-size 256 --rounds 3
    python benchmarks/epoch.py --document           (also writes docs/epoch.csv and its table in docs/scaling.md)

Every round runs every contender once. Before and after each, it times a quarter of an epoch's matrix products in the
fastest installed library: a machine's speed drifts within seconds, so only the ratio to these neighbours counts. Two
contenders are compared by the ratio of their ratios. PyTorch contenders run with its default products and with oneDNN's
(matmul=auto). scikit-learn's and JAX's lines need the group `bench`. A busy machine is refused; every number is written
to a CSV file.
"""

import argparse
import datetime
import re
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from contenders import (
    CLASSES,
    ROOT,
    by_autograd,
    by_hand,
    idiomatic_loader,
    jax_products,
    jax_scan,
    matrix_products,
    scikit_learn,
    switched,
    under_trainer,
)
from measuring import Epoch, Measured, machine, measure, refuse_busy
from rich.console import Console
from rich.table import Table

from handgrad.nn.mlp import MLP
from handgrad.training.matmul import DEFAULT, FASTER, set_matmul_precision
from handgrad.training.mnist import INPUTS, MNISTDataModule


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden-sizes", type=int, nargs="*", default=[500, 250, 100])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path, default=ROOT / "outputs" / "bench.csv", help="file of every number")
    parser.add_argument("--document", action="store_true", help="write docs/epoch.csv and its table in docs/scaling.md")
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine, too")
    options = parser.parse_args()
    if not options.busy:
        refuse_busy()
    torch.set_num_threads(options.threads)
    print(machine())

    rows = measure(*contenders(options), options.rounds)
    show(rows, options)
    table = as_table(rows, f"{machine()}, {options.threads} threads, {datetime.date.today()}")
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.csv, index=False)
    print(f"written: {options.csv}")
    if options.document:
        table.to_csv(DOCUMENTED, index=False)
        page = ROOT / "docs" / "scaling.md"
        page.write_text(document(page.read_text(), table))


DOCUMENTED = ROOT / "docs" / "epoch.csv"


def as_table(rows: dict[str, list[Measured]], where: str) -> pd.DataFrame:
    """Return a row per contender and round: seconds, those of the products, and where and when it was measured."""
    return pd.DataFrame(
        {"contender": name, "round": number, "seconds": each.seconds, "products": each.bound, "measured": where}
        for name, values in rows.items()
        for number, each in enumerate(values)
    )


def document(page: str, table: pd.DataFrame) -> str:
    """Replace the part of docs/scaling.md that is made from docs/epoch.csv."""
    table = table[~table.contender.str.endswith("scoring")].assign(ratio=table.seconds / table.products)
    if not table.contender.str.endswith(ONEDNN).any():  # then a name need not say which products are its
        table = table.assign(contender=table.contender.str.removesuffix(BY_DEFAULT))
    lines = [f"{table.measured.iloc[0]}:", "", "| | median, s | x the products | from | to |", "|---|---|---|---|---|"]
    for name, rows in table.groupby("contender", sort=False):
        numbers = (rows.seconds.median(), rows.ratio.median(), rows.ratio.min(), rows.ratio.max())
        lines.append(f"| {name} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    made = "\n".join(lines)
    return re.sub(r"(<!-- epoch.csv -->\n).*(\n<!-- end -->)", rf"\g<1>{made}\g<2>", page, flags=re.DOTALL)


def contenders(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], Epoch]:
    """Return every contender by name, and the bound: an epoch's matrix products, extrapolated from a quarter."""
    device = torch.device(options.device)
    data = MNISTDataModule(root=str(ROOT / "data"), batch_size=options.batch_size)
    data.prepare_data()
    data.setup()
    images, loader = data.sets["train"], data.train_dataloader()
    hidden = options.hidden_sizes
    sizes = [INPUTS, *hidden, CLASSES]
    steps = len(loader)

    def sgd_fused(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, fused=True)

    def adam_fused(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.001, fused=True)

    # oneDNN's products only where they are faster and round nothing.
    taken = set_matmul_precision("auto", device)
    kinds = {kind: precision for kind, precision in KINDS.items() if precision in (DEFAULT, taken)}
    # Candidates for the bound, a quarter of an epoch's products each; the fastest is taken.
    few = {
        f"products{layout}{kind}": switched(
            precision, matrix_products(sizes, options.batch_size, steps // 4, device, units_in_rows=bool(layout))
        )
        for layout in ("", ", a unit's values side by side")
        for kind, precision in kinds.items()
    }
    if find_spec("jax") and options.device == "cpu":
        few[JAX_PRODUCTS] = jax_products(sizes, options.batch_size, steps // 4)
    for epoch in few.values():
        epoch()  # warm-up: pays one-time costs
    fastest = min(few, key=lambda name: statistics.median(few[name]() for _ in range(5)))

    def bound() -> float:
        return float(few[fastest]()) / (steps // 4) * steps

    raced: dict[str, Callable[[], Any]] = {
        name: lambda epoch=epoch: epoch() / (steps // 4) * steps for name, epoch in few.items()
    }
    for kind, precision in kinds.items():

        def trained(*overrides: str, empty: bool = False, precision: str = precision) -> Callable[[], Any]:
            matmul = "default" if precision == DEFAULT else precision
            return switched(precision, under_trainer(options, bound, *overrides, f"matmul={matmul}", empty=empty))

        bare = {
            BY_HAND: by_hand(MLP(sizes), loader, device),
            BARE_SGD: by_autograd(MLP(sizes), loader, device, sgd_fused),
            BARE_ADAM: by_autograd(MLP(sizes), loader, device, adam_fused),
            "DataLoader and ToTensor, fused SGD": by_autograd(
                MLP(sizes), idiomatic_loader(ROOT / "data", options.batch_size), device, sgd_fused
            ),
        }
        raced |= {f"{name}{kind}": switched(precision, epoch) for name, epoch in bare.items()}
        raced |= {
            f"{MANUAL}{kind}": trained("optimizer=factored_sgd"),
            f"{DEFORMED}{kind}": trained("optimizer=factored_sgd", "data/deform=elastic"),
            f"autograd module under the Trainer, SGD{kind}": trained("engine=autograd", "optimizer=sgd"),
            f"autograd module under the Trainer, Adam{kind}": trained("engine=autograd", "optimizer.lr=0.001"),
        }
    raced["autograd module under the Trainer, empty step"] = trained("engine=autograd", "optimizer=sgd", empty=True)
    if find_spec("sklearn"):
        raced["scikit-learn MLPClassifier"] = scikit_learn(hidden, images, options.batch_size)
    if find_spec("jax"):
        raced[JAX] = jax_scan(sizes, images, options.batch_size)
    print(f"the fastest products, to which all is compared: {fastest}")
    if taken == DEFAULT:
        print("oneDNN's products are left out: here they round to bfloat16, or the default is faster")
    return raced, bound


BY_DEFAULT, ONEDNN = ", default", ", oneDNN"
KINDS = {BY_DEFAULT: DEFAULT, ONEDNN: FASTER}  # of PyTorch's float32 products: matmul=default and auto
JAX_PRODUCTS, JAX = "products, JAX", "JAX, a whole epoch compiled"
BY_HAND = "by hand, in place, bare loop"
BARE_SGD, BARE_ADAM = "autograd, fused SGD, bare loop", "autograd, fused Adam, bare loop"
MANUAL = "manual module under the Trainer"
DEFORMED = "manual module under the Trainer, deformed images"
# Pairs of lines whose ratio is printed. Where oneDNN rounds, the default's lines replace oneDNN's.
RATIOS = [
    (f"{BY_HAND}, default", f"{BY_HAND}, oneDNN"),
    (f"{BY_HAND}, oneDNN", f"{BARE_SGD}, oneDNN"),
    (f"{MANUAL}, oneDNN", "products, default"),
    (f"{MANUAL}, oneDNN", JAX),
    (f"{MANUAL}, oneDNN", f"{BARE_SGD}, oneDNN"),
    (f"{DEFORMED}, oneDNN", f"{MANUAL}, oneDNN"),
    ("autograd module under the Trainer, SGD, default", f"{BARE_SGD}, default"),
    ("autograd module under the Trainer, Adam, default", f"{BARE_ADAM}, default"),
]


def ratio(rows: dict[str, list[Measured]], upper: str, lower: str) -> float:
    """Return the ratio of two contenders' median ratios to the fastest products."""
    above, below = (statistics.median(measured.ratio for measured in rows[name]) for name in (upper, lower))
    return above / below


def show(rows: dict[str, list[Measured]], options: argparse.Namespace) -> None:
    """Print the table of contenders and some ratios."""
    console = Console(width=160)
    table = Table(
        title=f"seconds per epoch of {60_000} images, batch {options.batch_size}, hidden {options.hidden_sizes}, "
        f"{options.threads} thread(s), {options.device}; "
        f"{options.rounds} rounds",
        title_justify="left",
    )
    for column in ("", "median", "least", "most", "x the products", "from", "to"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, values in rows.items():
        columns = [value.seconds for value in values], [value.ratio for value in values]
        numbers = [number for column in columns for number in (statistics.median(column), min(column), max(column))]
        table.add_row(name, *(f"{number:.2f}" for number in numbers))
    console.print(table)

    table = Table("ratio of", "to", "is", title_justify="left")
    for upper, lower in RATIOS:
        if f"{BY_HAND}{ONEDNN}" not in rows:
            upper, lower = (name.replace(ONEDNN, BY_DEFAULT) for name in (upper, lower))
        if upper != lower and {upper, lower} <= set(rows):
            table.add_row(upper, lower, f"{ratio(rows, upper, lower):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
