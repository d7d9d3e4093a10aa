"""Training time of the notebook's own loops for its seven rows, reimplemented and timed for a few epochs each.

    python studies/notebook/loops.py     (two epochs per row, two minutes; the seven rows are extrapolated)

Compare with `time python src/train.py -m 'experiment=glob(notebook_*)'`. As in the notebook: a list of single images
and one-hot labels, collated by a `DataLoader`; manual loops with examples as columns and every gradient formed, or
`torch.nn` with default Adam; the test set scored through `ToTensor` after every epoch, both sets at the end.
"""

import argparse
import csv
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

from handgrad.training.mnist import INPUTS  # noqa: E402

CLASSES = 10
SIZES = [INPUTS, 500, 250, 100, CLASSES]
BATCH = 64
LR = 0.01
STRENGTHS = {"none": 0.0, "l2": 1e-5}
ROWS = list(csv.DictReader(Path(__file__).with_name("notebook.csv").read_text().splitlines()))
PHI = {"sigmoid": torch.sigmoid, "relu": torch.relu, "tanh": torch.tanh}
SLOPE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda z, a: a * (1 - a),
    "relu": lambda z, a: (z > 0).float(),
    "tanh": lambda z, a: 1 - a**2,
}
Batches = DataLoader[Any]


class ByHand:
    """Manual loop, part 1: examples as columns, weight gradients summed over the batch, bias gradients averaged."""

    def __init__(self, activation: str) -> None:
        self.phi, self.slope = PHI[activation], SLOPE[activation]
        pairs = list(itertools.pairwise(SIZES))
        self.weights = [(torch.rand(o, i) * 2 - 1) * (6 / (i + o)) ** 0.5 for i, o in pairs]
        self.biases = [torch.zeros(o, 1) for _, o in pairs]

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        zs, activations = [], [x]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            zs.append(weight @ activations[-1] + bias)
            activations.append(self.phi(zs[-1]))
        activations[-1] = torch.softmax(zs[-1], dim=0)
        return zs, activations

    def step(self, images: Tensor, y: Tensor) -> float:
        zs, activations = self.forward(images.view(-1, INPUTS).T)
        loss = -(y.T * torch.log(activations[-1] + 1e-7)).sum(0).mean()
        delta = activations[-1] - y.T
        gradients = []
        for layer in reversed(range(len(self.weights))):
            gradients.append((layer, delta @ activations[layer].T, delta.mean(1, keepdim=True)))
            if layer:
                delta = (self.weights[layer].T @ delta) * self.slope(zs[layer - 1], activations[layer])
        for layer, weight, bias in gradients:
            self.weights[layer] = self.weights[layer] - LR * weight
            self.biases[layer] = self.biases[layer] - LR * bias
        return loss.item()

    def score(self, loader: Batches) -> None:
        for images, _ in loader:
            self.forward(images.view(-1, INPUTS).T)[1][-1].argmax(0)


class ByLibrary:
    """Library loop, part 2: `torch.nn`, default Adam, the penalty summed over the weight matrices."""

    def __init__(self, activation: str, strength: float) -> None:
        phi = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[activation]
        layers = [part for i, o in itertools.pairwise(SIZES) for part in (nn.Linear(i, o), phi())]
        self.model = nn.Sequential(*layers[:-1])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LR)
        self.strength = strength

    def step(self, images: Tensor, y: Tensor) -> float:
        loss = penalised = nn.functional.cross_entropy(self.model(images.view(-1, INPUTS)), y)
        if self.strength:
            weights = (weight for name, weight in self.model.named_parameters() if name.endswith("weight"))
            penalised = loss + self.strength * sum((weight**2).sum() for weight in weights)
        self.optimizer.zero_grad()
        penalised.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def score(self, loader: Batches) -> None:
        for images, _ in loader:
            self.model(images.view(-1, INPUTS)).argmax(1)


def main() -> None:
    """Time a few epochs of every row and extrapolate to all seven rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2, help="to time per row")
    options = parser.parse_args()

    started = time.perf_counter()
    train, test = (
        datasets.MNIST(str(ROOT / "data"), train=part, transform=transforms.ToTensor(), download=True)
        for part in (True, False)
    )
    pairs: Any = [(image, torch.eye(CLASSES)[label]) for image, label in train]
    batches: Batches = DataLoader(pairs, BATCH, shuffle=True)
    scored: Batches = DataLoader(test, BATCH)
    total = preparing = time.perf_counter() - started
    print(f"list of single images and one-hot labels: {preparing:.1f} s")
    for row in ROWS:
        activation, epochs = row["activation"], int(row["trainer.max_epochs"])
        strength = STRENGTHS[row["regularizer"]]
        experiment = f"{row['engine']}-{activation}-{row['regularizer']}"
        model = ByHand(activation) if row["engine"] == "manual" else ByLibrary(activation, strength)
        started = time.perf_counter()
        for _ in range(options.epochs):
            for images, y in batches:
                model.step(images, y)
            model.score(scored)
        per_epoch = (time.perf_counter() - started) / options.epochs
        started = time.perf_counter()
        model.score(scored)
        model.score(batches)
        final = time.perf_counter() - started
        total += epochs * per_epoch + final
        print(
            f"{experiment:<26} {per_epoch:5.2f} s per epoch, {epochs} epochs; final scores {final:.1f} s",
            flush=True,
        )
    print(f"the seven rows: {total:.0f} s")


if __name__ == "__main__":
    main()
