"""Sentences of a comparison, which claim no more than its tests show; docs/statistics.md explains each of them."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pandas as pd
from scipy import stats

from handgrad.comparison.cells import UNSET
from handgrad.comparison.effects import MOST_VALUES
from handgrad.comparison.load import NOT_LEARNED, joined
from handgrad.comparison.metrics import Metric
from handgrad.comparison.statistics import ALPHA, EPSILON, LEVEL, MOST_CELLS, SEED_COUNTS, detectable, number_of_pairs
from handgrad.comparison.table import Comparison


def sentences(comparison: Comparison, cells: pd.DataFrame, compared: pd.DataFrame, by_key: pd.DataFrame) -> list[str]:
    """Describe the results in sentences.

    Args:
        comparison: the runs.
        cells: the table from `summarize_cells`.
        compared: the table from `compare_cells`.
        by_key: the table from `main_effects`.
    """
    with_runs = cells[cells.completed > 0]
    if with_runs.empty:
        return ["No run is completed yet."]
    said = [about_best(comparison, with_runs)]
    many = with_runs.completed.max() > 1
    if comparison.asked.baseline is not None:
        telling = worth_saying(compared)
        said += [one_sentence(comparison, row, row.a, row.b) for _, row in telling.head(MOST_CELLS).iterrows()]
        said += [f"{more} more comparisons are in pairs.csv."] if (more := len(telling) - MOST_CELLS) > 0 else []
    elif len(with_runs) > 1:
        if not (many and len(comparison.varying) == 1 and len(by_key)):  # else it is among the main effects
            best = compared[compared.a.isin(with_runs.label[:2]) & compared.b.isin(with_runs.label[:2])]
            said += [one_sentence(comparison, row, row.a, row.b) for _, row in worth_saying(best).iterrows()]
        if len(with_runs) > MOST_CELLS:
            said.append(
                f"Of {len(with_runs):,} cells only the best is compared with each other one: {len(with_runs) - 1:,} of "
                f"{number_of_pairs(len(with_runs)):,} pairs; p is corrected for all of them."
            )
    for key in comparison.varying if many and comparison.asked.baseline is None else ():
        said += about_key(comparison, by_key, key)
    said += who_learned(cells)
    for keys, followers in comparison.follows.items():
        is_are = "is" if len(keys) == 1 else "together are"
        said.append(
            f"{' and '.join(keys)} {is_are} confounded with {joined(followers)}: a difference may be due to either."
        )
    return said


def worth_saying(compared: pd.DataFrame) -> pd.DataFrame:
    """Drop undecided comparisons of shares: how many runs of each cell learned is reported anyway."""
    return compared[(compared.test != "Fisher") | (compared.verdict == "differ")]


def about_best(comparison: Comparison, cells: pd.DataFrame) -> str:
    """Name the best cell, and the number of cells: a maximum of many is biased upwards."""
    metric, best = comparison.metric, cells.iloc[0]
    value = f"{with_interval(best, metric)}{metric.of_value}"
    if len(cells) == 1:
        return f"The {metric.name} of {best.label} is {value}."
    estimate = "overestimate" if metric.higher_is_better else "underestimate"
    lucky = "" if len(cells) == 2 else f"; the {metric.best} of {len(cells):,} cells, so probably an {estimate}"
    return f"The {metric.best} {metric.name} is that of {best.label}: {value}{lucky}."


def about_key(comparison: Comparison, by_key: pd.DataFrame, key: str) -> list[str]:
    """Return a sentence per comparison of a key's values; beyond MOST_VALUES values, one on the best."""
    mine = by_key[by_key.key == key]
    values = comparison.learned[key].unique().tolist() if len(comparison.learned) else []
    if len(values) > MOST_VALUES:
        return in_summary(comparison, mine, key)
    said = []
    for _, row in worth_saying(mine).iterrows():
        a, b = (comparison.named(key, value) for value in (row.a, row.b))
        over = ""
        if row.cells > 1 and row.test != "Fisher":
            number = comparison.metric.number
            ends = f"{number(row.least)} in {row.least_in} to {number(row.most)} in {row.most_in}"
            over = f", averaged over {row.cells} cells, from {ends}"
        elif row.cells > 1:
            over = f", summed over {row.cells} cells"
        said.append(one_sentence(comparison, row, a, b, over))
    compared = {frozenset((row.a, row.b)) for row in mine.itertuples()}
    apart = [pair for pair in combinations(values, 2) if frozenset(pair) not in compared and UNSET not in pair]
    if apart:
        some = joined([" and ".join(comparison.named(key, value) for value in pair) for pair in apart], most=3)
        said.append(f"Not averaged: {some} have no cell in common in which all else is alike; see the pairs of cells.")
    return said


