"""This project's runs: their records and other files, and which of them can be compared."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handgrad.comparison.cells import settings_of
from handgrad.errors import UserError
from handgrad.runs.folder import METRICS, is_locked
from handgrad.runs.record import read_record
from handgrad.runs.tables import RunTables, read_run_tables
from handgrad.text import format_value, join_names

MOST_REMARKS = 30  # most remarks on single files; nobody reads more
FIELDS = {"status", "choices", "config"}  # of this project's records


@dataclass(frozen=True)
class Runs:
    """Runs as they were read.

    records: of each run: folder, status, reason, seed, settings, metrics, choices, times.
    remarks: sentences about files and runs that were left out, or on what was assumed.
    scored: the scored set, "test" or "val".
    tables: of each run of this project, its other files.
    own: whether they are this project's.
    paired: whether equal seeds mean equal random numbers; False if repeats were only numbered.
    """

    records: list[dict[str, Any]]
    remarks: list[str]
    scored: str = "test"
    tables: list[RunTables] = field(default_factory=list)
    own: bool = True
    paired: bool = True


def read_own(folders: Sequence[Path]) -> Runs:
    """Read this project's runs that have scores."""
    records, remarks = records_in(folders)
    scored = scored_set(records)
    return Runs([record for record in records if has_scores(record, scored, remarks)], remarks, scored)


def records_in(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the records of all runs in or below the folders, adding `folder` and `settings`; return remarks as well.

    Impossible numbers are removed from their records.
    """
    records, remarks, others = [], [], 0
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
            fields = fields_in(folder)
            foreign = fields is not None and not fields & FIELDS
            others += foreign
            remarks += [] if foreign else [f"Left out: {error}."]
        except RecursionError:
            remarks.append(f"Left out: {folder / METRICS} is damaged (nested too deeply).")
    if others:
        remarks.append(f"Left out: {others} runs of another project, by their {METRICS}.")
    begun = {file.parents[1] for folder in folders for file in folder.rglob(".hydra/config.yaml")}
    if never := sorted(begun - set(found), key=natural):
        remarks.append(f"Left out: {joined(path.name for path in never)} ended before writing a {METRICS}.")
    return records, remarks


def fields_in(folder: Path) -> set[str] | None:
    """Return the fields of a run's `metrics.json`; None if it is not a JSON object."""
    try:
        record = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return set(record) if isinstance(record, dict) else None


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


def natural(path: Path) -> list[Any]:
    """Return a sort key that puts 2_name before 10_name."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def tables_in(records: Sequence[Mapping[str, Any]], scored: str) -> tuple[list[RunTables], list[str]]:
    """Read the other files of every completed run; return remarks on damaged ones as well."""
    read = [
        read_run_tables(record["folder"], scored, record.get("epochs"), record.get("classes", 10))
        if record["status"] == "completed"
        else (RunTables(), [])
        for record in records
    ]
    return [tables for tables, _ in read], [remark for _, said in read for remark in said]


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


def joined(names: Iterable[Any], most: int = 8) -> str:
    """Join names; of a long list, the first few."""
    return join_names([str(name) for name in names], most)


def few(remarks: Sequence[str]) -> list[str]:
    """Return at most MOST_REMARKS remarks, and the number of the others."""
    more = len(remarks) - MOST_REMARKS
    return [*remarks[:MOST_REMARKS], *([f"And {more} more of this kind."] if more > 0 else [])]
