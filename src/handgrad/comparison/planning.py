"""Planning of a sweep: which differences it can show, and which further seeds would settle undecided ones."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from handgrad.comparison.again import FEW
from handgrad.comparison.model import ALPHA
from handgrad.comparison.statistics import averages
from handgrad.comparison.table import Comparison

POWER = 0.8
MOST_SEEDS = 30  # most seeds to plan for
MOST_RUNS = 60  # most further runs to propose
MOST_PLANS = 3


@dataclass(frozen=True)
class Plan:
    """Plan of further runs, `seeds` seeds for each of some `cells`, which would probably settle `what`.

    `seconds` is their estimated duration, None if unknown.
    """

    what: str
    cells: list[dict[str, Any]]
    seeds: int
    runs: int
    seconds: float | None


def detectable(spread: float, df: float, seeds: int, planned: int, comparisons: float) -> float:
    """Return the smallest difference that a test detects with 80 % power.

    Args:
        spread: standard deviation of one seed's difference.
        df: degrees of freedom of the test with the seeds at hand.
        seeds: number of seeds at hand.
        planned: number of seeds for which to plan.
        comparisons: number of comparisons to correct for; Holm's first step uses all of them.

    Source: the noncentral t distribution (scipy.stats.nct).
    """
    df = df * (planned - 1) / max(seeds - 1, 1)
    limit = stats.t.isf(ALPHA / 2 / comparisons, df)
    about = limit + stats.t.isf(1 - POWER, df)
    size = brentq(lambda size: stats.nct.sf(limit, df, size) - POWER, about / 3, 3 * about)
    return float(size * spread / planned**0.5)


def resolution(rows: pd.DataFrame) -> float:
    """Return the difference that half of the comparisons can show with 80 % power; NaN if none has a spread."""
    known = rows[rows.spread > 0]
    each = [detectable(row.spread, row.df, row.n, row.n, row.n_comparisons) for row in known.itertuples()]
    return float(np.median(each)) if each else float("nan")


def plans(comparison: Comparison, cells: pd.DataFrame, tests: pd.DataFrame) -> list[Plan]:
    """Plan further seeds for the undecided comparisons that matter, the quickest first.

    These are the best cell against its undecided rivals, and undecided values of keys. A comparison is settled by as
    many seeds as would show the difference at hand, or the margin if that is larger.
    """
    if cells.seeds.max() == 1:
        what = "all cells against each other" if len(cells) > 1 else "the interval of the only cell"
        every = plan_for(comparison, what, cells.to_dict("records"), FEW)
        best_two = plan_for(comparison, "the best two cells", cells.head(2).to_dict("records"), FEW)
        return [every if every.runs <= MOST_RUNS else best_two]
    best = cells.label[0]
    rivals = tests[(tests.kind == "cells") & ((tests.a == best) | (tests.b == best))]
    rows = pd.concat([rivals, averages(tests)])
    rows = rows[(rows.verdict == "undecided") & (rows.spread > 0)]
    found = [plan(comparison, cells, row) for row in rows.itertuples()]
    some = [each for each in found if each is not None and 0 < each.runs <= MOST_RUNS]
    return sorted(some, key=lambda each: each.runs)[:MOST_PLANS]


def plan(comparison: Comparison, cells: pd.DataFrame, row: Any) -> Plan | None:
    """Plan the seeds that would settle one comparison; None if MOST_SEEDS would not."""
    wanted = max(abs(row.difference), comparison.margin or 0.0)
    numbers = range(int(row.n) + 1, MOST_SEEDS + 1)

    def enough(n: int) -> bool:
        return bool(detectable(row.spread, row.df, row.n, n, row.n_comparisons) <= wanted)

    if wanted == 0 or not numbers or not enough(numbers[-1]):
        return None
    seeds = numbers[bisect_left(numbers, True, key=enough)]
    if row.kind == "cells":
        names, used = (row.a, row.b), cells[cells.label.isin([row.a, row.b])]
    else:
        names = comparison.named(row.key, row.a), comparison.named(row.key, row.b)
        used = cells[cells[row.key].isin([row.a, row.b])]
        if others := [key for key in comparison.varying if key != row.key]:
            used = used[used.groupby(others)[row.key].transform("nunique") == 2]  # those that have a counterpart
    return plan_for(comparison, f"{names[0]} against {names[1]}", used.to_dict("records"), seeds)


def plan_for(comparison: Comparison, what: str, used: Sequence[dict[str, Any]], seeds: int) -> Plan:
    """Return the plan that gives cells seeds from 0 up; of cells that pool several settings, each of these."""
    known = [comparison.members(row).index for row in used]
    missing = [len(set(range(seeds)) - set(each)) * max(1, len(each) // max(each.nunique(), 1)) for each in known]
    times = comparison.table.seconds.dropna()
    seconds = float(times.median()) * sum(missing) if len(times) else None
    return Plan(what, list(used), seeds, sum(missing), seconds)
