"""Load runs into a table: a row per run, a column per factor and metric."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from handgrad.comparison.cells import column_for, columns_of, find_factors, settings_of, texts_of
from handgrad.comparison.images import on_same_images, without_predictions
from handgrad.comparison.metrics import find_metric
from handgrad.comparison.reference import match_reference, read_reference
from handgrad.comparison.table import CompareOptions, Comparison, gap, short_names
from handgrad.errors import UserError
from handgrad.runs.folder import METRICS, is_locked
from handgrad.runs.record import read_record
from handgrad.runs.tables import RunTables, read_run_tables
from handgrad.text import escape_control, format_value, join_names, shortened

NOT_LEARNED = ("at chance", "hardly learned", "collapsed")  # outcomes of completed runs that did not learn
STATUSES = ("completed", "diverged", "failed", "running")
MOST_REMARKS = 30  # most remarks on single files; nobody reads more


def load_runs(folders: Iterable[Path], asked: CompareOptions | None = None) -> Comparison:
    """Read every run in or below the folders.

    Args:
        folders: folders with runs in or below them.
        asked: the options; the defaults if None.

    Raises:
        UserError: there is no run, or the options do not fit the runs.
    """
    asked = asked or CompareOptions()
    records, scored, remarks = usable_records(list(folders), asked.where)
    tables, damaged = tables_in(records, scored)
    kept, others = on_same_images(records, tables, scored)
    records, tables = [records[number] for number in kept], [tables[number] for number in kept]
    settings = [record["settings"] for record in records]
    columns = columns_of(settings)
    differing, follows = find_factors(columns)
    keys = differing if asked.group is None else [full_name(name, differing) for name in asked.group]
    texts = {key: texts_of(key, settings, columns) for key in differing}
    table = table_of(records, texts)
    compared_by = find_metric(asked.metric, scored, measured_columns(table, scored))
    if asked.reference is not None:
        printed = read_reference(asked.reference, compared_by)
        table["reference"], sentence = match_reference(printed, settings, asked.reference)
        remarks.append(sentence)
    table, kept, repeated = without_repeats(table, differing)
    tables = [tables[number] for number in kept]
    limits = learning_limits(table, tables, scored)
    outcomes = [outcome(row, mine, scored, limits) for row, mine in zip(table.to_dict("records"), tables, strict=True)]
    table.insert(list(table.columns).index("status") + 1, "outcome", outcomes)
    said = [*few(remarks), *others, *few(damaged), *repeated, *pooled_over(table, keys, differing)]
    said += [*mixed(records), *without_predictions(table.run, table.status, tables), *unfinished(table, limits[1])]
    values = {key: dict(zip(texts[key], (row.get(key) for row in settings), strict=True)) for key in keys}
    choices = frozenset(column_for(name) for record in records for name in record["choices"])
    said = [shortened(escape_control(remark), 600) for remark in said]
    return Comparison(table, asked, compared_by, keys, values, choices, follows, scored, tables, said)


def usable_records(folders: Sequence[Path], where: str | None) -> tuple[list[dict[str, Any]], str, list[str]]:
    """Read the records that have scores and that a condition holds for; also the scored set, and remarks.

    Raises:
        UserError: there are none, or the condition cannot be evaluated.
    """
    records, remarks = records_in(folders)
    scored = scored_set(records)
    records = [record for record in records if has_scores(record, scored, remarks)]
    if not records:
        raise UserError(" ".join([f"there is no run to compare in {joined(folders)}.", *few(remarks)]))
    if where is not None:
        every, records = len(records), chosen(records, scored, where)
        remarks.append(f"where={where} chose {len(records)} of {every} runs.")
    return records, scored, remarks


def table_of(records: Sequence[Mapping[str, Any]], texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Build the table, one row per run: measurements, and before the seed the varying settings as texts."""
    table = pd.DataFrame([row_of(record) for record in records])
    first = list(table.columns).index("seed")
    return pd.concat([table.iloc[:, :first], pd.DataFrame(texts), table.iloc[:, first:]], axis=1)


def measured_columns(table: pd.DataFrame, scored: str) -> list[str]:
    """Return the columns with a value for some run; always those of the scored set, even before a run is completed."""
    usual = ["train/accuracy", f"{scored}/accuracy", f"{scored}/loss"]
    return list(dict.fromkeys([*usual, *(name for name in table if table[name].notna().any())]))


