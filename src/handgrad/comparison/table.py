"""Comparison of runs: the options, a table with one row per run, and the cells that the runs form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from handgrad.comparison.cells import UNSET
from handgrad.comparison.metrics import Metric
from handgrad.runs.tables import RunTables
from handgrad.text import escape_control, shortened

LONGEST = 120  # most characters of a value in a name; the tables show it in full


@dataclass(frozen=True)
class CompareOptions:
    """Options of a comparison, as in `conf/compare.yaml`.

    metric: the metric to compare by; None: accuracy.
    margin: equivalence margin, in the metric's unit; None: the metric's default.
    where: a condition on the table of runs, for `pandas.DataFrame.eval`; None: every run.
    group: the keys that define a cell; None: every setting that varies.
    baseline: the cell that every other is compared with; None: all pairs.
    reference: CSV file of published results, shown beside the cells that they match; None: no reference.
    table: a table of another project's runs, as CSV file or data frame; None: the runs are in folders.
    seed: the column or setting that is the seed of another project's runs; None: by its name.
    better: "lower" or "higher"; None: by the metric's name.
    unit: the metric's unit; None: the usual one.
    """

    metric: str | None = None
    margin: float | None = None
    where: str | None = None
    group: Sequence[str] | None = None
    baseline: str | None = None
    reference: Path | None = None
    table: Path | pd.DataFrame | None = None
    seed: str | None = None
    better: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs, and the cells that they form.

    table: one row per run, in the order of their folders; columns: run, folder, status, outcome, reason, `keys`, seed,
        metrics, ..., reference. A key's column holds one text per distinct value, so that true, 1, null and "1" are
        distinct labels.
    asked: the options.
    metric: the metric that cells are compared by.
    keys: the columns that define a cell.
    values: for each key, the values behind its texts; None for UNSET.
    choices: the keys that are config groups.
    follows: for each set of keys, the settings that it determines.
    scored: the evaluated set: "test", or "val" if no run has test scores.
    tables: for each row of `table`, the run's other files.
    remarks: sentences about damaged, incomplete or incompatible runs.
    paired: whether runs of different cells with the same seed share their random numbers.
    own: whether they are runs of this project.
    caveats: sentences on columns of another project's table that may mislead; they come first.
    """

    table: pd.DataFrame
    asked: CompareOptions
    metric: Metric
    keys: list[str]
    values: dict[str, dict[str, Any]]
    choices: frozenset[str]
    follows: dict[tuple[str, ...], list[str]]
    scored: str
    tables: list[RunTables]
    remarks: list[str]
    paired: bool = True
    own: bool = True
    caveats: Sequence[str] = ()

    @cached_property
    def varying(self) -> list[str]:
        """The keys that take more than one value."""
        return [key for key in self.keys if self.table[key].nunique() > 1]

    @cached_property
    def names(self) -> dict[str, str]:
        """Short name of each key."""
        return short_names(self.keys)

    @property
    def reference_name(self) -> str:
        """Name of the reference, its file's stem; empty without one."""
        return "" if self.asked.reference is None else escape_control(self.asked.reference.stem)

    @cached_property
    def margin(self) -> float | None:
        """Equivalence margin, on the scale of the table."""
        margin = self.metric.margin if self.asked.margin is None else self.asked.margin
        return None if margin is None else margin / self.metric.scale

    def named(self, key: str, text: str) -> str:
        """Return a choice or target by name, an option as name=value: "relu", "torch.optim.SGD", "strength=1e-05"."""
        speaks = (key in self.choices or key.endswith("._target_")) and text not in (UNSET, "null")
        text = shortened(text, LONGEST)
        return text if speaks else f"{self.names[key]}={text}"

    @cached_property
    def swept(self) -> str | None:
        """The only numeric option that varies; None if there is none or more than one."""
        numeric = [key for key in self.varying if all(is_number(self.values[key][text]) for text in self.table[key])]
        return numeric[0] if len(numeric) == 1 else None

    @cached_property
    def completed(self) -> pd.DataFrame:
        """Rows of completed runs, the only ones that enter a mean.

        With `gap`: train accuracy minus the scored set's, if both are known, and `number`: the run's index in `tables`.
        """
        done = self.table[self.table.status == "completed"]
        if done.empty:
            return done
        known = {"train/accuracy", f"{self.scored}/accuracy"} <= set(done)
        return done.assign(number=done.index, **({"gap": gap(done, self.scored)} if known else {}))

    @cached_property
    def by_cell(self) -> dict[Any, pd.DataFrame]:
        """Completed runs of each cell, indexed by seed."""
        return dict(iter(self.completed.set_index("seed").groupby(self.keys, sort=False)))

    def members(self, row: Any) -> pd.DataFrame:
        """Return the completed runs, indexed by seed, of the cell whose keys a row holds."""
        none = self.completed.head(0).set_index("seed")
        return self.by_cell.get(tuple(row[key] for key in self.keys), none)

    def sample(self, row: Any) -> pd.Series:
        """Return a cell's sample: the metric of its completed runs by seed, its sign such that higher is better.

        Where some runs learned and others did not, only those that did: a mean of both would describe neither. Several
        runs of one seed, which `group` pools, count as one, by their mean.
        """
        runs = self.members(row)
        if runs.empty:
            return pd.Series(dtype=float)
        if self.metric.of_learning and row["mixed"]:
            runs = runs[runs.outcome == "learned"]
        return self.metric.sign * runs[self.metric.column].dropna().groupby(level=0).mean()


def gap(table: pd.DataFrame, scored: str) -> pd.Series:
    """Return each run's train accuracy minus its accuracy on the scored set."""
    return table["train/accuracy"] - table[f"{scored}/accuracy"]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique name of each key: its last words, without `_target_`."""
    words = {key: key.removesuffix("._target_").split(".") for key in keys}
    ends = Counter(tuple(each[-n:]) for each in words.values() for n in range(1, len(each) + 1))
    names = {}
    for key, each in words.items():
        unlike = (each[-n:] for n in range(1, len(each) + 1) if ends[tuple(each[-n:])] == 1)
        names[key] = escape_control(".".join(next(unlike, [key])))
    return names


def called(name: str, short: Mapping[str, str]) -> list[str]:
    """Return the keys with that full or short name, by their short names."""
    return [key for key, other in short.items() if name in (key, other)]


def is_number(value: Any) -> bool:
    """Tell whether a value can be plotted on a numeric axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
