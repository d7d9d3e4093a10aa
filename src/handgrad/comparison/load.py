"""Load runs into a table: a row per run, a column per factor and metric."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from handgrad.comparison.again import start_of
from handgrad.comparison.cells import ALWAYS, column_for, columns_of, find_factors, texts_of
from handgrad.comparison.foreign import ROW_NAME, drop_run_names, read_folders, read_table
from handgrad.comparison.foreign_table import MEASURED
from handgrad.comparison.images import on_same_images, without_predictions
from handgrad.comparison.metrics import Metric, find_metric, foreign_metric, is_share
from handgrad.comparison.outcomes import learning_limits, outcome, unfinished
from handgrad.comparison.own import Runs, few, joined, mixed, read_own, tables_in
from handgrad.comparison.reference import match_reference, read_reference
from handgrad.comparison.table import CompareOptions, Comparison, called, gap, short_names
from handgrad.errors import UserError, did_you_mean
from handgrad.runs.tables import RunTables
from handgrad.text import counted, escape_control, format_value, shortened

OTHERS = (
    "Runs of other projects need .hydra/config.yaml, and metrics.csv, a JSON file named after metrics, results "
    "or scores, or TensorBoard's event files."
)
STATUSES = ("completed", "diverged", "failed", "running")
SETS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing", "holdout"}


def load_runs(folders: Iterable[Path], asked: CompareOptions | None = None) -> Comparison:
    """Read every run in or below the folders, or in the table that was asked for.

    Folders may hold runs of this project or, if there is none, of another Hydra project.

    Raises:
        UserError: there is no run, or the options do not fit the runs.
    """
    asked, folders = asked or CompareOptions(), list(folders)
    runs = runs_asked_for(folders, asked)
    settings, always = [record["settings"] for record in runs.records], ALWAYS if runs.own else ()
    columns = columns_of(settings, always)
    differing, follows = find_factors(columns, always)
    keys, remarks = differing, list(runs.remarks)
    if asked.group is not None:
        keys, equal = keys_asked_for(asked.group, settings, columns)
        differing = [*differing, *(key for key in keys if key not in differing)]
        remarks += [f"Equal in all runs: {joined(equal)}."] if equal else []
    elif asked.table is not None:
        one_row_per_run({key: {row.get(key) for row in settings} for key in differing})
    if not differing:
        hint = "there is nothing to compare" if runs.own else "name the columns that are settings by group=[...]"
        raise UserError(" ".join([f"no setting differs between {counted(len(settings), 'run')}: {hint}.", *remarks]))
    texts = {key: texts_of(key, settings, columns) for key in differing}
    table = table_of(runs.records, texts)
    remarks += drop_parallel_times(table, folders)
    metric = metric_of(runs, table, asked)
    if asked.reference is not None:
        printed = read_reference(asked.reference, metric)
        table["reference"], sentence = match_reference(printed, settings, asked.reference)
        remarks.append(sentence)
    table, tables, said = with_outcomes(runs, table, differing, keys)
    return Comparison(
        table=table,
        asked=asked,
        metric=metric,
        keys=keys,
        values={key: dict(zip(texts[key], (row.get(key) for row in settings), strict=True)) for key in keys},
        choices=frozenset(column_for(name) for record in runs.records for name in record["choices"]),
        follows=follows,
        scored=runs.scored,
        tables=tables,
        remarks=clean([*remarks, *said]),
        caveats=[] if runs.own else clean([*mixed_scales(metric, table), *left_out(runs.records, table, keys)]),
        paired=runs.paired,
        own=runs.own,
    )


def clean(sentences: Iterable[str]) -> list[str]:
    """Shorten sentences, and escape what would control a terminal."""
    return [shortened(escape_control(sentence), 600) for sentence in sentences]


def runs_asked_for(folders: Sequence[Path], asked: CompareOptions) -> Runs:
    """Read the runs of a table, or of folders (this project's, else another's), for which `where` holds."""
    if asked.table is not None:
        runs = read_table(asked.table, asked.seed, asked.metric, asked.group)
    elif not (runs := read_own(folders)).records:
        said = few(runs.remarks)
        runs = read_folders(folders, asked.seed)
        if not any(record["metrics"] for record in runs.records):
            raise UserError(" ".join([f"there is no run to compare in {joined(folders)}.", *said, OTHERS]))
    elif given := [name for name in ("better", "seed", "unit") if getattr(asked, name) is not None]:
        raise UserError(f"{given[0]}= is for table= and for other projects' runs: these are this project's")
    records, filtered = where_holds(runs.records, runs.scored, asked.where)
    if asked.table is not None and asked.where is not None and asked.group is None:  # one row of each run may be left
        filtered += drop_run_names(records, ROW_NAME)
    remarks = few([*runs.remarks, *filtered])
    if not runs.own:
        return Runs(records, remarks, runs.scored, own=False, paired=runs.paired)
    tables, damaged = tables_in(records, runs.scored)
    kept, others = on_same_images(records, tables, runs.scored)
    said = [*remarks, *others, *few(damaged)]
    return Runs([records[number] for number in kept], said, runs.scored, [tables[number] for number in kept])


def one_row_per_run(values: Mapping[str, Collection[Any]]) -> None:
    """Refuse a table, given by its settings' values, with several rows per run: one per set of examples or metric."""
    for key, given in values.items():
        if not all(isinstance(value, str) for value in given):
            continue
        distinct = sorted(given)
        named = key.rpartition(".")[2].lower() in ("metric", "metric_name", "measure", "variable")
        if {value.lower() for value in distinct} <= SETS or (named and all(map(MEASURED.fullmatch, distinct))):
            chosen = next((value for value in distinct if value.lower() in ("test", "testing")), distinct[0])
            column = key if key.isidentifier() else f"`{key}`"
            raise UserError(
                f"{key} tells results of one run apart ({joined(distinct)}), and each row must be a run: choose one "
                f"result by where='{column} == \"{chosen}\"', or compare them by group=[...,{key}]"
            )


