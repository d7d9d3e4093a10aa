"""Statistics of cells: means with intervals, tests of difference and of equivalence, shares of runs that learned.

Intervals and tests are scipy's and statsmodels'; docs/statistics.md explains each. Numbers are on the scale of the
table of runs (accuracies in [0, 1]); differences are positive if the first is better, also for metrics to be minimised.
"""

import shlex
from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from handgrad.comparison import contrasts
from handgrad.comparison.cells import ENDS
from handgrad.comparison.contrasts import MOST_CELLS, chosen_pairs
from handgrad.comparison.load import STATUSES
from handgrad.comparison.metrics import find_metric
from handgrad.comparison.model import ALPHA, Contrast, Model
from handgrad.comparison.outcomes import NOT_LEARNED
from handgrad.comparison.own import joined
from handgrad.comparison.table import Comparison, called
from handgrad.errors import UserError, did_you_mean
from handgrad.runs.tables import RunTables

COLUMNS = ["kind", "key", "a", "b", "other", "u", "v", "cells", "difference", "low", "high", "p", "p_equal", "spread"]
COLUMNS += ["df", "test", "n", "n_a", "n_b", "identical", "only_a", "only_b", "learned_a", "learned_b"]
COLUMNS += ["least", "least_in", "most", "most_in"]


def model_of(samples: Sequence[pd.Series], paired: bool = True) -> Model:
    """Return the model of samples indexed by seed, one per cell."""
    wide = pd.concat(samples, axis=1, keys=range(len(samples))) if samples else pd.DataFrame()
    return Model(wide.to_numpy(dtype=float), paired)


def summarize_cells(comparison: Comparison) -> pd.DataFrame:
    """Pool the seeds of every cell.

    Returns:
        one row per cell, best first: label (unique), keys, runs, number of each status and outcome; mixed, whether
        some finished runs learned and others did not; for train and test accuracy, test loss, gap, seconds per epoch
        and the metric asked for: the mean over the completed runs, its interval's ends `.low` and `.high` within the
        metric's bounds (except for times, NaN if mixed), `.median`, `.least` and `.most`; seeds, the number that
        enters comparisons of means; reference, if all runs have the same.
    """
    scored, metric, keys = comparison.scored, comparison.metric, comparison.keys
    usual = ["train/accuracy", f"{scored}/accuracy", f"{scored}/loss", "gap", "seconds_per_epoch"]
    usual = [name for name in usual if comparison.own and name in comparison.completed and name != metric.column]
    names, rows = [metric.column, *usual], []
    samples: dict[str, list[pd.Series]] = {name: [] for name in names}
    for values, runs in comparison.table.groupby(keys, sort=False):
        row: dict[str, Any] = dict(zip(keys, values, strict=True))
        row = {"label": " ".join(comparison.named(key, row[key]) for key in comparison.varying or keys)} | row
        row |= {"runs": len(runs), **{status: int((runs.status == status).sum()) for status in STATUSES}}
        row |= {what: int((runs.outcome == what).sum()) for what in ("learned", *NOT_LEARNED)}
        row |= {"mixed": 0 < row["learned"] < row["completed"] + row["diverged"], "reference": reference_of(runs)}
        members = comparison.members(row)
        members = members if metric.column in members else members.assign(**{metric.column: np.nan})
        row["seeds"] = len(comparison.sample(row))
        row["without value"] = row["completed"] - int(members[metric.column].notna().sum())
        counted = members[members.outcome == "learned"] if row["mixed"] else members
        for name in names:
            runs_of = members[name].dropna()
            samples[name].append(counted[name].dropna().groupby(level=0).mean())
            mean = runs_of.groupby(level=0).mean().mean()
            found = (mean, np.nan, np.nan, runs_of.median(), runs_of.min(), runs_of.max())
            row |= dict(zip((name, *(f"{name}.{end}" for end in ENDS)), found, strict=True))
        rows.append(row)
    cells = pd.DataFrame(rows)
    for name in names:
        means = [Contrast("mean", label, "", (place,), ()) for place, label in enumerate(cells.label)]
        found = model_of(samples[name], comparison.paired).test(means)
        one = metric if name == metric.column else find_metric(name, scored, names)
        for end in ("low", "high"):
            cells[f"{name}.{end}"] = found[end].clip(*one.bounds).where(~(cells.mixed & one.of_learning))
    repeats = cells.groupby("label").cumcount()
    cells["label"] = cells.label.where(repeats == 0, cells.label + " (" + (repeats + 1).astype(str) + ")")
    order = (cells[metric.column] * metric.sign).to_numpy()
    return cells.iloc[np.argsort(-order, kind="stable")].reset_index(drop=True)  # cells without a value last