def in_summary(comparison: Comparison, rows: pd.DataFrame, key: str) -> list[str]:
    """Summarize the comparisons of a key's best value with every other one.

    Args:
        comparison: the runs.
        rows: the key's rows of `main_effects`.
        key: a key with more than MOST_VALUES values.
    """
    rows = rows[rows.test != "Fisher"]
    if rows.empty:
        return []
    metric = comparison.metric
    values = comparison.completed[key].nunique()
    best = rows["first"].iloc[0]
    told = rows.verdict == "differ"
    won, lost = rows[told & (rows.a == best)], rows[told & (rows.b == best)]
    same = rows[rows.verdict.isin(["equal", "identical"])]
    open_ = rows[(rows.verdict == "cannot tell") & rows.p.notna()]
    parts = []
    if len(won):
        least, most = won.difference.min(), won.difference.max()
        parts.append(f"beats {len(won)}, by {metric.number(least)} to {metric.difference(most)}")
    if len(lost):
        parts.append(f"is beaten by {named_of(comparison, key, lost.a)} where both have runs")
    for some, what in ((same, f"is equal{within(comparison)} to"), (open_, "cannot be told from")):
        if len(some):
            others = named_of(comparison, key, some.a.where(some.b == best, some.b))
            parts.append(f"{what} {len(some)} ({others})")
    if untested := values - 1 - len(won) - len(lost) - len(same) - len(open_):
        parts.append(f"could not be tested against {untested}")
    return [
        f"Of the {values} values of {comparison.names[key]}, {best} is on average the best, "
        f"and probably overestimated; compared with each other one it {'; '.join(parts)}. "
        "(p is corrected for all pairs of values.)"
    ]


def named_of(comparison: Comparison, key: str, values: Iterable[str]) -> str:
    """Join the names of a key's values; of many, the first few."""
    return joined([comparison.named(key, value) for value in values], most=5)


def who_learned(cells: pd.DataFrame) -> list[str]:
    """Return a sentence for each cell with a run that did not learn; beyond MOST_CELLS, the number of others."""
    failing = cells[cells.mixed]
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
    return (
        f"{row.learned} of {finished} runs of {row.label} learned (95 % interval of the share {share.low:.0%} to "
        f"{share.high:.0%}); {others}."
    )


def one_sentence(comparison: Comparison, row: Any, a: str, b: str, over: str = "") -> str:
    """Describe one comparison.

    Args:
        comparison: the runs.
        row: a row of `compare_cells` or `main_effects`.
        a: name of the better one.
        b: name of the other.
        over: what was averaged over, with a leading comma; or empty.
    """
    by = comparison.metric.difference(row.difference)
    if row.test == "McNemar":
        counts = f"only the first is right on {row.only_a:.0f} test images, only the second on {row.only_b:.0f}"
        verdict = "differ" if row.verdict == "differ" else "are not shown to differ"
        return f"These two runs of {a} and {b} {verdict} ({by}; {counts}; McNemar's test, corrected p {p_value(row)})."
    if row.test == "Fisher":
        verdict = "learns more often than" if row.verdict == "differ" else "is not shown to learn more often than"
        counts = f"{row.learned_a:.0f} of {row.n_a} runs against {row.learned_b:.0f} of {row.n_b}{over}"
        exact = f"Fisher's exact test, corrected p {p_value(row)}" if pd.notna(row.p) else "too few to test"
        return f"{a} {verdict} {b} ({counts}; {exact})."
    if row.verdict == "identical":
        return f"{a} and {b} are equal, seed by seed ({seeds(row)}{over})."
    if row.test == "none" or pd.isna(row.p):
        if abs(row.difference) < EPSILON:
            return f"On average {a} and {b} are equal, with no interval{over}."
        return f"{a} is {by} better than {b}, with no interval{over}."
    number = comparison.metric.number
    ends = f"95 % interval {number(row.low)} to {number(row.high)}"
    if row.verdict == "differ":
        little = f", which is less than the margin of {margin(comparison)}" if row.p_equal_corrected < ALPHA else ""
        return f"{a} beats {b} by {by}{little} ({ends}, {seeds(row)}{over}; corrected p {p_value(row)})."
    if row.verdict == "equal":
        return f"{a} and {b} are equal{within(comparison)} ({by}, {ends}, {seeds(row)}{over})."
    doubt = ""
    if row.low > 0:
        doubt = "; taken alone the interval excludes zero, among so many comparisons that proves nothing"
    neither = ""
    if comparison.margin is not None:
        neither = f"; neither a difference nor equality{within(comparison)} is shown"
    return f"Cannot tell {a} from {b} ({by}, {ends}, {seeds(row)}{over}{doubt}{neither})."


