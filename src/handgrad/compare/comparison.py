"""Runs side by side: what was asked for, a row per run, and the cells that they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from handgrad.compare.cells import UNSET
from handgrad.compare.metrics import Metric
from handgrad.runs.tables import RunTables
from handgrad.text import escape_control, shortened

LONGEST = 120  # characters of a value in a name; the tables have all of it


@dataclass(frozen=True)
class CompareOptions:
    """What a comparison was asked for, as in `conf/compare.yaml`.

    metric: the number to compare by; None: accuracy.
    margin: what is too small to matter, in the metric's unit; None: the metric's own.
    where: a condition on the table of runs, for `pandas.DataFrame.eval`; None: every run.
    group: the keys that make a cell; None: whatever differs.
    baseline: the cell that every other is compared with; None: each with each.
    reference: a table of printed numbers to be shown beside the cells that they are of; None: none.
    """

    metric: str | None = None
    margin: float | None = None
    where: str | None = None
    group: Sequence[str] | None = None
    baseline: str | None = None
    reference: Path | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    table: a row per run, seeds of a cell together; columns: run, folder, status, outcome, reason, `keys`, seed,
        metrics, ..., reference. A key's column holds texts, one for each value, so that true, 1, null and "1" are
        labels like any other.
    asked: what for.
    metric: what cells are compared by.
    keys: the columns that make a cell.
    values: of each key, what its texts stand for, None for UNSET.
    choices: the keys that are config groups.
    follows: of keys that together decide further settings, these settings.
    scored: the set whose scores count, "test", or "val" where no run has scored the test set.
    tables: of each row of `table`, the run's other files.
    remarks: sentences about runs that are not what they should be.
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

    @cached_property
    def varying(self) -> list[str]:
        """The keys that take more than one value."""
        return [key for key in self.keys if self.table[key].nunique() > 1]

    @cached_property
    def names(self) -> dict[str, str]:
        """Of each key its short name."""
        return short_names(self.keys)

    @property
    def reference_name(self) -> str:
        """What printed numbers are called: the name of their file; empty where there are none."""
        return "" if self.asked.reference is None else escape_control(self.asked.reference.stem)

    @cached_property
    def margin(self) -> float | None:
        """What is too small to matter, in the table's numbers."""
        margin = self.metric.margin if self.asked.margin is None else self.asked.margin
        return None if margin is None else margin / self.metric.scale

    def named(self, key: str, text: str) -> str:
        """A choice or target as it is called, an option with its name: "relu", "torch.optim.SGD", "strength=1e-05"."""
        speaks = (key in self.choices or key.endswith("._target_")) and text not in (UNSET, "null")
        text = shortened(text, LONGEST)
        return text if speaks else f"{self.names[key]}={text}"

    @cached_property
    def swept(self) -> str | None:
        """The one numeric option that was swept, None where there is none or more than one."""
        numeric = [key for key in self.varying if all(is_number(self.values[key][text]) for text in self.table[key])]
        return numeric[0] if len(numeric) == 1 else None

    @cached_property
    def completed(self) -> pd.DataFrame:
        """The rows of completed runs, all that a mean is made of.

        With `gap`: train accuracy minus the scored set's, and `number`: the run's place in `tables`.
        """
        done = self.table[self.table.status == "completed"]
        if done.empty:
            return done
        return done.assign(gap=gap(done, self.scored), number=done.index)

    @cached_property
    def by_cell(self) -> dict[Any, pd.DataFrame]:
        """The completed runs of every cell, by seed."""
        return dict(iter(self.completed.set_index("seed").groupby(self.keys, sort=False)))

    def members(self, row: Any) -> pd.DataFrame:
        """The completed runs, by seed, of the cell whose keys a row holds."""
        none = self.completed.head(0).set_index("seed")
        return self.by_cell.get(tuple(row[key] for key in self.keys), none)

    @cached_property
    def learned(self) -> pd.DataFrame:
        """The rows whose metric can be compared: of the runs that learned, if it says how well they did."""
        done = self.completed
        done = done[done.outcome == "learned"] if self.metric.of_learning else done
        return done.dropna(subset=[self.metric.column]) if len(done) else done

    def sample(self, row: Any) -> pd.Series:
        """What can be inferred from: by seed, the metric of a cell's `learned` runs, turned so that more is better.

        A single run, of which nothing is inferred, counts whether it learned or not. Several runs of a seed, where the
        keys asked for pool what differs, count as one, by their mean.
        """
        runs = self.members(row)
        if runs.empty:
            return pd.Series(dtype=float)
        values = runs[self.metric.column].dropna()
        if len(runs) > 1:
            values = values[runs.number.isin(self.learned.number)]
        return self.metric.sign * values.groupby(level=0).mean()


def gap(table: pd.DataFrame, scored: str) -> pd.Series:
    """Train accuracy minus the scored set's, of every run."""
    return table["train/accuracy"] - table[f"{scored}/accuracy"]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Of each key the shortest name that no other has: its last words, `_target_` left out."""
    words = {key: key.removesuffix("._target_").split(".") for key in keys}
    names = {}
    for key, mine in words.items():
        others = [theirs for other, theirs in words.items() if other != key]
        unlike = (n for n in range(1, len(mine) + 1) if all(theirs[-n:] != mine[-n:] for theirs in others))
        length = next(unlike, None)
        names[key] = escape_control(".".join(mine[-length:]) if length else key)
    return names


def is_number(value: Any) -> bool:
    """Tell whether a value can be a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
