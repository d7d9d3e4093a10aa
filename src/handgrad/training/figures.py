"""Figures of one run, drawn without pyplot, which would keep them in memory."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

ROW = 10  # pictures side by side
FEW = 12  # classes whose counts fit into a confusion matrix of the usual size


def curves(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draw the loss of every set over the epochs."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] + 1 for row in rows]
    for name in (name for name in max(rows, key=len) if name.endswith("/loss")):
        losses = [math.nan if row.get(name) is None else row[name] for row in rows]  # gap where a set was not scored
        axes.plot(epochs, losses, marker="o", markersize=3, label=name)
    axes.set(xlabel="epoch", ylabel="cross-entropy (nats per example)", title="Loss per epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def predictions(images: Tensor, actual: Sequence[str], predicted: Sequence[str]) -> Figure:
    """Draw pictures (N, H, W) in a row, titled with actual and predicted class; errors in red."""
    figure = Figure(figsize=(1.3 * len(images), 2), layout="constrained")
    for axes, image, truth, guess in zip(
        figure.subplots(1, len(images), squeeze=False)[0], images, actual, predicted, strict=True
    ):
        axes.imshow(image.numpy(), cmap="gray_r")
        axes.set_title(f"actual {truth}\npredicted {guess}", fontsize=9, color="black" if truth == guess else "red")
        axes.set_axis_off()
    return figure


def deformations(images: Tensor, deformed: Tensor) -> Figure:
    """Draw pictures (N, H, W), ten in a row, and below each its deformation (N, H, W)."""
    pairs = list(zip(torch.split(images, ROW), torch.split(deformed, ROW), strict=True))
    figure = Figure(figsize=(9.3, 2.1 * len(pairs)))
    grid = figure.add_gridspec(3 * len(pairs) - 1, ROW, height_ratios=([1, 1, 0.15] * len(pairs))[:-1])
    grid.update(left=0.03, right=0.99, bottom=0.02, top=0.98, wspace=0.06, hspace=0.06)
    for number, pair in enumerate(pairs):
        for line, name, some in zip((0, 1), ("image", "deformed"), pair, strict=True):
            for column, picture in enumerate(some):
                axes = figure.add_subplot(grid[3 * number + line, column])
                axes.imshow(picture.numpy(), cmap="gray_r", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_color("0.8")
                if not column:
                    axes.set_ylabel(name, fontsize=9)
    return figure


def confusion(counts: Tensor, names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix (C, C), rows: true class, coloured by the row-normalised counts."""
    larger = math.sqrt(max(1, len(names) / FEW))
    figure = Figure(figsize=(6.5 * larger, 6 * larger), layout="constrained")
    axes = figure.subplots()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    # Nearly all counts are on the diagonal; the square root makes the few errors visible.
    axes.imshow(shares.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in counts.nonzero().tolist():
        colour = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9 / larger)
    axes.tick_params(labelsize=10 / larger)
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < 4 else 45)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    return figure


PANELS = {  # panels of `layers.png`: column of `layers.csv`: (title, y scale)
    "activation_std": ("spread of the activations", "linear"),
    "saturated": ("share of saturated units", "linear"),
    "dead": ("share of dead units", "linear"),
    "delta_norm": ("norm of delta", "log"),
    "gradient_norm": ("norm of the weight gradient", "log"),
    "log10_update": ("update / weight, log10", "linear"),
}


def layers(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the diagnostics of every layer over the epochs; gaps where values are missing."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True)
    numbers = sorted({row["layer"] for row in rows})
    for axes, (name, (title, scale)) in zip(grid.flat, PANELS.items(), strict=True):
        for number in numbers:
            mine = [row for row in rows if row["layer"] == number]
            values = [math.nan if row[name] is None else row[name] for row in mine]
            label = f"layer {number}" + (" (logits)" if number == numbers[-1] else "")
            axes.plot([row["epoch"] for row in mine], values, marker="o", markersize=3, label=label)
        axes.set(title=title, yscale=scale)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if title.startswith("share"):
            axes.set_ylim(-0.03, 1.03)
    for axes in grid[-1]:
        axes.set_xlabel("epochs trained")
    grid[0, 0].legend()
    return figure
