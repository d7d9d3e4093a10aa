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
from handgrad.text import counted, join_names

SEED = re.compile(
    r"(?:.*(?:[./]|__))?(?:params?_)?(?:(?:\w+_)?(?:seed|fold)|random_state|seed_everything|rng|repeat|replicate)"
    r"(?:_(?:id|idx|index))?",
    re.I,
)
REPEAT = re.compile(  # seeds, if whole numbers that occur again
    r"(?:.*(?:[./]|__))?(?:run|trial|split|rep|repetition)(?:_(?:id|idx|index|number))?", re.I
)
PREFIX = re.compile(  # of MLflow, W&B's API, Ray, Optuna, scikit-learn
    r"^(?:(?P<setting>(?:config|params|tags)[./]|params?_)|(?:metrics|summary)[./])(?=.)", re.I
)
HYPERPARAMETER = re.compile(
    r"(?:.*[./_])?(?:lr|learning_?rate|weight_?decay|wd|dropout|momentum|batch_?size|hidden(?:_\w+)?|width|depth|"
    r"layers|warmup(?:_\w+)?|alpha|beta|gamma|temperature)",
    re.I,
)
SPLIT = re.compile(r"split(\d+)_((?:test|train)_.+)")  # scikit-learn
WANDB = {"Name", "State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep", "Agent", "Group", "Job Type", "ID"}
OF_WANDB = {"Name", "State", "Created"}  # in each of its exports
MEASURED = re.compile(  # names of metrics: val/anything, best_acc, train_loss_epoch, accuracy@5
    r"(?:train|val|valid|validation|test|eval)/.*|(?:.*[^a-z])?(?:loss|acc|accuracy|auc|auroc|error|f1|mae|mse|nll|"
    r"perplexity|r2|return|reward|rmse|score)(?:_(?:best|epoch|final|last|mean|step)|[^a-z]*)",
    re.I,
)
STEP = re.compile(r"(?:(?:best|global|last|trainer|training)[_/])*(?:epoch|step|iter|iteration)", re.I)
BOOKKEEPING = re.compile(
    r"|unnamed: .*|index|number|tags\.mlflow\..*|_.*|created|updated|pid|(?:(?:run|trial|experiment|user)_)?id|"
    rf"artifact_uri|(?:start|end)_time|datetime_.*|timestamp|hp_metric|{STEP.pattern}",
    re.I,
)
LABEL = re.compile(r"commit|date|host(?:name)?|job type|notes|sweep|tags|user", re.I)  # no setting, even if repeated
NAMES = ("tags.mlflow.runname", "run_name", "name", "run", "run_id", "trial_id")
SECONDS = ("runtime", "duration", "seconds", "_runtime", "time_total_s")
STATUS = dict.fromkeys(("finished", "completed", "complete", "success", "done", "terminated"), "completed")
STATUS |= dict.fromkeys(("failed", "fail", "crashed", "killed", "error", "pruned", "preempted"), "failed")
STATUS |= dict.fromkeys(("running", "scheduled", "waiting", "pending", "queued", "preempting"), "running")
MISSING = {"", "None", "null", "NA", "<NA>"}
PERCENT = re.compile(r"([+-]?\d+\.?\d*) ?%")
NUMBER = re.compile(r"[+-]?(?:(?:\d{1,300}\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity|nan)", re.I)
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
SUMMARY = {"average", "avg", "mean", "median", "std", "sum", "total"}  # words of a table's last rows


def read_rows(path: Path) -> pd.DataFrame:
    """Read a CSV file, every value as text; where semicolons separate columns, commas are decimal signs."""
    text = re.sub(r"^(?:(?:#|sep=).*\n)+", "", path.read_text(encoding="utf-8-sig"))
    separator = max(",;\t|", key=lambda mark: min(line.count(mark) for line in (text.splitlines() or [""])[:2]))
    rows = pd.read_csv(StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False)
    if separator == ";":
        rows[1:] = rows[1:].replace(r"^([+-]?\d+),(\d+ ?%?)$", r"\1.\2", regex=True)
    frame = rows[1:].set_axis(rows.iloc[0].str.strip().tolist(), axis=1)
    return frame.loc[(frame != "").any(axis=1), (frame != "").any().to_numpy() | (frame.columns != "")]


