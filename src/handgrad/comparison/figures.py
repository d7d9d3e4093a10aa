"""Figures of a comparison, one per question.

Colours are Okabe and Ito's (2008), safe for colour-blind readers; every cell also has its own marker, for grey print.
A cell looks the same in every figure.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from handgrad.comparison import metrics
from handgrad.comparison.metrics import Metric
from handgrad.comparison.table import Comparison
from handgrad.text import shortened

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7F00"]
MARKERS = "osD^vP*Xph"
# No parse_math: a dollar sign in a name must not start a formula.
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10, "text.parse_math": False}
MOST = 24  # most rows, panels or legend entries in a readable figure
NOTHING = pd.Series(dtype=float)
CURVES = "How do the losses fall? Mean and, over two seeds and more, the band from the lowest to the highest;"
CONFUSED = (
    "Which digits are taken for which? Images per run of the best and the worst cell, and the difference; "
    "the diagonal is left out."
)
LONGEST = 48  # most characters of a name that leave room for the plot


class Look:
    """Colour and marker of each cell."""

    def __init__(self, labels: list[str]) -> None:
        self.order = {name: i for i, name in enumerate(sorted(labels))}

    def colour(self, label: str) -> str:
        return COLOURS[self.order[label] % len(COLOURS)]

    def marker(self, label: str) -> str:
        return MARKERS[self.order[label] % len(MARKERS)]


class PlainLog(LogFormatter):
    """Tick formatter of a logarithmic axis with plain numbers in place of matplotlib's mathtext."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plainly(axis: Axis) -> None:
    """Write a logarithmic axis's ticks as plain numbers."""
    axis.set_major_formatter(PlainLog())
    axis.set_minor_formatter(PlainLog(minor_thresholds=(1, 0.4)))


def every(comparison: Comparison, cells: pd.DataFrame) -> Iterator[tuple[str, str, Figure]]:
    """Draw every figure that the runs have data for, of at most the MOST best cells.

    Args:
        comparison: the runs.
        cells: the table from `summarize_cells`.

    Yields:
        name, caption, figure.
    """
    cells = cells[cells.completed > 0]
    if cells.empty:
        return
    look, metric = Look(cells.label.tolist()), comparison.metric
    best = cells.head(MOST)
    only = f" The best {MOST} of {len(cells):,} cells." if len(cells) > MOST else ""
    with rc_context(STYLE):
        name = "accuracy" if metric.column == f"{comparison.scored}/accuracy" else metric.column.replace("/", "_")
        caption = (
            f"Which cell is the best? {metric.name.capitalize()}, {metric.best} on top: a dot per run, mean and 95 %"
        )
        yield name, f"{caption} interval.{only}", measured(comparison, best, look, metric)
        if any(tables.history for tables in comparison.tables):
            yield "curves", f"{CURVES} solid: train, dotted: {comparison.scored}.{only}", losses(comparison, best, look)
        if name != "gap":
            by_heart = metrics.find_metric("gap", comparison.scored, comparison.completed)
            caption = f"How much is learned by heart? Train minus {comparison.scored} accuracy.{only}"
            yield "gap", caption, measured(comparison, best, look, by_heart)
        yield from confusions(comparison, cells)
        if cells.seconds_per_epoch.notna().any():
            caption = f"What does accuracy cost? Seconds of training per epoch.{only}"
            yield "time", caption, time(comparison, best, look)
        if swept := comparison.swept:
            groups = groups_of(comparison, cells, swept)
            only = f" The best {MOST} of {len(groups):,} lines." if len(groups) > MOST else ""
            caption = f"What does {swept} do? Every run a dot, mean and 95 % interval.{only}"
            yield "option", caption, option(comparison, groups[:MOST], swept)


def confusions(comparison: Comparison, cells: pd.DataFrame) -> Iterator[tuple[str, str, Figure]]:
    """Draw the confusion matrices of the best and the worst of several cells, if both have any."""
    first, last = cells.iloc[0], cells.iloc[-1]
    best, worst = (mean_confusion(comparison, row) for row in (first, last))
    if len(cells) > 1 and best is not None and worst is not None:
        yield "confusion", CONFUSED, confusion(best, worst, first.label, last.label)


