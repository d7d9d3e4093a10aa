"""Figures of a comparison, one per question.

A cell looks the same in every figure. An axis fits the cells that belong together; a cell far from them is drawn at the
edge, with an arrow and its number.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from handgrad.comparison.axes import Limits, beyond, fitted, note, plainly, spread_out
from handgrad.comparison.look import GREY, LONGEST, Look, Row, by_name, explain
from handgrad.comparison.metrics import Metric, find_metric
from handgrad.comparison.table import Comparison
from handgrad.text import join_names, shortened

Drawn = tuple[Figure, list[str]]  # a figure, and the names of the cells at its edge
Curves = list[tuple[Row, dict[str, pd.DataFrame]]]  # of each cell, by line style: a row per epoch, a column per run
Groups = list[tuple[str, pd.DataFrame]]  # name and cells of each line

# No parse_math: a dollar sign in a name must not start a formula. No offset: ticks are read as they stand.
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.formatter.useoffset": False}
STYLE |= {"font.size": 10, "text.parse_math": False}
WIDTH = 8.5  # inches; shown 850 pixels wide, text of 8 points is 11 pixels high
MOST = 24  # most rows, panels or lines in a readable figure
REFERENCE = GREY | {"marker": "|", "markersize": 12, "markeredgewidth": 2}
NOTHING = pd.Series(dtype=float)
SHOWN = "a dot per run, mean and 95 % interval"
CURVES = "How do the losses fall? Mean and, over two or more seeds, the band from the lowest to the highest;"
CONFUSED = (
    "Which digits are mistaken for which? Images per run of the best and the worst cell, and the difference; "
    "the diagonal is left out."
)


def every(comparison: Comparison, cells: pd.DataFrame) -> Iterator[tuple[str, str, Figure]]:
    """Draw every figure that the runs have data for, of at most the MOST best cells; yield name, caption, figure."""
    cells = cells[cells.completed > 0].reset_index(drop=True)
    if cells.empty:
        return
    look, metric, scored = Look(comparison), comparison.metric, comparison.scored
    best = cells.head(MOST)
    only = f" The best {MOST} of {len(cells):,} cells." if len(cells) > MOST else ""
    name = "accuracy" if metric.column == f"{scored}/accuracy" else metric.column.replace("/", "_")
    with rc_context(STYLE):
        if has(cells, metric.column):
            caption = f"Which cell is the best? {metric.name.capitalize()}, {metric.best} on top: {SHOWN}.{only}"
            yield captioned(name, caption, measured(comparison, best, look, metric))
        if curves := curves_of(comparison, best):
            yield "curves", f"{CURVES} solid: train, dotted: {scored}.{only}", losses(curves, look)
        gap, accuracy, loss = (
            usual(comparison, cells, name) for name in ("gap", f"{scored}/accuracy", f"{scored}/loss")
        )
        if name != "gap" and gap:
            caption = f"How much do the cells overfit? Train minus {scored} accuracy.{only}"
            yield captioned("gap", caption, measured(comparison, best, look, gap))
        yield from confusions(comparison, cells)
        gain = accuracy or metric
        if has(cells, gain.column) and has(cells, "seconds_per_epoch") and gain.column != "seconds_per_epoch":
            what = "accuracy" if accuracy else gain.name
            caption = f"What does {what} cost? Seconds of training per epoch.{only}"
            yield captioned("time", caption, time(comparison, best, look, gain))
        metrics = [each for each in dict.fromkeys([metric, accuracy, loss]) if each and has(cells, each.column)]
        if (swept := comparison.swept) and metrics:
            groups = groups_of(comparison, cells, swept)
            only = f" The best {MOST} of {len(groups):,} lines." if len(groups) > MOST else ""
            caption = f"What does {swept} do? {SHOWN.capitalize()}.{only}"
            yield captioned("option", caption, option(comparison, groups[:MOST], swept, look, metrics))


def captioned(name: str, caption: str, drawn: Drawn) -> tuple[str, str, Figure]:
    """Add to a caption which cells are at the edge of the figure."""
    figure, edge = drawn
    far = f" Far off, at the edge with an arrow: {join_names(list(dict.fromkeys(edge)))}." if edge else ""
    return name, caption + far, figure


def has(table: pd.DataFrame, column: str) -> bool:
    """Tell whether a table has a value in a column."""
    return column in table and bool(table[column].notna().any())


def usual(comparison: Comparison, cells: pd.DataFrame, name: str) -> Metric | None:
    """Return a metric if the cells have it."""
    known = has(cells, name) and has(comparison.completed, name)
    return find_metric(name, comparison.scored, comparison.completed) if known else None


def drawn_of(comparison: Comparison, row: Row, metric: Metric) -> np.ndarray:
    """Return a cell's mean, interval ends (NaN without) and runs, in the metric's unit."""
    pooled = [row.get(metric.column + end, math.nan) for end in ("", ".low", ".high")]
    runs = comparison.members(row).get(metric.column, NOTHING).dropna()
    return metric.scale * np.array([*pooled, *runs], dtype=float)


def measured(comparison: Comparison, cells: pd.DataFrame, look: Look, metric: Metric) -> Drawn:
    """Plot one row per cell, best on top: a dot per run, the mean with its interval, the reference if there is one."""
    rows: list[Row] = cells.to_dict("records")
    edge: list[str] = []
    drawn = [drawn_of(comparison, row, metric) for row in rows]
    references = [metric.scale * row["reference"] if metric == comparison.metric else math.nan for row in rows]
    others = [0.0] * len(rows) if metric.column == "gap" else references  # keep a gap of zero in view
    limits = fitted(metric, [np.append(*pair) for pair in zip(drawn, others, strict=True)])
    figure = Figure(figsize=(WIDTH, 1.2 + 0.36 * max(len(rows), 2)), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=limits, ylim=(len(rows) - 0.4, -0.6), xlabel=metric.label)
    for y, (row, values) in enumerate(zip(rows, drawn, strict=True)):
        (mean, ends, runs), signs = np.split(values, [1, 3]), look(row)
        far = beyond(mean[0], limits, metric, "◂▸")
        axes.scatter(runs, np.full(len(runs), y + 0.22), 14, signs["color"], alpha=0.6, linewidths=0)
        axes.plot(ends, [y, y], color=signs["color"], linewidth=2)
        axes.plot(mean.clip(*limits), y, markersize=7, linestyle="none", clip_on=False, zorder=3, **signs)
        if far:
            if beyond(references[y], limits, metric, "◂▸"):
                far += f" ({comparison.reference_name} {references[y]:.{metric.digits}f})"
            note(axes, mean.clip(*limits)[0], y, far)
            edge.append(row["label"])
    axes.set_yticks(range(len(rows)), [shortened(label, LONGEST) for label in cells.label])
    axes.grid(axis="x", alpha=0.3)
    if metric.column == "gap":
        axes.axvline(0, color="0.6", linewidth=1)
    columns = look.legend(rows) if len(comparison.varying) > 1 else []
    if np.isfinite(references).any():
        axes.plot(references, range(len(rows)), label=comparison.reference_name, **REFERENCE)
        columns.append(("", [(comparison.reference_name, REFERENCE)]))
    explain(figure, columns)
    return figure, edge


def curves_of(comparison: Comparison, cells: pd.DataFrame) -> Curves:
    """Return the cells that have losses over epochs, with the curves of train (solid) and scored loss (dotted)."""
    found: Curves = []
    for row in cells.to_dict("records"):
        histories = [comparison.tables[number].history or {} for number in comparison.members(row).number]
        curves = {}
        for name, style in (("train/loss", "-"), (f"{comparison.scored}/loss", ":")):
            runs = [pd.Series(history[name], history["epoch"]).dropna() for history in histories if name in history]
            if any(len(run) for run in runs):
                curves[style] = pd.concat(runs, axis=1).sort_index()
        if curves:
            found.append((row, curves))
    return found


def losses(curves: Curves, look: Look) -> Figure:
    """Plot loss over epochs, one panel per cell."""
    across = min(len(curves), 3)
    down = -(-len(curves) // across)
    figure = Figure(figsize=(2.6 * across + 0.7, 2.2 * down + 0.4), layout="constrained")
    panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for axes, (row, lines) in zip(panels, curves, strict=False):
        colour = look(row)["color"]
        for style, wide in lines.items():
            epochs = wide.index + 1
            dot = "." if len(epochs) == 1 else ""  # a line would not show a single epoch
            axes.plot(epochs, wide.mean(axis=1), style, color=colour, linewidth=1.6, marker=dot)
            axes.fill_between(epochs, wide.min(axis=1), wide.max(axis=1), color=colour, alpha=0.2, lw=0)
        axes.set_title(in_lines(row["label"]), fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.set_yscale("log")
        plainly(axes.yaxis)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    lowest = min(np.nanmin(wide) for _, lines in curves for wide in lines.values())
    panels[0].set_ylim(bottom=max(lowest / 1.3, 1e-4))
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("cross-entropy (nats per example)", fontsize=10)
    return figure


def confusions(comparison: Comparison, cells: pd.DataFrame) -> Iterator[tuple[str, str, Figure]]:
    """Draw the confusion matrices of the best and the worst of several cells, if both have any."""
    (_, first), (_, last) = cells.iloc[[0, -1]].iterrows()
    best, worst = (mean_confusion(comparison, row) for row in (first, last))
    if len(cells) > 1 and best is not None and worst is not None and best.shape == worst.shape:
        yield "confusion", CONFUSED, confusion(best, worst, first.label, last.label)


def mean_confusion(comparison: Comparison, row: Row) -> np.ndarray | None:
    """Return the mean confusion matrix (C, C) of a cell's completed runs; None if no run has one."""
    tables = [comparison.tables[number].confusion for number in comparison.members(row).number]
    counts = [matrix for matrix in tables if matrix is not None]
    return np.mean(counts, axis=0) if counts and len({len(matrix) for matrix in counts}) == 1 else None


