"""Time to accuracy: seconds of training until a test accuracy is first reached, for the manual module and its peers.

    python benchmarks/time_to_accuracy.py                    (five seeds; JAX's lines need the group `bench`)

Scoring after every epoch is not counted. All contenders share recipe, initial weights, data order and deformations,
except the notebook's loops, reimplemented here, which draw their own; only the manual module skips learned examples.
The test set may decide when to stop, since the result is a time and not an accuracy.
"""

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import hydra
import torch
from contenders import CLASSES, ROOT
from lightning import seed_everything
from measuring import Terminal
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from handgrad.hydra_version import BASE
from handgrad.nn.mlp import MLP
from handgrad.training.build import assemble, data_of
from handgrad.training.data import ClassificationData, EpochBatches
from handgrad.training.matmul import DEFAULT, set_matmul_precision
from handgrad.training.mnist import INPUTS
from handgrad.training.network import build, build_network, sizes_of
from handgrad.training.schedules import fill_total_steps

sys.path.insert(0, str(ROOT / "studies" / "notebook"))
from loops import BATCH, ByHand

TARGETS = (0.97, 0.98, 0.985)
RECIPES = {
    "the notebook's": ("experiment=notebook_manual-relu-none",),
    "experiment=plain": ("experiment=plain",),
    "experiment=fast": ("experiment=fast",),
}
Course = Iterator[tuple[float, float]]  # per epoch: its seconds and the test accuracy after it


class Recipe(NamedTuple):
    """Training recipe for contenders that do not read `conf/`.

    network: with its initial weights.
    data: in training order.
    rates: the learning rate of every step.
    sums: whether weight gradients are summed over the batch instead of averaged.
    decay: c, where the penalty's gradient is c * W.
    """

    network: MLP
    data: ClassificationData
    rates: list[float]
    sums: bool
    decay: float


def main() -> None:
    """Train every contender with every recipe and seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", default=[*RECIPES], choices=[*RECIPES])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--matmul", default="auto", help="of the manual module and of bare PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    contenders: dict[str, Callable[[DictConfig], Course]] = {
        "manual module under the Trainer": under_trainer,
        "autograd, fused SGD, bare loop": by_autograd,
    }
    if find_spec("jax"):
        contenders["JAX, a whole epoch compiled"] = by_jax
    table = Table(
        title=f"seconds of training until a test accuracy, mean of {options.seeds} seeds", title_justify="left"
    )
    for column in ("recipe", "", *(f"{target:.1%}" for target in TARGETS)):
        table.add_column(column, no_wrap=True)
    for recipe in options.recipes:
        for name, course in contenders.items():
            times = []
            for seed in range(options.seeds):
                with hydra.initialize_config_dir(str(ROOT / "conf"), **BASE):
                    said = [*RECIPES[recipe], f"seed={seed}", f"matmul={options.matmul}", "logger=none"]
                    cfg = hydra.compose("train", [*said, "name=x", f"data.root={ROOT / 'data'}"])
                with contextlib.redirect_stdout(Terminal()), contextlib.redirect_stderr(Terminal()):
                    times.append(reached(course(cfg)))
            table.add_row(recipe, name, *map(told, zip(*times, strict=True)))
    torch.set_float32_matmul_precision(DEFAULT)
    times = [reached(by_notebook(seed)) for seed in range(options.seeds)]
    table.add_row("the notebook's", "the notebook's own loops", *map(told, zip(*times, strict=True)))
    Console(width=120).print(table)


def reached(course: Course) -> list[float | None]:
    """Return the seconds until each target is first reached, None for never."""
    found: list[float | None] = [None] * len(TARGETS)
    total = 0.0
    for seconds, accuracy in course:
        total += seconds
        found = [
            total if known is None and accuracy >= target else known
            for known, target in zip(found, TARGETS, strict=True)
        ]
        if None not in found:
            break
    return found


def told(times: tuple[float | None, ...]) -> str:
    """Format the mean time of the runs that reached a target, and their number if not all did."""
    known = [each for each in times if each is not None]
    if not known:
        return "never"
    return f"{statistics.mean(known):.1f}" + ("" if len(known) == len(times) else f" ({len(known)} of {len(times)})")


def under_trainer(cfg: DictConfig) -> Course:
    """Train as `train.py` does."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, module, data, history = assemble(cfg, Path(folder))
        trainer.fit(module, data)
    for row in history.rows:
        yield row["seconds"], row["test/accuracy"]


def recipe_of(cfg: DictConfig) -> Recipe:
    """Build the recipe of a configuration, without Lightning."""
    data = data_of(cfg)
    seed_everything(cfg.seed, verbose=False)
    network = cast(MLP, build_network(cfg.network, sizes_of(cfg, data))).requires_grad_()
    steps = len(data.train_dataloader()) * cfg.trainer.max_epochs
    optimizer = build(cfg.optimizer)(network.named_parameters())
    schedule = fill_total_steps(build(cfg.schedule), lambda: steps)(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[-1]["lr"])
        if schedule is not None:
            optimizer._opt_called = True  # no warning that the optimizer was not stepped
            schedule.step()
    return Recipe(network, data, rates, optimizer.weight_reduction == "sum", build(cfg.regularizer).weight_decay)


