"""From folders to a table with a row per run and a column for whatever tells the runs' cells apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from handgrad import results
from handgrad.config import UserError

ALWAYS = ("activation", "engine", "regularizer")  # what a cell is named by, whether it differs or not
NOT_A_CELL = {"seed", "name", "threads", "objective", "experiment"}  # of a configuration: does not make another cell
CHANCE = 0.2  # accuracy below which a run has learned nothing: twice what guessing one of ten classes gets


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    table: a row per run, seeds of a cell together; columns: run, folder, status, reason, `keys`, seed, metrics, ...
    keys: the columns that make a cell.
    follows: of each key, the settings that change with it and with nothing else.
    remarks: sentences about runs that are not what they should be.
    """

    table: pd.DataFrame
    keys: list[str]
    follows: dict[str, list[str]]
    remarks: list[str]

    @property
    def scored(self) -> str:
        """The set whose scores count: "test", or "val" where no run has scored the test set."""
        return "test" if "test/accuracy" in self.table or "val/accuracy" not in self.table else "val"

    @property
    def varying(self) -> list[str]:
        """The keys that take more than one value."""
        return [key for key in self.keys if self.table[key].nunique(dropna=False) > 1]

    @property
    def swept(self) -> str | None:
        """The one numeric option that was swept, None where there is none or more than one."""
        numeric = [key for key in self.varying if pd.api.types.is_numeric_dtype(self.table[key])]
        return numeric[0] if len(numeric) == 1 else None

    @property
    def completed(self) -> pd.DataFrame:
        """The rows of completed runs, all that a mean is made of, with `gap`: train accuracy minus the scored set's."""
        done = self.table[self.table.status == "completed"]
        if done.empty:
            return done
        return done.assign(gap=done["train/accuracy"] - done[f"{self.scored}/accuracy"])


def matching(patterns: Sequence[str], sweeps: Path) -> list[Path]:
    """The folders that patterns name; without a pattern, the newest sweep.

    Raises:
        UserError: a pattern matches no folder, or there is no sweep.
    """
    if not patterns:
        newest = sorted(path for path in sweeps.glob("*") if path.is_dir())[-1:]
        if not newest:
            raise UserError(f"there is no sweep in {sweeps}: make one with python src/train.py -m, or name a folder")
        return newest
    found = []
    for pattern in patterns:
        path = Path(pattern)
        base, relative = (Path(path.anchor), path.relative_to(path.anchor)) if path.anchor else (Path(), path)
        folders = sorted(folder for folder in base.glob(str(relative)) if folder.is_dir())
        if not folders:
            raise UserError(f"no folder matches sweep={pattern}")
        found += folders
    return list(dict.fromkeys(found))


def collect(folders: Iterable[Path]) -> Comparison:
    """Read every run in or below the folders.

    Raises:
        UserError: there is none.
    """
    records, remarks = [], []
    found = sorted({file.parent for folder in folders for file in folder.rglob(results.METRICS)}, key=natural)
    for folder in found:
        try:
            record = results.read(folder)
        except UserError as error:
            remarks.append(f"Left out: {error}.")
            continue
        if record:
            records.append(record | {"folder": folder})
    begun = {file.parents[1] for folder in folders for file in folder.rglob(".hydra/config.yaml")}
    if never := sorted(begun - set(found), key=natural):
        remarks.append(f"Left out: {joined([path.name for path in never])} never got as far as a {results.METRICS}.")
    if not records:
        names = ", ".join(map(str, folders))
        raise UserError(" ".join([f"there is no run to compare in {names}.", *remarks]))
    keys, follows = what_differs(records)
    table = pd.DataFrame([row_of(record, keys) for record in records])
    table, repeated = without_repeats(table, keys)
    return Comparison(table, keys, follows, [*remarks, *repeated, *mixed(records), *unfinished(table)])


def natural(path: Path) -> tuple[str, int, str]:
    """Sort 2_name before 10_name."""
    number = path.name.split("_")[0]
    return str(path.parent), int(number) if number.isdigit() else 0, path.name