def metric_of(runs: Runs, table: pd.DataFrame, asked: CompareOptions) -> Metric:
    """Return the metric that was asked for; the scored set's are known even before a run is completed."""
    if runs.own:
        usual = ["train/accuracy", f"{runs.scored}/accuracy", f"{runs.scored}/loss"]
        measured = [name for name in table if table[name].notna().any()]
        return find_metric(asked.metric, runs.scored, list(dict.fromkeys([*usual, *measured])))
    measured = sorted({name for record in runs.records for name in record["metrics"]})
    return foreign_metric(asked.metric, asked.better, asked.unit, table, measured)


def with_outcomes(
    runs: Runs, table: pd.DataFrame, differing: Sequence[str], keys: Sequence[str]
) -> tuple[pd.DataFrame, list[RunTables], list[str]]:
    """Drop repeated runs of this project and add the column `outcome`; return the runs' other files and remarks too."""
    place = list(table.columns).index("status") + 1
    if not runs.own:
        table.insert(place, "outcome", table.status)
        said = [*counted_by_mean(table, differing), *pooled_over(table, keys, differing)]
        return table, [RunTables()] * len(table), said + unfinished(table, 0.0)
    table, kept, repeated = without_repeats(table, differing)
    tables = [runs.tables[number] for number in kept]
    limits = learning_limits(table, tables, runs.scored)
    rows = zip(table.to_dict("records"), tables, strict=True)
    table.insert(place, "outcome", [outcome(row, mine, runs.scored, limits) for row, mine in rows])
    said = [*repeated, *pooled_over(table, keys, differing), *mixed(runs.records)]
    said += without_predictions(table.run, table.status, tables)
    return table, tables, said + unfinished(table, limits[1])