def records_of(
    frame: pd.DataFrame, table: str, seed: str | None, metric: str | None, keys: Sequence[str] | None
) -> tuple[list[dict[str, Any]], list[str], str | None]:
    """Return a record of every row, its seed among its settings; remarks; and the setting asked for as the seed.

    `table` is the frame's name in messages.
    """
    columns, seed, remarks = columns_of(frame, table, seed)
    short = short_names(columns)
    chosen = None if keys is None else {full_name("group", key, short, table) for key in keys}
    columns, roles, said = at_last_steps(columns, chosen)
    remarks += said
    facts = {fact: name for fact, name in facts_in(columns).items() if name not in (chosen or ())}
    roles |= dict.fromkeys(facts.values(), "fact")
    numeric = {name: short[name] for name, values in columns.items() if is_numeric(values, boolean=True)}
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
        numbers = [short[name] for name in numeric if roles[name] != "seed"]
        hint = f"choose metric=..., one of {join_names(numbers, 20)}" if numbers else no_number(columns)
        raise UserError(f"{table} has no column that looks like a metric: {hint}")
    others = [name for name, values in columns.items() if roles[name] == "" and may_matter(name, values)]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    records = [
        {"folder": None}
        | {fact: row[name] for fact, name in facts.items()}
        | {"settings": {short[name]: row[name] for name in settings}}
        | {"metrics": {short[name]: row[name] for name in metrics if row[name] is not None}}
        | ({"others": {short[name]: row[name] for name in others}} if others else {})
        for row in rows
    ]
    remarks += remarks_on(roles, short, chosen)
    return records, remarks, None if seed is None else short[seed]


def at_last_steps(
    columns: dict[str, list[Any]], chosen: Collection[str] | None
) -> tuple[dict[str, list[Any]], dict[str, str], list[str]]:
    """Keep the last row of each run of a history; return the columns, their roles and, of a history, a remark."""
    roles = roles_of(columns, chosen)
    if not (last := last_rows(columns, roles)):
        return columns, roles, []
    said = f"The last epoch or step of each run counts: {len(last)} of {len(next(iter(columns.values())))} rows."
    columns = {name: [values[row] for row in last] for name, values in columns.items()}
    kept = [name for name, role in roles.items() if role == "setting" and name.lower() not in NAMES]
    return columns, roles_of(columns, chosen) | dict.fromkeys(kept, "setting"), [said]


def last_rows(columns: Mapping[str, Sequence[Any]], roles: Mapping[str, str]) -> list[int]:
    """Return the last row of each run if the table has a row per epoch or step of a run; else nothing."""
    runs: dict[tuple[Any, ...], list[int]] = {}
    identity = [values for name, values in columns.items() if roles[name] in ("setting", "seed")]
    for row, *key in zip(range(len(next(iter(columns.values())))), *identity, strict=True):
        runs.setdefault(tuple(key), []).append(row)
    for name, steps in columns.items():
        repetition = "iter" in name.lower() and "seed" not in roles.values()
        if roles[name] or not STEP.fullmatch(name) or repetition or not is_numeric(steps) or None in steps:
            continue
        ordered = [sorted(rows, key=steps.__getitem__) for rows in runs.values()]
        gaps = [{steps[later] - steps[row] for row, later in pairwise(rows)} for rows in ordered]
        if all(len(gap) <= 1 and 0 not in gap for gap in gaps) and 3 * len(runs) <= len(steps):
            return sorted(rows[-1] for rows in ordered)
    return []