def settings_of(record: dict[str, Any]) -> dict[str, Any]:
    """A run's choices and every value of its configuration, flat: {"engine": "manual", "optimizer.lr": 0.1, ...}."""
    flat = dict(record["choices"])

    def walk(prefix: str, node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            elif not key.startswith("_"):
                flat[prefix + key] = str(value) if isinstance(value, list) else value

    walk("", record["config"])
    return {key: value for key, value in flat.items() if key not in NOT_A_CELL}


def what_differs(records: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, list[str]]]:
    """Find the settings that make cells, and those that only follow from one of them.

    Returns:
        the keys: activation, engine, regularizer, and every setting that differs without being decided by keys before
        it; and, of each key, the settings that it decides all alone.
    """
    settings = [settings_of(record) for record in records]
    names = dict.fromkeys([*ALWAYS, *(name for row in settings for name in row)])
    columns = {name: [row.get(name) for row in settings] for name in names}
    keys: list[str] = []
    follows: dict[str, list[str]] = {}
    for name, values in columns.items():
        if name in ALWAYS:
            keys.append(name)
        elif len(set(values)) > 1:
            if not decided(values, [columns[key] for key in keys]):
                keys.append(name)
                continue
            for key in keys:
                if name.split(".")[0] != key and decided(values, [columns[key]]):
                    follows.setdefault(key, []).append(name)
                    break
    return keys, follows


def decided(values: Sequence[Any], by: Sequence[Sequence[Any]]) -> bool:
    """Tell whether values are a function of other columns."""
    seen: dict[tuple[Any, ...], Any] = {}
    return all(
        seen.setdefault(others, value) == value for others, value in zip(zip(*by, strict=True), values, strict=True)
    )


def row_of(record: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A run's row of the table."""
    settings = settings_of(record)
    versions = {f"version/{name}": version for name, version in record.get("versions", {}).items()}
    metrics = record["metrics"]
    scored = metrics.get("test/accuracy", metrics.get("val/accuracy"))
    return {
        "run": record["folder"].name,
        "folder": str(record["folder"]),
        "status": record["status"],
        "reason": record.get("reason"),
        **{key: settings.get(key) for key in keys},
        "seed": record["seed"],
        "at_chance": record["status"] == "completed" and scored is not None and scored < CHANCE,
        **metrics,
        **{key: record.get(key) for key in ("epochs", "seconds_per_epoch", "seconds", "peak_memory_mb")},
        "dataset": record["choices"].get("data"),
        "commit": record.get("commit"),
        **versions,
    }


def without_repeats(table: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Keep the last of runs with the same cell and seed, which would count one experiment twice; say so."""
    completed_last = table.assign(done=table.status == "completed").sort_values("done", kind="stable")
    kept = completed_last.drop_duplicates([*keys, "seed"], keep="last").drop(columns="done").sort_index()
    repeats = len(table) - len(kept)
    said = [f"{repeats} of {len(table)} runs repeat a cell and seed: only the last completed one of each counts."]
    return kept.reset_index(drop=True), said if repeats else []


def mixed(records: Sequence[dict[str, Any]]) -> list[str]:
    """Say where runs are of different data sets, versions or code."""
    said = []
    datasets = sorted({str(record["choices"].get("data")) for record in records})
    if len(datasets) > 1:
        said.append(f"The runs are of different data sets ({joined(datasets)}): their scores do not mean the same.")
    for name in sorted({name for record in records for name in record.get("versions", {})}):
        versions = sorted({str(record.get("versions", {}).get(name)) for record in records})
        if len(versions) > 1:
            said.append(f"The runs were made with different versions of {name} ({joined(versions)}).")
    if len({record.get("commit") for record in records}) > 1:
        said.append("The runs were made with different commits of this project.")
    return said


def unfinished(table: pd.DataFrame) -> list[str]:
    """Say which runs are no part of any mean, and which stayed at chance and are."""
    said = []
    for status, what in (
        ("running", "still running, or were killed"),
        ("failed", "failed"),
        ("diverged", "diverged"),
    ):
        runs = table[table.status == status]
        if len(runs):
            said.append(f"{len(runs)} of {len(table)} runs {what} and are part of no mean: {joined(runs.run)}.")
    stuck = table[table.at_chance]
    if len(stuck):
        said.append(
            f"{len(stuck)} of {len(table)} runs stayed at chance (accuracy below {CHANCE:.0%}) "
            f"and are part of their cell's mean: {joined(stuck.run)}."
        )
    return said


def joined(names: Iterable[Any], most: int = 8) -> str:
    """A list in words, the first few of a long one."""
    every = [str(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