def chosen(records: Sequence[dict[str, Any]], scored: str, condition: str) -> list[dict[str, Any]]:
    """Return the records that satisfy a condition.

    Source: pandas.DataFrame.eval; columns are those of table.csv, and settings that are equal in all runs.

    Raises:
        UserError: the condition cannot be evaluated, or no run satisfies it.
    """
    table = pd.DataFrame([row_of(record) | record["settings"] for record in records])
    if f"{scored}/accuracy" in table:
        table["gap"] = gap(table, scored)
    try:
        holds = table.eval(condition, engine="python")
        if not isinstance(holds, pd.Series) or holds.dtype != bool:
            raise ValueError("it is not true or false of each run")
    except Exception as error:  # pandas lets any exception of the expression through
        raise UserError(
            f"invalid value where={condition} ({' '.join(str(error).split()) or type(error).__name__}): write a "
            "comparison of columns of table.csv, names with signs in them in backticks: "
            "where='seed < 3 and `optimizer.lr` > 0.01'"
        ) from None
    if not holds.any():
        raise UserError(f"where={condition} holds for none of {len(records)} runs")
    return [record for record, kept in zip(records, holds, strict=True) if kept]


def keys_called(name: str, keys: Sequence[str]) -> list[str]:
    """Return the keys with that full or short name."""
    return [key for key, short in short_names(keys).items() if name in (key, short)]


def full_name(name: str, keys: Sequence[str]) -> str:
    """Return the key with that full or short name.

    Raises:
        UserError: there is no such key.
    """
    found = keys_called(name, keys)
    if not found:
        raise UserError(f"invalid value group={name}: what differs here is {joined(keys, most=30)}")
    return found[0]


def pooled_over(table: pd.DataFrame, keys: Sequence[str], differing: Sequence[str]) -> list[str]:
    """Say which varying settings are pooled because `group` leaves them out."""
    others = [key for key in differing if key not in keys and table[key].nunique() > 1]
    return [f"Pooled over {joined(others)}: of a cell's runs with one seed, the mean counts."] if others else []


def learning_limits(table: pd.DataFrame, tables: Sequence[RunTables], scored: str) -> tuple[float, float]:
    """Return the accuracy out of reach of guessing, and the one from which a run has learned.

    Out of reach: three standard deviations above always answering the most frequent class of the scored images; 0 if
    no run tells their classes. Learned: half of the way from there to the best run of the comparison.
    """
    counts = next((mine.confusion.sum(axis=1) for mine in tables if mine.confusion is not None), None)
    if counts is None:
        truth = next((mine.truth for mine in tables if mine.truth is not None), None)
        counts = np.zeros(1) if truth is None else np.bincount(truth).astype(float)
    images = counts.sum()
    share = counts.max() / images if images else 0.0
    chance = min(1.0, share + 3 * (share * (1 - share) / max(images, 1.0)) ** 0.5)
    column = f"{scored}/accuracy"
    done = table.loc[table.status == "completed", column].dropna() if column in table else []
    best = max(done, default=chance)
    return chance, max(chance, (chance + best) / 2)


def outcome(row: Mapping[str, Any], tables: RunTables, scored: str, limits: tuple[float, float]) -> str:
    """Return a run's outcome: its status or, if completed, whether it learned, by its history if it has one."""
    final = row.get(f"{scored}/accuracy")
    if row["status"] != "completed" or final is None:
        return str(row["status"])
    chance, learned = limits
    if final >= learned:
        return "learned"
    history = (tables.history or {}).get(f"{scored}/accuracy")
    highest = max(final, final if history is None else np.nanmax(history, initial=final))
    return NOT_LEARNED[int(highest >= chance) + int(highest >= learned)]