def epochs_of(recipe: Recipe) -> Iterator[tuple[Any, list[float]]]:
    """Yield for every epoch the loader in its order and the rates from its first step on."""
    loader = recipe.data.train_dataloader()
    for epoch in range(len(recipe.rates) // len(loader)):
        cast(EpochBatches, loader.sampler).set_epoch(epoch)
        yield loader, recipe.rates[epoch * len(loader) :]


def by_autograd(cfg: DictConfig) -> Course:
    """Train in a bare loop with torch's SGD."""
    network, data, _, sums, decay = recipe = recipe_of(cfg)
    set_matmul_precision(cfg.matmul, torch.device("cpu"))
    groups: list[dict[str, Any]] = [{"params": network.weights, "weight_decay": decay}, {"params": network.biases}]
    optimizer = torch.optim.SGD(groups, lr=1.0, fused=True)
    phi, test = nn.ReLU(), data.sets["test"]
    for loader, rates in epochs_of(recipe):
        started = time.perf_counter()
        for (x, y), rate in zip(loader, rates, strict=False):
            for group, factor in zip(optimizer.param_groups, (len(x) if sums else 1, 1), strict=True):
                group["lr"] = rate * factor
            optimizer.zero_grad()
            cross_entropy(network(x, phi), y).backward()
            optimizer.step()
        seconds = time.perf_counter() - started
        with torch.no_grad():
            right = network(test.rows / 255, phi).argmax(1) == test.targets.argmax(1)
        yield seconds, float(right.float().mean())


def by_jax(cfg: DictConfig) -> Course:
    """Train in JAX: every epoch in one compiled scan, the shorter last batch separately."""
    import jax
    import jax.numpy as jnp

    network, data, _, sums, decay = recipe = recipe_of(cfg)
    pairs = zip(network.weights, network.biases, strict=True)
    parameters: Any = [(jnp.asarray(w.detach().numpy()), jnp.asarray(b.detach().numpy())) for w, b in pairs]

    def logits(parameters: Any, x: Any) -> Any:
        *hidden, (weight, bias) = parameters
        for w, b in hidden:
            x = jax.nn.relu(x @ w.T + b)
        return x @ weight.T + bias

    def mean_loss(parameters: Any, x: Any, y: Any) -> Any:
        return -(jax.nn.log_softmax(logits(parameters, x)) * y).sum() / len(x)

    def step(parameters: Any, batch: Any) -> Any:
        x, y, rate = batch
        gradients = jax.grad(mean_loss)(parameters, x, y)
        factor = len(x) if sums else 1
        moved = [
            (w - rate * factor * (dw + decay * w), b - rate * db)
            for (w, b), (dw, db) in zip(parameters, gradients, strict=True)
        ]
        return moved, None

    whole = jax.jit(lambda parameters, *batches: jax.lax.scan(step, parameters, batches)[0])
    single = jax.jit(lambda parameters, *batch: step(parameters, batch)[0])
    right = jax.jit(lambda parameters, x, y: (logits(parameters, x).argmax(1) == y).mean())
    test = data.sets["test"]
    x_test, y_test = (test.rows / 255).numpy(), test.targets.argmax(1).numpy()
    compiled = False
    for loader, rates in epochs_of(recipe):
        for _ in range(1 if compiled else 2):  # the first time compiles
            started = time.perf_counter()
            *full, (x, y) = list(loader)
            many = [jnp.asarray(torch.stack(tensors).numpy()) for tensors in zip(*full, strict=True)]
            moved = whole(parameters, *many, jnp.asarray(rates[: len(full)]))
            moved = single(moved, jnp.asarray(x.numpy()), jnp.asarray(y.numpy()), rates[len(full)])
            jax.block_until_ready(moved)
            seconds = time.perf_counter() - started
        parameters, compiled = moved, True
        yield seconds, float(right(parameters, x_test, y_test))


def by_notebook(seed: int) -> Course:
    """Train with the notebook's manual loop and relu: single images collated by a `DataLoader`."""
    torch.manual_seed(seed)
    train, test = (
        datasets.MNIST(str(ROOT / "data"), train=part, transform=transforms.ToTensor()) for part in (True, False)
    )
    pairs: Any = [(image, torch.eye(CLASSES)[label]) for image, label in train]
    batches: DataLoader[Any] = DataLoader(pairs, BATCH, shuffle=True)
    x_test: Tensor = test.data.view(-1, INPUTS).T / 255
    model = ByHand("relu")
    for _ in itertools.repeat(None, 15):
        started = time.perf_counter()
        for images, y in batches:
            model.step(images, y)
        seconds = time.perf_counter() - started
        yield seconds, float((model.forward(x_test)[1][-1].argmax(0) == test.targets).float().mean())


if __name__ == "__main__":
    main()
