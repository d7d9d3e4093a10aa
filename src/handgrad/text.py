"""Flattening of nested configurations; formatting of values as text that is safe to print."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested configuration to dotted keys: {"optimizer.lr": 0.1, ...}; lists stay whole."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            settings |= flatten(value, f"{prefix}{key}.")
        else:
            settings[f"{prefix}{key}"] = value
    return settings


def equal_typed(a: Any, b: Any) -> bool:
    """Tell whether two values are equal and of equal types: true is not 1, and 1 is not 1.0."""
    return canonical(a) == canonical(b)


def canonical(value: Any) -> str:
    """Serialise a value to unique text: different values have different texts."""
    return json.dumps(value, sort_keys=True)


def format_value(value: Any) -> str:
    """Format a value in one line, e.g. 1e-05, true, [1, 2]; quote a text only if it would read as something else."""
    if isinstance(value, float):
        return repr(value)
    if not isinstance(value, str):
        return escape_control(json.dumps(value, ensure_ascii=False))
    try:
        json.loads(value)
    except ValueError:
        return escape_control(value)
    return json.dumps(value)


def escape_control(text: str) -> str:
    """Escape control characters, line breaks, invisible ones and lone surrogates, unsafe in a terminal or a file."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say in which keys two configurations differ: "optimizer.lr (0.1, not 0.2)", "seed (missing, not 1)"."""
    first, second = flatten(one), flatten(other)
    keys = dict.fromkeys([*second, *first])
    return [
        f"{escape_control(key)} ({format_value(first[key]) if key in first else 'missing'}, "
        f"not {format_value(second[key]) if key in second else 'missing'})"
        for key in keys
        if key not in first or key not in second or not equal_typed(first[key], second[key])
    ]


def values_in(value: Any) -> Iterator[Any]:
    """Yield a nested value and every value in it, keys included, the outermost first."""
    yield value
    inner = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    for each in inner if isinstance(inner, list | tuple | set) else ():
        yield from values_in(each)


def texts_in(value: Any) -> list[str]:
    """Return every text in a nested value, keys included."""
    return [each for each in values_in(value) if isinstance(each, str)]


def targets_in(value: Any) -> list[Any]:
    """Return every `_target_` in a nested value, the outermost first."""
    return [each["_target_"] for each in values_in(value) if isinstance(each, Mapping) and "_target_" in each]


def shortened(text: str, most: int = 120) -> str:
    """Shorten a text of more than `most` characters by cutting out its middle."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-(most // 2) :]}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 run", "1,300 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def join_names(parts: Sequence[str], most: int = 5) -> str:
    """Join names by commas; of a long list, the first few."""
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more