def in_lines(label: str, width: int = 30) -> str:
    """Wrap a cell's name to fit above a panel."""
    return "\n".join(textwrap.wrap(shortened(label, 3 * width), width))


def confusion(best: np.ndarray, worst: np.ndarray, best_label: str, worst_label: str) -> Figure:
    """Plot the errors of two cells and their difference, without the diagonal, which would dominate the colours."""
    figure = Figure(figsize=(WIDTH, 9), layout="constrained")
    errors = [matrix * (1 - np.eye(len(matrix))) for matrix in (best, worst)]
    most = max(1.0, *(matrix.max() for matrix in errors))
    titles = [in_lines(f"best: {best_label}", 40), in_lines(f"worst: {worst_label}", 40)]
    shown = [(matrix, title, "Blues", 0.0) for matrix, title in zip(errors, titles, strict=True)]
    shown.append((errors[1] - errors[0], "worst minus best", "PuOr_r", -most))
    panels = figure.subplot_mosaic("AABB;.CC.").values()
    for axes, (matrix, title, colours, low) in zip(panels, shown, strict=True):
        axes.imshow(matrix, cmap=colours, vmin=low, vmax=most)
        for row, column in np.argwhere(np.rint(matrix)):
            colour = "white" if abs(matrix[row, column]) > 0.6 * most else "black"
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_title(title, fontsize=10)
        classes = range(len(matrix))
        axes.set(xlabel="predicted class", ylabel="true class", xticks=classes, yticks=classes)
        axes.spines[:].set_visible(False)
    return figure


