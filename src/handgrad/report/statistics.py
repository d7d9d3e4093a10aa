"""What the runs of a comparison say: means with intervals, tests between cells, and the sentences made from them.

Intervals and tests are scipy's and statsmodels'. Accuracies are in [0, 1] in every table and in percentage points in
sentences.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from handgrad.report.files import Tables
from handgrad.report.runs import ALWAYS, STATUSES, Comparison, joined

LEVEL = 0.95
ALPHA = 1 - LEVEL
SAME = 1e-12  # numbers closer than this differ by rounding alone, and have no spread to infer from
EFFECT = ["key", "a", "b", "cells", "n", "difference", "low", "high", "p", "test"]
MOST_CELLS = (
    15  # all pairs of so many cells, 105, can still be read; of more, only the best is compared with the others
)
MOST_VALUES = 7  # likewise of the values of one key


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % confidence interval (Student's t); without spread or a second value, NaN for the interval's ends.

    Source: scipy.stats.ttest_1samp.
    """
    numbers = np.asarray(values, dtype=float)
    if not len(numbers):
        return float("nan"), float("nan"), float("nan")
    if len(numbers) < 2 or np.ptp(numbers) < SAME:
        return float(numbers[0]), float("nan"), float("nan")
    found = stats.ttest_1samp(numbers, 0).confidence_interval(LEVEL)
    return float(numbers.mean()), float(found.low), float(found.high)


def label(comparison: Comparison, row: Any) -> str:
    """A cell's name: the keys that vary, or activation, engine and regularizer where none does."""
    return " ".join(comparison.named(key, row[key]) for key in comparison.varying or comparison.keys)


def pooled(comparison: Comparison, reference: pd.DataFrame) -> pd.DataFrame:
    """Pool the seeds of every cell.

    Args:
        comparison: the runs.
        reference: the notebook's rows, docs/notebook/results.csv.

    Returns:
        a row per cell, best first: label (no two alike), keys, runs, number of each status and at_chance; of train and
        test accuracy, test loss, gap and seconds per epoch the mean, `.low` and `.high`; the notebook's accuracy and
        epochs.
    """
    scored = comparison.scored
    names = ["train/accuracy", f"{scored}/accuracy", f"{scored}/loss", "gap", "seconds_per_epoch"]
    rows = []
    for values, runs in comparison.table.groupby(comparison.keys, sort=False):
        row: dict[str, Any] = dict(zip(comparison.keys, values, strict=True))
        row = {"label": label(comparison, row)} | row
        row |= {"runs": len(runs), **{status: int((runs.status == status).sum()) for status in STATUSES}}
        row |= {"at_chance": int(runs.at_chance.sum()), "dataset": runs.dataset.iloc[0]}
        measured = comparison.members(row)
        for name in names:
            numbers = interval(measured[name].dropna().tolist() if name in measured else [])
            row |= dict(zip((name, f"{name}.low", f"{name}.high"), numbers, strict=True))
        rows.append(row)
    cells = pd.DataFrame(rows)
    repeats = cells.groupby("label").cumcount()
    cells["label"] = cells.label.where(repeats == 0, cells.label + " (" + (repeats + 1).astype(str) + ")")
    printed = {"run": "notebook_run", "test_accuracy": "notebook", "epochs": "notebook_epochs"}
    notebook = reference.rename(columns=printed)[[*ALWAYS, *printed.values()]]
    cells = cells.merge(notebook, on=list(ALWAYS), how="left")
    cells.loc[cells.dataset != "mnist", list(printed.values())] = np.nan
    return cells.sort_values(f"{scored}/accuracy", ascending=False, kind="stable", ignore_index=True)


def difference(a: pd.Series, b: pd.Series) -> dict[str, Any]:
    """Difference of two samples' means with its 95 % interval and p-value.

    Args:
        a: values by seed.
        b: likewise; where two or more seeds are shared, only those count, in pairs; else Welch's test.

    Source: scipy.stats.ttest_rel, scipy.stats.ttest_ind.
    """
    shared = a.index.intersection(b.index)
    test = "none"
    if len(shared) >= 2:
        a, b, test = a[shared], b[shared], "paired t"
    elif min(len(a), len(b)) >= 2:
        test = "Welch t"
    found = {"difference": a.mean() - b.mean(), "low": np.nan, "high": np.nan, "p": np.nan}
    found |= {"test": test, "n": min(len(a), len(b))}
    varies = np.ptp(a - b) if test == "paired t" else max(np.ptp(a), np.ptp(b))
    if test != "none" and varies >= SAME:
        result = stats.ttest_rel(a, b) if test == "paired t" else stats.ttest_ind(a, b, equal_var=False)
        ends = result.confidence_interval(LEVEL)
        found |= {"low": ends.low, "high": ends.high, "p": result.pvalue}
    return found