def records_in(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the records of all runs in or below the folders, adding `folder` and `settings`; return remarks as well.

    Impossible numbers are removed from their records.
    """
    records, remarks = [], []
    found = sorted({file.parent for folder in folders for file in folder.rglob(METRICS)}, key=natural)
    for folder in found:
        try:
            record = read_record(folder)
            if record:
                record |= {"folder": folder, "settings": settings_of(record)}
                if record["status"] == "running" and not is_locked(folder):
                    record |= {"status": "failed", "reason": "interrupted"}
                remarks += without_impossible(record)
                records.append(record)
        except UserError as error:
            remarks.append(f"Left out: {error}.")
        except RecursionError:
            remarks.append(f"Left out: {folder / METRICS} is damaged (nested too deeply).")
    begun = {file.parents[1] for folder in folders for file in folder.rglob(".hydra/config.yaml")}
    if never := sorted(begun - set(found), key=natural):
        remarks.append(f"Left out: {joined([path.name for path in never])} never got as far as a {METRICS}.")
    return records, remarks


def without_impossible(record: dict[str, Any]) -> list[str]:
    """Remove impossible accuracies, losses and times from a record; return a remark on each."""
    wrong = []
    metrics = record["metrics"]
    for name, value in list(metrics.items()):
        most = 1 if name.endswith("/accuracy") else math.inf
        if name.endswith(("/accuracy", "/loss")) and not (0 <= value <= most and value < math.inf):
            wrong.append(f"{name}={format_value(metrics.pop(name))}")
    for name in ("seconds_per_epoch", "seconds", "peak_memory_mb"):
        value = record.get(name)
        if value is not None and not 0 < value < math.inf:
            wrong.append(f"{name}={format_value(record.pop(name))}")
    return [f"Left out: {item} of {record['folder'] / METRICS} is impossible." for item in wrong]


def scored_set(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the set to evaluate by: "test", or "val" if only that was scored."""
    names = {name for record in records if record["status"] == "completed" for name in record["metrics"]}
    return "val" if "val/accuracy" in names and "test/accuracy" not in names else "test"


def has_scores(record: Mapping[str, Any], scored: str, remarks: list[str]) -> bool:
    """Tell whether a run, if completed, has the accuracies that means need; add a remark if a score is missing."""
    needed = ("train/accuracy", f"{scored}/accuracy", f"{scored}/loss")
    missing = [name for name in needed if name not in record["metrics"]] if record["status"] == "completed" else []
    left_out = any(name.endswith("/accuracy") for name in missing)
    if missing:
        path = record["folder"] / METRICS
        what = "Left out" if left_out else "Incomplete"
        remarks.append(f"{what}: {path} is of a completed run but has no {joined(missing)}.")
    return not left_out


def natural(path: Path) -> tuple[str, int, str]:
    """Return a sort key that puts 2_name before 10_name."""
    number = path.name.split("_")[0]
    return str(path.parent), int(number) if number.isdecimal() and len(number) < 19 else 0, path.name


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's row of the table, without its settings."""
    metrics = {escape_control(name): value for name, value in record["metrics"].items() if "/" in name}
    reason, commit = record.get("reason"), record.get("commit")
    return {
        "run": escape_control(record["folder"].name),
        "folder": escape_control(str(record["folder"])),
        "status": record["status"],
        "reason": None if reason is None else escape_control(reason),
        "seed": record["seed"],
        **metrics,
        **{key: record.get(key) for key in ("epochs", "seconds_per_epoch", "seconds", "peak_memory_mb")},
        "dataset": format_value(record["choices"].get("data")),
        "commit": None if commit is None else escape_control(commit),
        **{
            f"version/{escape_control(name)}": escape_control(version)
            for name, version in record.get("versions", {}).items()
        },
    }


def without_repeats(table: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, list[int], list[str]]:
    """Keep one run per cell and seed, the last completed one if any: an experiment must count only once.

    Returns:
        the table; the row numbers that it kept; a remark if there were repeats.
    """
    completed_last = table.assign(done=table.status == "completed").sort_values("done", kind="stable")
    kept = completed_last.drop_duplicates([*keys, "seed"], keep="last").drop(columns="done").sort_index()
    repeats = len(table) - len(kept)
    said = [f"{repeats} of {len(table)} runs repeat a cell and seed: only the last completed one of each counts."]
    return kept.reset_index(drop=True), kept.index.tolist(), said if repeats else []


def tables_in(records: Sequence[Mapping[str, Any]], scored: str) -> tuple[list[RunTables], list[str]]:
    """Read the other files of every completed run; return remarks on damaged ones as well."""
    tables, remarks = [], []
    for record in records:
        found, said = RunTables(), list[str]()
        if record["status"] == "completed":
            found, said = read_run_tables(record["folder"], scored, record.get("epochs"))
        tables.append(found)
        remarks += said
    return tables, remarks


def mixed(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say whether runs differ in data folder, library versions or commit."""
    said = []
    roots = sorted({str(record["settings"].get("data.root")) for record in records})
    if len(roots) > 1:
        said.append(f"The runs have different values of data.root ({joined(roots)}): their images may differ.")
    for name in sorted({name for record in records for name in record.get("versions", {})}):
        versions = sorted({str(record.get("versions", {}).get(name)) for record in records})
        if len(versions) > 1:
            said.append(f"The runs were made with different versions of {name} ({joined(versions)}).")
    if len({record.get("commit") for record in records}) > 1:
        said.append("The runs were made with different commits of this project.")
    return said


def unfinished(table: pd.DataFrame, learned: float) -> list[str]:
    """Say which runs are excluded from every mean, and which completed without learning."""
    said = []
    for status, what in (
        ("running", "still running"),
        ("failed", "failed or were interrupted"),
        ("diverged", "diverged"),
    ):
        runs = table[table.status == status]
        if len(runs):
            said.append(f"{len(runs)} of {len(table)} runs {what} and are part of no mean: {joined(runs.run)}.")
    for what in NOT_LEARNED:
        runs = table[table.outcome == what]
        if len(runs):
            below = f"accuracy below {learned:.0%}" + (", once above" if what == "collapsed" else "")
            said.append(f"{len(runs)} of {len(table)} runs {what} ({below}): {joined(runs.run)}.")
    return said


def joined(names: Iterable[Any], most: int = 8) -> str:
    """Join names; of a long list, the first few."""
    return join_names([str(name) for name in names], most)


def few(remarks: Sequence[str]) -> list[str]:
    """Return at most MOST_REMARKS remarks, and the number of the others."""
    more = len(remarks) - MOST_REMARKS
    return [*remarks[:MOST_REMARKS], *([f"And {more} more of the kind."] if more > 0 else [])]