def no_number(columns: Mapping[str, Sequence[Any]]) -> str:
    """Describe the first value that keeps a column from being numeric, if there is one."""
    for name, values in columns.items():
        texts = [value for value in values if isinstance(value, str)]
        if texts and all(re.match(r"[+-]?[.\d]", text) for text in texts) and not all(map(DATE.fullmatch, texts)):
            wrong = next(text for text in texts if not NUMBER.fullmatch(text))
            return f"{name} holds {wrong!r}, not a number like 0.31"
    return "it has no numbers"


def columns_of(frame: pd.DataFrame, table: str, seed: str | None) -> tuple[dict[str, list[Any]], str | None, list[str]]:
    """Convert a table's columns to types, melted if it is scikit-learn's; also return its seed, and remarks."""
    if twice := [name for name, count in Counter(map(str, frame.columns)).items() if count > 1]:
        what = f"named {join_names(twice)}: rename them, or keep one" if any(twice) else "without a name: name each"
        raise UserError(f"{table} has several columns {what}")
    if frame.empty:
        raise UserError(f"{table} has no rows: give a header, and a row per run")
    frame, seed, remarks = melt_splits(frame, seed)
    words = frame.apply(lambda column: column.astype(str).str.strip().str.lower())
    once = words.apply(lambda column: column.isin(SUMMARY) & ~column.duplicated(keep=False)).any(axis=1)
    without_seed = words[[name for name in words if SEED.fullmatch(str(name))]].isin(["", "nan", "none", "<na>"])
    summaries = once & without_seed.any(axis=1)
    if summaries.any() and not summaries.all():
        remarks.append(f"Left out: {counted(int(summaries.sum()), 'summary row')} of the table.")
        frame = frame[~summaries]
    return {str(name): typed(frame[name]) for name in frame}, seed, remarks


def remarks_on(roles: Mapping[str, str], short: Mapping[str, str], chosen: Collection[str] | None) -> list[str]:
    """Say which columns are left out, and if roles were guessed, which are settings and which metrics."""
    said = []
    if chosen is None and not has_prefixes(roles) and not wandb_settings(roles):
        settings, metrics, seeds = (
            join_names([short[name] for name in roles if roles[name] == role], 12) or "none"
            for role in ("setting", "metric", "seed")
        )
        said.append(
            f"By name and repetition, settings are {settings}; metrics are {metrics}; the seed is {seeds}: "
            "group=[...], metric=... and seed=... override this."
        )
    folds = any(role == "seed" and "fold" in name.lower() for name, role in roles.items())
    said += ["Folds share training data: intervals are too narrow."] if folds else []
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
    given = column.to_numpy() if column.dtype.kind == "f" else column.tolist()  # str of NumPy's float32 is short
    stripped = [str(value).strip().replace("\u2212", "-") for value in given]
    texts = pd.Series(stripped, dtype=object).mask(column.isna().to_numpy(), "").tolist()
    distinct = set(texts) - MISSING
    values: dict[str, Any] = {text: text for text in distinct}
    if distinct and all(map(PERCENT.fullmatch, distinct)):
        values = {text: float(text.rstrip("% ")) / 100 for text in distinct}
    elif all(map(NUMBER.fullmatch, distinct)) and "version" not in str(column.name).lower():  # 1.1 is not 1.10
        values = {text: int(text) if text.isdecimal() else whole(float(text)) for text in distinct}
    elif {text.lower() for text in distinct} <= {"true", "false"}:
        values = {text: text.lower() == "true" for text in distinct}
    return [values.get(text) for text in texts]


def whole(value: Any) -> Any:
    """Return a whole float as int, any other value unchanged: 1 and 1.0 are one setting."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def is_numeric(values: Iterable[Any], boolean: bool = False) -> bool:
    """Tell whether values are numbers, or on request booleans, apart from missing ones."""
    kinds = {type(value) for value in values} - {type(None)}
    return bool(kinds) and (kinds <= {int, float} or (boolean and kinds == {bool}))


def seeds_in(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Find the seed columns: by name or, without any such, by whole numbers that occur again."""
    named = [name for name in columns if SEED.fullmatch(name)]
    numbers = [name for name, values in columns.items() if {type(each) for each in values} == {int} and repeats(values)]
    return named or [name for name in numbers if REPEAT.fullmatch(name)]