def of_two_runs(a: Tables, b: Tables) -> dict[str, Any]:
    """McNemar's exact test on which test images two single runs classify rightly.

    Source: statsmodels.stats.contingency_tables.mcnemar.
    """
    if a.right is None or b.right is None or a.truth is None or b.truth is None:
        return {"test": "none"}
    if not np.array_equal(a.truth, b.truth):  # not the same images
        return {"test": "none"}
    only_a, only_b = int((a.right & ~b.right).sum()), int((~a.right & b.right).sum())
    test = mcnemar([[0, only_a], [only_b, 0]], exact=True)
    return {"test": "McNemar", "p": float(test.pvalue), "only_a": only_a, "only_b": only_b}


def number_of_pairs(many: int) -> int:
    """How many pairs so many things make."""
    return many * (many - 1) // 2


def chosen_pairs(many: int, most: int) -> list[tuple[int, int]]:
    """Places of the pairs to compare: all, or if that is more than `most` things' pairs, the first with each other."""
    return list(combinations(range(many), 2)) if many <= most else [(0, other) for other in range(1, many)]


def pairs(comparison: Comparison, cells: pd.DataFrame) -> pd.DataFrame:
    """Compare every two cells' accuracy, or of very many cells the best with every other.

    Returns:
        a row per pair, the better cell first: a, b, difference, low, high, p, test, n (runs of each that count) and
        p_corrected, by Holm's method over all pairs: the best cell was found among them, compared or not.
    """
    accuracy = f"{comparison.scored}/accuracy"
    done = cells[cells.completed > 0]
    labels = done.label.tolist()
    runs = [comparison.members(row) for row in done.to_dict("records")]
    rows = []
    for a, b in chosen_pairs(len(runs), MOST_CELLS):
        found = difference(runs[a][accuracy], runs[b][accuracy])
        if len(runs[a]) == len(runs[b]) == 1 and comparison.scored == "test":
            found |= of_two_runs(*(comparison.tables[runs[which].number.iloc[0]] for which in (a, b)))
        rows.append({"a": labels[a], "b": labels[b]} | found)
    table = pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "p", "test", "n", "only_a", "only_b"])
    table["p_corrected"] = corrected(table.p, number_of_pairs(len(runs)))
    return table


def effects(comparison: Comparison) -> pd.DataFrame:
    """Compare every two values of every key that varies, averaged over all that else varies.

    Only cells that both values have count, and only seeds that all of these cells have; a seed's difference is the mean
    over the cells. Of a key with very many values the best is compared with every other. Holm's correction is over all
    pairs of values, compared or not.

    Returns:
        a row per pair of values, the better first: key, a, b, cells, n, difference, low, high, p, test, p_corrected,
        the number of pairs corrected for, among; the least and most of the cells' own differences, with the cells they
        are of; and the value that the pair was chosen for, first. Without a cell of two runs nothing can be averaged,
        and there is no row.
    """
    rows: list[dict[str, Any]] = []
    family = 0
    for key in comparison.varying if any(len(runs) > 1 for runs in comparison.by_cell.values()) else ():
        by_value = accuracy_by_value(comparison, key)
        many = len(by_value) > MOST_VALUES
        order = sorted(by_value, key=lambda value: -by_value[value].mean(axis=None)) if many else list(by_value)
        for a, b in chosen_pairs(len(order), MOST_VALUES):
            row = effect(comparison, key, (order[a], by_value[order[a]]), (order[b], by_value[order[b]]))
            rows += [row | {"first": order[a]}] if row else []
        family += number_of_pairs(len(order)) if many else 0
        family += 0 if many else sum(row["key"] == key for row in rows)
    table = pd.DataFrame(rows, columns=[*EFFECT, "least", "least_in", "most", "most_in", "first"])
    table["p_corrected"] = corrected(table.p, family)
    return table.assign(among=family)


def accuracy_by_value(comparison: Comparison, key: str) -> dict[str, pd.DataFrame]:
    """Of each value of a key, accuracy with a row per seed and a column per combination of whatever else varies."""
    others = [other for other in comparison.varying if other != key]
    accuracy = f"{comparison.scored}/accuracy"
    wide = comparison.completed.pivot_table(index="seed", columns=[*others, key], values=accuracy)
    values = wide.columns.unique(key)
    if others:
        return {value: wide.xs(value, axis=1, level=key) for value in values}
    return {value: wide[[value]].set_axis([""], axis=1) for value in values}


