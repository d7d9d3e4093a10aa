"""Sentences of a comparison, which claim no more than its tests show; docs/statistics.md explains each of them."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from handgrad.comparison.cells import UNSET
from handgrad.comparison.contrasts import MOST_CELLS, MOST_VALUES
from handgrad.comparison.metrics import Metric
from handgrad.comparison.model import ALPHA, EPSILON, LEVEL
from handgrad.comparison.outcomes import NOT_LEARNED, is_far
from handgrad.comparison.own import joined
from handgrad.comparison.planning import resolution
from handgrad.comparison.statistics import averages
from handgrad.comparison.table import Comparison
from handgrad.text import counted

MOST_SAID = 6  # most sentences on the values of one key; the table has all
FAR_RUN = 10.0  # distance from the others of its cell from which a run is far, in spreads within cells


def sentences(comparison: Comparison, cells: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """Describe the results in sentences: power, outliers, the best cell, then the verdicts."""
    with_runs = cells[cells.completed > 0]
    if with_runs.empty:
        return ["No run is completed yet."]
    said = [about_power(comparison, with_runs, tests)] if len(with_runs) > 1 else []
    said += [*comparison.caveats, *far_cells(comparison, with_runs, tests), *far_runs(comparison, with_runs)]
    said.append(about_best(comparison, with_runs, tests))
    if comparison.asked.baseline is not None or len(comparison.varying) < 2 or with_runs.seeds.max() == 1:
        pairs = tests[tests.kind.isin(["cells", "shares"])]
        if comparison.asked.baseline is None and len(comparison.varying) > 1:
            pairs = pairs[pairs.a.isin(with_runs.label[:2]) & pairs.b.isin(with_runs.label[:2])]
        said += told(comparison, pairs, MOST_CELLS)
    else:
        said += [sentence for key in comparison.varying for sentence in about_key(comparison, tests, key)]
        said += told(comparison, tests[tests.kind == "shares"], MOST_SAID)
    if len(with_runs) > MOST_CELLS and comparison.asked.baseline is None:
        many = f"{len(with_runs):,} cells"
        said.append(f"Of {many} only the best is compared with every other; p is corrected for all pairs.")
    said += who_learned(cells)
    for keys, followers in comparison.follows.items():
        confounded = f"{'is' if len(keys) == 1 else 'together are'} confounded with {joined(followers)}"
        said.append(f"{' and '.join(keys)} {confounded}: a difference may be due to any of them.")
    return said


def about_power(comparison: Comparison, cells: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Say which differences of cells these runs can detect."""
    fewest, most = cells.seeds.min(), cells.seeds.max()
    seeds = f"{fewest}{f' to {most}' if most > fewest else ''} seed{'s' if most > 1 else ''}"
    runs = f"These runs, {counted(len(cells), 'cell')} with {seeds} each,"
    least = resolution(tests[tests.kind == "cells"])
    if np.isnan(least) and most == 1:
        return f"{runs} have no interval: one run cannot tell a better recipe from a luckier seed."
    if np.isnan(least):
        return f"{runs} have no interval: no difference between cells varies with the seed."
    lowest, highest = comparison.metric.bounds
    if least > highest - lowest:
        return f"{runs} can hardly show any difference: their seeds differ too much."
    shown = comparison.metric.scale * least
    digits = int(max(0, -np.floor(np.log10(shown))))
    least_shown = f"{shown:.{digits}f} {comparison.metric.unit}".rstrip()
    return f"{runs} can show differences of about {least_shown} or more, between half of the pairs of cells."