def reference_of(runs: pd.DataFrame) -> float:
    """Return a cell's reference value; NaN if its runs have none or several."""
    return runs.reference.iloc[0] if "reference" in runs and runs.reference.nunique(dropna=False) == 1 else np.nan


def compare(comparison: Comparison, cells: pd.DataFrame) -> pd.DataFrame:
    """Test all contrasts of a comparison as one family: pairs of cells, values of keys, interactions of keys.

    Compared are all pairs of cells; with a baseline, only pairs with it, and nothing else; beyond MOST_CELLS, only
    pairs with the best. Values of keys are compared if two keys or more vary. Where two keys interact, the effects of
    each within the values of the other are tested as well. Runs that did not learn are not part of a sample with runs
    that did: for such cells, the shares that learned are compared in further rows.

    Returns:
        one row per comparison, the better one first: the fields of `Contrast`; the columns of `Model.test`; of
        averages, the smallest and largest difference, with its cell; of two single runs, McNemar's test; of shares,
        Fisher's; p_corrected, p_equal_corrected, n_comparisons, verdict: see `with_verdicts`.
    """
    done = cells[cells.completed + cells.diverged > 0].reset_index(drop=True)
    first = None if comparison.asked.baseline is None else baseline(comparison, done)
    samples = [comparison.sample(row) for row in done.to_dict("records")]
    used = [place for place, sample in enumerate(samples) if len(sample)]
    model, labels = model_of([samples[place] for place in used], comparison.paired), done.label[used].tolist()
    pairs = places_of_pairs(used, first)
    found = [Contrast("cells", labels[a], labels[b], (a,), (b,)) for a, b in pairs]
    further = 0 if first is not None else comb(len(used), 2) - len(found)
    keys: dict[str, list[str]] = {}
    places: contrasts.Cells = {
        tuple(done[key][place] for key in comparison.varying): number for number, place in enumerate(used)
    }
    if first is None and len(comparison.varying) > 1 and max(map(len, samples), default=0) > 1:
        keys = values_best_first(comparison, done.iloc[used])
        effects = contrasts.main_effects(comparison, places, keys)
        many = [len(values) for values in keys.values() if len(values) > contrasts.MOST_VALUES]
        further += sum(comb(values - 1, 2) for values in many)
        found += effects + contrasts.interactions(comparison, places, keys)
    table = with_images(comparison, done.iloc[used], tested(comparison, model, found, done.iloc[used]))
    learned = shares(comparison, done, places_of_pairs(range(len(done)), first))
    made = [each for each in (table, learned) if len(each)] or [table]
    table = with_verdicts(pd.concat(made, ignore_index=True), further)
    parts = [each for row in interacting(comparison, table) for each in parts_of(comparison, places, keys, row)]
    parts = list({(part.key, frozenset((part.a, part.b)), part.other, part.u): part for part in parts}.values())
    inside = with_verdicts(tested(comparison, model, parts, done.iloc[used]), further + len(table))
    return pd.concat([table, inside], ignore_index=True) if parts else table


