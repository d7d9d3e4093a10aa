"""Contenders of the epoch benchmark: both engines as `train.py` runs them, bare loops, products, other libraries."""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from measuring import Epoch, Measured, Neighbours, timed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from handgrad.hydra_version import BASE
from handgrad.nn import backprop
from handgrad.nn.activations import ReLU
from handgrad.nn.mlp import MLP
from handgrad.training.build import assemble
from handgrad.training.data import Examples
from handgrad.training.mnist import INPUTS
from handgrad.training.modules import Classifier, mlp_of

ROOT = Path(__file__).parents[1]
CLASSES = 10


def switched(precision: str, epoch: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap an epoch to run at a float32 matmul precision ("highest", "high" or "medium")."""

    def run() -> Any:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return epoch()
        finally:
            torch.set_float32_matmul_precision(before)

    return run


def matrix_products(
    sizes: list[int], batch: int, steps: int, device: torch.device, units_in_rows: bool = False
) -> Epoch:
    """Time the matrix products of every step and nothing else, into preallocated buffers.

    Activations and deltas are row-major or, with `units_in_rows`, column-major as in `backprop.py`.
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

    # Scaled down: the values do not matter, but must not grow to numbers that are slow to multiply.
    for tensor in (*inputs, *weights):
        tensor.mul_(1e-3)
    return timed(epoch, device)


def jax_products(sizes: list[int], batch: int, steps: int) -> Epoch:
    """Time the same products in JAX."""
    import jax
    import jax.numpy as jnp

    inputs = [jnp.ones((batch, size)) for size in sizes[:-1]]
    weights = [jnp.ones((o, i)) for i, o in itertools.pairwise(sizes)]
    deltas = [jnp.ones((batch, size)) for size in sizes[1:]]

    @jax.jit
    def step(inputs: Any, weights: Any, deltas: Any) -> Any:
        forward = [a @ weight.T for a, weight in zip(inputs, weights, strict=True)]
        gradients = [delta.T @ a for delta, a in zip(deltas, inputs, strict=True)]
        return forward, gradients, [delta @ weight for delta, weight in zip(deltas[1:], weights[1:], strict=True)]

    def epoch() -> None:
        for _ in range(steps):
            made = step(inputs, weights, deltas)
        jax.block_until_ready(made)

    step(inputs, weights, deltas)  # compiles
    return timed(epoch, torch.device("cpu"))


def by_hand(network: MLP, loader: Iterable[Any], device: torch.device) -> Epoch:
    """Time a bare loop with manual gradients, weights updated in place."""
    weights = [weight.detach().to(device) for weight in network.weights]
    biases = [bias.detach().to(device) for bias in network.biases]
    phi = ReLU()

    def epoch() -> None:
        for x, y in on(device, loader):
            step = backprop.loss_and_gradients(x, y, weights, biases, phi)
            for weight, bias, gradient in zip(weights, biases, step.gradients, strict=True):
                weight.addmm_(gradient.delta.T, gradient.input, alpha=-0.1)
                bias.sub_(gradient.bias(), alpha=0.1)

    return timed(epoch, device)


def by_autograd(
    network: MLP, loader: Iterable[Any], device: torch.device, optimizer: Callable[..., torch.optim.Optimizer]
) -> Epoch:
    """Time a bare loop with autograd."""
    network = network.to(device).requires_grad_()
    stepper = optimizer(network.parameters())
    phi = nn.ReLU()

    def epoch() -> None:
        for x, y in on(device, loader):
            stepper.zero_grad()
            cross_entropy(network(x.view(len(x), INPUTS), phi), y).backward()
            stepper.step()

    return timed(epoch, device)


def on(device: torch.device, loader: Iterable[Any]) -> Iterable[tuple[Tensor, Tensor]]:
    """Move a loader's batches to a device."""
    return ((x.to(device), y.to(device)) for x, y in loader)


def idiomatic_loader(root: Path, batch_size: int) -> DataLoader[Any]:
    """Return a loader of single PIL images, converted and collated, with the engines' one-hot labels.

    Source: PyTorch's tutorial "Learn the Basics", chapters "Transforms" (the labels) and "Datasets & DataLoaders".
    """

    def one_hot(label: int) -> Tensor:
        return torch.zeros(CLASSES).scatter_(0, torch.tensor(label), value=1)

    data = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor(), target_transform=one_hot)
    return DataLoader(data, batch_size, shuffle=True)


def scikit_learn(hidden: list[int], images: Examples, batch: int) -> Epoch:
    """Time scikit-learn's MLPClassifier with the same sizes, batch and plain SGD."""
    from sklearn.neural_network import MLPClassifier

    x, y = (images.rows.float() / 255).numpy(), images.targets.argmax(dim=1).numpy()
    model = MLPClassifier(hidden, solver="sgd", batch_size=batch, momentum=0, alpha=0, max_iter=1)
    return timed(lambda: model.partial_fit(x, y, classes=range(CLASSES)), torch.device("cpu"))


def jax_scan(sizes: list[int], images: Examples, batch: int) -> Epoch:
    """Time a whole compiled epoch in JAX: `jit` of a `lax.scan` over the batches."""
    import jax
    import jax.numpy as jnp

    steps = len(images) // batch
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
    x = jnp.asarray(images.rows[: steps * batch].float().numpy() / 255).reshape(steps, batch, -1)
    y = jnp.asarray(images.targets[: steps * batch].numpy()).reshape(steps, batch, -1)
    epoch(parameters, x, y)[1].block_until_ready()  # compiles
    return timed(lambda: epoch(parameters, x, y)[1].block_until_ready(), torch.device("cpu"))


def under_trainer(
    options: argparse.Namespace, bound: Epoch, *overrides: str, empty: bool = False
) -> Callable[[], tuple[Measured, float]]:
    """Time one epoch as `train.py` runs it, with logger, metrics, checkpoint and progress bar.

    Args:
        options: command-line options.
        bound: times an epoch's matrix products.
        overrides: Hydra overrides.
        empty: leave out the network: a step updates only ten biases, so that Lightning's own overhead remains.

    Returns:
        a function that returns the measurement of the training loop alone, and the seconds of scoring after it.
    """
    with hydra.initialize_config_dir(str(ROOT / "conf"), **BASE):
        cfg = hydra.compose(
            "train",
            [
                f"data.batch_size={options.batch_size}",
                f"network.hidden_sizes=[{','.join(map(str, options.hidden_sizes))}]",
                f"trainer.accelerator={'gpu' if options.device == 'cuda' else options.device}",
                f"data.root={ROOT / 'data'}",
                "name=benchmark",
                "trainer.max_epochs=2",  # the first epoch also pays one-time costs
                *overrides,
            ],
        )

    def epoch() -> tuple[Measured, float]:
        clock = Neighbours(bound)
        with tempfile.TemporaryDirectory() as folder:
            trainer, module, data, history = assemble(cfg, Path(folder))
            trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined] # before the history's own clock starts
            if empty:
                module.training_step = partial(empty_step, module)  # type: ignore[method-assign]
            trainer.fit(module, data)
        return Measured(history.rows[-1]["seconds"], (clock.before + clock.after) / 2), clock.scoring

    return epoch


def empty_step(module: Classifier, batch: Any) -> Tensor:
    """A training step for autograd that computes next to nothing."""
    total = mlp_of(module, "an empty step").biases[-1].sum()
    module.step_losses.append(total.detach())
    return total
