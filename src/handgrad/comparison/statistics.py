"""Statistics of cells: means with intervals, tests of difference and of equivalence, shares of runs that learned.

Intervals and tests are scipy's and statsmodels'; docs/statistics.md explains each. Numbers are on the scale of the
table of runs (accuracies in [0, 1]); differences are positive if the first is better, also for metrics to be minimised.
"""

import shlex
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from handgrad.comparison.load import NOT_LEARNED, STATUSES, joined, keys_called
from handgrad.comparison.table import Comparison
from handgrad.errors import UserError
from handgrad.runs.tables import RunTables

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8
EPSILON = 1e-12  # smaller differences are rounding errors, and no spread to infer from
SEED_COUNTS = (3, 5, 10, 20, 30)  # numbers of seeds to plan for
FOUND = ["difference", "low", "high", "p", "p_equal", "spread", "test", "n", "n_a", "n_b", "identical"]
COUNTS = ["only_a", "only_b", "learned_a", "learned_b"]
MOST_CELLS = 15  # most cells to compare in all pairs (105); beyond, only the best is compared with the others


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % confidence interval (Student's t); its ends are NaN without spread or a second value.

    Source: scipy.stats.ttest_1samp.
    """
    numbers = np.asarray(values, dtype=float)
    if not len(numbers):
        return float("nan"), float("nan"), float("nan")
    if len(numbers) < 2 or np.ptp(numbers) < EPSILON:
        return float(numbers[0]), float("nan"), float("nan")
    found = stats.ttest_1samp(numbers, 0).confidence_interval(LEVEL)
    return float(numbers.mean()), float(found.low), float(found.high)


def label(comparison: Comparison, row: Any) -> str:
    """Return a cell's name, made of the keys that vary, or of all if none does."""
    return " ".join(comparison.named(key, row[key]) for key in comparison.varying or comparison.keys)


def summarize_cells(comparison: Comparison) -> pd.DataFrame:
    """Pool the seeds of every cell.

    Args:
        comparison: the runs.

    Returns:
        one row per cell, best first: label (unique), keys, runs, number of each status and outcome; mixed, whether a
        finished run did not learn; for train and test accuracy, test loss, gap, seconds per epoch and the metric asked
        for: the mean over the completed runs, its interval's ends `.low` and `.high` (except for times, NaN if mixed),
        `.median`, `.least` and `.most`; reference, if all runs have the same.
    """
    scored, metric = comparison.scored, comparison.metric
    names = ["train/accuracy", f"{scored}/accuracy", f"{scored}/loss", "gap", "seconds_per_epoch"]
    rows = []
    for values, runs in comparison.table.groupby(comparison.keys, sort=False):
        row: dict[str, Any] = dict(zip(comparison.keys, values, strict=True))
        row = {"label": label(comparison, row)} | row
        row |= {"runs": len(runs), **{status: int((runs.status == status).sum()) for status in STATUSES}}
        row |= {what: int((runs.outcome == what).sum()) for what in ("learned", *NOT_LEARNED)}
        row |= {"mixed": row["learned"] < row["completed"] + row["diverged"], "reference": reference_of(runs)}
        members = comparison.members(row)
        for name in dict.fromkeys([*names, metric.column]):
            numbers = members[name].dropna().groupby(level=0).mean() if name in members else pd.Series(dtype=float)
            mean, low, high = interval(numbers.tolist())
            if row["mixed"] and not name.startswith("seconds"):
                low = high = np.nan
            extremes = (numbers.median(), numbers.min(), numbers.max())
            row |= {name: mean, f"{name}.low": low, f"{name}.high": high}
            row |= dict(zip((f"{name}.median", f"{name}.least", f"{name}.most"), extremes, strict=True))
        rows.append(row)
    cells = pd.DataFrame(rows)
    repeats = cells.groupby("label").cumcount()
    cells["label"] = cells.label.where(repeats == 0, cells.label + " (" + (repeats + 1).astype(str) + ")")
    order = cells[metric.column] * metric.sign
    return cells.iloc[(-order).argsort(kind="stable")].reset_index(drop=True)


def reference_of(runs: pd.DataFrame) -> float:
    """Return a cell's reference value; NaN if its runs have none or several."""
    return runs.reference.iloc[0] if "reference" in runs and runs.reference.nunique(dropna=False) == 1 else np.nan


def compare_means(a: pd.Series, b: pd.Series, margin: float | None) -> dict[str, Any]:
    """Compare two samples' means: difference with its 95 % interval, p-values of difference and of equivalence.

    The test is paired over the shared seeds, if there are two or more, and ignores the others; otherwise Welch's.

    Args:
        a: values by seed.
        b: the other sample's values by seed.
        margin: equivalence margin; None: no test of equivalence.

    Returns:
        difference, low, high; p; p_equal, of two one-sided tests; spread, the standard deviation of one seed's
        difference; test; n, the seeds used of each; n_a and n_b, the seeds of each; identical, whether all pairs agree.

    Source: scipy.stats.ttest_rel, ttest_ind; statsmodels.stats.weightstats.ttost_paired, ttost_ind.
    """
    least = min(len(a), len(b))
    found: dict[str, Any] = {"n_a": len(a), "n_b": len(b), "n": least, "test": "none"}
    shared = a.index.intersection(b.index)
    if len(shared) >= 2:
        a, b = a[shared], b[shared]
        found |= {"test": "paired t", "n": len(shared)}
    elif least >= 2:
        found["test"] = "Welch t"
    paired = found["test"] == "paired t"
    found |= {"difference": a.mean() - b.mean(), "identical": paired and (a - b).abs().max() < EPSILON}
    found |= dict.fromkeys(("low", "high", "p", "p_equal", "spread"), np.nan)
    varies = np.ptp(a - b) if paired else max(np.ptp(a), np.ptp(b)) if found["test"] != "none" else 0
    if varies < EPSILON:
        return found
    result = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    ends = result.confidence_interval(LEVEL)
    spread = (a - b).std() if paired else np.hypot(a.std(), b.std())
    found |= {"low": ends.low, "high": ends.high, "p": result.pvalue, "spread": spread}
    if margin is not None:
        test = ttost_paired if paired else partial(ttost_ind, usevar="unequal")
        found["p_equal"] = test(a.to_numpy(), b.to_numpy(), -margin, margin)[0]
    return found


def better_first(row: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison with the better one first."""
    if not row["difference"] < 0:
        return row
    swapped = {"low": -row["high"], "high": -row["low"], "difference": -row["difference"]}
    for name in ("", "n_", "only_", "learned_"):
        one, other = f"{name}a", f"{name}b"
        if one in row:
            swapped |= {one: row[other], other: row[one]}
    return row | swapped


def mcnemar_test(a: RunTables, b: RunTables) -> dict[str, Any]:
    """Apply McNemar's exact test to the test images that two single runs classify correctly.

    Source: statsmodels.stats.contingency_tables.mcnemar.
    """
    if a.right is None or b.right is None:
        return {"test": "none"}
    only_a, only_b = int((a.right & ~b.right).sum()), int((~a.right & b.right).sum())
    test = mcnemar([[0, only_a], [only_b, 0]], exact=True)
    return {"test": "McNemar", "p": float(test.pvalue), "only_a": only_a, "only_b": only_b}


def fisher_test(a: tuple[int, int], b: tuple[int, int]) -> dict[str, Any]:
    """Apply Fisher's exact test to the shares of two samples' finished runs that learned.

    Args:
        a: number of runs that learned, and of finished runs.
        b: the other sample's numbers.

    Source: scipy.stats.fisher_exact.
    """
    table = [[learned, finished - learned] for learned, finished in (a, b)]
    found = {"difference": a[0] / a[1] - b[0] / b[1], "low": np.nan, "high": np.nan, "p": np.nan, "n": min(a[1], b[1])}
    if min(a[1], b[1]) >= 2:
        found["p"] = float(stats.fisher_exact(table).pvalue)
    return found | {"test": "Fisher", "n_a": a[1], "n_b": b[1], "learned_a": a[0], "learned_b": b[0]}


def number_of_pairs(many: int) -> int:
    """Return the number of pairs among `many` items."""
    return many * (many - 1) // 2


def chosen_pairs(many: int, most: int) -> list[tuple[int, int]]:
    """Return the index pairs to compare: all, or with more than `most` items, the first with every other."""
    return list(combinations(range(many), 2)) if many <= most else [(0, other) for other in range(1, many)]


def compare_cells(comparison: Comparison, cells: pd.DataFrame) -> pd.DataFrame:
    """Compare all pairs of cells; with a baseline, only pairs with it; beyond MOST_CELLS, only pairs with the best.

    The metric of runs that did not learn is not normally distributed. If a finished run of either cell did not learn,
    one row compares the shares that learned, and another the metric of the runs that did.

    Returns:
        one row per comparison, the better cell first: a, b, the results of `compare_means`, `mcnemar_test` or
        `fisher_test`, and of `with_verdicts`. All pairs are corrected for, compared or not: the best cell was chosen
        among them.
    """
    done = cells[cells.completed + cells.diverged > 0].reset_index(drop=True)
    records = done.to_dict("records")
    samples = [comparison.sample(row) for row in records]
    finished = [(row["learned"], row["completed"] + row["diverged"]) for row in records]
    if comparison.asked.baseline is None:
        places = chosen_pairs(len(done), MOST_CELLS)
        family = number_of_pairs(len(done))
    else:
        first = baseline(comparison, done)
        places = [(first, other) for other in range(len(done)) if other != first]
        family = len(places)
    rows = []
    for a, b in places:
        named = {"a": done.label[a], "b": done.label[b]}
        if comparison.metric.of_learning and done.mixed[[a, b]].any() and min(finished[a][1], finished[b][1]) > 1:
            rows.append(better_first(named | fisher_test(finished[a], finished[b])))
        if samples[a].empty or samples[b].empty:
            family -= 1
            continue
        found = compare_means(samples[a], samples[b], comparison.margin)
        if len(samples[a]) == len(samples[b]) == 1 and comparison.metric.column == "test/accuracy":
            members = (comparison.members(records[place]).number for place in (a, b))
            found |= mcnemar_test(*(comparison.tables[number.iloc[0]] for number in members))
        rows.append(better_first(named | found))
    return with_verdicts(
        pd.DataFrame(rows, columns=["a", "b", *FOUND, *COUNTS]), family, number_of_families(comparison)
    )


def baseline(comparison: Comparison, cells: pd.DataFrame) -> int:
    """Return the index of the baseline cell, given by its label or by key=value words.

    Raises:
        UserError: no cell matches, or several do.
    """
    wanted = str(comparison.asked.baseline)
    labels: list[str] = cells.label.tolist()
    if wanted in labels:
        return labels.index(wanted)
    fits = pd.Series(True, index=cells.index)
    try:
        words = shlex.split(wanted)
    except ValueError:
        words = [wanted]
    for word in words:
        name, _, value = word.partition("=")
        keys = keys_called(name, comparison.keys)
        fits &= cells[keys[0]] == value if keys else False
    if not words or fits.sum() != 1:
        raise UserError(
            f"baseline={wanted} names {fits.sum() if words else 'none'} of the cells, which are: "
            f"{joined(cells.label, most=30)}"
        )
    return int(np.flatnonzero(fits)[0])


def averages(comparison: Comparison) -> bool:
    """Tell whether values of keys are compared as well as cells."""
    return comparison.asked.baseline is None and any(len(runs) > 1 for runs in comparison.by_cell.values())


def number_of_families(comparison: Comparison) -> int:
    """Return the number of families of comparisons: cells and, if several keys vary, their values."""
    return 2 if averages(comparison) and len(comparison.varying) > 1 else 1


def with_verdicts(table: pd.DataFrame, family: int, tables: int) -> pd.DataFrame:
    """Correct each kind of p-value separately by Holm's method, and add verdicts.

    Several tables share the 5 % equally (Bonferroni's method over tables), so that one sweep in twenty without a
    difference claims one, not one in ten.

    Args:
        table: comparisons; those of shares answer another question than those of means, and are corrected separately.
        family: number of comparisons of means to correct for.
        tables: number of such tables.

    Returns:
        the table with p_corrected, p_equal_corrected, n_comparisons (the factor of the smallest p), and verdict:
        "differ", "equal" within the margin, "identical" seed by seed, or "cannot tell".
    """
    shares = table.test == "Fisher"
    kinds = ((shares, int(shares.sum())), (~shares, family))
    told = {
        name: (tables * pd.concat([holm(table[name][rows], number) for rows, number in kinds])).clip(upper=1)
        for name in ("p", "p_equal")
    }
    verdict = pd.Series("cannot tell", index=table.index)
    verdict[told["p_equal"] < ALPHA] = "equal"
    verdict[table.identical.eq(True)] = "identical"
    verdict[told["p"] < ALPHA] = "differ"
    n_comparisons = tables * np.where(shares, shares.sum(), family)
    return table.assign(
        p_corrected=told["p"], p_equal_corrected=told["p_equal"], n_comparisons=n_comparisons, verdict=verdict
    )


def holm(p: pd.Series, family: int) -> pd.Series:
    """Correct p-values by Holm's method; NaN stays NaN.

    Args:
        p: p-values of the comparisons that were made.
        family: number of comparisons, made or not; untested ones count as p = 1, which is conservative.

    Source: statsmodels.stats.multitest.multipletests.
    """
    known = p.dropna().astype(float)
    if known.empty:
        return pd.Series(np.nan, index=p.index)
    untested = np.ones(max(family - len(p), 0))
    return pd.Series(
        multipletests(np.concatenate([known, untested]), ALPHA, "holm")[1][: len(known)], index=known.index
    ).reindex(p.index)


def detectable(spread: float, seeds: int, comparisons: int) -> float:
    """Return the smallest difference that a paired test on `seeds` seeds detects with 80 % power.

    Args:
        spread: standard deviation of one seed's difference.
        seeds: number of seeds in the planned sweep.
        comparisons: number of comparisons to correct for; Holm's first step uses all of them.

    Source: statsmodels.stats.power.TTestPower.
    """
    test, alpha = TTestPower(), ALPHA / max(comparisons, 1) / 2  # one-sided: the other tail's power is negligible
    about = (stats.t.ppf(1 - alpha, seeds - 1) + stats.t.ppf(POWER, seeds - 1)) / seeds**0.5
    # Not solve_power: it starts at 0.5 and stops at a power of 0.07 for 3 seeds and 66 comparisons.
    size = brentq(lambda size: test.power(size, seeds, alpha, alternative="larger") - POWER, about / 3, 3 * about)
    return float(size) * spread