def measured(comparison: Comparison, cells: pd.DataFrame, look: Look, metric: Metric) -> Figure:
    """Plot one row per cell, best on top: a dot per run, the mean with its interval, the reference if there is one."""
    figure = Figure(figsize=(8, 1.2 + 0.36 * max(len(cells), 2)), layout="constrained")
    axes = figure.subplots()
    for y, (_, row) in enumerate(cells.iterrows()):
        runs = comparison.members(row)[metric.column].dropna()
        colour = look.colour(row.label)
        axes.scatter(metric.scale * runs, np.full(len(runs), y + 0.22), s=14, color=colour, alpha=0.6, linewidths=0)
        mean, *ends = pooled_in(row, metric.column, metric.scale)
        axes.plot(ends, [y, y], color=colour, linewidth=2)
        axes.plot(mean, y, marker=look.marker(row.label), color=colour, markersize=7, linestyle="none")
    axes.set_yticks(range(len(cells)), [shortened(label, LONGEST) for label in cells.label])
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    known = cells[cells.reference.notna()]
    if len(known) and metric == comparison.metric:
        look_of: Any = {"marker": "|", "s": 160, "color": "0.35", "linewidths": 2}
        axes.scatter(metric.scale * known.reference, known.index, label=comparison.reference_name, **look_of)
        # Above the rows: among them the legend's marker would look like one more run.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, frameon=False)
    if metric.column == "gap":
        axes.axvline(0, color="0.6", linewidth=1)
    axes.set_xlabel(f"{metric.name} ({metric.of_value.strip()})")
    return figure


def pooled_in(row: pd.Series, name: str, scale: float = 1) -> tuple[float, float, float]:
    """Return a cell's mean and interval ends; NaN, which matplotlib does not draw, if there are none."""
    return scale * row[name], scale * row[f"{name}.low"], scale * row[f"{name}.high"]


