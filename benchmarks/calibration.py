"""Error rates of comparisons: python benchmarks/calibration.py [sweeps] (20 minutes for 2,000 on two cores).

Simulates sweeps of 3 x 2 x 2 cells with a known truth: no difference at all, or a difference as large as the margin,
the case in which a wrong verdict "equal" is most likely. Part of a seed's noise is shared by all its cells, like the
order of its data. Prints the share of sweeps that claim a nonexistent difference, the share that call cells equal which
are a margin apart, and the coverage of the 95 % intervals.
"""

import gc
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
import pandas as pd

from handgrad.comparison import statistics
from handgrad.comparison.effects import main_effects
from handgrad.comparison.metrics import find_metric
from handgrad.comparison.table import CompareOptions, Comparison

KEYS = {"activation": ["relu", "sigmoid", "tanh"], "engine": ["manual", "autograd"], "regularizer": ["none", "l2"]}
MARGIN = 0.002
LUCK = 0.001  # standard deviation of a seed's accuracy: once shared by all cells, once per cell
REFERENCE = pd.DataFrame(columns=["run", "test_accuracy", "epochs", *KEYS])


def sweep(seeds: int, difference: float, random: np.random.Generator) -> Comparison:
    """Simulate a sweep in which relu beats the other activations by a difference and nothing else differs."""
    rows = []
    common = random.normal(0, LUCK, seeds)
    for values in product(*KEYS.values()):
        better = difference * (values[0] == "relu")
        own = random.normal(0, LUCK, seeds)
        rows += [(*values, seed, 0.97 + better + common[seed] + own[seed]) for seed in range(seeds)]
    table = pd.DataFrame(rows, columns=[*KEYS, "seed", "test/accuracy"])
    same = {"run": "x", "status": "completed", "outcome": "learned", "dataset": "mnist", "seconds_per_epoch": 1.0}
    table = table.assign(**same, **{"train/accuracy": 0.99, "test/loss": 0.1})
    return Comparison(
        table=table,
        asked=CompareOptions(),
        metric=find_metric(None, "test", table.columns),
        keys=list(KEYS),
        values={key: {text: text for text in texts} for key, texts in KEYS.items()},
        choices=frozenset(KEYS),
        follows={},
        scored="test",
        tables=[],
        remarks=[],
    )


def truth(row: pd.Series, difference: float) -> float:
    """Return the true difference of a comparison."""
    return difference * (int("relu" in row.a) - int("relu" in row.b))


def judged(arguments: tuple[int, float, int]) -> tuple[bool, bool, int, int]:
    """Return whether a sweep wrongly claims a difference, or equality; the numbers of correct and of all intervals."""
    seeds, difference, number = arguments
    comparison = sweep(seeds, difference, np.random.default_rng([number, seeds, int(1e6 * difference)]))
    cells = statistics.summarize_cells(comparison, REFERENCE)
    tables = [statistics.compare_cells(comparison, cells), main_effects(comparison)]
    said = pd.concat(table[["a", "b", "low", "high", "verdict"]] for table in tables)
    real = said.apply(truth, axis=1, difference=difference)
    claimed = bool(((said.verdict == "differ") & (real == 0)).any())
    wrongly_equal = bool(((said.verdict == "equal") & (real.abs() >= MARGIN)).any())
    held = (said.low <= real) & (real <= said.high)
    return claimed, wrongly_equal, int(held.sum()), len(said)


def main() -> None:
    """Judge the sweeps of every design and print a line for each."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print("| seeds | true difference | claims a difference wrongly | calls equal wrongly | intervals with the truth |")
    print("|---|---|---|---|---|")
    with ProcessPoolExecutor(initializer=gc.freeze) as pool:  # statsmodels collects garbage at every correction
        for seeds, difference in product((2, 3, 5, 10), (0.0, MARGIN)):
            found = list(pool.map(judged, [(seeds, difference, place) for place in range(number)], chunksize=20))
            claimed, equal, held, said = np.sum(found, axis=0)
            print(
                f"| {seeds} | {100 * difference:.1f} points | {claimed / number:.1%} | {equal / number:.1%} | "
                f"{held / said:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
