"""Metrics that cells can be compared by: unit, scale, and which direction is better."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor, log10

import pandas as pd

from handgrad.comparison.cells import TAKEN
from handgrad.errors import UserError, did_you_mean
from handgrad.resolvers import best_is
from handgrad.text import join_names

# Words in the name of another project's metric that tell which values are better.
SHARES = {"acc", "accuracy", "auc", "auroc", "auprc", "ap", "map", "f1", "precision", "recall", "dice", "iou"}
HIGHER = SHARES | {"r2", "reward", "return", "bleu", "top1", "top5"}
LOWER = {"loss", "error", "err", "mse", "mae", "rmse", "mape", "msle", "perplexity", "ppl", "nll", "brier", "fid"}
LOWER |= {"crps", "wer", "cer", "kl", "regret", "seconds", "time", "latency", "duration"}
PLAIN = {"score", "train", "test", "val", "valid", "validation", "split", "mean", "best", "final", "metric", "metrics"}
# Words that may reverse these, so that the direction is asked for.
OTHERWISE = {"skill", "reduction", "improvement", "gain", "std", "var", "variance", "survival", "failure"}


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
    bounds: lowest and highest possible value, on the scale of the table.
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
    bounds: tuple[float, float] = (0.0, float("inf"))

    @property
    def sign(self) -> int:
        """Factor that makes higher values better."""
        return 1 if self.higher_is_better else -1

    @property
    def best(self) -> str:
        """Adjective of the best value."""
        return "highest" if self.higher_is_better else "lowest"

    @property
    def label(self) -> str:
        """Name and unit, if it has one, for an axis or a column."""
        unit = self.of_value.strip()
        return f"{self.name} ({unit})" if unit else self.name

    def number(self, value: float) -> str:
        """Format a value in its unit, without a minus before zero."""
        number = float(self.scale * value)  # NumPy's own numbers round otherwise
        if self.digits is None or abs(number) >= 1e12:
            return f"{number:.4g}"
        return f"{round(number, self.digits) + 0.0:.{self.digits}f}"

    def value(self, value: float) -> str:
        """Format a value with its unit."""
        return f"{self.number(value)}{self.of_value}"

    def difference(self, value: float) -> str:
        """Format a difference with its unit."""
        return f"{self.number(value)} {self.unit}".rstrip()


def find_metric(name: str | None, scored: str, columns: Iterable[str]) -> Metric:
    """Return the metric of that name: "accuracy" and "loss" are the scored set's; None means accuracy."""
    gap_name = f"gap (train minus {scored} accuracy)"
    usual = [
        Metric("gap", gap_name, "points", " points", 100, bounds=(-1.0, 1.0)),
        Metric("seconds_per_epoch", "training time per epoch", "s", " s", of_learning=False),
        Metric("seconds", "time", "s", " s", digits=1, of_learning=False),
        Metric("peak_memory_mb", "peak memory", "MB", " MB", digits=0, of_learning=False),
    ]
    known = {metric.column: metric for metric in usual if metric.column in {"gap", *columns}}
    for column in columns:
        part, _, kind = column.partition("/")
        if best_is(column) == "max":
            accuracy = Metric(column, f"{part} accuracy", "points", " %", 100, higher_is_better=True, margin=0.2)
            known[column] = replace(accuracy, bounds=(0.0, 1.0))
        elif kind == "loss":
            known[column] = Metric(column, f"{part} loss", "nats", " nats", digits=4)
    for short in ("accuracy", "loss"):
        if f"{scored}/{short}" in known:
            known[short] = known[f"{scored}/{short}"]
    if (wanted := "accuracy" if name is None else name) not in known:
        hint = did_you_mean(wanted, list(known))
        raise UserError(f"invalid value metric={wanted}: {hint}these runs have {', '.join(known)}")
    return known[wanted]


def foreign_metric(
    name: str | None, better: str | None, unit: str | None, runs: pd.DataFrame, metrics: Sequence[str]
) -> Metric:
    """Return a metric of another project's runs; its direction, if not given, follows from its name.

    Raises:
        UserError: there is no such metric, or several to choose from, or its name does not tell which is better.
    """
    known = [each for each in metrics if runs[each].notna().any()]
    if name is None and len(known) != 1:
        raise UserError(f"name the metric to compare by: metric=..., one of {join_names(known, 20)}")
    column = known[0] if name is None else f"metric.{name}" if name in TAKEN else name
    if column not in known:
        hint = did_you_mean(str(name), known)
        raise UserError(f"invalid value metric={name}: {hint}these runs have {join_names(known, 20)}")
    values = runs[column].dropna()
    higher = higher_is_better(column)
    if better is None and higher is None:
        raise UserError(f"metric={column} does not tell which values are better: add better=higher or better=lower")
    share = bool(higher) and values.between(0, 1).all()
    lowest = 0.0 if (values >= 0).all() else -float("inf")
    typical = float(values.abs().median())
    spread = float((values - values.median()).abs().median() or values.std() or 0.0)  # robust to a diverged run
    digits = 2 - floor(log10(spread or typical or 1.0))
    return Metric(
        column=column,
        name=column,
        unit=unit or "",
        of_value=f" {unit}" if unit else "",
        digits=max(digits, 0) if digits < 8 and (typical < 1e6 or digits > 0) else None,
        higher_is_better=better == "higher" if better else bool(higher),
        of_learning=False,
        bounds=(lowest, 1.0 if share else float("inf")),
    )


def words_of(name: str) -> set[str]:
    """Return the words of a metric's name: val, acc and top1 of valAcc_top1."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d?|[A-Z]+\d?", name)}


def is_share(name: str) -> bool:
    """Tell from a metric's name whether it is between 0 and 1."""
    return bool(words_of(name) & SHARES)


def higher_is_better(name: str) -> bool | None:
    """Tell from a metric's name whether higher values are better; None if it does not say."""
    words = words_of(name)
    if "↑" in name or "↓" in name:
        return "↑" in name
    lower, higher = bool(words & LOWER), bool(words & HIGHER) or ("score" in words and words <= PLAIN)
    if "neg" in words:  # scikit-learn turns losses into scores
        return True if lower else None
    return None if lower == higher or words & OTHERWISE else higher
