"""What the runs of a comparison say: means with intervals, tests between cells, and the sentences made from them.

Intervals and tests are scipy's and statsmodels'. Accuracies are in [0, 1] in every table and in percentage points in
sentences.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from handgrad import results
from handgrad.report.runs import ALWAYS, Comparison

LEVEL = 0.95
ALPHA = 1 - LEVEL
SAME = 1e-12  # numbers closer than this differ by rounding alone, and have no spread to infer from
EFFECT = ["key", "a", "b", "cells", "n", "difference", "low", "high", "p", "test"]
STATUSES = ("completed", "diverged", "failed", "running")


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
    return " ".join(named(key, row[key]) for key in comparison.varying or comparison.keys)


def named(key: str, value: Any) -> str:
    """A choice as it is called, an option with its name: "relu", "strength=1e-05"."""
    return f"{key.split('.')[-1]}={shown(value)}" if "." in key else shown(value)


def pooled(comparison: Comparison, reference: pd.DataFrame) -> pd.DataFrame:
    """Pool the seeds of every cell.

    Args:
        comparison: the runs.
        reference: the notebook's rows, docs/notebook/results.csv.

    Returns:
        a row per cell, best first: label, keys, runs, number of each status and at_chance; of train and test
        accuracy, test loss, gap and seconds per epoch the mean, `.low` and `.high`; the notebook's accuracy and epochs.
    """
    scored = comparison.scored
    rows = []
    for values, runs in comparison.table.groupby(comparison.keys, dropna=False, sort=False):
        row: dict[str, Any] = dict(zip(comparison.keys, values, strict=True))
        row = {"label": label(comparison, row)} | row
        row |= {"runs": len(runs), **{status: int((runs.status == status).sum()) for status in STATUSES}}
        row |= {"at_chance": int(runs.at_chance.sum()), "dataset": runs.dataset.iloc[0]}
        names = ["train/accuracy", f"{scored}/accuracy", f"{scored}/loss", "gap", "seconds_per_epoch"]
        measured = members(comparison, row).reindex(columns=names)
        for name in names:
            numbers = interval(measured[name].dropna().tolist())
            row |= dict(zip((name, f"{name}.low", f"{name}.high"), numbers, strict=True))
        rows.append(row)
    cells = pd.DataFrame(rows)
    printed = {"run": "notebook_run", "test_accuracy": "notebook", "epochs": "notebook_epochs"}
    notebook = reference.rename(columns=printed)[[*ALWAYS, *printed.values()]]
    cells = cells.merge(notebook, on=list(ALWAYS), how="left")
    cells.loc[cells.dataset != "mnist", list(printed.values())] = np.nan
    return cells.sort_values(f"{scored}/accuracy", ascending=False, kind="stable", ignore_index=True)


def members(comparison: Comparison, row: Any) -> pd.DataFrame:
    """The completed runs of a cell, by seed."""
    done = comparison.completed
    for key in comparison.keys:
        done = done[done[key].isna()] if pd.isna(row[key]) else done[done[key] == row[key]]
    return done.set_index("seed")


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


def of_two_runs(a: pd.Series, b: pd.Series) -> dict[str, Any]:
    """McNemar's exact test on which test images two single runs classify rightly.

    Source: statsmodels.stats.contingency_tables.mcnemar.
    """
    files = [Path(run.folder, results.PREDICTIONS) for run in (a, b)]
    if not all(file.exists() for file in files):
        return {"test": "none"}
    right = [(table.true == table.predicted).to_numpy() for table in map(pd.read_csv, files)]
    if len(right[0]) != len(right[1]):
        return {"test": "none"}
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    test = mcnemar([[0, only_a], [only_b, 0]], exact=True)
    return {"test": "McNemar", "p": float(test.pvalue), "only_a": only_a, "only_b": only_b}


def pairs(comparison: Comparison, cells: pd.DataFrame) -> pd.DataFrame:
    """Compare every two cells' accuracy.

    Returns:
        a row per pair, the better cell first: a, b, difference, low, high, p, test, n (runs of each that count) and
        p_corrected, by Holm's method over all pairs.
    """
    accuracy = f"{comparison.scored}/accuracy"
    runs = {row.label: members(comparison, row) for _, row in cells.iterrows()}
    rows = []
    for a, b in combinations([name for name, mine in runs.items() if len(mine)], 2):
        found = difference(runs[a][accuracy], runs[b][accuracy])
        if len(runs[a]) == len(runs[b]) == 1 and comparison.scored == "test":
            found |= of_two_runs(runs[a].iloc[0], runs[b].iloc[0])
        rows.append({"a": a, "b": b} | found)
    table = pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "p", "test", "n", "only_a", "only_b"])
    table["p_corrected"] = corrected(table.p)
    return table


def effects(comparison: Comparison) -> pd.DataFrame:
    """Compare every two values of every key that varies, averaged over all that else varies.

    Only cells that both values have count, and only seeds that all of these cells have; a seed's difference is the mean
    over the cells. Holm's correction is over all rows.

    Returns:
        a row per pair of values, the better first: key, a, b, cells, n, difference, low, high, p, test, p_corrected;
        and the least and most of the cells' own differences, with the cells they are of.
    """
    accuracy = f"{comparison.scored}/accuracy"
    rows = []
    for key in comparison.varying if len(comparison.completed) else ():
        others = [other for other in comparison.varying if other != key]
        wide = comparison.completed.pivot_table(index="seed", columns=[*others, key], values=accuracy)
        values = wide.columns.unique(key)
        if others:
            by_value = {value: wide.xs(value, axis=1, level=key) for value in values}
        else:
            by_value = {value: wide[[value]].set_axis([""], axis=1) for value in values}
        for a, b in combinations(by_value, 2):
            shared = by_value[a].columns.intersection(by_value[b].columns)
            first, second = by_value[a][shared].dropna(), by_value[b][shared].dropna()
            if not len(shared) or not len(first) or not len(second):
                continue
            found = difference(first.mean(axis=1), second.mean(axis=1))
            paired = found["test"] == "paired t"
            each = (first - second).mean() if paired else first.mean() - second.mean()
            if found["difference"] < 0:
                a, b, each = b, a, -each
                found |= {"difference": -found["difference"], "low": -found["high"], "high": -found["low"]}
            found |= {"least": each.min(), "least_in": cell_of(others, each.idxmin())}
            found |= {"most": each.max(), "most_in": cell_of(others, each.idxmax())}
            rows.append({"key": key, "a": a, "b": b, "cells": len(shared)} | found)
    table = pd.DataFrame(rows, columns=[*EFFECT, "least", "least_in", "most", "most_in"])
    table["p_corrected"] = corrected(table.p)
    return table


def cell_of(keys: Sequence[str], values: Any) -> str:
    """The name of a pivoted column: the keys' values."""
    several = values if isinstance(values, tuple) else (values,)
    return " ".join(named(key, value) for key, value in zip(keys, several, strict=False))


