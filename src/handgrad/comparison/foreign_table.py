"""Columns of another project's table of runs: which are settings, metrics, or facts about the run."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from handgrad.comparison.table import called
from handgrad.errors import UserError, did_you_mean
from handgrad.text import canonical, join_names

SEED = re.compile(
    r"(?:.*(?:[./]|__))?(?:params?_)?(?:seed|random_seed|random_state|seed_everything|rng|fold|repeat|replicate)", re.I
)
PREFIX = re.compile(  # of MLflow, W&B's API, Ray, Optuna, scikit-learn
    r"^(?:(?P<setting>(?:config|params)[./]|params?_)|(?:metrics|summary)[./])(?=.)", re.I
)
SPLIT = re.compile(r"split(\d+)_((?:test|train)_.+)")  # scikit-learn
WANDB = {"Name", "State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep", "Agent", "Group", "Job Type", "ID"}
MEASURED = re.compile(  # names of metrics: val/anything, best_acc, train_loss_epoch, accuracy@5
    r"(?:train|val|valid|validation|test|eval)/.*|(?:.*[^a-z])?(?:loss|acc|accuracy|auc|auroc|error|f1|mae|mse|nll|"
    r"perplexity|r2|return|reward|rmse|score)(?:_(?:best|epoch|final|last|mean|step)|[^a-z]*)",
    re.I,
)
BOOKKEEPING = re.compile(
    r"|unnamed: .*|index|number|tags\..*|_.*|notes|user|tags|created|updated|sweep|agent|job type|host(?:name)?|pid|"
    r"(?:(?:run|trial|experiment|user)_)?id|artifact_uri|(?:start|end)_time|datetime_.*|date|timestamp|commit|"
    r"(?:(?:best|global|last|trainer|training)[_/])*(?:epoch|step|iter|iteration)|hp_metric",
    re.I,
)
NAMES = ("tags.mlflow.runname", "run_name", "name", "run", "run_id", "trial_id")
SECONDS = ("runtime", "duration", "seconds", "_runtime", "time_total_s")
STATUS = dict.fromkeys(("finished", "completed", "complete", "success", "done", "terminated"), "completed")
STATUS |= dict.fromkeys(("failed", "fail", "crashed", "killed", "error", "pruned", "preempted"), "failed")
STATUS |= dict.fromkeys(("running", "scheduled", "waiting", "pending", "queued", "preempting"), "running")
MISSING = {"", "None", "null", "NA", "<NA>"}
RUN_NAME = re.compile(  # settings that name a run, if no two runs share a value
    r"name|id|version|timestamp|loggers?\..*|"
    r"(?:.*\.)?(?:(?:exp|experiment|job|run|task)_?(?:name|id)|dirpath|(?:default_root|log|output|run|save|work)_?dir)"
)
NUMBER = re.compile(r"[+-]?(?:(?:\d{1,300}\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity|nan)", re.I)
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?")


def read_rows(path: Path) -> pd.DataFrame:
    """Read a CSV file, every value as text."""
    text = path.read_text(encoding="utf-8-sig")
    separator = next((mark for mark in ",;\t|" if mark in text.partition("\n")[0]), ",")
    rows = pd.read_csv(StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False)
    return rows[1:].set_axis(rows.iloc[0].str.strip().tolist(), axis=1)


def records_of(
    frame: pd.DataFrame, table: str, seed: str | None, metric: str | None, keys: Sequence[str] | None
) -> tuple[list[dict[str, Any]], list[str], str | None]:
    """Make a record of every row, its seed among its settings; `table` is the frame's name in messages.

    Returns:
        the records; remarks; the setting that is the seed, if one was asked for.
    """
    columns, seed, remarks = columns_of(frame, table, seed)
    short = short_names(columns)
    numeric = {name: short[name] for name, values in columns.items() if is_numeric(values)}
    chosen = None if keys is None else {full_name("group", key, short, table) for key in keys}
    facts = facts_in(columns)
    roles = roles_of(columns, chosen) | dict.fromkeys(facts.values(), "fact")
    if seed is not None:
        seed = full_name("seed", seed, short, table)
        roles[seed] = "seed"
    if metric is not None:
        if called(metric, short) and not called(metric, numeric):
            text = next(value for value in columns[called(metric, short)[0]] if not isinstance(value, int | float))
            raise UserError(f"metric={metric} of {table} is not numeric: {text!r} is not a number like 0.31")
        roles[full_name("metric", metric, numeric, f"numbers in {table}")] = "metric"
    metrics = [name for name in columns if roles[name] == "metric"]
    settings = [name for name in columns if roles[name] in ("setting", "seed")]
    if not metrics:
        hint = f"name one with metric=..., of {join_names([*numeric.values()], 20)}" if numeric else "it has no numbers"
        raise UserError(f"{table} has no column that looks like a metric: {hint}")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    records = [
        {"folder": None}
        | {fact: row[name] for fact, name in facts.items()}
        | {"settings": {short[name]: row[name] for name in settings}}
        | {"metrics": {short[name]: row[name] for name in metrics if row[name] is not None}}
        for row in rows
    ]
    remarks += remarks_on(roles, short, chosen) + (drop_run_names(records) if chosen is None else [])
    return records, remarks, None if seed is None else short[seed]


def columns_of(frame: pd.DataFrame, table: str, seed: str | None) -> tuple[dict[str, list[Any]], str | None, list[str]]:
    """Type the columns of a table, melted if it is scikit-learn's; also return its seed, and remarks."""
    if twice := [name for name, count in Counter(map(str, frame.columns)).items() if count > 1]:
        raise UserError(f"{table} has several columns named {join_names(twice)}: rename them, or keep one")
    if frame.empty:
        raise UserError(f"{table} has no rows: give a header, and a row per run")
    frame, seed, remarks = melt_splits(frame, seed)
    return {str(name): typed(frame[name]) for name in frame}, seed, remarks


