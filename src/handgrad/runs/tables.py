"""The tables that a run leaves beside its record: each read once, and checked before a number of it is used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handgrad.runs.folder import HISTORY, PREDICTIONS

CLASSES = 10
PREDICTION = "true,predicted,probability"


@dataclass(frozen=True)
class RunTables:
    """What a run has left; None where a file is missing or was left out because it is damaged.

    history: of each column of `history.csv` its values, a value per epoch, NaN where a cell is empty.
    confusion: (10, 10) counts on the scored set, rows: true class.
    truth: (N,) true class of each test image.
    right: (N,) whether it was classified rightly.
    """

    history: dict[str, np.ndarray] | None = None
    confusion: np.ndarray | None = None
    truth: np.ndarray | None = None
    right: np.ndarray | None = None


def read_run_tables(folder: Path, scored: str, epochs: int | None) -> tuple[RunTables, list[str]]:
    """Read the tables of a run.

    Args:
        folder: the run's.
        scored: the set whose confusion matrix counts, "test" or "val".
        epochs: how many the run's record speaks of, None where it does not.

    Returns:
        the tables; a sentence for each file that is damaged.
    """
    found: dict[str, Any] = {}
    remarks = []

    def history(lines: list[str]) -> dict[str, Any]:
        return {"history": history_in(lines, epochs)}

    readers: list[tuple[str, Callable[[list[str]], dict[str, Any]]]] = [
        (HISTORY, history),
        (f"confusion_{scored}.csv", lambda lines: {"confusion": counts_in(lines)}),
        (PREDICTIONS, predictions_in),
    ]
    for name, read in readers:
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
    """The lines of a text.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is no UTF-8, is empty, or ends in the middle of a line: a number there may have lost digits.
    """
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError("it is empty")
    if not text.endswith("\n"):
        raise ValueError("its last line is cut short")
    return text.removesuffix("\n").split("\n")


def history_in(lines: Sequence[str], epochs: int | None) -> dict[str, np.ndarray]:
    """Columns of a history, checked.

    Raises:
        ValueError: says what is invalid.
    """
    names, *rows = [line.split(",") for line in lines]
    if "epoch" not in names or len(set(names)) < len(names):
        raise ValueError("its first line does not name its columns")
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
    """Cells as finite numbers, NaN for an empty one.

    Raises:
        ValueError: one is something else, "nan" among it.
    """
    try:
        values = np.array([float(cell) if cell else 0.0 for cell in cells])
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise ValueError("a cell of it is no number")
    return np.where([bool(cell) for cell in cells], values, np.nan)


def counts_in(lines: Sequence[str]) -> np.ndarray:
    """(10, 10) counts.

    Raises:
        ValueError: says what is invalid.
    """
    rows = [line.split(",") for line in lines]
    if len(rows) != CLASSES or any(len(row) != CLASSES for row in rows):
        raise ValueError(f"it is not {CLASSES} by {CLASSES}")
    if not all(cell.isascii() and cell.isdigit() and len(cell) < 16 for row in rows for cell in row):
        raise ValueError("a cell of it is no count")
    return np.array(rows, dtype=float)


def predictions_in(lines: Sequence[str]) -> dict[str, np.ndarray]:
    """Truth of each image, and whether it was classified rightly.

    Raises:
        ValueError: says what is invalid.
    """
    if lines[0] != PREDICTION:
        raise ValueError(f"its first line is not {PREDICTION}")
    if len(lines) == 1:
        raise ValueError("it has no rows")
    try:
        rows = np.loadtxt(lines[1:], delimiter=",", comments=None, ndmin=2)
    except ValueError:
        raise ValueError("a line of it is not three numbers") from None
    if rows.shape != (len(lines) - 1, 3):
        raise ValueError("a line of it is not three numbers")
    classes, probability = rows[:, :2], rows[:, 2]
    if not (np.isin(classes, np.arange(CLASSES)).all() and ((probability >= 0) & (probability <= 1)).all()):
        raise ValueError("a class or a probability of it is out of range")
    return {"truth": classes[:, 0].astype(np.int8), "right": classes[:, 0] == classes[:, 1]}
