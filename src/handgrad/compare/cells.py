"""Factors of a comparison: the settings that distinguish cells, and those confounded with them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from handgrad.identity import normalize
from handgrad.text import canonical, escape_control, flatten, format_value

ALWAYS = ("activation", "engine", "regularizer")  # what a cell is named by, whether it differs or not
# What changes nothing that is computed; of a study, its changes are seen.
NOT_A_CELL = {"seed", "name", "optimized_metric", "experiment", "debug", "logger", "diagnostics"}
UNSET = "unset"  # what stands for a setting that a run does not have; null is a value
# Columns of the tables that are no settings: a setting of such a name gets another.
TAKEN = {"run", "folder", "status", "reason", "seed", "outcome", "epochs", "seconds_per_epoch", "seconds", "gap"}
TAKEN |= {"peak_memory_mb", "dataset", "commit", "label", "runs", "reference"}
TAKEN |= {"number", "done", "learned", "mixed", "completed", "diverged", "failed", "running"}
SUFFIXES = (".low", ".high", ".median", ".least", ".most")
TOGETHER = 3  # of more keys that decide a setting only together, nobody could say what is whose


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's choices and every value of its configuration, flat: {"engine": "manual", "optimizer.lr": 0.1, ...}."""
    choices, config = record["choices"], flatten(normalize(record["config"]))
    settings = choices | {f"config.{key}" if key in choices else key: value for key, value in config.items()}
    return {
        column_for(key): value
        for key, value in settings.items()
        if key not in NOT_A_CELL and not key.startswith(("logger.", "diagnostics."))
    }


def column_for(key: str) -> str:
    """A setting's column, unlike those of what was measured."""
    key = escape_control(key)
    name = next((key.removesuffix(end) for end in SUFFIXES if key.endswith(end)), key)
    return f"config.{key}" if name in TAKEN or "/" in key else key


def columns_of(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Of each setting that differs, and of those that always count, the runs' values as texts that no others share."""
    texts = [{name: canonical(value) for name, value in row.items()} for row in settings]
    names = dict.fromkeys([*ALWAYS, *(name for row in texts for name in row)])
    columns = {name: [row.get(name, UNSET) for row in texts] for name in names}
    return {name: column for name, column in columns.items() if name in ALWAYS or len(set(column)) > 1}


def text_of(key: str, row: Mapping[str, Any]) -> str:
    """A run's value of a setting as it is shown."""
    return format_value(row[key]) if key in row else UNSET


def texts_of(key: str, settings: Sequence[Mapping[str, Any]], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """A setting's values as they are shown; where two would read alike, as JSON writes them."""
    texts = [text_of(key, row) for row in settings]
    return texts if len(set(texts)) == len(set(columns[key])) else list(columns[key])


def find_factors(columns: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[tuple[str, ...], list[str]]]:
    """Find the settings that make cells, and those that only follow from them.

    Returns:
        the keys: activation, engine, regularizer, and every setting that differs without being decided by keys before
        it; and, of the fewest keys that together decide a setting, the settings that they decide. What is said of a
        group is not repeated of its options.
    """
    keys = list(ALWAYS)
    decided_later = []
    for name, values in columns.items():
        if name in ALWAYS:
            continue
        if decided(values, [columns[key] for key in keys]):
            decided_later.append(name)
        else:
            keys.append(name)
    follows: dict[tuple[str, ...], list[str]] = {}
    for name in decided_later:
        by = deciding(name, keys, columns)
        if by and name.split(".")[0] not in follows.get(by, ()):
            follows.setdefault(by, []).append(name)
    return keys, follows


def deciding(name: str, keys: Sequence[str], columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The fewest keys that decide a setting; none where its own group does, or where it takes more than TOGETHER."""
    group = name.split(".")[0]
    varying = [key for key in keys if len(set(columns[key])) > 1]
    for size in range(1, TOGETHER + 1):
        for some in combinations(varying, size):
            if decided(columns[name], [columns[key] for key in some]):
                return () if group in some else some
    return ()


def decided(values: Sequence[str], by: Sequence[Sequence[str]]) -> bool:
    """Tell whether values are a function of other columns."""
    seen: dict[tuple[str, ...], str] = {}
    return all(
        seen.setdefault(others, value) == value for others, value in zip(zip(*by, strict=True), values, strict=True)
    )
