"""CSV tables of a run, validated on reading: history, confusion matrix, predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handgrad.runs.folder import HISTORY, PREDICTIONS

PREDICTION = "true,predicted,probability"


@dataclass(frozen=True)
class RunTables:
    """Tables of a run; None if the file is missing or damaged.

    history: columns of `history.csv` by name, a value per epoch, NaN for an empty cell.
    confusion: (C, C) counts on the scored set, rows: true class.
    truth, right: (N,) true class of each test image, and whether it was classified correctly.
    """

    history: dict[str, np.ndarray] | None = None
    confusion: np.ndarray | None = None
    truth: np.ndarray | None = None
    right: np.ndarray | None = None


def read_run_tables(folder: Path, scored: str, epochs: int | None, classes: int) -> tuple[RunTables, list[str]]:
    """Read the tables of a run; return them, and a sentence for each unreadable or damaged file.

    `scored` is the set whose confusion matrix to read, "test" or "val"; `epochs`, of the record, is None if unknown.
    """
    found: dict[str, Any] = {}
    remarks = []
    readers: dict[str, Callable[[list[str]], dict[str, Any]]] = {
        HISTORY: lambda lines: {"history": history_in(lines, epochs)},
        f"confusion_{scored}.csv": lambda lines: {"confusion": counts_in(lines, classes)},
        PREDICTIONS: lambda lines: predictions_in(lines, classes),
    }
    for name, read in readers.items():
        try:
            found |= read(lines_of(folder / name))
        except FileNotFoundError:
            continue
        except OSError as error:
            remarks.append(f"Left out: {folder / name} cannot be read ({error.strerror}).")
        except ValueError as error:
            remarks.append(f"Left out: {folder / name} is damaged ({error}).")
    return RunTables(**found), remarks


def lines_of(path: Path) -> list[str]:
    """Read a text file's lines; ValueError if it is empty, or cut short, so that a number may have lost digits."""
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError("it is empty")
    if not text.endswith("\n"):
        raise ValueError("its last line is cut short")
    return text.removesuffix("\n").split("\n")


def history_in(lines: Sequence[str], epochs: int | None) -> dict[str, np.ndarray]:
    """Parse the columns of a history; ValueError says why it is invalid."""
    names, *rows = [line.split(",") for line in lines]
    if "epoch" not in names or len(set(names)) < len(names):
        raise ValueError("its first line is not a header")
    if any(len(row) != len(names) for row in rows):
        raise ValueError("its lines are of different lengths")
    if not rows or (epochs is not None and len(rows) != epochs):
        raise ValueError(f"it has {len(rows)} epochs" + (f", not {epochs}" if epochs is not None else ""))
    columns = {name: numbers(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    epoch = columns["epoch"]
    if not np.isfinite(epoch).all() or epoch[0] < 0 or (epoch % 1).any() or (np.diff(epoch) <= 0).any():
        raise ValueError("its epochs do not count upwards")
    for name, values in columns.items():
        most = 1 if name.endswith("/accuracy") else np.inf
        if "/" in name and ((values < 0) | (values > most)).any():
            raise ValueError(f"its {name} is out of range")
    return columns


def numbers(cells: Sequence[str]) -> np.ndarray:
    """Parse cells as finite numbers, empty ones as NaN; ValueError at anything else, "nan" included."""
    try:
        values = np.array([float(cell) if cell else 0.0 for cell in cells])
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise ValueError("a cell is not a number")
    return np.where([bool(cell) for cell in cells], values, np.nan)


def counts_in(lines: Sequence[str], classes: int) -> np.ndarray:
    """Parse the (C, C) counts of a confusion matrix; ValueError says why they are invalid."""
    rows = [line.split(",") for line in lines]
    if len(rows) != classes or any(len(row) != classes for row in rows):
        raise ValueError(f"it is not {classes} by {classes}")
    if not all(cell.isascii() and cell.isdigit() and len(cell) < 16 for row in rows for cell in row):
        raise ValueError("a cell is not a count")
    return np.array(rows, dtype=float)


def predictions_in(lines: Sequence[str], classes: int) -> dict[str, np.ndarray]:
    """Parse each image's true class, and whether the prediction is right; ValueError says why they are invalid."""
    if lines[0] != PREDICTION:
        raise ValueError(f"its first line is not {PREDICTION}")
    if len(lines) == 1:
        raise ValueError("it has no rows")
    try:
        rows = np.loadtxt(lines[1:], delimiter=",", comments=None, ndmin=2)
    except ValueError:
        raise ValueError("a line does not have three numbers") from None
    if rows.shape != (len(lines) - 1, 3):
        raise ValueError("a line does not have three numbers")
    labels, probability = rows[:, :2], rows[:, 2]
    if not (np.isin(labels, np.arange(classes)).all() and ((probability >= 0) & (probability <= 1)).all()):
        raise ValueError("a class or probability is out of range")
    return {"truth": labels[:, 0].astype(np.int32), "right": labels[:, 0] == labels[:, 1]}