def places_of_pairs(used: Sequence[int], first: int | None) -> list[tuple[int, int]]:
    """Return the pairs of cells to compare, as indices into `used`; with a baseline, only those with it."""
    if first is None:
        return chosen_pairs(range(len(used)), MOST_CELLS)
    return [(used.index(first), place) for place, each in enumerate(used) if each != first and first in used]


def values_best_first(comparison: Comparison, cells: pd.DataFrame) -> dict[str, list[str]]:
    """Return the values of every varying key by the mean metric of their cells, best first."""
    better = comparison.metric.sign * cells[comparison.metric.column]
    return {
        key: better.groupby(cells[key], sort=False).mean().sort_values(ascending=False, kind="stable").index.tolist()
        for key in comparison.varying
    }


def tested(comparison: Comparison, model: Model, found: Sequence[Contrast], cells: pd.DataFrame) -> pd.DataFrame:
    """Test contrasts of cells; return a row for each, the better one first."""
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    found = [model.usable(contrast) for contrast in found]
    results = model.test(found, comparison.margin).to_dict("records")
    seeds = (~np.isnan(model.values)).sum(axis=0)
    rows = []
    for contrast, result in zip(found, results, strict=True):
        row = contrast.row() | result
        row |= {"n_a": seeds[list(contrast.plus)].min(), "n_b": seeds[list(contrast.minus)].min()}
        for end in ("least", "most") if contrast.kind in ("values", "within") else ():
            cell = cells.iloc[contrast.plus[int(row[f"{end}_at"])]]
            others = [key for key in comparison.varying if key != contrast.key]
            row[f"{end}_in"] = " ".join(comparison.named(key, cell[key]) for key in others)
        rows.append(better_first(row))
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def interacting(comparison: Comparison, table: pd.DataFrame) -> list[Any]:
    """Return the interactions that were found and are not smaller than the margin."""
    least = comparison.margin or 0.0
    found = table[(table.kind == "interaction") & (table.verdict == "differ") & (table.difference.abs() >= least)]
    return list(found.itertuples())


def parts_of(comparison: Comparison, cells: contrasts.Cells, keys: dict[str, list[str]], row: Any) -> list[Contrast]:
    """Return the effects of each of two interacting keys within every value of the other."""
    both = ((row.key, row.a, row.b, row.other), (row.other, row.u, row.v, row.key))
    given = [(key, a, b, other, u) for key, a, b, other in both for u in keys[other]]
    effects = [contrasts.effect(comparison, cells, key, a, b, other=other, u=u) for key, a, b, other, u in given]
    return [effect for effect in effects if effect is not None]


