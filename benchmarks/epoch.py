"""Seconds per training epoch: both engines, as `train.py` runs them, against the matrix products alone and their peers.

    python benchmarks/epoch.py                      (or: make bench)
    python benchmarks/epoch.py --threads 1 --batch-size 256 --rounds 3

Every round runs every contender once, and the matrix products alone for a quarter of an epoch before and after each: a
machine's speed wanders within seconds, so what counts is the ratio to its neighbours in time. A ratio of two contenders
is the ratio of these ratios. scikit-learn's and JAX's lines need the extra `bench`.
"""

import argparse
import contextlib
import csv
import io
import itertools
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from lightning import Callback
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from handgrad import backprop, loss  # noqa: E402
from handgrad.activation import ReLU  # noqa: E402
from handgrad.assembly import assemble  # noqa: E402
from handgrad.data import BatchLoader, MNISTDataModule  # noqa: E402
from handgrad.modules import Classifier  # noqa: E402
from handgrad.network import CLASSES, INPUTS, MLP  # noqa: E402

Epoch = Callable[[], float]  # trains one epoch, returns its seconds


class Measured(NamedTuple):
    """Seconds of an epoch, and what the matrix products of an epoch took just before and after it."""

    seconds: float
    bound: float

    @property
    def ratio(self) -> float:
        """To the matrix products alone."""
        return self.seconds / self.bound


def timed(epoch: Callable[[], object], device: torch.device) -> Epoch:
    """Wrap a loop over one epoch so that it returns its seconds, the accelerator's work included."""

    def run() -> float:
        started = time.perf_counter()
        epoch()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return run


def matrix_products(
    sizes: list[int], batch: int, steps: int, device: torch.device, units_in_rows: bool = False
) -> Epoch:
    """The bound: each step's products and nothing else, into buffers that are there already.

    Either an image's values lie side by side in memory or, as in `backprop.py`, a unit's.
    """

    def buffer(size: int) -> Tensor:
        return torch.rand(size, batch, device=device).t() if units_in_rows else torch.rand(batch, size, device=device)

    inputs = [torch.rand(batch, sizes[0], device=device), *map(buffer, sizes[1:-1])]
    weights = [torch.rand(o, i, device=device) for i, o in itertools.pairwise(sizes)]
    deltas = [buffer(size) for size in sizes[1:]]
    gradients = [torch.empty_like(weight) for weight in weights]

    def epoch() -> None:
        for _ in range(steps):
            for layer, weight in enumerate(weights):
                torch.mm(inputs[layer], weight.t(), out=deltas[layer])
            for layer in reversed(range(len(weights))):
                torch.mm(deltas[layer].t(), inputs[layer], out=gradients[layer])
                if layer:
                    torch.mm(deltas[layer], weights[layer], out=inputs[layer])

    # Their values do not matter, but must not grow to numbers that are slow to multiply.
    for tensor in (*inputs, *weights):
        tensor.mul_(1e-3)
    return timed(epoch, device)


def by_hand(network: MLP, loader: BatchLoader, device: torch.device) -> Epoch:
    """The bare loop by hand, weights updated in place."""
    weights = [weight.detach().to(device) for weight in network.weights]
    biases = [bias.detach().to(device) for bias in network.biases]
    phi = ReLU()

    def epoch() -> None:
        for x, y in on(device, loader):
            passed = backprop.forward(x, weights, biases, phi)
            log_p = loss.log_softmax(passed.logits)
            loss.cross_entropy(log_p, y)
            gradients = backprop.backward(loss.cross_entropy_delta(log_p, y), passed, weights, phi)
            for weight, bias, gradient in zip(weights, biases, gradients, strict=True):
                weight.addmm_(gradient.delta.T, gradient.input, alpha=-0.1)
                bias.sub_(gradient.bias(), alpha=0.1)

    return timed(epoch, device)


def by_autograd(
    network: MLP, loader: Iterable[Any], device: torch.device, optimizer: Callable[..., torch.optim.Optimizer]
) -> Epoch:
    """The bare loop with autograd."""
    network = network.to(device)
    stepper = optimizer(network.parameters())
    phi = nn.ReLU()

    def epoch() -> None:
        for x, y in on(device, loader):
            stepper.zero_grad()
            cross_entropy(network(x.view(len(x), INPUTS), phi), y).backward()
            stepper.step()

    return timed(epoch, device)


def on(device: torch.device, loader: Iterable[Any]) -> Iterable[tuple[Tensor, Tensor]]:
    """Serve a loader's batches on a device."""
    return ((x.to(device), y.to(device)) for x, y in loader)


def idiomatic_loader(root: Path, batch_size: int) -> DataLoader[Any]:
    """One PIL image at a time, converted and collated, with the one-hot labels that both engines get.

    Source: PyTorch's tutorial "Learn the Basics", chapters "Transforms" (the labels) and "Datasets & DataLoaders".
    """

    def one_hot(label: int) -> Tensor:
        return torch.zeros(CLASSES).scatter_(0, torch.tensor(label), value=1)

    data = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor(), target_transform=one_hot)
    return DataLoader(data, batch_size, shuffle=True)


