"""From folders to a table with a row per run and a column for whatever tells the runs' cells apart."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from handgrad import results
from handgrad.config import UserError
from handgrad.report.files import Tables, tables_of
from handgrad.settings import canonical, flat, plain, shown

ALWAYS = ("activation", "engine", "regularizer")  # what a cell is named by, whether it differs or not
# What changes nothing that is computed; of a study, its changes are seen.
NOT_A_CELL = {"seed", "name", "objective", "experiment", "debug", "logger", "diagnostics"}
CHANCE = 0.2  # accuracy below which a run has learned nothing: twice what guessing one of ten classes gets
STATUSES = ("completed", "diverged", "failed", "running")
UNSET = "unset"  # what stands for a setting that a run does not have; null is a value
# Columns of the tables that are no settings: a setting of such a name gets another.
TAKEN = {"run", "folder", "status", "reason", "seed", "at_chance", "epochs", "seconds_per_epoch", "seconds", "gap"}
TAKEN |= {"peak_memory_mb", "dataset", "commit", "label", "runs", "notebook", "notebook_run", "notebook_epochs"}
TAKEN |= {"number", "done", *STATUSES}
LONGEST = 120  # characters of a value in a name; the tables have all of it
MOST_REMARKS = 30  # about single files; a person reads no more


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    table: a row per run, seeds of a cell together; columns: run, folder, status, reason, `keys`, seed, metrics, ...
        A key's column holds texts, one for each value, so that true, 1, null and "1" are labels like any other.
    keys: the columns that make a cell.
    values: of each key, what its texts stand for, None for UNSET.
    choices: the keys that are config groups.
    follows: of each key, the settings that change with it and with nothing else.
    scored: the set whose scores count, "test", or "val" where no run has scored the test set.
    tables: of each row of `table`, the run's other files.
    remarks: sentences about runs that are not what they should be.
    """

    table: pd.DataFrame
    keys: list[str]
    values: dict[str, dict[str, Any]]
    choices: frozenset[str]
    follows: dict[str, list[str]]
    scored: str
    tables: list[Tables]
    remarks: list[str]

    @cached_property
    def varying(self) -> list[str]:
        """The keys that take more than one value."""
        return [key for key in self.keys if self.table[key].nunique() > 1]

    @cached_property
    def names(self) -> dict[str, str]:
        """Of each key the shortest name that no other has: its last words, `_target_` left out."""
        words = {key: key.removesuffix("._target_").split(".") for key in self.keys}
        names = {}
        for key, mine in words.items():
            others = [theirs for other, theirs in words.items() if other != key]
            unlike = (n for n in range(1, len(mine) + 1) if all(theirs[-n:] != mine[-n:] for theirs in others))
            length = next(unlike, None)
            names[key] = plain(".".join(mine[-length:]) if length else key)
        return names

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
        return done.assign(gap=done["train/accuracy"] - done[f"{self.scored}/accuracy"], number=done.index)

    @cached_property
    def by_cell(self) -> dict[Any, pd.DataFrame]:
        """The completed runs of every cell, by seed."""
        return dict(iter(self.completed.set_index("seed").groupby(self.keys, sort=False)))

    def members(self, row: Any) -> pd.DataFrame:
        """The completed runs, by seed, of the cell whose keys a row holds."""
        none = self.completed.head(0).set_index("seed")
        return self.by_cell.get(tuple(row[key] for key in self.keys), none)


