"""Oracle: JSON's own types, and values worked out by hand."""

from typing import Any

import pytest

from handgrad.text import differences, equal_typed, flatten, format_value


def test_flatten_uses_dotted_keys() -> None:
    nested = {"seed": 0, "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "sizes": [500, {"a": 1}], "empty": {}}
    assert flatten(nested) == {
        "seed": 0,
        "optimizer._target_": "torch.optim.SGD",
        "optimizer.lr": 0.1,
        "sizes": [500, {"a": 1}],
        "empty": {},
    }


@pytest.mark.parametrize(("a", "b"), [(True, 1), (1, 1.0), ("1", 1), (None, "null"), ([1], ["1"]), (0.1, 0.1000001)])
def test_different_values_are_not_equal(a: Any, b: Any) -> None:
    assert not equal_typed(a, b)
    assert equal_typed(a, a)
    assert format_value(a) != format_value(b)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("relu", "relu"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (100.0, "100.0"),
        (True, "true"),
        (None, "null"),
        ([500, 250], "[500, 250]"),
        ("3", '"3"'),
        ("null", '"null"'),
        ("größe ± 日本", "größe ± 日本"),
        ("\x1b[31mred\n", "\\x1b[31mred\\n"),
        ("\ud800", "\\ud800"),
        (["\u202e"], '["\\u202e"]'),
    ],
)
def test_value_is_formatted_as_written_with_control_characters_escaped(value: Any, text: str) -> None:
    assert format_value(value) == text


def test_differences_name_the_keys_and_both_values() -> None:
    one = {"seed": 1, "optimizer": {"lr": 0.1, "momentum": 0.9}}
    other = {"seed": 1.0, "optimizer": {"lr": 0.1}, "name": "x"}
    assert differences(one, other) == [
        "seed (1, not 1.0)",
        "name (missing, not x)",
        "optimizer.momentum (0.9, not missing)",
    ]
    assert differences(one, one) == []
