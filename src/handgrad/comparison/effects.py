"""Main effects: values of a key compared in pairs, averaged over all other factors."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from handgrad.comparison.statistics import (
    COUNTS,
    EPSILON,
    FOUND,
    averages,
    better_first,
    chosen_pairs,
    compare_means,
    fisher_test,
    number_of_families,
    number_of_pairs,
    with_verdicts,
)
from handgrad.comparison.table import Comparison

MOST_VALUES = 7  # most values of a key to compare in all pairs (21)


def main_effects(comparison: Comparison) -> pd.DataFrame:
    """Compare the values of every varying key in pairs, averaged over all other factors.

    A comparison uses the cells that both values have, and the seeds that all of these cells have; a seed's difference
    is its mean over the cells. Beyond MOST_VALUES values of a key, only the best is compared with every other; Holm's
    correction still covers all pairs. If finished runs did not learn, the shares that did are compared as well.

    Returns:
        one row per comparison, the better value first: key, cells, and the columns of `compare_cells`; the smallest
        and largest difference within one cell, with that cell; and `first`, the first value in the original order (of
        many, the best). Empty if no cell has two runs, or if a baseline was asked for.
    """
    rows: list[dict[str, Any]] = []
    family = 0
    for key in comparison.varying if averages(comparison) else ():
        by_value = measured_by_value(comparison, key)
        many = len(by_value) > MOST_VALUES
        order = sorted(by_value, key=lambda value: -by_value[value].mean(axis=None)) if many else list(by_value)
        for a, b in chosen_pairs(len(order), MOST_VALUES):
            share = shares_by_value(comparison, key, order[a], order[b])
            row = effect(comparison, key, (order[a], by_value[order[a]]), (order[b], by_value[order[b]]))
            rows += [found | {"key": key, "first": order[a]} for found in (share, row) if found]
            family += 0 if many or not row else 1
        family += number_of_pairs(len(order)) if many else 0
    columns = ["key", "a", "b", "cells", *FOUND, *COUNTS, "least", "least_in", "most", "most_in", "first"]
    return with_verdicts(pd.DataFrame(rows, columns=columns), family, number_of_families(comparison))


def measured_by_value(comparison: Comparison, key: str) -> dict[str, pd.DataFrame]:
    """Return for each value of a key the metric (higher is better): seeds by combinations of the other factors."""
    others = [other for other in comparison.varying if other != key]
    measured = comparison.learned.assign(better=comparison.metric.sign * comparison.learned[comparison.metric.column])
    wide = measured.pivot_table(index="seed", columns=[*others, key], values="better")
    values = wide.columns.unique(key)
    if others:
        return {value: wide.xs(value, axis=1, level=key) for value in values}
    return {value: wide[[value]].set_axis([""], axis=1) for value in values}


def shares_by_value(comparison: Comparison, key: str, a: str, b: str) -> dict[str, Any]:
    """Compare how many runs learned with two values of a key, over their shared cells; empty if all did."""
    others = [other for other in comparison.varying if other != key]
    finished = comparison.table[comparison.table.status.isin(["completed", "diverged"])]
    if not comparison.metric.of_learning or (finished.outcome == "learned").all():
        return {}
    cells = [finished[finished[key] == value].set_index(others or ["dataset"]) for value in (a, b)]
    shared = cells[0].index.intersection(cells[1].index)
    both = [rows.loc[shared.unique()].outcome for rows in cells]
    counts = [(int((outcomes == "learned").sum()), len(outcomes)) for outcomes in both]
    if not len(shared) or all(learned == of for learned, of in counts):
        return {}
    return better_first({"a": a, "b": b, "cells": shared.nunique()} | fisher_test(*counts))


def effect(
    comparison: Comparison, key: str, one: tuple[str, pd.DataFrame], other: tuple[str, pd.DataFrame]
) -> dict[str, Any]:
    """Compare two values of a key, each given with its table from `measured_by_value`.

    Returns:
        a row of `main_effects`; empty if they share no cell, or one of them has no seed in all shared cells.
    """
    (a, first), (b, second) = one, other
    shared = first.columns.intersection(second.columns)
    first, second = first[shared].dropna(), second[shared].dropna()
    if not len(shared) or not len(first) or not len(second):
        return {}
    found = compare_means(first.mean(axis=1), second.mean(axis=1), comparison.margin)
    paired = found["test"] == "paired t"
    each = (first - second).mean() if paired else first.mean() - second.mean()
    found["identical"] = bool(paired and (first - second).abs().max(axis=None) < EPSILON)
    found = better_first({"a": a, "b": b} | found)
    each = each if found["a"] == a else -each
    others = [name for name in comparison.varying if name != key]
    found |= {"least": each.min(), "least_in": cell_of(comparison, others, each.idxmin())}
    found |= {"most": each.max(), "most_in": cell_of(comparison, others, each.idxmax())}
    return {"cells": len(shared)} | found


def cell_of(comparison: Comparison, keys: Sequence[str], values: Any) -> str:
    """Return the name of a pivoted column, made of the keys' values."""
    several = values if isinstance(values, tuple) else (values,)
    return " ".join(comparison.named(key, value) for key, value in zip(keys, several, strict=False))