def is_number(value: Any) -> bool:
    """Tell whether a value can be a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def matching(patterns: Sequence[str], sweeps: Path, start: Path | None = None) -> list[Path]:
    """The folders that patterns name; without a pattern, the newest sweep.

    Args:
        patterns: each a folder, or a pattern of folders.
        sweeps: where sweeps are.
        start: what relative patterns start from; the working directory if left out.

    Raises:
        UserError: a pattern matches no folder, or there is no sweep.
    """
    start = start or Path.cwd()
    if not patterns:
        return [newest(start / sweeps)]
    found = [folder for pattern in patterns for folder in named_by(pattern, start)]
    return list(dict.fromkeys(found))


def newest(sweeps: Path) -> Path:
    """The sweep that was last begun or in which a run last changed; of equally new ones, the last by name.

    Raises:
        UserError: there is none.
    """
    times: dict[Path, float] = {}
    for folder in sorted(path for path in sweeps.glob("*") if path.is_dir()):
        for file in (folder / "multirun.yaml", *folder.glob(f"*/{results.METRICS}")):
            with suppress(OSError):
                times[folder] = max(file.stat().st_mtime, times.get(folder, -math.inf))
    if not times:
        raise UserError(f"there is no sweep in {sweeps}: make one with python src/train.py -m, or name a folder")
    return max(times, key=lambda folder: (times[folder], folder.name))


def named_by(pattern: str, start: Path) -> list[Path]:
    """The folder of that name, or else all that match the name as a pattern.

    Raises:
        UserError: there is none.
    """
    path = start / pattern
    try:
        if path.is_dir():
            return [path.resolve() if ".." in path.parts else path]
        if path.exists():
            raise UserError(f"sweep={pattern} is a file, not a folder: {path}")
        relative = Path(pattern)
        base, relative = (Path(path.anchor), path.relative_to(path.anchor)) if relative.anchor else (start, relative)
        folders = sorted(folder for folder in base.glob(str(relative)) if folder.is_dir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"sweep={pattern} cannot be a folder or a pattern of folders ({reason})") from None
    if not folders:
        raise UserError(f"no folder matches sweep={pattern} in {start}")
    return folders


def collect(folders: Iterable[Path]) -> Comparison:
    """Read every run in or below the folders.

    Raises:
        UserError: there is none.
    """
    folders = list(folders)
    records, remarks = records_in(folders)
    scored = scored_set(records)
    records = [record for record in records if has_scores(record, scored, remarks)]
    if not records:
        raise UserError(" ".join([f"there is no run to compare in {joined(folders)}.", *few(remarks)]))
    settings = [record["settings"] for record in records]
    columns = columns_of(settings)
    keys, follows = what_differs(columns)
    texts = {key: texts_of(key, settings, columns) for key in keys}
    table = pd.DataFrame([row_of(record, scored) for record in records])
    first = list(table.columns).index("seed")
    table = pd.concat([table.iloc[:, :first], pd.DataFrame(texts), table.iloc[:, first:]], axis=1)
    table, kept, repeated = without_repeats(table, keys)
    tables, damaged = tables_in([records[number] for number in kept], scored)
    said = [*few(remarks), *few(damaged), *repeated, *mixed(records), *unlike_truths(table, tables), *unfinished(table)]
    return Comparison(
        table=table,
        keys=keys,
        values={key: dict(zip(texts[key], (row.get(key) for row in settings), strict=True)) for key in keys},
        choices=frozenset(column_for(name) for record in records for name in record["choices"]),
        follows=follows,
        scored=scored,
        tables=tables,
        remarks=[shortened(plain(remark), 600) for remark in said],
    )


def records_in(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of all runs in or below the folders, each with its `folder` and `settings`; and what is wrong.

    A number that cannot be is taken out of its record.
    """
    records, remarks = [], []
    found = sorted({file.parent for folder in folders for file in folder.rglob(results.METRICS)}, key=natural)
    for folder in found:
        try:
            record = results.read(folder)
            if record:
                record |= {"folder": folder, "settings": settings_of(record)}
                remarks += without_impossible(record)
                records.append(record)
        except UserError as error:
            remarks.append(f"Left out: {error}.")
        except RecursionError:
            remarks.append(f"Left out: {folder / results.METRICS} is damaged (nested too deeply).")
    begun = {file.parents[1] for folder in folders for file in folder.rglob(".hydra/config.yaml")}
    if never := sorted(begun - set(found), key=natural):
        remarks.append(f"Left out: {joined([path.name for path in never])} never got as far as a {results.METRICS}.")
    return records, remarks


