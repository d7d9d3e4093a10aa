"""Factors of a comparison: the settings that distinguish cells, and those confounded with them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from handgrad.identity import normalize
from handgrad.resolvers import MLP, hidden_layers
from handgrad.text import canonical, escape_control, flatten, format_value

ALWAYS = ("activation", "engine", "regularizer")  # keys of every cell, even if they do not vary
# Settings without effect on the computation; an experiment's overrides count as settings.
NOT_A_CELL = {"seed", "name", "optimized_metric", "experiment", "debug", "logger", "diagnostics"}
UNSET = "unset"  # placeholder for a setting that a run lacks; null is a value
# Reserved columns of the tables: a setting of the same name gets the prefix "config.".
TAKEN = {"run", "folder", "status", "reason", "seed", "outcome", "epochs", "seconds_per_epoch", "seconds", "gap"}
TAKEN |= {"peak_memory_mb", "dataset", "commit", "label", "runs", "reference"}
TAKEN |= {"number", "done", "seeds", "learned", "mixed", "completed", "diverged", "failed", "running"}
ENDS = ("low", "high", "median", "least", "most")  # of a metric's columns in the table of cells: "test/loss.low"
TOGETHER = 3  # most keys reported as jointly determining a setting; more could not be interpreted


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's choices and its flattened configuration: {"engine": "manual", "optimizer.lr": 0.1, ...}.

    The nested group `data/deform` is called deform; a run without it, e.g. an older one, has none.
    """
    choices, config = dict(record["choices"]), flatten(normalize(record["config"]))
    choices["deform"] = choices.pop("data/deform", None) or "none"
    config.pop("data.deform", None)
    config = {key.removeprefix("data.") if key.startswith("data.deform.") else key: config[key] for key in config}
    settings = choices | {f"config.{key}" if key in choices else key: value for key, value in config.items()}
    if "activation" in choices:
        settings["activation"] = hidden_layers(choices["activation"], config.get("network._target_", MLP))
    return {
        column_for(key): value
        for key, value in settings.items()
        if key not in NOT_A_CELL and not key.startswith(("logger.", "diagnostics."))
    }


def column_for(key: str) -> str:
    """Return a setting's column name, distinct from all columns of measurements."""
    key = escape_control(key)
    name, _, end = key.rpartition(".")
    taken = (name if end in ENDS else key) in TAKEN
    return f"config.{key}" if taken or "/" in key else key


def columns_of(settings: Sequence[Mapping[str, Any]], always: Sequence[str] = ALWAYS) -> dict[str, list[str]]:
    """Return the columns of `always` and of each setting that varies; different values have different texts."""
    texts = [{name: canonical(value) for name, value in row.items()} for row in settings]
    names = dict.fromkeys([*always, *(name for row in texts for name in row)])
    columns = {name: [row.get(name, UNSET) for row in texts] for name in names}
    return {name: column for name, column in columns.items() if name in always or len(set(column)) > 1}


def text_of(key: str, row: Mapping[str, Any]) -> str:
    """Format a run's value of a setting for display."""
    return format_value(row[key]) if key in row else UNSET


def texts_of(key: str, settings: Sequence[Mapping[str, Any]], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Format a setting's values for display; as JSON if two different values would read alike."""
    texts = [text_of(key, row) for row in settings]
    return texts if len(set(texts)) == len(set(columns[key])) else list(columns[key])


def find_factors(
    columns: Mapping[str, Sequence[str]], always: Sequence[str] = ALWAYS
) -> tuple[list[str], dict[tuple[str, ...], list[str]]]:
    """Find the factors that define cells, and the settings confounded with them.

    Returns:
        the keys: those of `always`, and every varying setting that the keys before it do not determine;
        and a map from sets of keys to the settings that they determine, each setting at its smallest set. Options of
        a group that is listed there are left out.
    """
    keys = list(always)
    for name, values in columns.items():
        if name not in always and not decided(values, [columns[key] for key in keys]):
            keys.append(name)
    follows: dict[tuple[str, ...], list[str]] = {}
    for name in [name for name in columns if name not in keys]:
        by = deciding(name, keys, columns)
        if name == "network._target_" and by == always[:1]:
            continue  # the column of activations names this project's networks other than MLP
        if by and name.split(".")[0] not in follows.get(by, ()):
            follows.setdefault(by, []).append(name)
    return keys, follows


def deciding(name: str, keys: Sequence[str], columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the smallest set of keys that determines a setting; empty if its group does, or beyond TOGETHER keys."""
    group = name.split(".")[0]
    varying = [key for key in keys if len(set(columns[key])) > 1]
    for size in range(1, TOGETHER + 1):
        for some in combinations(varying, size):
            if decided(columns[name], [columns[key] for key in some]):
                return () if group in some else some
    return ()


def decided(values: Sequence[str], by: Sequence[Sequence[str]]) -> bool:
    """Tell whether values are a function of other columns."""
    return len(set(zip(*by, values, strict=True))) <= max(len(set(zip(*by, strict=True))), 1)
