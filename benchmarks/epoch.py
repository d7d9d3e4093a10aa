"""Seconds per training epoch: both engines, as `train.py` runs them, against the matrix products alone and their peers.

    python benchmarks/epoch.py                      (or: make bench)
    python benchmarks/epoch.py --threads 1 --batch-size 256 --rounds 3

Every round runs every contender once, and the matrix products alone for a quarter of an epoch before and after each: a
machine's speed wanders within seconds, so what counts is the ratio to its neighbours in time. A ratio of two contenders
is the ratio of these ratios. scikit-learn's and JAX's lines need the extra `bench`.
"""

import argparse
import csv
import platform
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from contenders import (
    ROOT,
    by_autograd,
    by_hand,
    idiomatic_loader,
    jax_scan,
    matrix_products,
    scikit_learn,
    under_trainer,
)
from measuring import Epoch, Measured, measure
from rich.console import Console
from rich.table import Table

from handgrad.data import MNISTDataModule
from handgrad.network import CLASSES, INPUTS, MLP


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden-sizes", type=int, nargs="*", default=[500, 250, 100])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path, help="also write every measured number here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rows = measure(*contenders(options), options.rounds)
    show(rows, options)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["contender", "round", "seconds", "bound_seconds"])
            writer.writerows((name, i, *value) for name, values in rows.items() for i, value in enumerate(values))


def contenders(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], Epoch]:
    """Every contender by name, and the bound: an epoch's matrix products, measured by a quarter of them."""
    device = torch.device(options.device)
    data = MNISTDataModule(root=str(ROOT / "data"), batch_size=options.batch_size)
    data.prepare_data()
    data.setup()
    loader = data.loaders["train"]
    hidden = options.hidden_sizes
    sizes = [INPUTS, *hidden, CLASSES]

    steps = len(loader)
    products = matrix_products(sizes, options.batch_size, steps, device)
    few = matrix_products(sizes, options.batch_size, steps // 4, device)

    def bound() -> float:
        return few() / (steps // 4) * steps

    def sgd_fused(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, fused=True)

    def adam_fused(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.001, fused=True)

    raced: dict[str, Callable[[], Any]] = {
        BOUND: products,
        "the same, a unit's values side by side": matrix_products(
            sizes, options.batch_size, steps, device, units_in_rows=True
        ),
        "by hand, in place, bare loop": by_hand(MLP(hidden), loader, device),
        MANUAL: under_trainer(options, bound, "optimizer=factored_sgd"),
        "autograd module under the Trainer, SGD": under_trainer(options, bound, "engine=autograd", "optimizer=sgd"),
        "autograd module under the Trainer, Adam": under_trainer(
            options, bound, "engine=autograd", "optimizer.lr=0.001"
        ),
        "autograd module under the Trainer, empty step": under_trainer(
            options, bound, "engine=autograd", "optimizer=sgd", empty=True
        ),
        "autograd, fused SGD, bare loop": by_autograd(MLP(hidden), loader, device, sgd_fused),
        "autograd, fused Adam, bare loop": by_autograd(MLP(hidden), loader, device, adam_fused),
        "DataLoader and ToTensor, fused SGD": by_autograd(
            MLP(hidden), idiomatic_loader(ROOT / "data", options.batch_size), device, sgd_fused
        ),
    }
    if find_spec("sklearn"):
        raced["scikit-learn MLPClassifier"] = scikit_learn(hidden, loader)
    if find_spec("jax"):
        raced["JAX, a whole epoch compiled"] = jax_scan(sizes, loader)
    return raced, bound


# What the project promises: ratio of two lines, the bar it must meet and the one it aims for.
BOUND = "matrix products alone"
MANUAL = "manual module under the Trainer"
BARS = [
    (MANUAL, BOUND, "<=", 1.6, 1.4),
    (MANUAL, "autograd, fused SGD, bare loop", "<=", 0.9, 0.75),
    ("autograd module under the Trainer, SGD", "autograd, fused SGD, bare loop", "<=", 1.25, 1.1),
    ("autograd module under the Trainer, Adam", "autograd, fused Adam, bare loop", "<=", 1.25, 1.1),
    ("DataLoader and ToTensor, fused SGD", MANUAL, ">=", 6.0, 8.0),
]


def ratio(rows: dict[str, list[Measured]], upper: str, lower: str) -> float:
    """Of two contenders' median ratios to the products, which are 1 by definition."""
    above, below = (
        1.0 if name == BOUND else statistics.median(measured.ratio for measured in rows[name])
        for name in (upper, lower)
    )
    return above / below


def show(rows: dict[str, list[Measured]], options: argparse.Namespace) -> None:
    """Print the table of contenders and the promised ratios."""
    console = Console(width=120)
    table = Table(
        title=f"seconds per epoch of {60_000} images, batch {options.batch_size}, hidden {options.hidden_sizes}, "
        f"{options.threads} thread(s), {options.device}, {platform.processor() or platform.machine()}; "
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

    table = Table("ratio", "measured", "must be", "aim", title="what the project promises", title_justify="left")
    for upper, lower, sign, bar, aim in BARS:
        measured = ratio(rows, upper, lower)
        met = measured <= bar if sign == "<=" else measured >= bar
        table.add_row(
            f"{upper} / {lower}", f"{measured:.2f} {'' if met else '(missed)'}", f"{sign} {bar}", f"{sign} {aim}"
        )
    console.print(table)


if __name__ == "__main__":
    main()