def seeds(row: Any) -> str:
    """Say how many seeds a comparison uses."""
    if row.test == "paired t":
        return f"{row.n} seeds each" if row.n_a == row.n_b == row.n else f"the {row.n} seeds that both have"
    return (
        f"{row.n_a} and {row.n_b} seeds, none in common" if row.test == "Welch t" else f"{row.n_a} and {row.n_b} seeds"
    )


def margin(comparison: Comparison) -> str:
    """Format the equivalence margin with its unit."""
    assert comparison.margin is not None
    return f"{comparison.margin * comparison.metric.scale:g} {comparison.metric.unit}"


def within(comparison: Comparison) -> str:
    """Return " within" and the margin; empty without a margin."""
    return f" within {margin(comparison)}" if comparison.margin is not None else ""


def plan(comparison: Comparison, compared: pd.DataFrame, by_key: pd.DataFrame) -> pd.DataFrame:
    """Compute which differences more seeds would detect, for every undecided comparison.

    Args:
        comparison: the runs.
        compared: the table from `compare_cells`; used if there are no main effects.
        by_key: the table from `main_effects`.

    Returns:
        one row per undecided comparison of means: a, b, and for each of SEED_COUNTS the smallest difference, in the
        metric's unit, that this many seeds detect with 80 % power after correction, given the observed spread.
    """
    table = by_key if len(by_key) else compared
    open_ = table[(table.verdict == "cannot tell") & table.spread.notna()]
    rows = []
    for _, row in open_.iterrows():
        names = [comparison.named(row.key, value) for value in (row.a, row.b)] if len(by_key) else [row.a, row.b]
        shown = {n: comparison.metric.scale * detectable(row.spread, n, int(row.n_comparisons)) for n in SEED_COUNTS}
        rows.append({"a": names[0], "b": names[1]} | shown)
    return pd.DataFrame(rows, columns=["a", "b", *SEED_COUNTS])


def enough(comparison: Comparison, planned: pd.DataFrame) -> int | None:
    """Return the smallest of SEED_COUNTS that detects every difference as large as the margin; None if none does."""
    assert comparison.margin is not None
    wanted = comparison.margin * comparison.metric.scale
    return next((seeds for seeds in SEED_COUNTS if (planned[seeds] <= wanted).all()), None)


def about_seeds(comparison: Comparison, planned: pd.DataFrame) -> str:
    """Say which differences more seeds would detect, for the comparison with the widest spread."""
    worst = planned.loc[planned[SEED_COUNTS[0]].idxmax()]
    digits = comparison.metric.digits
    steps = ", ".join(f"{seeds} seeds {worst[seeds]:.{digits}f}" for seeds in SEED_COUNTS)
    return (
        "How many seeds would tell? The smallest difference that 80 of 100 sweeps would show, by the spread at hand, "
        f"for {worst.a} and {worst.b}: {steps} {comparison.metric.unit}."
    )


def p_value(row: Any) -> str:
    """Format a corrected p-value with its relation sign."""
    return "< 0.001" if row.p_corrected < 0.001 else f"= {row.p_corrected:.3f}"


def with_interval(row: Any, metric: Metric) -> str:
    """Format a cell's mean, with half the width of its 95 % interval if there is one; or its median and range.

    Median and range if runs did not learn or the interval exceeds the metric's bounds: neither is normally distributed.
    """
    mean, low, high = (row[f"{metric.column}{end}"] for end in ("", ".low", ".high"))
    if pd.isna(mean):
        return ""
    number = metric.number
    beyond = low < metric.bounds[0] or high > metric.bounds[1]
    if beyond or (row["mixed"] and metric.of_learning and row["completed"] > 1):
        median, least, most = (number(row[f"{metric.column}{end}"]) for end in (".median", ".least", ".most"))
        return f"{median} ({least} to {most})"
    return number(mean) + ("" if pd.isna(low) else f" ± {number(mean - low)}")