def corrected(p: pd.Series) -> pd.Series:
    """p-values corrected for their number by Holm's method, NaN where there is none.

    Source: statsmodels.stats.multitest.multipletests.
    """
    known = p.dropna().astype(float)
    if known.empty:
        return pd.Series(np.nan, index=p.index)
    return pd.Series(multipletests(known, ALPHA, "holm")[1], index=known.index).reindex(p.index)


def sentences(comparison: Comparison, cells: pd.DataFrame, compared: pd.DataFrame, by_key: pd.DataFrame) -> list[str]:
    """Say what the numbers say, and no more."""
    said = []
    with_runs = cells[cells.completed > 0]
    if with_runs.empty:
        return ["No run is completed yet."]
    best = with_runs.iloc[0]
    accuracy = f"{comparison.scored}/accuracy"
    what = f"{comparison.scored} accuracy"
    said.append(f"The highest {what} is that of {best.label}: {with_interval(best, accuracy)} %.")
    many = with_runs.completed.max() > 1
    if len(with_runs) > 1 and not (many and len(comparison.varying) == 1):  # else it is among the effects
        second = compared[(compared.a == best.label) & (compared.b == with_runs.iloc[1].label)].iloc[0]
        said.append(one_sentence(second, second.a, second.b, len(compared), ""))
    for _, row in by_key.iterrows() if many else ():
        a, b = (named(row.key, value) for value in (row.a, row.b))
        over = ""
        if row.cells > 1:
            ends = f"{points(row.least)} in {row.least_in} to {points(row.most)} in {row.most_in}"
            over = f", averaged over {row.cells} cells, from {ends}"
        said.append(one_sentence(row, a, b, len(by_key), over))
    said += [how_many_learned(row) for _, row in cells.iterrows() if row.at_chance or row.diverged]
    for key in comparison.varying if many else ():
        if followers := comparison.follows.get(key):
            groups = {name for name in followers if "." not in name}
            briefly = [name for name in followers if "." not in name or name.split(".")[0] not in groups]
            said.append(f"{key} also decides {', '.join(briefly)}: its differences are theirs as well.")
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


def shown(value: Any) -> str:
    """A setting's value as it is written."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_interval(row: Any, name: str, scale: float = 100, digits: int = 2) -> str:
    """A mean with half the width of its 95 % interval, where there is one."""
    mean, low = row[name], row[f"{name}.low"]
    if pd.isna(mean):
        return ""
    half = "" if pd.isna(low) else f" ± {scale * (mean - low):.{digits}f}"
    return f"{scale * mean:.{digits}f}{half}"