def losses(comparison: Comparison, cells: pd.DataFrame, look: Look) -> Figure:
    """Plot loss over epochs, one panel per cell."""
    across = min(len(cells), 4)
    down = -(-len(cells) // across)
    figure = Figure(figsize=(2.7 * across + 0.6, 2.3 * down + 0.4), layout="constrained")
    panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    lowest = np.inf
    for axes, (_, row) in zip(panels, cells.iterrows(), strict=False):
        histories = histories_of(comparison, row)
        for name, style in (("train/loss", "-"), (f"{comparison.scored}/loss", ":")):
            wide = pd.DataFrame({number: rows[name] for number, rows in histories.items() if name in rows}).dropna(
                how="all"
            )
            if wide.empty:
                continue
            epochs = wide.index + 1
            dot = "." if len(epochs) == 1 else ""  # a line would not show a single epoch
            axes.plot(epochs, wide.mean(axis=1), style, color=look.colour(row.label), linewidth=1.6, marker=dot)
            axes.fill_between(epochs, wide.min(axis=1), wide.max(axis=1), color=look.colour(row.label), alpha=0.2, lw=0)
            lowest = min(lowest, np.nanmin(wide))
        axes.set_title(in_lines(row.label), fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.set_yscale("log")
        plainly(axes.yaxis)
    for axes in panels[len(cells) :]:
        axes.set_axis_off()
    if np.isfinite(lowest):
        figure.axes[0].set_ylim(bottom=max(lowest / 1.3, 1e-4))
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("cross-entropy (nats per example)", fontsize=10)
    return figure


def histories_of(comparison: Comparison, row: pd.Series) -> dict[int, pd.DataFrame]:
    """Return the histories of a cell's completed runs by run number, without runs that have none."""
    tables = {number: comparison.tables[number].history for number in comparison.members(row).number}
    return {number: pd.DataFrame(rows).set_index("epoch") for number, rows in tables.items() if rows}


def mean_confusion(comparison: Comparison, row: pd.Series) -> np.ndarray | None:
    """Return the mean confusion matrix (10, 10) of a cell's completed runs; None if no run has one."""
    tables = [comparison.tables[number].confusion for number in comparison.members(row).number]
    counts = [matrix for matrix in tables if matrix is not None]
    return np.mean(counts, axis=0) if counts else None


def in_lines(label: str, width: int = 30) -> str:
    """Wrap a cell's name to fit above a panel."""
    return "\n".join(textwrap.wrap(shortened(label, 3 * width), width))


def confusion(best: np.ndarray, worst: np.ndarray, best_label: str, worst_label: str) -> Figure:
    """Plot the errors of two cells and their difference, without the diagonal, which would dominate the colours."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    errors = [matrix * (1 - np.eye(len(matrix))) for matrix in (best, worst)]
    most = max(1.0, *(matrix.max() for matrix in errors))
    shown = [
        (errors[0], in_lines(f"best: {best_label}", 40), "Blues", 0.0, most),
        (errors[1], in_lines(f"worst: {worst_label}", 40), "Blues", 0.0, most),
        (errors[1] - errors[0], "worst minus best", "PuOr_r", -most, most),
    ]
    for axes, (matrix, title, colours, low, high) in zip(figure.subplots(1, 3), shown, strict=True):
        axes.imshow(matrix, cmap=colours, vmin=low, vmax=high)
        for row, column in zip(*np.nonzero(np.abs(matrix) >= 0.5), strict=True):
            strong = abs(matrix[row, column]) > 0.6 * most
            colour = "white" if strong else "black"
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(matrix)))
        axes.set_yticks(range(len(matrix)))
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.spines[:].set_visible(False)
    return figure


def time(comparison: Comparison, cells: pd.DataFrame, look: Look) -> Figure:
    """Plot accuracy against seconds per epoch."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for _, row in cells.iterrows():
        x, y = pooled_in(row, "seconds_per_epoch"), pooled_in(row, f"{comparison.scored}/accuracy", 100)
        colour = look.colour(row.label)
        name = shortened(row.label, LONGEST)
        axes.plot(x[0], y[0], look.marker(row.label), color=colour, markersize=8, linestyle="none", label=name)
        axes.plot([x[0], x[0]], y[1:], color=colour, alpha=0.7)
        axes.plot(x[1:], [y[0], y[0]], color=colour, alpha=0.7)
    axes.set(xlabel="training time (seconds per epoch)", ylabel=f"{comparison.scored} accuracy (%)")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return figure


def groups_of(comparison: Comparison, cells: pd.DataFrame, swept: str) -> list[tuple[str, pd.DataFrame]]:
    """Group the cells by all factors but the swept one; return (name, cells) pairs, best first."""
    others = [key for key in comparison.varying if key != swept]
    if not others:
        return [("", cells)]
    return [
        (" ".join(comparison.named(key, value) for key, value in zip(others, values, strict=True)), rows)
        for values, rows in cells.groupby(others, sort=False)
    ]


def option(comparison: Comparison, groups: Sequence[tuple[str, pd.DataFrame]], swept: str) -> Figure:
    """Plot the metric, accuracy and loss against the swept option, one line per combination of the other factors."""
    number = comparison.values[swept]
    usual = [metrics.find_metric(name, comparison.scored, comparison.completed) for name in ("accuracy", "loss")]
    drawn = list(dict.fromkeys([comparison.metric, *usual]))
    figure = Figure(figsize=(4.5 * len(drawn), 3.8), layout="constrained")
    every = np.array([number[text] for _, cells in groups for text in cells[swept]], dtype=float)
    for axes, metric in zip(figure.subplots(1, len(drawn)), drawn, strict=True):
        name, scale = metric.column, metric.scale
        for place, (title, cells) in enumerate(groups):
            rows = sorted(cells.to_dict("records"), key=lambda row: number[row[swept]])
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            means = np.array([pooled_in(row, name, scale) for row in rows])
            x = np.array([number[row[swept]] for row in rows], dtype=float)
            look: Any = {"marker": marker} if len(x) <= 3 * MOST else {"linewidth": 0.7, "alpha": 0.6}
            axes.plot(x, means[:, 0], color=colour, label=shortened(title, LONGEST), **look)
            axes.vlines(x, means[:, 1], means[:, 2], color=colour, linewidth=2)
            runs = [scale * comparison.members(row).get(name, NOTHING) for row in rows]
            dots = np.repeat(x, [len(mine) for mine in runs])
            axes.scatter(dots, np.concatenate(runs), s=12, color="black", alpha=0.7, linewidths=0, zorder=3)
        spread_out(axes, every)
        axes.set(xlabel=shortened(swept, LONGEST), ylabel=f"{metric.name} ({metric.of_value.strip()})")
        axes.grid(alpha=0.3)
    if len(groups) > 1:
        beside: Any = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if len(groups) > 6 else {}
        figure.axes[-1].legend(frameon=False, fontsize=8, **beside)
    return figure


def spread_out(axes: Axes, values: np.ndarray) -> None:
    """Make the x axis logarithmic if the values span a factor of 20 or more; symlog if any is zero or below."""
    positive = values[values > 0]
    if not len(positive) or positive.max() < 20 * positive.min():
        return
    if (values > 0).all():
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=positive.min(), linscale=0.5)
    plainly(axes.xaxis)
