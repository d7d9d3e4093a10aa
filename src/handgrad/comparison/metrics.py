"""Metrics that cells can be compared by: unit, scale, and which direction is better."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from typing import Any

import pandas as pd

from handgrad.comparison.cells import TAKEN
from handgrad.errors import UserError
from handgrad.resolvers import best_is
from handgrad.text import join_names

# Words in the name of another project's metric that tell which values are better.
HIGHER = {"acc", "accuracy", "auc", "auroc", "auprc", "ap", "map", "f1", "r2", "precision", "recall", "reward"}
HIGHER |= {"return", "bleu", "dice", "iou", "top1", "top5"}
LOWER = {"loss", "error", "err", "mse", "mae", "rmse", "mape", "msle", "perplexity", "ppl", "nll", "brier", "fid"}
LOWER |= {"crps", "wer", "cer", "kl", "regret", "seconds", "time", "latency", "duration"}


@dataclass(frozen=True)
class Metric:
    """Metric of a run.

    column: its column in the table of runs.
    name: its name in sentences.
    unit: unit of a difference.
    of_value: suffix of a value.
    scale: factor from the table's numbers to the unit.
    digits: decimal places; None: four significant digits.
    higher_is_better: direction of improvement.
    margin: default equivalence margin, in the unit; None if there is none.
    of_learning: whether it measures learning, so that runs that did not learn enter no test of means.
    limits: lowest and highest possible value, on the scale of the table; None: by the column's name.
    """

    column: str
    name: str
    unit: str
    of_value: str
    scale: float = 1.0
    digits: int | None = 2
    higher_is_better: bool = False
    margin: float | None = None
    of_learning: bool = True
    limits: tuple[float, float] | None = None

    @property
    def sign(self) -> int:
        """Factor that makes higher values better."""
        return 1 if self.higher_is_better else -1

    @property
    def best(self) -> str:
        """The word for the best value."""
        return "highest" if self.higher_is_better else "lowest"

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest possible value, on the scale of the table."""
        if self.limits is not None:
            return self.limits
        if self.column == "gap":
            return -1.0, 1.0
        return 0.0, 1.0 if self.column.endswith("/accuracy") else float("inf")

    def number(self, value: float) -> str:
        """Format a value in its unit, without a minus before zero."""
        number = float(self.scale * value)  # NumPy's own numbers round otherwise
        return f"{number:.4g}" if self.digits is None else f"{round(number, self.digits) + 0.0:.{self.digits}f}"

    def difference(self, value: float) -> str:
        """Format a difference with its unit."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def asked_for(self, better: str | None, unit: str | None) -> "Metric":
        """Return the metric with a direction and a unit that were asked for."""
        changes: dict[str, Any] = {} if better is None else {"higher_is_better": better == "higher"}
        changes |= {} if unit is None else {"unit": unit, "of_value": f" {unit}"}
        return replace(self, **changes)


def find_metric(name: str | None, scored: str, columns: Iterable[str]) -> Metric:
    """Return the metric of that name.

    Args:
        name: a column of the table of runs; "accuracy" and "loss" are the scored set's; None means accuracy.
        scored: the scored set, "test" or "val".
        columns: the columns of the table.

    Raises:
        UserError: the runs have no such metric.
    """
    gap = Metric("gap", f"gap (train minus {scored} accuracy)", "points", " points", 100)
    others = [
        Metric("seconds_per_epoch", "training time per epoch", "s", " s", of_learning=False),
        Metric("seconds", "time", "s", " s", digits=1, of_learning=False),
        Metric("peak_memory_mb", "peak memory", "MB", " MB", digits=0, of_learning=False),
    ]
    known = {"gap": gap} | {other.column: other for other in others}
    for column in columns:
        part, _, kind = column.partition("/")
        if best_is(column) == "max":
            known[column] = Metric(column, f"{part} accuracy", "points", " %", 100, higher_is_better=True, margin=0.2)
        elif kind == "loss":
            known[column] = Metric(column, f"{part} loss", "nats", " nats", digits=4)
    known = {column: one for column, one in known.items() if column in {"gap", *columns}}
    for short in ("accuracy", "loss"):
        if f"{scored}/{short}" in known:
            known[short] = known[f"{scored}/{short}"]
    if (wanted := "accuracy" if name is None else name) not in known:
        raise UserError(f"invalid value metric={wanted}: these runs have {', '.join(known)}")
    return known[wanted]


def foreign_metric(name: str | None, better: str | None, runs: pd.DataFrame, metrics: Sequence[str]) -> Metric:
    """Return a metric of another project's runs, its direction and bounds by its name and its values.

    Args:
        name: the metric; None: the only one.
        better: the direction that was asked for, if any.
        runs: the table of runs.
        metrics: the names of the columns that are metrics.

    Raises:
        UserError: there is no such metric, or several to choose from, or its name does not tell which is better.
    """
    known = [each for each in metrics if runs[each].notna().any()]
    if name is None and len(known) != 1:
        raise UserError(f"name the metric to compare by: metric=..., of {join_names(known, 20)}")
    column = known[0] if name is None else f"metric.{name}" if name in TAKEN else name
    if column not in known:
        raise UserError(f"invalid value metric={name}: these runs have {join_names(known, 20)}")
    values = runs[column].dropna()
    higher = higher_is_better(column)
    if better is None and higher is None:
        raise UserError(f"metric={column} does not tell which values are better: add better=higher or better=lower")
    share = bool(higher) and values.between(0, 1).all()
    lowest = 0.0 if (values >= 0).all() else -float("inf")
    typical, spread = float(values.abs().median()), float(values.std() or 0.0)
    digits = 2 - floor(log10(spread or typical or 1.0))
    return Metric(
        column=column,
        name=column,
        unit="",
        of_value="",
        digits=max(digits, 0) if digits < 8 and (typical < 1e6 or digits > 0) else None,
        higher_is_better=bool(higher),
        of_learning=False,
        limits=(lowest, 1.0 if share else float("inf")),
    )


def higher_is_better(name: str) -> bool | None:
    """Tell by its name whether higher values of a metric are better; None if it does not say."""
    words = set(re.findall(r"[A-Z]?[a-z]+\d?|[A-Z]+\d?", name))
    words = {word.lower() for word in words}
    lower, higher = bool(words & LOWER), bool(words & HIGHER)
    if "neg" in words:  # scikit-learn turns losses into scores
        return True if lower else None
    return None if lower and higher else False if lower else True if higher or "score" in words else None