def without_impossible(record: dict[str, Any]) -> list[str]:
    """Take out of a record the accuracies, losses and times that cannot be; say which."""
    wrong = []
    metrics = record["metrics"]
    for name, value in list(metrics.items()):
        most = 1 if name.endswith("/accuracy") else math.inf
        if name.endswith(("/accuracy", "/loss")) and not (0 <= value <= most and value < math.inf):
            wrong.append(f"{name}={shown(metrics.pop(name))}")
    for name in ("seconds_per_epoch", "seconds", "peak_memory_mb"):
        value = record.get(name)
        if value is not None and not 0 < value < math.inf:
            wrong.append(f"{name}={shown(record.pop(name))}")
    return [f"Left out: {item} of {record['folder'] / results.METRICS} cannot be." for item in wrong]


def scored_set(records: Sequence[Mapping[str, Any]]) -> str:
    """The set whose scores count: "test", or "val" where only that was scored."""
    names = {name for record in records if record["status"] == "completed" for name in record["metrics"]}
    return "val" if "val/accuracy" in names and "test/accuracy" not in names else "test"


def has_scores(record: Mapping[str, Any], scored: str, remarks: list[str]) -> bool:
    """Tell whether a run, if completed, has the accuracies that a mean is made of; remark on it if not."""
    needed = ("train/accuracy", f"{scored}/accuracy", f"{scored}/loss")
    missing = [name for name in needed if name not in record["metrics"]] if record["status"] == "completed" else []
    left_out = any(name.endswith("/accuracy") for name in missing)
    if missing:
        path = record["folder"] / results.METRICS
        what = "Left out" if left_out else "Incomplete"
        remarks.append(f"{what}: {path} is of a completed run but has no {joined(missing)}.")
    return not left_out


def natural(path: Path) -> tuple[str, int, str]:
    """Sort 2_name before 10_name."""
    number = path.name.split("_")[0]
    return str(path.parent), int(number) if number.isdecimal() and len(number) < 19 else 0, path.name


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's choices and every value of its configuration, flat: {"engine": "manual", "optimizer.lr": 0.1, ...}."""
    choices, config = record["choices"], flat(record["config"])
    settings = choices | {f"config.{key}" if key in choices else key: value for key, value in config.items()}
    return {
        column_for(key): value
        for key, value in settings.items()
        if key not in NOT_A_CELL and not key.startswith(("logger.", "diagnostics."))
    }


def column_for(key: str) -> str:
    """A setting's column, unlike those of what was measured."""
    key = plain(key)
    taken = key.removesuffix(".low").removesuffix(".high") in TAKEN or "/" in key
    return f"config.{key}" if taken else key