def counted_by_mean(table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Say how many runs of another project repeat settings and seed."""
    if not (again := int(table.duplicated([*keys, "seed"]).sum())):
        return []
    return [
        f"{again} of {len(table)} runs repeat another run's settings and seed and are averaged: if an omitted column "
        "distinguishes them, list the settings with group=[...]."
    ]


def drop_parallel_times(table: pd.DataFrame, folders: Iterable[Path]) -> list[str]:
    """Drop the times per epoch from the table if the runs of a sweep trained side by side; say so."""
    if not any(in_parallel(folder) for folder in folders):
        return []
    table["seconds_per_epoch"] = None
    return ["Times per epoch are left out: runs that train side by side slow each other."]


def in_parallel(folder: Path) -> bool:
    """Tell whether the runs of a sweep trained side by side."""
    with suppress(UserError):
        start = start_of(folder)
        return start is not None and start.launcher != "basic"
    return False


def table_of(records: Sequence[Mapping[str, Any]], texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Build the table, one row per run: measurements, and before the seed the varying settings as texts."""
    table = pd.DataFrame([row_of(record) for record in records])
    first = list(table.columns).index("seed")
    return pd.concat([table.iloc[:, :first], pd.DataFrame(texts), table.iloc[:, first:]], axis=1)


def where_holds(
    records: list[dict[str, Any]], scored: str, condition: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the records that satisfy a condition, if there is one, and a remark on their number.

    Source: pandas.DataFrame.eval; columns are those of table.csv but outcome, and settings that are equal in all runs.
    """
    if condition is None:
        return records, []
    table = pd.DataFrame([row_of(record) | record["settings"] | record.get("others", {}) for record in records])
    if f"{scored}/accuracy" in table:
        table["gap"] = gap(table, scored)
    try:
        holds = table.eval(condition, engine="python")
        if not isinstance(holds, pd.Series) or holds.dtype != bool:
            raise ValueError("it is not a true/false condition per run")
    except Exception as error:  # pandas lets any exception of the expression through
        raise UserError(
            f"invalid value where={condition} ({' '.join(str(error).split()) or type(error).__name__}): write a "
            "condition on columns of the runs' table except outcome, texts in quotes, names with special characters in "
            "backticks: where='seed < 3 and `optimizer.lr` > 0.01 and engine == \"manual\"'"
        ) from None
    if not holds.any():
        raise UserError(f"where={condition} holds for none of {len(records)} runs")
    kept = [record for record, held in zip(records, holds, strict=True) if held]
    return kept, [f"where={condition} chose {len(kept)} of {len(records)} runs."]


def mixed_scales(metric: Metric, table: pd.DataFrame) -> list[str]:
    """Ask whether only some runs give a share in percent."""
    values = table[metric.column].dropna()
    if not (metric.higher_is_better and is_share(metric.column)) or not values.min() <= 1 < 2 <= values.max():
        return []
    return [f"{metric.name} is from {values.min():.4g} to {values.max():.4g}: are some in percent, and others shares?"]


def keys_asked_for(
    names: Iterable[str], settings: Sequence[Mapping[str, Any]], columns: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return the settings with these full or short names that differ between runs, and those that are equal in all."""
    known = short_names(list(dict.fromkeys([*columns, *(name for row in settings for name in row)])))
    differing = [known[key] for key in columns]
    keys = []
    for name in names:
        if not (found := called(name, known)):
            hint = did_you_mean(str(name), differing)
            raise UserError(f"invalid value group={name}: {hint}these settings differ: {joined(differing, most=30)}")
        keys.append(found[0])
    return [key for key in keys if key in columns], [known[key] for key in keys if key not in columns]


def left_out(records: Sequence[Mapping[str, Any]], table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Name the columns of another project's table that are no settings, and differ between the runs of one cell."""
    others = pd.DataFrame([record.get("others", {}) for record in records])
    names = [name for name in others if (others[name].groupby([table[key] for key in keys]).nunique() > 1).any()]
    group = ",".join([*short_names(keys).values(), *names])
    said = f"Runs within a cell differ in {joined(names)}, which may explain a difference: "
    return [f"{said}group=[{group}] tells them apart."] if names else []


def pooled_over(table: pd.DataFrame, keys: Sequence[str], differing: Sequence[str]) -> list[str]:
    """Say which varying settings are pooled because `group` leaves them out."""
    others = [key for key in differing if key not in keys and table[key].nunique() > 1]
    return [f"Pooled over {joined(others)}: of a cell's runs with one seed, the mean counts."] if others else []


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's row of the table, without its settings."""
    metrics = {escape_control(name): value for name, value in record["metrics"].items()}
    reason, commit = record.get("reason"), record.get("commit")
    versions = record.get("versions", {}).items()
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
        **{f"version/{escape_control(name)}": escape_control(version) for name, version in versions},
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
