"""How often a comparison is wrong: python benchmarks/calibration.py [sweeps] (20 minutes for 2,000 on two cores).

Makes sweeps of 2 x 3 x 2 cells whose truth is known: without any difference, and with one as large as the margin, where
"equal" is as easily said as it may be while it is wrong. A seed's luck is in part that of all its cells, as with the
order of its data. Prints the share of sweeps in which a difference is claimed where there is none, the share in which
cells as far apart as the margin are called equal, and how many of the 95 % intervals hold the truth.
"""

import gc
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
import pandas as pd

from handgrad.compare import statistics
from handgrad.compare.comparison import CompareOptions, Comparison
from handgrad.compare.effects import main_effects
from handgrad.compare.metrics import find_metric

KEYS = {"activation": ["relu", "sigmoid", "tanh"], "engine": ["manual", "autograd"], "regularizer": ["none", "l2"]}
MARGIN = 0.002
LUCK = 0.001  # standard deviation of a seed's accuracy in all cells alike, and again in each
REFERENCE = pd.DataFrame(columns=["run", "test_accuracy", "epochs", *KEYS])


def sweep(seeds: int, difference: float, random: np.random.Generator) -> Comparison:
    """A sweep in which relu is better than the other activations by a difference, and nothing else differs."""
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
    """What the difference of a comparison really is."""
    return difference * (int("relu" in row.a) - int("relu" in row.b))


def judged(arguments: tuple[int, float, int]) -> tuple[bool, bool, int, int]:
    """Whether a sweep claims a difference wrongly, or equality; how many intervals are right, and of how many."""
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
    """Judge the sweeps of every design, and print a line for each."""
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
