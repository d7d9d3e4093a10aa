"""Divergence of two equivalent engines by rounding: python studies/rounding.py, a minute.

Two networks with equal initial weights train on the same batches in the same order, one with manual gradients, one with
autograd's (experiment=controlled, four epochs). Their distance is plotted against the steps.
"""

from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from handgrad.nn import backprop
from handgrad.nn.activations import Activation, ReLU, Sigmoid, Tanh
from handgrad.nn.mlp import MLP
from handgrad.training.data import EpochBatches
from handgrad.training.mnist import MNISTDataModule

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "images" / "rounding.png"
EPOCHS, SEED, SAMPLE = 4, 0, 512
CASES: list[tuple[str, Activation, torch.dtype, str]] = [
    ("sigmoid, float32", Sigmoid(), torch.float32, "tab:green"),
    ("tanh, float32", Tanh(), torch.float32, "tab:orange"),
    ("relu, float32", ReLU(), torch.float32, "tab:blue"),
    ("relu, float64", ReLU(), torch.float64, "tab:purple"),
]
LOOKS = sorted({int(step) for step in np.geomspace(1, EPOCHS * 938, 60)})  # steps after which the networks are compared


def apart(seed: int, phi: Activation, dtype: torch.dtype) -> pd.DataFrame:
    """Train both networks and compare them.

    Returns:
        a row per comparison: step; "weights", the distance between the networks over that from their initial weights;
        "units", the share of hidden units active in only one network, over a sample of test images; "accuracy", the
        difference on the test set, in points.
    """
    data = MNISTDataModule(root=str(ROOT / "data"), seed=seed)
    data.prepare_data()
    data.setup()
    test = data.sets["test"]
    x_test, truth = test.rows.to(dtype) / 255, test.targets.argmax(dim=1)
    networks: list[MLP] = []
    for _ in range(2):
        torch.manual_seed(seed)
        networks.append(MLP().to(dtype).requires_grad_())
    start = torch.cat([parameter.detach().flatten() for parameter in networks[0].parameters()])
    optimizers = [SGD(network.parameters(), lr=0.1) for network in networks]
    loader = data.train_dataloader()
    reference, rows, step = phi.reference(), [], 0
    for epoch in range(EPOCHS):
        cast(EpochBatches, loader.sampler).set_epoch(epoch)
        for images, targets in loader:
            x, y = images.to(dtype), targets.to(dtype)
            by_hand(networks[0], phi, x, y)
            networks[1].zero_grad()
            cross_entropy(networks[1](x, reference), y).backward()
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            if step in LOOKS:
                ours, theirs = (torch.cat([p.detach().flatten() for p in each.parameters()]) for each in networks)
                passed = [backprop.forward(x_test, each.weights, each.biases, phi) for each in networks]
                on = [torch.cat([z[:SAMPLE].flatten() > 0 for z in each.zs[:-1]]) for each in passed]
                right = [float((each.logits.argmax(dim=1) == truth).float().mean()) for each in passed]
                rows.append(
                    {
                        "step": step,
                        "weights": float((ours - theirs).norm() / (theirs - start).norm()),
                        "units": float((on[0] != on[1]).float().mean()),
                        "accuracy": 100 * abs(right[0] - right[1]),
                    }
                )
    return pd.DataFrame(rows)


def by_hand(network: MLP, phi: Activation, x: torch.Tensor, y: torch.Tensor) -> None:
    """Write the manual gradient of the mean loss to `.grad`, where an optimizer looks for it."""
    gradients = backprop.loss_and_gradients(x, y, network.weights, network.biases, phi).gradients
    for layer, gradient in zip(network.linear, gradients, strict=True):
        layer.weight.grad, layer.bias.grad = gradient.weight(), gradient.bias()


def main() -> None:
    """Plot a line per case and print the final values."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for name, phi, dtype, colour in CASES:
        table = apart(SEED, phi, dtype)
        print(f"{name}: {table.iloc[-1].to_dict()}, most {table.accuracy.max():.2f} points", flush=True)
        for axes, column in zip(panels, ("weights", "units"), strict=True):
            axes.plot(table.step, table[column], color=colour, label=name)
    titles = ("distance of the weights / the way they have come", "share of hidden units on in one, off in the other")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="steps", title=title)
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
