"""Reference table: published results, shown beside the cells that they match."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from handgrad.comparison.cells import text_of
from handgrad.comparison.metrics import Metric
from handgrad.errors import UserError
from handgrad.text import join_names


def read_reference(path: Path, metric: Metric) -> pd.DataFrame:
    """Read a reference table, a CSV file with one row per published result.

    Columns with a slash are metrics ("test/accuracy"); every other column is a setting that a run must share for the
    row to be shown beside it. Return the settings, as texts, and a float column "reference", the metric's.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        numbers = pd.to_numeric(table[metric.column])
    except KeyError:
        said = f"reference={path} has no column {metric.column}, the metric that cells are compared by"
        raise UserError(said) from None
    except (OSError, ValueError) as error:
        raise UserError(f"reference={path} cannot be read ({error}): give a CSV file with a row per result") from None
    lowest, highest = metric.bounds
    if ((numbers < lowest) | (numbers > highest)).any():
        raise UserError(
            f"reference={path} has {metric.column} outside {lowest:g} to {highest:g}: give shares, not percent"
        )
    return table.drop(columns=[name for name in table if "/" in name]).assign(reference=numbers)


def match_reference(table: pd.DataFrame, settings: Sequence[Mapping[str, Any]], path: Path) -> tuple[list[float], str]:
    """Find the reference value of every run in a table from `read_reference`; `path` is its file, for messages.

    Returns:
        each run's reference value, NaN if no row has its settings; a sentence that says which settings had to match.
    """
    keys = [name for name in table if name != "reference"]
    if strange := [key for key in keys if not any(key in row for row in settings)]:
        raise UserError(f"reference={path}: {join_names(strange)} is neither a setting nor a metric of these runs")
    printed = dict(zip(zip(*(table[key] for key in keys), strict=True), table.reference, strict=True))
    places = [tuple(text_of(key, row) for key in keys) for row in settings]
    said = f"{path.stem} is shown beside cells with its {join_names(keys, most=12)}: {len(set(places) & set(printed))}"
    return [printed.get(place, float("nan")) for place in places], f"{said} of {len(table)} rows."