def scikit_learn(hidden: list[int], loader: BatchLoader) -> Epoch:
    """scikit-learn's MLPClassifier with the same sizes, batch and plain SGD."""
    from sklearn.neural_network import MLPClassifier

    x, y = (loader.images.float() / 255).numpy(), loader.targets.argmax(dim=1).numpy()
    model = MLPClassifier(hidden, solver="sgd", batch_size=loader.batch_size, momentum=0, alpha=0, max_iter=1)
    return timed(lambda: model.partial_fit(x, y, classes=range(CLASSES)), torch.device("cpu"))


def jax_scan(sizes: list[int], loader: BatchLoader) -> Epoch:
    """JAX: a whole epoch compiled, `jit` of a `lax.scan` over the batches."""
    import jax
    import jax.numpy as jnp

    steps, batch = len(loader.images) // loader.batch_size, loader.batch_size
    keys = jax.random.split(jax.random.key(0), len(sizes))
    parameters = [
        (jax.random.normal(key, (i, o)) * (2 / i) ** 0.5, jnp.zeros(o))
        for key, (i, o) in zip(keys, itertools.pairwise(sizes), strict=False)
    ]

    def mean_loss(parameters: Any, x: Any, y: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = parameters[-1]
        return -(jax.nn.log_softmax(x @ weight + bias) * y).sum() / batch

    def step(parameters: Any, batch: Any) -> Any:
        value, gradient = jax.value_and_grad(mean_loss)(parameters, *batch)
        return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradient), value

    epoch = jax.jit(lambda parameters, x, y: jax.lax.scan(step, parameters, (x, y)))
    x = jnp.asarray(loader.images[: steps * batch].float().numpy() / 255).reshape(steps, batch, -1)
    y = jnp.asarray(loader.targets[: steps * batch].numpy()).reshape(steps, batch, -1)
    epoch(parameters, x, y)[1].block_until_ready()  # compiles
    return timed(lambda: epoch(parameters, x, y)[1].block_until_ready(), torch.device("cpu"))


class Terminal(io.StringIO):
    """An output that the progress bar takes for a terminal, and that forgets."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def under_trainer(
    options: argparse.Namespace, bound: Epoch, *overrides: str, empty: bool = False
) -> Callable[[], tuple[Measured, float]]:
    """One epoch of a module as `train.py` runs it, with logger, metrics, checkpoint and progress bar.

    Args:
        options: of the command line.
        bound: the matrix products of an epoch.
        overrides: of the configuration.
        empty: leaves out the network; a step moves ten biases, and the rest is what Lightning itself takes.

    Returns:
        a function that returns what was measured of the training loop alone, and the seconds of the scoring after it.
    """
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose(
            "train",
            [
                f"data.batch_size={options.batch_size}",
                f"network.hidden_sizes=[{','.join(map(str, options.hidden_sizes))}]",
                f"trainer.accelerator={'gpu' if options.device == 'cuda' else options.device}",
                f"data.root={ROOT / 'data'}",
                "trainer.max_epochs=2",  # the first epoch also pays for what is made once
                *overrides,
            ],
        )

    def epoch() -> tuple[Measured, float]:
        clock = Neighbours(bound)
        with tempfile.TemporaryDirectory() as folder:
            trainer, module, data, history = assemble(cfg, Path(folder))
            trainer.callbacks.insert(0, clock)  # before the history's own clock starts
            if empty:
                module.training_step = partial(empty_step, module)
            trainer.fit(module, data)
        return Measured(history.rows[-1]["seconds"], (clock.before + clock.after) / 2), clock.scoring

    return epoch


def empty_step(module: Classifier, batch: Any) -> Tensor:
    """A training step for autograd that computes next to nothing."""
    total = module.network.biases[-1].sum()
    module.step_losses.append(total.detach())
    return total


class Neighbours(Callback):
    """Measures the bound before and after the latest epoch, and the seconds that its scoring took."""

    def __init__(self, bound: Epoch) -> None:
        self.bound = bound
        self.before = self.after = self.started = self.scoring = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self.before = self.bound()

    def on_validation_start(self, *_: object) -> None:
        self.started = time.perf_counter()

    def on_validation_end(self, *_: object) -> None:
        self.scoring = time.perf_counter() - self.started
        self.after = self.bound()


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

    rows = measure(options)
    show(rows, options)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["contender", "round", "seconds", "bound_seconds"])
            writer.writerows((name, i, *value) for name, values in rows.items() for i, value in enumerate(values))


def measure(options: argparse.Namespace) -> dict[str, list[Measured]]:
    """What was measured of every contender in every round, by name."""
    device = torch.device(options.device)
    data = MNISTDataModule(root=str(ROOT / "data"), batch_size=options.batch_size)
    data.prepare_data()
    data.setup()
    loader = data.train_dataloader()
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

    contenders: dict[str, Callable[[], Any]] = {
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
        contenders["scikit-learn MLPClassifier"] = scikit_learn(hidden, loader)
    if find_spec("jax"):
        contenders["JAX, a whole epoch compiled"] = jax_scan(sizes, loader)

    rows: dict[str, list[Measured]] = {}
    for _ in range(options.rounds):
        for name, epoch in contenders.items():
            with contextlib.redirect_stdout(Terminal()), contextlib.redirect_stderr(Terminal()):
                before = bound()
                seconds = epoch()
            if isinstance(seconds, tuple):
                measured, scoring = seconds
                scored = Measured(measured.seconds + scoring, measured.bound)
                rows.setdefault(f"{name} + scoring", []).append(scored)
            else:
                measured = Measured(seconds, (before + bound()) / 2)
            rows.setdefault(name, []).append(measured)
    return rows


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
