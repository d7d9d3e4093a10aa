"""Axes that fit the cells that belong together, and plain numbers on logarithmic ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogFormatter

from handgrad.comparison.metrics import Metric
from handgrad.comparison.outcomes import is_far

Limits = tuple[float, float]


def span(*parts: np.ndarray) -> float:
    """Return the distance from the lowest to the highest value."""
    return float(np.nanmax(np.concatenate(parts)) - np.nanmin(np.concatenate(parts)))


def fitted(metric: Metric, drawn: Sequence[np.ndarray]) -> Limits:
    """Return axis limits that fit the cells that belong together, within the metric's bounds.

    `drawn` has each cell's drawn values, its mean first. A far cell is outside if its mean would at least triple
    the span.
    """
    means = np.array([values[0] for values in drawn])
    if not np.isfinite(means).any():
        return 0.0, 1.0
    far = is_far(means)
    near = np.concatenate([values for values, away in zip(drawn, far, strict=True) if not away])
    others = [values for values, away in zip(drawn, far, strict=True) if away]
    shown = np.concatenate([near, *(values for values in others if span(near, values[:1]) < 3 * span(near))])
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    margin = max(0.06 * (high - low), 5 * 10.0**-metric.digits if metric.digits is not None else 0.0)
    margin = margin or 0.06 * abs(high) or 1.0  # all values are equal
    below, above = (2.5 * margin if away.any() else margin for away in (means < low, means > high))  # room for numbers
    least, most = (metric.scale * bound for bound in metric.bounds)
    return max(low - below, least), min(high + above, most)


def beyond(value: float, limits: Limits, metric: Metric, arrows: str) -> str:
    """Return an arrow and the value if it is outside the limits; nothing if inside."""
    low, high = limits
    return f"{arrows[int(value > high)]} {metric.number(value / metric.scale)}" if value < low or value > high else ""


def note(axes: Axes, x: float, y: float, text: str, rise: float = 0) -> None:
    """Write a text beside a point, `rise` points above or below it, towards the middle of the axes."""
    across, up = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
    offset = (-8 if across > 0.5 else 8, -rise if up > 0.5 else rise)
    where: Any = {"xytext": offset, "textcoords": "offset points", "ha": "right" if across > 0.5 else "left"}
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.annotate(text, (x, y), va="center", fontsize=8, color="0.25", bbox=box, **where)


class PlainLog(LogFormatter):
    """Tick formatter of a logarithmic axis with plain numbers in place of matplotlib's mathtext."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plainly(axis: Axis) -> None:
    """Write a logarithmic axis's ticks as plain numbers."""
    axis.set_major_formatter(PlainLog())
    axis.set_minor_formatter(PlainLog(minor_thresholds=(1, 0.4)))


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
