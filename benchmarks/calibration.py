"""Error rates and power of comparisons: python benchmarks/calibration.py [sweeps] [design ...] (an hour for 1,000).

Simulates sweeps of 3 x 2 x 2 cells with a known truth and judges them as `python src/compare.py` does. One cell is
better by a number of standard deviations, or none is. Half of a seed's variance is common to all cells, like the order
of its data. The designs differ in how the cells' spreads differ, where trouble is to be expected; see DESIGNS.

Prints per design, number of seeds and difference: the share of sweeps with any wrong claim (the bar: 6 %), beside it
that of paired t-tests of all pairs with Holm's correction; the share of the better cell's pairs that is found, and the
paired tests' share; the coverage of the 95 % intervals of differences and of means; the share of sweeps that call
cells equal which differ by the margin.
"""

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from handgrad.comparison.metrics import find_metric
from handgrad.comparison.statistics import compare, summarize_cells
from handgrad.comparison.table import CompareOptions, Comparison
from handgrad.runs.tables import RunTables

KEYS = {"activation": ["relu", "sigmoid", "tanh"], "engine": ["manual", "autograd"], "regularizer": ["none", "l2"]}
CELLS = list(product(*KEYS.values()))
LUCK = 0.001  # standard deviation of a seed's accuracy, of its own and of what all cells share
MEAN = 0.9
DIFFERENCES = {2: (0, 10, 40), 3: (0, 10), 5: (0, 2, 4), 10: (0, 2)}  # by seeds, in standard deviations


def normal(spreads: np.ndarray) -> Callable[[np.ndarray, int, np.random.Generator], np.ndarray]:
    """Return a function that draws (S, C) values around means, with a standard deviation per cell."""

    def draw(means: np.ndarray, seeds: int, random: np.random.Generator) -> np.ndarray:
        common = random.normal(size=(seeds, 1)) * LUCK * np.median(spreads)
        return means + common + LUCK * spreads * random.normal(size=(seeds, len(means)))

    return draw


def near_one(means: np.ndarray, seeds: int, random: np.random.Generator) -> np.ndarray:
    """Draw accuracies near 1, skewed: the logarithm of the error rate is normal."""
    return np.asarray(1 - (1 - means) * np.exp(random.normal(size=(seeds, len(means))) * LUCK / (1 - means)))


def missing(means: np.ndarray, seeds: int, random: np.random.Generator) -> np.ndarray:
    """Draw equally spread values, and leave out a cell and one in eight of the runs."""
    values = normal(np.ones(len(means)))(means, seeds, random)
    values[random.random(values.shape) < 1 / 8] = np.nan
    values[:, 5] = np.nan
    return values


MANY = len(CELLS)
DESIGNS: dict[str, tuple[Callable[[np.ndarray, int, np.random.Generator], np.ndarray], float]] = {
    "equal spreads": (normal(np.ones(MANY)), MEAN),
    "spreads 1:20, the better steady": (normal(np.geomspace(0.05, 1, MANY)), MEAN),
    "spreads 1:20, the better wild": (normal(np.geomspace(1, 0.05, MANY)), MEAN),
    "one cell 20 times as wild": (normal(np.r_[np.ones(MANY - 1), 20.0]), MEAN),
    "one cell at chance": (normal(np.r_[np.ones(MANY - 1), 0.1]), MEAN),
    "missing cells and runs": (missing, MEAN),
    "accuracies near 100 %": (near_one, 0.997),
}


def comparison_of(values: np.ndarray) -> Comparison:
    """Return the comparison of runs with the given accuracies (S, C)."""
    seeds, cells = np.nonzero(~np.isnan(values))
    table = pd.DataFrame([CELLS[cell] for cell in cells], columns=list(KEYS))
    table = table.assign(
        seed=seeds, run="x", status="completed", outcome="learned", **{"test/accuracy": values[seeds, cells]}
    )
    return Comparison(
        table=table,
        asked=CompareOptions(),
        metric=find_metric("test/accuracy", "test", ["test/accuracy"]),
        keys=list(KEYS),
        values={key: {text: text for text in texts} for key, texts in KEYS.items()},
        choices=frozenset(KEYS),
        follows={},
        scored="test",
        tables=[RunTables()] * len(table),
        remarks=[],
    )


def means_of(design: str, difference: float) -> np.ndarray:
    """Return the cells' true means: the first is better by so many pooled standard deviations."""
    mean = DESIGNS[design][1]
    means = np.full(MANY, mean)
    pooled = LUCK * (np.sqrt((np.geomspace(0.05, 1, MANY) ** 2).mean()) if "1:20" in design else 1.0)
    means[0] += min(difference * pooled, 0.999 - mean)
    if "chance" in design:
        means[-1] = 0.11
    return means