def time(comparison: Comparison, cells: pd.DataFrame, look: Look, metric: Metric) -> Drawn:
    """Plot a metric against seconds per epoch."""
    rows: list[Row] = cells.to_dict("records")
    edge: list[str] = []
    seconds = find_metric("seconds_per_epoch", comparison.scored, comparison.completed)
    xs, ys = ([drawn_of(comparison, row, each)[:3] for row in rows] for each in (seconds, metric))
    across, up = (0.0, fitted(seconds, [np.append(x, 0) for x in xs])[1]), fitted(metric, ys)
    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=across, ylim=up, xlabel="training time (seconds per epoch)", ylabel=metric.label)
    for row, x, y in zip(rows, xs, ys, strict=True):
        place, signs = (np.clip(x[0], *across), np.clip(y[0], *up)), look(row)
        axes.plot([place[0]] * 2, y[1:], color=signs["color"], alpha=0.7)
        axes.plot(x[1:], [place[1]] * 2, color=signs["color"], alpha=0.7)
        axes.plot(*place, markersize=8, linestyle="none", clip_on=False, zorder=3, **signs)
        far = [beyond(y[0], up, metric, "▾▴"), beyond(x[0], across, seconds, "◂▸")]
        if any(far):
            note(axes, *place, " ".join([shortened(row["label"], LONGEST), *filter(None, far)]), 12 + 11 * len(edge))
            edge.append(row["label"])
    axes.grid(alpha=0.3)
    explain(figure, look.legend(rows) or by_name(cells.label, rows, look))
    return figure, edge


