"""Runs of other projects: from a table with a row per run, or the folders of another Hydra project."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

from handgrad.comparison import foreign_table
from handgrad.comparison.cells import TAKEN, column_for, decided
from handgrad.comparison.own import FIELDS, Runs, fields_in, natural
from handgrad.errors import UserError, did_you_mean
from handgrad.runs.folder import METRICS
from handgrad.text import canonical, counted, escape_control, flatten, join_names

CONFIG = ".hydra/config.yaml"
SCORES = re.compile(r".*(?:metric|result|score|summary|eval).*\.json", re.I)
RUN_NAME = re.compile(  # settings that name a run, if no two runs share a value
    r"name|id|version|timestamp|loggers?\..*|"
    r"(?:.*\.)?(?:(?:exp|experiment|job|run|task)_?(?:name|id)|dirpath|(?:default_root|log|output|run|save|work)_?dir)"
)
ROW_NAME = re.compile(rf"(?:config\.)?(?:{'|'.join(foreign_table.NAMES)})", re.I)  # the same, of a table's rows
NO_METRIC = {"epoch", "step", "hp_metric"}  # columns and tags that Lightning's loggers add


def read_table(
    table: Path | pd.DataFrame,
    seed: str | None = None,
    metric: str | None = None,
    keys: Sequence[str] | None = None,
) -> Runs:
    """Read a table with a row per run: a data frame or a CSV file.

    Args:
        table: a file is separated by commas or, if its header has none, by semicolons, tabs or bars: an export of
            Weights & Biases, MLflow's `search_runs`, scikit-learn's `cv_results_`, or a table of your own.
        seed: column of the seed; None: found by name, and without any, equal settings are repeats.
        metric: a column that is a metric in any case.
        keys: the columns that are settings; None: by prefix ("params.", "metrics."), else by name and repetition.

    Raises:
        UserError: the file cannot be read, has no metric, or has no such column.
    """
    if isinstance(table, pd.DataFrame):
        table = table.reset_index() if any(name is not None for name in table.index.names) else table
        if table.columns.nlevels > 1:
            table = table.set_axis(
                [".".join(str(part) for part in name if part != "") for name in table.columns], axis=1
            )
        return complete(*foreign_table.records_of(table, "table", seed, metric, keys), keys)
    if table.suffix.lower() in (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".json", ".pkl"):
        raise UserError(f"table={table} is not a CSV file: save it as CSV, a row per run")
    try:
        rows = foreign_table.read_rows(table)
    except UnicodeDecodeError:
        raise UserError(f"table={table} is not UTF-8 text: save it as CSV in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UserError(f"table={table} cannot be read ({reason}): give a CSV file, a row per run") from None
    return complete(*foreign_table.records_of(rows, f"table={table}", seed, metric, keys), keys)


def read_folders(folders: Sequence[Path], seed: str | None = None) -> Runs:
    """Read another Hydra project's runs in or below the folders; runs with a record of this project are skipped.

    Settings are those of `.hydra/config.yaml`, interpolations unresolved. Metrics are the last values in the newest
    `metrics.csv` (Lightning's CSVLogger), or else in a JSON file of numbers, or else in TensorBoard's event files.
    The seed is the setting of that name; if None, it is found by name, and without any, equal settings are repeats.

    Raises:
        UserError: the runs have no such setting.
    """
    runs = {file.parents[1] for folder in folders for file in folder.rglob(CONFIG)}
    records, remarks = [], []
    for folder in sorted(runs, key=natural):
        if (fields_in(folder) or set()) >= FIELDS:
            continue
        try:
            settings = settings_in(folder)
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            remarks.append(f"Left out: {folder / CONFIG} is damaged ({one_line(error)}).")
            continue
        files = [file for file in folder.rglob("*") if next(each for each in file.parents if each in runs) == folder]
        metrics, damaged = metrics_in(folder, files)
        remarks += damaged
        records.append({"folder": folder, "settings": settings, "metrics": metrics})
    return complete(records, [*remarks, *lacking_metrics(records)], seed)


def lacking_metrics(records: Sequence[dict[str, Any]]) -> list[str]:
    """Name the runs without a metric that most others have: they may have been interrupted."""
    counts = Counter(name for record in records for name in record["metrics"])
    usual = {name for name, many in counts.items() if 2 * many > len(records)}
    lacking = {record["folder"].name: usual - record["metrics"].keys() for record in records if record["metrics"]}
    names = [f"{folder} ({join_names(sorted(missing))})" for folder, missing in lacking.items() if missing]
    return [f"Perhaps unfinished, lacking a metric that most runs have: {join_names(names)}."] if names else []


def complete(
    records: list[dict[str, Any]], remarks: Sequence[str], seed: str | None, keys: Sequence[str] | None = None
) -> Runs:
    """Convert the records to this project's form: seed, status, unique folder, finite metrics, names of columns."""
    remarks = [*remarks, *(drop_run_names(records) if keys is None else [])]
    paired, said = take_seeds(records, seed, keys or ())
    lost: Counter[str] = Counter()
    taken: set[str] = set()
    for row, record in enumerate(records):
        values = {escape_control(name): float(value) for name, value in record["metrics"].items()}
        metrics = {name: value for name, value in values.items() if math.isfinite(value)}
        lost.update(values.keys() - metrics.keys())
        metrics = {f"metric.{name}" if name in TAKEN else name: value for name, value in metrics.items()}
        settings = {column_for(name): value for name, value in record["settings"].items()}
        record["settings"] = {f"config.{key}" if key in metrics else key: value for key, value in settings.items()}
        status = foreign_table.STATUS.get(str(record.get("status")).lower(), "completed" if metrics else "failed")
        record |= {"metrics": metrics, "status": status, "choices": {}}
        record["seconds"] = seconds_in(record.get("seconds"))
        name = record.pop("name", None)
        if record["folder"] is None:
            name = f"run {row + 1}" if name is None else str(name)
            names = chain([name], (f"{name} ({number})" for number in count(2)))
            record["folder"] = Path(next(name for name in names if name not in taken))
            taken.add(str(record["folder"]))
    if lost:
        said.append(f"Left out: {counted(lost.total(), 'value')}, NaN or infinite, of {join_names(sorted(lost))}.")
    return Runs(records, [*remarks, *said], own=False, paired=paired)


def drop_run_names(records: Sequence[dict[str, Any]], names: re.Pattern[str] = RUN_NAME) -> list[str]:
    """Drop the settings that only name a run: its own path, or a name or folder that no other run has."""
    rows = [record["settings"] for record in records]
    paths = [f"/{folder.parent.name}/{folder.name}/" if (folder := record["folder"]) else None for record in records]
    own = set()
    for name in dict.fromkeys(name for row in rows for name in row):
        texts = [canonical(row.get(name)) for row in rows]
        differ = len(set(texts)) == len(rows) > 1
        inside = any(path and path in f"/{text[1:-1]}/" for path, text in zip(paths, texts, strict=True))
        if inside or (differ and names.fullmatch(name)):
            own.add(name)
    for record in records:
        record["settings"] = {name: value for name, value in record["settings"].items() if name not in own}
    return [f"Left out: settings that name a run ({join_names(sorted(own))})."] if own else []


def take_seeds(
    records: Sequence[dict[str, Any]], asked: str | None, keys: Sequence[str] = ()
) -> tuple[bool, list[str]]:
    """Move the seed from the settings to the record; without any, number the runs of equal settings.

    Of several seeds that are no keys, the least nested one that varies counts, and the others are dropped: runs of one
    cell and seed are averaged. Return whether equal seeds mean equal randomness, and remarks.
    """
    if not records:
        return False, []
    rows = [record["settings"] for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    if asked is not None and asked not in names:
        hint = did_you_mean(str(asked), [*names])
        raise UserError(f"seed={asked} is not a setting of these runs: {hint}they have {join_names([*names], 20)}")
    columns = {name: [row.get(name) for row in rows] for name in names if name not in keys}
    own = foreign_table.seeds_in(columns)
    found = [name for name in columns if name == asked or name in own]
    seeds = {name: [canonical(row.get(name)) for row in rows] for name in found}
    known = [name for name in found if name == asked or set(seeds[name]) != {"null"}]
    if not known:
        counts: Counter[str] = Counter()
        for record in records:
            record["seed"] = counts[text := canonical(record["settings"])]
            counts[text] += 1
        return False, ["There is no seed: runs with equal settings are numbered as repeats, and form no pairs."]
    depths = {
        name: (name != asked, len(set(seeds[name])) == 1, "seed" not in name.lower(), len(re.split(r"[./]|__", name)))
        for name in known
    }
    seed = min(known, key=depths.__getitem__)
    averaged = [name for name in known if not decided(seeds[name], [seeds[seed]])]
    missing = 0
    for record, row in zip(records, rows, strict=True):
        value = row.get(seed)
        missing += value is None
        record["seed"] = value if isinstance(value, int) else f"unknown {missing}" if value is None else str(value)
        record["settings"] = {name: each for name, each in row.items() if name not in known}
    said = [f"{missing} of {len(records)} runs have no seed, and form no pairs."] if missing else []
    if averaged:
        said.append(f"Averaged over {join_names(averaged)} within each {seed}: group=[...] or seed=... override this.")
    return True, said


def seconds_in(value: Any) -> float | None:
    """Return a duration in seconds, given as a number or as a text like "0 days 00:01:30"; None if it is neither."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = pd.Timedelta(value).total_seconds()
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None


def settings_in(folder: Path) -> dict[str, Any]:
    """Read the flattened configuration of a run."""
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("it is not a mapping")
    config.pop("hydra", None)
    plain = json.loads(json.dumps(config, default=str))  # dates, and keys that are numbers, as texts
    return {name: foreign_table.whole(value) for name, value in flatten(plain).items()}


def metrics_in(folder: Path, files: Sequence[Path]) -> tuple[dict[str, float], list[str]]:
    """Read the metrics of a run from the first source that has some; return remarks on damaged ones as well."""
    tables = [file for file in files if file.name == "metrics.csv"]
    objects = [file for file in files if SCORES.fullmatch(file.name)]
    events = {file.parent for file in files if "tfevents" in file.name}
    objects.sort(key=lambda file: (file != folder / METRICS, len(file.parts), natural(file)))
    remarks = []
    sources = [(last_row, newest(tables)), (numbers_in, objects), (last_scalars, newest(events))]
    for read, path in [(read, path) for read, paths in sources for path in paths]:
        try:
            metrics = read(path)
        except (OSError, ValueError, ArithmeticError, RecursionError) as error:
            remarks.append(f"Left out: {path} is damaged ({one_line(error)}).")
            continue
        if found := {name: value for name, value in metrics.items() if name not in NO_METRIC}:
            return found, remarks
    return {}, remarks


def newest(paths: Iterable[Path]) -> list[Path]:
    """Return the path of the newest version, numbered as Lightning's loggers do; nothing if there is no path."""

    def older(path: Path) -> tuple[int, int, list[Any]]:
        version = re.findall(r"version_(\d+)", str(path))
        return -int(version[-1]) if version else 1, len(path.parts), natural(path)

    return sorted(paths, key=older)[:1]


def last_row(path: Path) -> dict[str, float]:
    """Read the last value of every column of numbers; Lightning leaves a row's other columns empty."""
    if not path.read_bytes().endswith(b"\n"):
        raise ValueError("its last line is cut short")
    columns = {str(name): foreign_table.typed(column) for name, column in foreign_table.read_rows(path).items()}
    given = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {name: values[-1] for name, values in given.items() if foreign_table.is_numeric(values)}


def numbers_in(path: Path) -> dict[str, float]:
    """Read the numbers of a JSON object; nested names are joined by slashes, and private ones ("_step") left out."""

    def walk(value: Any, name: str) -> Iterator[tuple[str, float]]:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
        for key, each in value.items() if isinstance(value, dict) else ():
            if not key.startswith("_"):
                yield from walk(each, f"{name}/{key}" if name else key)

    content = json.loads(path.read_text(encoding="utf-8"))
    return dict(walk(content, "")) if isinstance(content, dict) else {}


def last_scalars(folder: Path) -> dict[str, float]:
    """Read the last value of every scalar in TensorBoard's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it announces every file
    events = EventAccumulator(str(folder), size_guidance={"scalars": 1})  # of a tag, keeps the last value
    events.Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


def one_line(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split())