def remarks_on(roles: Mapping[str, str], short: Mapping[str, str], chosen: Collection[str] | None) -> list[str]:
    """Say which columns are left out, and if roles were guessed, which are settings and which metrics."""
    said = []
    if chosen is None and not has_prefixes(roles) and not wandb_settings(roles):
        settings, metrics = (
            join_names([short[name] for name in roles if roles[name] == role], 12) for role in ("setting", "metric")
        )
        said.append(
            f"By name and repetition, settings are {settings or 'none'}; metrics are {metrics}: "
            "group=[...] and metric=... decide otherwise."
        )
    if others := [name or "(no name)" for name, role in roles.items() if role == ""]:
        said.append(f"Left out: {len(others)} of {len(roles)} columns, no setting and no metric: {join_names(others)}.")
    return said


def melt_splits(frame: pd.DataFrame, seed: str | None) -> tuple[pd.DataFrame, str | None, list[str]]:
    """Turn scikit-learn's `cv_results_`, a column per split, into a row per candidate and split, the seed.

    Any other table stays unchanged.
    """
    parts = [found for name in frame if (found := SPLIT.fullmatch(str(name)))]
    if not parts:
        return frame, seed, []
    frame = frame.reset_index(drop=True)
    params = frame[[name for name in frame if str(name).startswith("param_")]]
    melted = []
    for split in sorted({int(part[1]) for part in parts}):
        scores = {f"metrics.{part[2]}": frame[part[0]] for part in parts if int(part[1]) == split}
        names = [f"candidate {row} split {split}" for row in frame.index]
        melted.append(params.assign(run=names, split=split, **scores))
    said = "Each split of the cross-validation counts as a seed; splits share training data: intervals are too narrow."
    return pd.concat(melted).sort_index(kind="stable"), "split", [said]


def typed(column: pd.Series) -> list[Any]:
    """Return a column's values, None where missing: all numbers (whole ones as int), all booleans, or all texts."""
    texts = ["" if gone else str(value).strip() for value, gone in zip(column.tolist(), column.isna(), strict=True)]
    distinct = set(texts) - MISSING
    values: dict[str, Any] = {text: text for text in distinct}
    if all(map(NUMBER.fullmatch, distinct)):
        values = {text: int(text) if text.isdecimal() else whole(float(text)) for text in distinct}
    elif {text.lower() for text in distinct} <= {"true", "false"}:
        values = {text: text.lower() == "true" for text in distinct}
    return [values.get(text) for text in texts]


def whole(value: Any) -> Any:
    """Return a whole float as int, any other value unchanged: 1 and 1.0 are one setting."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def is_numeric(values: Iterable[Any]) -> bool:
    """Tell whether values are numbers, apart from missing ones."""
    kinds = {type(value) for value in values} - {type(None)}
    return bool(kinds) and kinds <= {int, float}


def repeats(values: Iterable[Any]) -> bool:
    """Tell whether values occur twice or more on average, as those of a setting do."""
    given = [value for value in values if value is not None]
    return 2 * len(set(given)) <= len(given)


def has_prefixes(columns: Iterable[str]) -> bool:
    """Tell whether prefixes such as "params." separate settings from metrics."""
    return any((found := PREFIX.match(name)) and not found[0].endswith("_") for name in columns)


def short_names(columns: Collection[str]) -> dict[str, str]:
    """Return the columns' names without prefix, unless two would be called the same."""
    short = {name: PREFIX.sub("", name) for name in columns}
    counts = Counter(short.values())
    return {name: other if counts[other] == 1 else name for name, other in short.items()}