def effect(
    comparison: Comparison, key: str, one: tuple[str, pd.DataFrame], other: tuple[str, pd.DataFrame]
) -> dict[str, Any]:
    """Compare two values of a key, each given with its accuracies as `accuracy_by_value` has them.

    Returns:
        a row of `effects`, empty where they have no cell or no seed in common to average over.
    """
    (a, first), (b, second) = one, other
    shared = first.columns.intersection(second.columns)
    first, second = first[shared].dropna(), second[shared].dropna()
    if not len(shared) or not len(first) or not len(second):
        return {}
    found = difference(first.mean(axis=1), second.mean(axis=1))
    each = (first - second).mean() if found["test"] == "paired t" else first.mean() - second.mean()
    if found["difference"] < 0:
        a, b, each = b, a, -each
        found |= {"difference": -found["difference"], "low": -found["high"], "high": -found["low"]}
    others = [name for name in comparison.varying if name != key]
    found |= {"least": each.min(), "least_in": cell_of(comparison, others, each.idxmin())}
    found |= {"most": each.max(), "most_in": cell_of(comparison, others, each.idxmax())}
    return {"key": key, "a": a, "b": b, "cells": len(shared)} | found


def cell_of(comparison: Comparison, keys: Sequence[str], values: Any) -> str:
    """The name of a pivoted column: the keys' values."""
    several = values if isinstance(values, tuple) else (values,)
    return " ".join(comparison.named(key, value) for key, value in zip(keys, several, strict=False))


def corrected(p: pd.Series, family: int) -> pd.Series:
    """p-values corrected by Holm's method, NaN where there is none.

    Args:
        p: of the comparisons that were made.
        family: how many there would have been, had all been made; what was not tested counts as 1, which is cautious.

    Source: statsmodels.stats.multitest.multipletests.
    """
    known = p.dropna().astype(float)
    if known.empty:
        return pd.Series(np.nan, index=p.index)
    untested = np.ones(max(family - len(p), 0))
    return pd.Series(
        multipletests(np.concatenate([known, untested]), ALPHA, "holm")[1][: len(known)], index=known.index
    ).reindex(p.index)


def sentences(comparison: Comparison, cells: pd.DataFrame, compared: pd.DataFrame, by_key: pd.DataFrame) -> list[str]:
    """Say what the numbers say, and no more."""
    with_runs = cells[cells.completed > 0]
    if with_runs.empty:
        return ["No run is completed yet."]
    best = with_runs.iloc[0]
    what = f"{comparison.scored} accuracy"
    said = [f"The highest {what} is that of {best.label}: {with_interval(best, f'{comparison.scored}/accuracy')} %."]
    many = with_runs.completed.max() > 1
    every = number_of_pairs(len(with_runs))
    if len(with_runs) > 1 and not (many and len(comparison.varying) == 1):  # else it is among the effects
        second = compared.iloc[0]
        said.append(one_sentence(second, second.a, second.b, every, ""))
    if len(compared) < every:
        said.append(
            f"Of {len(with_runs):,} cells only the best is compared with each other one: {len(compared):,} of "
            f"{every:,} pairs; p is corrected for all of them."
        )
    for key in comparison.varying if many else ():
        said += about_key(comparison, by_key, key)
    said += who_learned(cells)
    for key in comparison.varying if many else ():
        if followers := comparison.follows.get(key):
            said.append(f"{key} also decides {joined(followers)}: its differences are theirs as well.")
    return said


def about_key(comparison: Comparison, by_key: pd.DataFrame, key: str) -> list[str]:
    """A sentence per pair of a key's values; of very many values, one on the best of them."""
    mine = by_key[by_key.key == key]
    if comparison.completed[key].nunique() > MOST_VALUES:
        return in_summary(comparison, mine, key)
    said = []
    for _, row in mine.iterrows():
        a, b = (comparison.named(key, value) for value in (row.a, row.b))
        over = ""
        if row.cells > 1:
            ends = f"{points(row.least)} in {row.least_in} to {points(row.most)} in {row.most_in}"
            over = f", averaged over {row.cells} cells, from {ends}"
        said.append(one_sentence(row, a, b, row.among, over))
    return said


