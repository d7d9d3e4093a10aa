"""File names in a run's folder, atomic writes, and the folder's lock. docs/run-folder.md lists the files.

Every file is written under a temporary name and renamed, so that no reader sees a partial file.
"""

import csv
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from handgrad.errors import UserError, describe_os_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

METRICS = "metrics.json"
HISTORY = "history.csv"
LAYERS = "layers.csv"
PREDICTIONS = "predictions.csv"
CHECK = "check.json"
VERDICTS = "verdicts.csv"
MINE = "my_backprop.py"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
TENSORBOARD = "tensorboard"
MLFLOW = "mlflow_run_id.txt"
HALF = ".part"  # suffix of a temporary file


def remove_empty_run(folder: Path) -> None:
    """Remove the empty folder that Hydra has made for a run that left nothing in it."""
    with suppress(OSError):  # not empty: keep it
        folder.rmdir()


@contextmanager
def run_lock(folder: Path, patiently: bool = False) -> Iterator[None]:
    """Lock a folder, delete leftovers of killed processes; UserError if it is locked, unless we wait `patiently`."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0.5, poll_interval=0.05)
    try:
        lock.acquire()  # the OS releases it even if the process is killed
    except Timeout:
        if not patiently:
            raise UserError(
                f"{folder} is being written by another process: wait for it or choose another folder"
            ) from None
        log.info("%s is being written by another process: waiting for it", folder)
        lock.acquire(timeout=-1)
    try:
        for half in folder.rglob(f".*{HALF}"):
            half.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # before the release: afterwards another process may hold the file
            Path(lock.lock_file).unlink()
        lock.release()


def is_locked(folder: Path) -> bool:
    """Tell whether a live process holds the lock of a folder."""
    path = folder / ".lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # read-only folder
        return False


@contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Convert an OSError from writing a run's files to a UserError that names the file and the reason."""
    try:
        yield
    except OSError as error:
        gone = "" if folder.is_dir() else ", for the run's folder is gone"
        raise UserError(
            f"{describe_os_error(error, folder)}{gone}: "
            "free space or repair the folder and repeat the command, or choose another with hydra.run.dir=..."
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, indented."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `history.csv`: a row per epoch, with empty cells for sets that were not scored."""
    columns = max((list(row) for row in rows), key=len)
    write_rows(folder / HISTORY, [columns, *([row.get(column) for column in columns] for row in rows)])


def write_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, with None as an empty cell."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_figure(folder: Path, name: str, figure: "Figure") -> None:
    """Write a figure as PNG."""
    with replacing(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=120)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; rename it to `path` if the block raises nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{HALF}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()