def groups_of(comparison: Comparison, cells: pd.DataFrame, swept: str) -> Groups:
    """Group the cells by all factors but the swept one; return (name, cells) pairs, best first."""
    others = [key for key in comparison.varying if key != swept]
    if not others:
        return [("", cells)]
    return [
        (" ".join(comparison.named(key, value) for key, value in zip(others, values, strict=True)), rows)
        for values, rows in cells.groupby(others, sort=False)
    ]


def option(comparison: Comparison, groups: Groups, swept: str, look: Look, metrics: Sequence[Metric]) -> Drawn:
    """Plot metrics against the swept option, one line per combination of the other factors.

    Beyond MOST values of the option, a line's cells all look like its first.
    """
    number = comparison.values[swept]
    lines = [sorted(cells.to_dict("records"), key=lambda row: number[row[swept]]) for _, cells in groups]
    rows = list(chain(*lines))
    figure = Figure(figsize=(WIDTH, 0.8 + 2.6 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), sharex=True, squeeze=False, gridspec_kw={"hspace": 0.08})[:, 0]
    spread_out(panels[0], np.array([number[row[swept]] for row in rows], dtype=float))
    many, edge = len({row[swept] for row in rows}) > MOST, list[str]()
    looks = [[look(line[0] if many else row) for row in line] for line in lines]
    for axes, metric in zip(panels, metrics, strict=True):
        drawn = [[drawn_of(comparison, row, metric) for row in line] for line in lines]
        limits = fitted(metric, list(chain(*drawn)))
        axes.set(ylim=limits, ylabel=metric.label)
        axes.grid(alpha=0.3)
        for line, values, signs in zip(lines, drawn, looks, strict=True):
            plot_line(axes, [number[row[swept]] for row in line], values, signs, limits)
        noted: Counter[float] = Counter()
        for row, (mean, *_) in zip(rows, chain(*drawn), strict=True):
            if far := beyond(mean, limits, metric, "▾▴"):
                x = number[row[swept]]
                note(axes, x, np.clip(mean, *limits), f"{shortened(row['label'], LONGEST)} {far}", 12 + 11 * noted[x])
                noted[x] += 1
                edge.append(row["label"])
    panels[-1].set_xlabel(shortened(swept, LONGEST))
    if len(groups) > 1:
        names = [name for name, _ in groups]
        explain(figure, look.legend(rows, swept) or by_name(names, [line[0] for line in lines], look))
    return figure, edge


def plot_line(
    axes: Axes, xs: Sequence[float], drawn: Sequence[np.ndarray], looks: Sequence[dict[str, Any]], limits: Limits
) -> None:
    """Plot cells along a line: means with intervals, runs as dots; means outside the limits at the edge."""
    means = np.clip([values[0] for values in drawn], *limits)
    one, *others = {signs["color"] for signs in looks}
    width, size = (0.7, 3) if len(xs) > MOST else (1.5, 6)
    axes.plot(xs, means, color="0.6" if others else one, linewidth=width, zorder=1)
    for x, mean, (_, low, high, *runs), signs in zip(xs, means, drawn, looks, strict=True):
        axes.plot([x, x], [low, high], color=signs["color"], linewidth=2)
        axes.scatter([x] * len(runs), runs, 12, signs["color"], alpha=0.6, linewidths=0)
        axes.plot(x, mean, markersize=size, linestyle="none", clip_on=False, zorder=3, **signs)