def in_summary(comparison: Comparison, rows: pd.DataFrame, key: str) -> list[str]:
    """What the comparisons of a key's best value with every other one say together.

    Args:
        comparison: the runs.
        rows: those of `effects` that are the key's.
        key: has more than MOST_VALUES values.
    """
    if rows.empty:
        return []
    values = comparison.completed[key].nunique()
    best = rows["first"].iloc[0]
    shown = rows.p_corrected < ALPHA
    won, lost, open_ = rows[shown & (rows.a == best)], rows[shown & (rows.b == best)], rows[~shown & rows.p.notna()]
    parts = []
    if len(won):
        parts.append(f"beats {len(won)}, by {points(won.difference.min())} to {points(won.difference.max())} points")
    if len(lost):
        parts.append(f"is beaten by {named_of(comparison, key, lost.a)} where both have runs")
    if len(open_):
        against = named_of(comparison, key, open_.a.where(open_.b == best, open_.b))
        parts.append(f"is not shown to differ from {len(open_)} ({against})")
    if untested := values - 1 - len(won) - len(lost) - len(open_):
        parts.append(f"could not be tested against {untested}")
    return [
        f"Of the {values} values of {comparison.names[key]}, {best} is on average the best; compared with each other "
        f"one it {'; '.join(parts)}. (p is corrected for all pairs of values.)"
    ]


def named_of(comparison: Comparison, key: str, values: Iterable[str]) -> str:
    """Values of a key as they are called, the first few of many."""
    return joined([comparison.named(key, value) for value in values], most=5)


def who_learned(cells: pd.DataFrame) -> list[str]:
    """A sentence for each cell of which a run did not learn; of very many such cells, for the first of them."""
    failing = cells[(cells.at_chance > 0) | (cells.diverged > 0)]
    said = [how_many_learned(row) for _, row in failing.head(MOST_CELLS).iterrows()]
    if more := len(failing) - len(said):
        said.append(f"Of {more} more cells not every run learned: see the table.")
    return said


def how_many_learned(row: Any) -> str:
    """How many of a cell's finished runs learned, with the exact 95 % interval of the share (Clopper and Pearson).

    Source: scipy.stats.binomtest.
    """
    finished = int(row.completed + row.diverged)
    learned = int(row.completed - row.at_chance)
    share = stats.binomtest(learned, finished).proportion_ci(LEVEL)
    return (
        f"{learned} of {finished} runs of {row.label} learned (95 % interval of the share {share.low:.0%} to "
        f"{share.high:.0%}); {row.at_chance} stayed at chance, {row.diverged} diverged."
    )


def one_sentence(row: Any, a: str, b: str, comparisons: int, over: str) -> str:
    """One comparison in words."""
    by = f"{points(row.difference)} points"
    if row.test == "McNemar":
        counts = f"only the first is right on {row.only_a:.0f} test images, only the second on {row.only_b:.0f}"
        verdict = "differ" if row.p_corrected < ALPHA else "are not shown to differ"
        return f"These two runs of {a} and {b} {verdict} ({by}; {counts}; McNemar's test, corrected p {p_value(row)})."
    if row.test != "none" and pd.isna(row.p) and abs(row.difference) < SAME:
        return f"{a} and {b} are equal, seed by seed ({row.n} seeds each{over})."
    if row.test == "none" or pd.isna(row.p):
        return f"{a} is {by} above {b}, with no interval{over}."
    ends = f"95 % interval {points(row.low)} to {points(row.high)}"
    seeds = f"{row.n} seeds each"
    if row.p_corrected < ALPHA:
        return f"{a} beats {b} by {by} ({ends}, {seeds}{over}; corrected p {p_value(row)})."
    doubt = ""
    if row.low > 0:
        doubt = f"; taken alone the interval excludes zero, among {comparisons} comparisons that proves nothing"
    return f"No difference between {a} and {b} was found ({by}, {ends}, {seeds}{over}{doubt})."


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, without a minus before zero."""
    return f"{round(100 * difference, 2) + 0.0:.2f}"


def p_value(row: Any) -> str:
    """A corrected p-value as it is written, with its sign."""
    return "< 0.001" if row.p_corrected < 0.001 else f"= {row.p_corrected:.3f}"


def with_interval(row: Any, name: str, scale: float = 100, digits: int = 2) -> str:
    """A mean with half the width of its 95 % interval, where there is one."""
    mean, low = row[name], row[f"{name}.low"]
    if pd.isna(mean):
        return ""
    half = "" if pd.isna(low) else f" ± {scale * (mean - low):.{digits}f}"
    return f"{scale * mean:.{digits}f}{half}"
