"""Stacked networks: seconds per epoch and network, by the number of networks in one tensor.

    python benchmarks/population.py --networks 1 2 4 8 16 --threads 1
    python benchmarks/population.py --networks 1 8 64 512 --device cuda --matmul high

Bare loop with manual gradients: weights (S, O, I) updated in place, separate batches for every network. Every round
runs every number of networks once; the median is reported.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from contenders import ROOT
from measuring import timed
from rich.console import Console
from rich.table import Table
from torch import Tensor

from handgrad.nn import backprop
from handgrad.nn.activations import ReLU
from handgrad.nn.mlp import MLP
from handgrad.training.mnist import MNISTDataModule

BATCH = 64
RATE = 0.1


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    parser.add_argument("--matmul", nargs="+", default=["highest", "medium"], choices=["highest", "high", "medium"])
    parser.add_argument("--batches", type=int, default=100, help="of an epoch's 938, which the seconds are taken to")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    data = MNISTDataModule(root=str(ROOT / "data"), batch_size=BATCH)
    data.prepare_data()
    data.setup()
    images, targets = (tensor.to(device) for tensor in (data.sets["train"].rows, data.sets["train"].targets))

    seconds: dict[tuple[int, str], list[float]] = {}
    for _ in range(options.rounds):
        for networks in options.networks:
            epoch = timed(population(networks, images, targets, options.batches), device)
            for matmul in options.matmul:
                torch.set_float32_matmul_precision(matmul)
                epoch()  # warm-up: pays one-time costs
                seconds.setdefault((networks, matmul), []).append(epoch() * 938 / options.batches)

    table = Table(title=f"an epoch, {options.threads} thread(s), {options.device}; {options.rounds} rounds")
    for column in ("networks", "matmul", "s per network", "least", "most", "networks x epochs per s"):
        table.add_column(column, justify="right", no_wrap=True)
    for (networks, matmul), values in seconds.items():
        each = [value / networks for value in values]
        numbers = [statistics.median(each), min(each), max(each)]
        table.add_row(str(networks), matmul, *(f"{number:.4f}" for number in numbers), f"{1 / numbers[0]:.2f}")
    Console(width=120).print(table)


@torch.no_grad()
def population(networks: int, images: Tensor, targets: Tensor, batches: int) -> Callable[[], None]:
    """Return a loop over some batches that trains stacked networks, each in its own data order.

    Args:
        networks: S, the number of networks.
        images: (N, 784) bytes.
        targets: (N, 10) one-hot.
        batches: number of batches.
    """
    torch.manual_seed(0)
    members = [MLP() for _ in range(networks)]
    weights = [
        torch.stack(layer).to(images.device) for layer in zip(*(member.weights for member in members), strict=True)
    ]
    biases = [
        torch.stack(layer).to(images.device) for layer in zip(*(member.biases for member in members), strict=True)
    ]
    orders = torch.stack([torch.randperm(len(images))[: batches * BATCH] for _ in members]).to(images.device)
    phi = ReLU()

    @torch.no_grad()
    def some() -> None:
        for indices in orders.split(BATCH, dim=1):
            x, y = images[indices] / 255, targets[indices]  # (S, B, 784), (S, B, 10)
            step = backprop.loss_and_gradients(x, y, weights, biases, phi)
            for weight, bias, gradient in zip(weights, biases, step.gradients, strict=True):
                weight.baddbmm_(gradient.delta.mT, gradient.input, alpha=-RATE)
                bias.sub_(gradient.bias(), alpha=RATE)

    return some


if __name__ == "__main__":
    main()