def far_cells(comparison: Comparison, cells: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """Name the cells whose mean is far from all others, unless the tests cannot tell them from any."""
    values = cells[comparison.metric.column].dropna()
    pairs = tests[tests.kind == "cells"]
    told = {*pairs.a[pairs.verdict == "differ"], *pairs.b[pairs.verdict == "differ"]}
    far = (len(values) > 3) & is_far(values.to_numpy()) & (cells.label[values.index].isin(told) | pairs.p.isna().all())
    near = values[~far]
    beyond = (near.min() - values).clip(lower=0) + (values - near.max()).clip(lower=0)
    far &= (beyond > np.ptp(near) / 2).to_numpy()
    if not far.any():
        return []
    metric, others = comparison.metric, values[~far]
    names = [f"{cells.label[place]} ({metric.value(values[place])})" for place in values.index[far]]
    rest = f"{metric.number(others.min())} to {metric.value(others.max())}"
    return [f"Far from the other {len(others)} cells, which have {rest}: {joined(names)}."]


def far_runs(comparison: Comparison, cells: pd.DataFrame) -> list[str]:
    """Name the runs that are far from the two or more others of their cell, by the spread within all cells."""
    metric = comparison.metric
    members = [comparison.members(row).dropna(subset=[metric.column]) for row in cells.to_dict("records")]
    runs = pd.concat(
        [each.assign(off=each[metric.column] - each[metric.column].median()) for each in members if len(each) > 2]
        or [pd.DataFrame(columns=["off", "run"])]
    )
    scale = runs.off[runs.off != 0].abs().median() / 0.6745
    far = runs[runs.off.abs() > FAR_RUN * scale] if len(runs) else runs
    if not 0 < len(far) <= len(runs) / 10:
        return []
    names = [f"{row['run']} ({metric.value(row[metric.column])})" for row in far.to_dict("records")]
    return [f"Far from the other runs of {'its cell' if len(far) == 1 else 'their cells'}: {joined(names)}."]


def about_best(comparison: Comparison, cells: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Name the best cell, its rivals, and the number of cells, since a maximum of many is biased upwards."""
    metric, best = comparison.metric, cells.iloc[0]
    value = f"{with_interval(best, metric)}{metric.of_value}"
    if len(cells) == 1:
        return f"The {metric.name} of {best.label} is {value}."
    estimate = "overestimate" if metric.higher_is_better else "underestimate"
    lucky = "" if len(cells) == 2 else f"; the {metric.best} of {len(cells):,} cells, so probably an {estimate}"
    pairs = tests[(tests.kind == "cells") & (tests.verdict == "undecided") & tests.p.notna()]
    rivals = [*pairs.b[pairs.a == best.label], *pairs.a[pairs.b == best.label]]
    open_ = rivals and comparison.asked.baseline is None and len(comparison.varying) > 1
    among = f" It cannot be told from {joined(rivals, most=4)}." if open_ else ""
    return f"The {metric.best} {metric.name} is that of {best.label}: {value}{lucky}.{among}"


def told(comparison: Comparison, rows: pd.DataFrame, most: int) -> list[str]:
    """Return a sentence for each comparison with a verdict, and the number of those without."""
    untested = (rows.kind == "cells") & (rows.p.isna() | (rows.test == "McNemar"))
    decided = rows[(rows.verdict != "undecided") | untested]
    said = [one_sentence(comparison, row, row.a, row.b) for row in decided.head(most).itertuples()]
    if (more := len(decided) - most) > 0:
        said.append(f"{more} more such comparisons are in pairs.csv.")
    open_ = int(((rows.kind == "cells") & ~rows.index.isin(decided.index)).sum())
    return said + ([f"{undecided(open_, comparison.margin)} of cells."] if open_ else [])


def undecided(many: int, margin: float | None) -> str:
    """Say how many comparisons show neither a difference nor equality, which is tested if there is a margin."""
    what = "No difference" if margin is None else "Neither a difference nor equality"
    return f"{what} is shown by {many} comparison{'s' if many > 1 else ''}"


def about_key(comparison: Comparison, tests: pd.DataFrame, key: str) -> list[str]:
    """Describe the effect of a key: within the values of a key that it interacts with, else on average."""
    within = tests[(tests.kind == "within") & (tests.key == key)]
    rows = averages(tests[(tests.key == key) & tests.kind.isin(["values", "within"])])
    pair = pd.Series([tuple(sorted((row.a, row.b))) for row in within.itertuples()], within.index, dtype=object)
    said = [within_values(comparison, group) for _, group in within.groupby([pair, within.other], sort=False)]
    decided = rows[(rows.verdict != "undecided") | rows.p.isna()]
    for row in decided.head(MOST_SAID).itertuples():
        a, b = (comparison.named(key, value) for value in (row.a, row.b))
        said.append(one_sentence(comparison, row, a, b, averaged_over(comparison, row)))
    if (more := len(decided) - MOST_SAID) > 0:
        said.append(f"{more} more differences of {comparison.names[key]} are in pairs.csv.")
    values = [value for value in dict.fromkeys(comparison.completed[key]) if value != UNSET]
    compared = {frozenset((row.a, row.b)) for row in pd.concat([within, rows]).itertuples()}
    alone = [pair for pair in combinations(values, 2) if len(values) <= MOST_VALUES and frozenset(pair) not in compared]
    if alone:
        some = joined([" and ".join(comparison.named(key, value) for value in pair) for pair in alone], most=3)
        said.append(f"Not averaged: {some} have no cell in common in which all else is alike.")
    if open_ := len(rows) - len(decided):
        said.append(f"{undecided(open_, comparison.margin)} of {comparison.names[key]}, averaged over the other keys.")
    return said


def within_values(comparison: Comparison, rows: pd.DataFrame) -> str:
    """Describe the effect of a key within each value of another."""
    first = rows.iloc[0]
    parts, open_ = [], []
    for row in rows.sort_values("difference", ascending=False).itertuples():
        a, b = (comparison.named(row.key, value) for value in (row.a, row.b))
        given = f"{comparison.names[row.other]}={row.u}"
        if row.verdict == "differ":
            by = comparison.metric.difference(row.difference)
            parts.append(f"with {given}, {a} beats {b} by {by} ({evidence(comparison, row)})")
        elif row.verdict in ("equal", "identical"):
            parts.append(f"with {given}, {a} and {b} are equal{within(comparison)}")
        else:
            open_.append(given)
    key, other = comparison.names[first.key], comparison.names[first.other]
    if not parts:
        return f"The effect of {key} depends on {other}, but no difference is shown within any value of {other}."
    if open_:
        parts.append(f"with {' or '.join(open_)}, no difference is shown")
    return f"The effect of {key} depends on {other}: {'; '.join(parts)}."


def averaged_over(comparison: Comparison, row: Any) -> str:
    """Say over how many cells a comparison is averaged, and its range of differences; empty for one cell."""
    if row.cells < 2:
        return ""
    number = comparison.metric.number
    ends = f"{number(row.least)} in {row.least_in} to {number(row.most)} in {row.most_in}"
    return f", averaged over {row.cells} cells, from {ends}"


def who_learned(cells: pd.DataFrame) -> list[str]:
    """Return a sentence for each cell with a run that did not learn; beyond MOST_CELLS, the number of others."""
    failing = cells[cells.mixed | ((cells.completed == 0) & (cells.diverged > 0))]
    said = [how_many_learned(row) for _, row in failing.head(MOST_CELLS).iterrows()]
    if further := len(failing) - len(said):
        said.append(f"Of {further} more cells not every run learned: see the table.")
    return said


def how_many_learned(row: Any) -> str:
    """Say how many of a cell's finished runs learned, with the share's exact 95 % interval (Clopper and Pearson).

    Source: scipy.stats.binomtest.
    """
    finished = int(row.completed + row.diverged)
    share = stats.binomtest(int(row.learned), finished).proportion_ci(LEVEL)
    others = ", ".join(f"{row[what]} {what}" for what in (*NOT_LEARNED, "diverged") if row[what])
    ends = f"95 % interval of the share {share.low:.0%} to {share.high:.0%}"
    return f"{row.learned} of {finished} runs of {row.label} learned ({ends}); {others}."


def one_sentence(comparison: Comparison, row: Any, a: str, b: str, over: str = "") -> str:
    """Describe one comparison of `a`, the better one, and `b`, averaged `over` some cells."""
    by = comparison.metric.difference(row.difference)
    if row.test == "McNemar":
        counts = f"only the first is right on {row.only_a:.0f} test images, only the second on {row.only_b:.0f}"
        verdict = "differ" if row.verdict == "differ" else "are not shown to differ"
        return f"These two runs of {a} and {b} {verdict} ({by}; {counts}; McNemar's test, corrected p {p_value(row)})."
    if row.test == "Fisher":
        counts = f"{row.learned_a:.0f} of {row.n_a} runs against {row.learned_b:.0f} of {row.n_b}{over}"
        return f"{a} learns more often than {b} ({counts}; Fisher's exact test, corrected p {p_value(row)})."
    if row.verdict == "identical":
        return f"{a} and {b} are equal, seed by seed ({seeds(row)}{over})."
    if pd.isna(row.p):
        if abs(row.difference) <= EPSILON * comparison.completed[comparison.metric.column].abs().max():
            return f"On average {a} and {b} are equal, with no interval{over}."
        return f"{a} is {by} better than {b}, with no interval{over}."
    if row.verdict == "differ":
        little = f", which is less than the margin of {margin(comparison)}" if row.p_equal_corrected < ALPHA else ""
        return f"{a} beats {b} by {by}{little} ({evidence(comparison, row)}{over})."
    return f"{a} and {b} are equal{within(comparison)} ({by}, {interval(comparison, row)}{over})."


def evidence(comparison: Comparison, row: Any) -> str:
    """Return a difference's interval, number of seeds and corrected p-value."""
    return f"{interval(comparison, row)}, corrected p {p_value(row)}"


def interval(comparison: Comparison, row: Any) -> str:
    """Return a difference's interval and number of seeds."""
    number = comparison.metric.number
    return f"95 % interval {number(row.low)} to {number(row.high)}, {seeds(row)}"


def seeds(row: Any) -> str:
    """Say how many seeds a comparison uses."""
    if row.test == "paired t":
        return f"{row.n} seeds each" if row.n_a == row.n_b == row.n else f"the {row.n} seeds that both have"
    return f"{row.n_a} and {row.n_b} seeds" + (", fewer than two in common" if row.test == "Welch t" else "")


def margin(comparison: Comparison) -> str:
    """Format the equivalence margin with its unit."""
    assert comparison.margin is not None
    return f"{comparison.margin * comparison.metric.scale:g} {comparison.metric.unit}"


def within(comparison: Comparison) -> str:
    """Return " within" and the margin; empty without a margin."""
    return f" within {margin(comparison)}" if comparison.margin is not None else ""


def p_value(row: Any) -> str:
    """Format a corrected p-value with its relation sign."""
    return "< 0.001" if row.p_corrected < 0.001 else f"= {row.p_corrected:.3f}"


def with_interval(row: Any, metric: Metric) -> str:
    """Format a cell's mean with its 95 % interval: half its width, or both ends if they are not symmetric."""
    mean, low, high = (row[f"{metric.column}{end}"] for end in ("", ".low", ".high"))
    if pd.isna(mean):
        return ""
    number = metric.number
    if pd.isna(low) or pd.isna(high):
        return number(mean)
    if metric.bounds[0] < low and high < metric.bounds[1]:
        return f"{number(mean)} ± {number(mean - low)}"
    return f"{number(mean)}, {number(low)} to {number(high)}"
