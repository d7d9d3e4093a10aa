"""Figures of what is inside: the layers over the epochs, and pictures beside what the network saw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from handgrad.inside.predictions import MOST, Prediction
from handgrad.settings import plain

COLUMNS = 4  # of pairs
PANELS = {  # of `layers.png`: column of `layers.csv`, title, scale
    "activation_std": ("spread of the activations", "linear"),
    "saturated": ("share of saturated units", "linear"),
    "dead": ("share of dead units", "linear"),
    "delta_norm": ("norm of delta", "log"),
    "gradient_norm": ("norm of the weight gradient", "log"),
    "log10_update": ("update / weight, log10", "linear"),
}


def layers(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw what happened inside every layer, over the epochs; a gap where there is no number."""
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


def pictures(predicted: Sequence[Prediction]) -> Figure:
    """Draw each picture beside what the network saw of it, under the two likeliest classes; the first forty."""
    shown = predicted[:MOST]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.1 * lines), layout="constrained")
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, each in enumerate(shown):
        line, column = divmod(number, columns)
        picture, seen = grid[line, 2 * column], grid[line, 2 * column + 1]
        picture.imshow(each.grey, cmap="gray", vmin=0, vmax=1)
        seen.imshow(each.seen.view(28, 28).numpy(), cmap="gray", vmin=0, vmax=1)
        (first, second), (p, q) = each.classes, each.probabilities
        name = plain(each.path.name)
        picture.set_title(name if len(name) <= 18 else f"{name[:17]}…", fontsize=8, parse_math=False)
        seen.set_title(f"{first}: {p:.1%}\n{second}: {q:.1%}", fontsize=8)
    return figure