def may_matter(name: str, values: Sequence[Any]) -> bool:
    """Tell whether an omitted column may explain differences: a hyperparameter, or a label of several runs."""
    if BOOKKEEPING.fullmatch(name) or all(DATE.fullmatch(str(value)) for value in values):
        return False
    return bool(HYPERPARAMETER.fullmatch(name)) or 1 < len(set(values)) <= len(values) / 2


def repeats(values: Iterable[Any]) -> bool:
    """Tell whether values occur twice or more on average, as those of a setting do."""
    given = [value for value in values if value is not None]
    return 2 * len(set(given)) <= len(given)


def has_prefixes(columns: Iterable[str]) -> bool:
    """Tell whether prefixes such as "params." separate settings from metrics."""
    found = [match[0].lower() for name in columns if (match := PREFIX.match(name))]
    return any(not prefix.endswith("_") and not prefix.startswith("tags") for prefix in found)


def short_names(columns: Collection[str]) -> dict[str, str]:
    """Return the columns' names without prefix, unless two would be equal."""
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
    """Classify columns as settings ("setting"), seeds ("seed"), metrics ("metric") or others ("").

    Prefixes decide; without any, the order of columns in an export of Weights & Biases; else name and repetition.
    If keys were chosen, they are the settings.
    """
    exported, prefixed = wandb_settings(columns), has_prefixes(columns)
    wandb = WANDB if columns.keys() >= OF_WANDB else set()
    named = {name for name in wandb & {"Name", "Group"} & columns.keys() if repeats(columns[name])}
    seeds, roles = seeds_in(columns), {}
    for name, values in columns.items():
        found = PREFIX.match(name)
        if name in (chosen or ()) or name in named:
            role = "setting"
        elif name in seeds:
            role = "seed"
        elif BOOKKEEPING.fullmatch(name) or LABEL.fullmatch(name) or name in wandb:
            role = ""
        elif name in exported or (found and found["setting"]):
            role = "setting" if repeats(values) or not name.lower().startswith("tags") else ""
        elif exported or prefixed:
            role = "metric" if is_numeric(values) else ""
        else:
            role = guessed_role(name, values)
        roles[name] = "" if role == "setting" and chosen is not None and name not in chosen else role
    if "setting" not in roles.values():  # each run has its own
        roles |= {name: "setting" for name in columns if not roles[name] and HYPERPARAMETER.fullmatch(name)}
    return roles


def guessed_role(name: str, values: Sequence[Any]) -> str:
    """Classify a column as setting or metric, by name or, failing that, by values that repeat."""
    given = [value for value in values if value is not None]
    if not given or all(DATE.fullmatch(str(value)) for value in given):
        return ""
    if is_numeric(given) and MEASURED.fullmatch(name):
        return "metric"
    if is_numeric(given) and HYPERPARAMETER.fullmatch(name):
        return "setting" if len(set(given)) < len(given) else ""
    if repeats(given) or isinstance(given[0], bool):
        return "setting"
    counts = is_numeric(given) and len(given) > 1 and all(later - value == 1 for value, later in pairwise(given))
    return "metric" if is_numeric(given) and not counts else ""


def wandb_settings(columns: Iterable[str]) -> set[str]:
    """Return the settings in an export of Weights & Biases: its own columns, then sorted settings, sorted metrics.

    Empty for another table, or if columns were moved.
    """
    names = list(columns)
    if not set(names) >= OF_WANDB:
        return set()
    rest = names[1 + max(number for number, name in enumerate(names) if name in WANDB) :]
    ends = [number for number, (one, other) in enumerate(pairwise(rest), 1) if other < one]
    first = rest[: ends[0]] if len(ends) == 1 else []
    return set() if any(map(MEASURED.fullmatch, first)) else set(first)