def averages(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons of values of keys whose effect does not depend on another key."""
    within = tests[tests.kind == "within"]
    apart = {(row.key, frozenset((row.a, row.b))) for row in within.itertuples()}
    rows = tests[tests.kind == "values"]
    return rows[np.array([(row.key, frozenset((row.a, row.b))) not in apart for row in rows.itertuples()], dtype=bool)]


def with_images(comparison: Comparison, cells: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Test pairs of single runs by the images that each classifies correctly."""
    if comparison.metric.column != "test/accuracy":
        return table
    rows = {row["label"]: row for row in cells[cells.completed == 1].to_dict("records")}
    single = (table.kind == "cells") & table.a.isin(list(rows)) & table.b.isin(list(rows))
    for place in table.index[single]:
        members = (comparison.members(rows[table[name][place]]).number.iloc[0] for name in ("a", "b"))
        for name, value in mcnemar_test(*(comparison.tables[number] for number in members)).items():
            table.loc[place, name] = value
    return table


def shares(comparison: Comparison, cells: pd.DataFrame, chosen: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """Compare the shares of runs that learned, where the mean of one of two cells leaves runs out."""
    rows = []
    finished = (cells.completed + cells.diverged).tolist()
    partial = (cells.mixed | (cells.completed == 0)).tolist()
    for a, b in chosen if comparison.metric.of_learning else ():
        if (partial[a] or partial[b]) and min(finished[a], finished[b]) > 1:
            test = fisher_test((cells.learned[a], finished[a]), (cells.learned[b], finished[b]))
            rows.append(better_first({"kind": "shares", "a": cells.label[a], "b": cells.label[b], "cells": 1} | test))
    return pd.DataFrame(rows, columns=COLUMNS)


def better_first(row: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison with the better one first."""
    if not row["difference"] < 0:
        return row
    swapped = {"low": -row["high"], "high": -row["low"], "difference": -row["difference"]}
    if "least_in" in row:
        swapped |= {"least": -row["most"], "most": -row["least"]}
        swapped |= {"least_in": row["most_in"], "most_in": row["least_in"]}
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
    """Apply Fisher's exact test to the numbers of learned and of finished runs of two samples.

    Source: scipy.stats.fisher_exact.
    """
    table = [[learned, finished - learned] for learned, finished in (a, b)]
    found = {"difference": a[0] / a[1] - b[0] / b[1], "p": float(stats.fisher_exact(table).pvalue)}
    counts = {"n": min(a[1], b[1]), "n_a": a[1], "n_b": b[1], "learned_a": a[0], "learned_b": b[0]}
    return {"test": "Fisher", "low": np.nan, "high": np.nan} | found | counts


def baseline(comparison: Comparison, cells: pd.DataFrame) -> int:
    """Return the index of the baseline cell, given by its label or by key=value words."""
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
        keys = called(name, comparison.names)
        fits &= cells[keys[0]] == value if keys else False
    if not words or fits.sum() != 1:
        raise UserError(
            f"baseline={wanted} names {fits.sum() if words else 'none'} of the cells: "
            f"{'' if fits.any() else did_you_mean(wanted, labels)}they are {joined(cells.label, most=30)}"
        )
    return int(np.flatnonzero(fits)[0])


def with_verdicts(table: pd.DataFrame, further: int = 0) -> pd.DataFrame:
    """Correct each kind of p-value by Holm's method over all comparisons of a sweep, and add verdicts.

    Comparisons of shares answer another question than those of means, and are corrected separately. `further` counts
    comparisons of means that were not made but could have been.

    Returns:
        the table with p_corrected, p_equal_corrected, n_comparisons (the factor of the smallest p), and verdict:
        "differ", "equal" within the margin, "identical" seed by seed, or "undecided".
    """
    shares, interactions = table.kind == "shares", table.kind == "interaction"
    made = ~shares
    kinds = {"p": [(shares, 0), (made, further)], "p_equal": [(made & ~interactions, further)]}
    told = {
        name: pd.concat([holm(table[name][rows], int(rows.sum()) + more) for rows, more in some]).reindex(table.index)
        for name, some in kinds.items()
    }
    verdict = pd.Series("undecided", index=table.index)
    verdict[told["p_equal"] < ALPHA] = "equal"
    verdict[table.identical.eq(True)] = "identical"
    verdict[told["p"] < ALPHA] = "differ"
    n_comparisons = np.where(shares, shares.sum(), made.sum() + further)
    return table.assign(
        p_corrected=told["p"], p_equal_corrected=told["p_equal"], n_comparisons=n_comparisons, verdict=verdict
    )


def holm(p: pd.Series, family: int) -> pd.Series:
    """Correct p-values by Holm's method; NaN stays NaN. Of the `family`, comparisons not in `p` count as p = 1.

    Source: statsmodels.stats.multitest.multipletests.
    """
    known = p.dropna().astype(float)
    if known.empty:
        return pd.Series(np.nan, index=p.index)
    untested = np.ones(max(family - len(p), 0))
    corrected = multipletests(np.concatenate([known, untested]), ALPHA, "holm")[1]
    return pd.Series(corrected[: len(known)], index=known.index).reindex(p.index)