def columns_of(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Of each setting that differs, and of those that always count, the runs' values as texts that no others share."""
    texts = [{name: canonical(value) for name, value in row.items()} for row in settings]
    names = dict.fromkeys([*ALWAYS, *(name for row in texts for name in row)])
    columns = {name: [row.get(name, UNSET) for row in texts] for name in names}
    return {name: column for name, column in columns.items() if name in ALWAYS or len(set(column)) > 1}


def texts_of(key: str, settings: Sequence[Mapping[str, Any]], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """A setting's values as they are shown; where two would read alike, as JSON writes them."""
    texts = [shown(row[key]) if key in row else UNSET for row in settings]
    return texts if len(set(texts)) == len(set(columns[key])) else list(columns[key])


def what_differs(columns: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, list[str]]]:
    """Find the settings that make cells, and those that only follow from one of them.

    Returns:
        the keys: activation, engine, regularizer, and every setting that differs without being decided by keys before
        it; and, of each key, the settings that it decides all alone. What is said of a group is not repeated of its
        options.
    """
    keys = list(ALWAYS)
    follows: dict[str, list[str]] = {}
    for name, values in columns.items():
        if name in ALWAYS:
            continue
        if not decided(values, [columns[key] for key in keys]):
            keys.append(name)
            continue
        group = name.split(".")[0]
        for key in keys:
            if group != key and decided(values, [columns[key]]):
                if group not in follows.get(key, ()):
                    follows.setdefault(key, []).append(name)
                break
    return keys, follows


def decided(values: Sequence[str], by: Sequence[Sequence[str]]) -> bool:
    """Tell whether values are a function of other columns."""
    seen: dict[tuple[str, ...], str] = {}
    return all(
        seen.setdefault(others, value) == value for others, value in zip(zip(*by, strict=True), values, strict=True)
    )


def row_of(record: Mapping[str, Any], scored: str) -> dict[str, Any]:
    """A run's row of the table, its settings left out."""
    metrics = {plain(name): value for name, value in record["metrics"].items() if "/" in name}
    reason, commit = record.get("reason"), record.get("commit")
    return {
        "run": plain(record["folder"].name),
        "folder": plain(str(record["folder"])),
        "status": record["status"],
        "reason": None if reason is None else plain(reason),
        "seed": record["seed"],
        "at_chance": record["status"] == "completed" and metrics[f"{scored}/accuracy"] < CHANCE,
        **metrics,
        **{key: record.get(key) for key in ("epochs", "seconds_per_epoch", "seconds", "peak_memory_mb")},
        "dataset": shown(record["choices"].get("data")),
        "commit": None if commit is None else plain(commit),
        **{f"version/{plain(name)}": plain(version) for name, version in record.get("versions", {}).items()},
    }


def without_repeats(table: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, list[int], list[str]]:
    """Keep the last of runs with the same cell and seed, which would count one experiment twice.

    Returns:
        the table; which of its rows these were; a sentence about it.
    """
    completed_last = table.assign(done=table.status == "completed").sort_values("done", kind="stable")
    kept = completed_last.drop_duplicates([*keys, "seed"], keep="last").drop(columns="done").sort_index()
    repeats = len(table) - len(kept)
    said = [f"{repeats} of {len(table)} runs repeat a cell and seed: only the last completed one of each counts."]
    return kept.reset_index(drop=True), kept.index.tolist(), said if repeats else []


def tables_in(records: Sequence[Mapping[str, Any]], scored: str) -> tuple[list[Tables], list[str]]:
    """The other files of every completed run, and what is wrong with them."""
    tables, remarks = [], []
    for record in records:
        found, said = Tables(), list[str]()
        if record["status"] == "completed":
            found, said = tables_of(record["folder"], scored, record.get("epochs"))
        tables.append(found)
        remarks += said
    return tables, remarks


def unlike_truths(table: pd.DataFrame, tables: Sequence[Tables]) -> list[str]:
    """Say which runs' predictions are of other test images than the others', or are missing where others have them."""
    by_truth: dict[bytes, list[str]] = {}
    missing = []
    for run, status, mine in zip(table.run, table.status, tables, strict=True):
        if mine.truth is not None:
            by_truth.setdefault(mine.truth.tobytes(), []).append(run)
        elif status == "completed":
            missing.append(run)
    said = []
    if len(by_truth) > 1:
        groups = "; ".join(joined(runs, most=4) for runs in list(by_truth.values())[:4])
        said.append(f"Not tested against each other: the {results.PREDICTIONS} of {groups} are of different images.")
    if by_truth and missing:
        said.append(f"Not tested image by image: {joined(missing)}, without a usable {results.PREDICTIONS}.")
    return said


def mixed(records: Sequence[Mapping[str, Any]]) -> list[str]:
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


def few(remarks: Sequence[str]) -> list[str]:
    """The first of many remarks, and how many more there are."""
    more = len(remarks) - MOST_REMARKS
    return [*remarks[:MOST_REMARKS], *([f"And {more} more of the kind."] if more > 0 else [])]


def shortened(text: str, most: int) -> str:
    """A text with the middle of a very long one left out."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-(most // 2) :]}"
