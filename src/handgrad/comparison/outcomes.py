"""Outcomes of runs: learned, at chance, hardly learned or collapsed; and which values are outliers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from handgrad.comparison.own import joined
from handgrad.runs.tables import RunTables

NOT_LEARNED = ("at chance", "hardly learned", "collapsed")  # outcomes of completed runs that did not learn


def learning_limits(table: pd.DataFrame, tables: Sequence[RunTables], scored: str) -> tuple[float, float]:
    """Return two accuracies: the limit of guessing, and the least at which a run has learned.

    Limit of guessing: three standard deviations above always answering the most frequent class of the scored images; 0
    if no run tells their classes. Learned: half of the way from there to the best run of the comparison.
    """
    counts = next((mine.confusion.sum(axis=1) for mine in tables if mine.confusion is not None), None)
    if counts is None:
        truth = next((mine.truth for mine in tables if mine.truth is not None), None)
        counts = np.zeros(1) if truth is None else np.bincount(truth).astype(float)
    images = counts.sum()
    share = counts.max() / images if images else 0.0
    chance = min(1.0, share + 3 * (share * (1 - share) / max(images, 1.0)) ** 0.5)
    column = f"{scored}/accuracy"
    done = table.loc[table.status == "completed", column].dropna() if column in table else []
    best = max(done, default=chance)
    return chance, max(chance, (chance + best) / 2)


def outcome(row: Mapping[str, Any], tables: RunTables, scored: str, limits: tuple[float, float]) -> str:
    """Return a run's outcome: its status or, if completed, whether it learned, by its history if it has one."""
    final = row.get(f"{scored}/accuracy")
    if row["status"] != "completed" or final is None:
        return str(row["status"])
    chance, learned = limits
    if final >= learned:
        return "learned"
    history = (tables.history or {}).get(f"{scored}/accuracy")
    highest = max(final, final if history is None else np.nanmax(history, initial=final))
    return NOT_LEARNED[int(highest >= chance) + int(highest >= learned)]


def unfinished(table: pd.DataFrame, learned: float) -> list[str]:
    """Say which runs are excluded from every mean, and which completed without learning."""
    said = []
    words = {"running": "Still running", "failed": "Failed or interrupted", "diverged": "Diverged"}
    for status, what in words.items():
        runs = table[table.status == status]
        if len(runs):
            said.append(f"{what}, excluded from all means: {len(runs)} of {len(table)} runs, {joined(runs.run)}.")
    for what in NOT_LEARNED:
        runs = table[table.outcome == what]
        if len(runs):
            below = f"accuracy below {learned:.0%}" + (", once above" if what == "collapsed" else "")
            said.append(f"{len(runs)} of {len(table)} runs {what} ({below}): {joined(runs.run)}.")
    return said


def is_far(values: np.ndarray) -> np.ndarray:
    """Tell which values are outliers: modified z-score above 3.5; none if they would be more than a third.

        0.6745 |x - median| / MAD

    with 1.253314 times the mean absolute deviation in place of MAD / 0.6745 where the MAD is zero.

    Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993.
    """
    deviation = np.abs(values - np.nanmedian(values)).round(12)  # rounding errors are not spread
    spread = np.nanmedian(deviation) / 0.6745 or 1.253314 * np.nanmean(deviation)
    far: np.ndarray = deviation > 3.5 * spread
    return far if 3 * far.sum() <= np.isfinite(values).sum() else np.zeros_like(far)