@cache
def truth(row: tuple[str, ...], labels: tuple[tuple[str, float], ...], together: frozenset[frozenset[str]]) -> float:
    """Return the true difference of a comparison.

    Args:
        row: kind, key, a, b, other, u and v of the comparison.
        labels: the true mean of every cell that has runs.
        together: the pairs of cells that share two seeds, the only ones that an average counts.
    """
    kind, key, a, b, other, u, v = row
    means = dict(labels)
    if kind == "cells":
        return means[a] - means[b]

    def cells(value: str, given: str) -> dict[tuple[str, ...], str]:
        fixed = {key: value} | ({other: given} if other else {})
        found = {}
        for cell in CELLS:
            settings = dict(zip(KEYS, cell, strict=True))
            if " ".join(cell) in means and fixed.items() <= settings.items():
                found[tuple(text for name, text in settings.items() if name not in fixed)] = " ".join(cell)
        return found

    sides = [(cells(a, given), cells(b, given)) for given in ((u, v) if kind == "interaction" else (u,))]
    shared = [rest for rest in sides[0][0] if all(rest in side for both in sides for side in both)]
    counted = [rest for rest in shared if all(frozenset((one[rest], two[rest])) in together for one, two in sides)]
    differences = [[means[one[rest]] - means[two[rest]] for one, two in sides] for rest in counted or shared]
    return float(np.mean([each[0] - (each[1] if len(each) > 1 else 0.0) for each in differences]))


def paired_tests(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of cells, and which of them a paired t-test with Holm's correction tells apart."""
    pairs = np.array(list(combinations(np.flatnonzero((~np.isnan(values)).any(axis=0)), 2)))
    p = stats.ttest_rel(values[:, pairs[:, 0]], values[:, pairs[:, 1]], nan_policy="omit").pvalue
    return pairs, multipletests(np.where(np.isnan(p), 1, p), 0.05, "holm")[0]


def judged(arguments: tuple[str, int, float, int]) -> tuple[float, ...]:
    """Return what the module's docstring lists, of one sweep."""
    design, seeds, difference, number = arguments
    random = np.random.default_rng([number, seeds, int(100 * difference), list(DESIGNS).index(design)])
    means = means_of(design, difference)
    values = DESIGNS[design][0](means, seeds, random)
    comparison = comparison_of(values)
    cells = summarize_cells(comparison)
    tests = compare(comparison, cells)
    labels = {
        " ".join(cell): mean for cell, mean in zip(CELLS, means, strict=True) if (cells.label == " ".join(cell)).any()
    }
    names = zip(*(tests[name] for name in ("kind", "key", "a", "b", "other", "u", "v")), strict=True)
    many = (~np.isnan(values)).astype(int)
    together = frozenset(
        frozenset((" ".join(CELLS[a]), " ".join(CELLS[b]))) for a, b in np.argwhere(many.T @ many > 1) if a != b
    )
    true = np.array([truth(row, tuple(labels.items()), together) for row in names])
    none = np.abs(true) < 1e-9
    told = (tests.verdict == "differ").to_numpy()
    wrong = (told & (none | (np.sign(true) != np.sign(tests.difference)))).any()
    best = " ".join(CELLS[0])
    mine = ((tests.kind == "cells") & ((tests.a == best) | (tests.b == best))).to_numpy() & ~none
    equal = ((tests.verdict == "equal") & (np.abs(true) >= (comparison.margin or 0) - 1e-9)).any()
    judged = tests.low.notna().to_numpy()
    covered = ((tests.low <= true) & (true <= tests.high))[judged].mean()
    real = cells.label.map(labels)
    held = ((cells["test/accuracy.low"] <= real) & (real <= cells["test/accuracy.high"]))[
        cells["test/accuracy.low"].notna()
    ].mean()
    pairs, apart = paired_tests(values)
    same = means[pairs[:, 0]] == means[pairs[:, 1]]
    theirs = (pairs[:, 0] == 0) & ~same
    found = told[mine].mean() if mine.any() else 0.0
    return wrong, (apart & same).any(), found, apart[theirs].mean() if theirs.any() else 0.0, covered, held, equal


def main() -> None:
    """Judge the sweeps of every design and print a line for each."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| design | seeds | sd | wrong (paired t) | found (paired t) | differences, means covered | wrongly equal |")
    print("|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(2, initializer=gc.freeze) as pool:  # statsmodels collects garbage at every correction
        for design, seeds in product(sys.argv[2:] or DESIGNS, DIFFERENCES):
            for difference in DIFFERENCES[seeds]:
                many = [(design, seeds, float(difference), place) for place in range(number)]
                found = np.nanmean(list(pool.map(judged, many, chunksize=10)), axis=0)
                wrong, theirs, power, paired, covered, held, equal = (f"{100 * share:.1f}" for share in found)
                row = (
                    design,
                    seeds,
                    difference,
                    f"{wrong} ({theirs})",
                    f"{power} ({paired})",
                    f"{covered}, {held}",
                    equal,
                )
                print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