def full_name(option: str, name: str, short: Mapping[str, str], table: str) -> str:
    """Return the column with that full or short name."""
    if found := called(name, short):
        return found[0]
    hint = did_you_mean(str(name), [*short.values()])
    raise UserError(f"{option}={name} is not a column of {table}: {hint}it has {join_names([*short.values()], 20)}")


def facts_in(columns: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Find the columns of each run's name, status and seconds, if there are any."""
    known = {name.lower(): name for name in columns}
    names = [known[each] for each in NAMES if each in known and not repeats(columns[known[each]])]
    statuses = [known[each] for each in ("status", "state") if each in known and is_status(columns[known[each]])]
    timed = [known[each] for each in SECONDS if each in known]
    return {fact: found[0] for fact, found in (("name", names), ("status", statuses), ("seconds", timed)) if found}


def is_status(values: Iterable[Any]) -> bool:
    """Tell whether all values are words for a run's status."""
    given = {str(value).lower() for value in values if value is not None}
    return bool(given) and given <= set(STATUS)


def roles_of(columns: Mapping[str, Sequence[Any]], chosen: Collection[str] | None) -> dict[str, str]:
    """Tell settings ("setting") from seeds ("seed"), metrics ("metric") and other columns ("").

    Prefixes decide; without any, the order of columns in an export of Weights & Biases; else name and repetition.
    If keys were chosen, they are the settings.
    """
    exported, prefixed = wandb_settings(columns), has_prefixes(columns)
    roles = {}
    for name, values in columns.items():
        found = PREFIX.match(name)
        if SEED.fullmatch(name):
            role = "seed"
        elif name in (chosen or ()):
            role = "setting"
        elif BOOKKEEPING.fullmatch(name):
            role = ""
        elif name in exported or (found and found["setting"]):
            role = "setting" if chosen is None else ""
        elif exported or prefixed:
            role = "metric" if is_numeric(values) else ""
        else:
            role = guessed_role(name, values)
            if chosen is not None and role == "setting":
                role = "metric" if is_numeric(values) and len(set(values)) > 1 else ""
        roles[name] = role
    return roles


def guessed_role(name: str, values: Sequence[Any]) -> str:
    """Tell a setting from a metric by name or, failing that, by values that repeat."""
    given = [value for value in values if value is not None]
    if not given or all(DATE.fullmatch(str(value)) for value in given):
        return ""
    if is_numeric(given) and MEASURED.fullmatch(name):
        return "metric"
    if repeats(given) or isinstance(given[0], bool):
        return "setting"
    counts = is_numeric(given) and len(given) > 1 and all(later - value == 1 for value, later in pairwise(given))
    return "metric" if is_numeric(given) and not counts else ""


def wandb_settings(columns: Iterable[str]) -> set[str]:
    """Return the settings in an export of Weights & Biases: its own columns, then sorted settings, sorted metrics.

    Empty for another table, or if columns were moved.
    """
    names = list(columns)
    if not {"Name", "State", "Created"} <= set(names):
        return set()
    rest = names[1 + max(number for number, name in enumerate(names) if name in WANDB) :]
    ends = [number for number, (one, other) in enumerate(pairwise(rest), 1) if other < one]
    first = rest[: ends[0]] if len(ends) == 1 else []
    return set() if any(map(MEASURED.fullmatch, first)) else set(first)


def drop_run_names(records: Sequence[dict[str, Any]]) -> list[str]:
    """Drop the settings that only name a run: its own path, or a name or folder that no other run has."""
    rows = [record["settings"] for record in records]
    paths = [f"/{folder.parent.name}/{folder.name}/" if (folder := record["folder"]) else None for record in records]
    own = set()
    for name in dict.fromkeys(name for row in rows for name in row):
        texts = [canonical(row.get(name)) for row in rows]
        differ = len(set(texts)) == len(rows) > 1
        inside = any(path and path in f"/{text[1:-1]}/" for path, text in zip(paths, texts, strict=True))
        if inside or (differ and RUN_NAME.fullmatch(name)):
            own.add(name)
    for record in records:
        record["settings"] = {name: value for name, value in record["settings"].items() if name not in own}
    return [f"Left out: settings that name a run ({join_names(sorted(own))})."] if own else []
