"""What a run leaves behind: names and formats of its files, known to this module alone. docs/run-folder.md lists them.

Every file is written under a temporary name and renamed, so that a reader never sees half of one.
"""

import csv
import json
import logging
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from handgrad.config import UserError, in_a_sentence, normalize, unusable
from handgrad.settings import differences, same

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

METRICS = "metrics.json"
HISTORY = "history.csv"
LAYERS = "layers.csv"
PREDICTIONS = "predictions.csv"
CHECK = "check.json"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
TENSORBOARD = "tensorboard"
MLFLOW = "mlflow_run_id.txt"
HALF = ".part"  # ends the name of a file that is being written
INTERRUPTED = "interrupted"
FINISHED = ("completed", "diverged")  # running the same configuration again would only repeat it


class DivergedError(UserError):
    """A loss stopped being finite.

    Args:
        name: of the loss, e.g. "train/loss".
        loss: what it was.
        epoch: of the step, from 0.
        step: number of steps before it since training began.
    """

    def __init__(self, name: str, loss: float, epoch: int, step: int) -> None:
        super().__init__(name, loss, epoch, step)  # as they are, so that a worker's error can be sent to its parent
        self.name, self.loss, self.epoch, self.step = name, loss, epoch, step

    def __str__(self) -> str:
        return (
            f"{self.name} was {self.loss} at epoch {self.epoch}, step {self.step}: "
            "try a smaller optimizer.lr, schedule=warmup, or another network.init; "
            "recipes that learned with every seed tried: experiment=best, for Fashion-MNIST experiment=fashion"
        )


class Record(BaseModel):
    """What `metrics.json` holds, and of which types; docs/run-folder.md says what it means."""

    model_config = ConfigDict(strict=True, extra="allow")

    status: Literal["running", "completed", "diverged", "failed"]
    reason: str | None = None
    name: str
    seed: int
    choices: dict[str, str | None]
    config: dict[str, Any]
    metrics: dict[str, float]
    epochs: int | None = None
    seconds_per_epoch: float | None = None
    seconds: float | None = None
    peak_memory_mb: float | None = None
    threads: int | None = None
    matmul: str | None = None
    versions: dict[str, str] = {}
    commit: str | None = None


def read(folder: Path) -> dict[str, Any] | None:
    """The record of the run that a folder holds, None where it holds none.

    Raises:
        UserError: `metrics.json` is damaged.
    """
    path = folder / METRICS
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Record.model_validate(record)
        return record
    except FileNotFoundError:
        return None
    except ValidationError as error:
        damage = in_a_sentence(error)
    except (OSError, ValueError, RecursionError) as error:
        damage = str(error)
    raise UserError(f"{path} is damaged ({damage}): delete {folder} to run it anew")


def earlier(folder: Path, config: Mapping[str, Any], siblings: bool) -> tuple[Path, dict[str, Any]] | None:
    """Find the run that was already begun with a configuration.

    Args:
        folder: where it would be begun.
        config: the composed configuration.
        siblings: look in the folders beside it as well, for in a sweep with one more seed the jobs are numbered anew.

    Returns:
        the run's folder and record, None where there is no such run.

    Raises:
        UserError: the folder itself holds a run with another configuration; says where they differ.
    """
    record, config = read(folder), normalize(config)
    if record and (differ := differences(normalize(record["config"]), config)):
        raise UserError(
            f"{folder} holds a run with another configuration: choose another folder or delete this one; "
            f"it has {joined(differ)}"
        )
    if record:
        return folder, record
    for other in sorted(path.parent for path in folder.parent.glob(f"*/{METRICS}")) if siblings else ():
        with suppress(UserError):  # a damaged neighbour is not this run
            record = read(other)
            if record and same(normalize(record["config"]), config):
                return other, record
    return None


def newest(outputs: Path) -> Path:
    """The folder of the run that was completed last, a sweep's runs among them.

    Args:
        outputs: holds `runs/` and `sweeps/`.

    Raises:
        UserError: there is none.
    """
    for path in newest_first(outputs):
        with suppress(UserError):  # a damaged one is passed over
            record = read(path.parent)
            if record and record["status"] == "completed":
                return path.parent
    raise UserError(f"{outputs} holds no completed run: make one by python src/train.py, or name one with run=...")


def newest_first(outputs: Path) -> list[Path]:
    """The records of all runs, a sweep's among them, the last written first."""
    records = [*outputs.glob(f"runs/*/{METRICS}"), *outputs.glob(f"sweeps/*/*/{METRICS}")]
    return sorted(records, key=lambda path: path.stat().st_mtime, reverse=True)


def joined(parts: Sequence[str], most: int = 5) -> str:
    """A list in words, the first few of a long one."""
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def abandon(folder: Path) -> None:
    """Take away a folder in which Hydra has only written down its configuration."""
    shutil.rmtree(folder / ".hydra", ignore_errors=True)
    with suppress(OSError):  # not empty: not ours to take away
        folder.rmdir()


@contextmanager
def claimed(folder: Path, patiently: bool = False) -> Iterator[None]:
    """Keep every other process out of a folder, and clear away what a killed one left half written.

    Args:
        folder: made if it is not there.
        patiently: wait for a process that is in it.

    Raises:
        UserError: another process is running in the folder at this moment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0.5, poll_interval=0.05)
    try:
        lock.acquire()  # the system lets go of it even if the process is killed
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
        with suppress(OSError):  # before the release: after it, another process may hold what is taken away
            Path(lock.lock_file).unlink()
        lock.release()


@contextmanager
def recorded(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep a claimed folder's `metrics.json` true to what becomes of its run.

    Args:
        folder: the run's folder.
        facts: name, seed, choices and config of the run.

    Yields:
        the record; what is added to it while the run goes on is written when the run ends.

    Raises:
        UserError: the folder cannot be written (any more).
    """
    record = {"status": "running", "reason": None, **facts, "metrics": {}}
    record |= {"versions": {name: version(name) for name in ("torch", "lightning", "hydra-core")}, "commit": commit()}
    started = time.perf_counter()
    try:
        with explained_writes(folder):
            write_record(folder, record)
            yield record
        record["status"] = "completed"
    except DivergedError as error:
        record |= {"status": "diverged", "reason": str(error), "epoch": error.epoch, "step": error.step}
        raise
    except (KeyboardInterrupt, SystemExit):
        record |= {"status": "failed", "reason": INTERRUPTED}
        raise
    except Exception as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        raise
    finally:
        with uninterrupted(), explained_writes(folder) if record["status"] == "completed" else suppress(OSError):
            record |= {"seconds": time.perf_counter() - started, "peak_memory_mb": peak_memory_mb()}
            write_record(folder, record)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait while a record is written: one that came in the middle would leave the one before it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in dict.fromkeys(numbers)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def explained_writes(folder: Path) -> Iterator[None]:
    """Turn a failure to write a run's files into one sentence.

    Raises:
        UserError: a file of the folder could not be written; says which and why.
    """
    try:
        yield
    except OSError as error:
        gone = "" if folder.is_dir() else ", for the run's folder is gone"
        raise UserError(
            f"{unusable(error, folder)}{gone}: "
            "make room or mend the folder and start the same command again, or choose another with hydra.run.dir=..."
        ) from error


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a run's `metrics.json`."""
    write_json(folder / METRICS, record)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file for people and programs."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def mark_interrupted(sweep: Path) -> None:
    """Record what became of a sweep's runs whose processes were ended before they could say so themselves."""
    for folder in (file.parent for file in sweep.glob(f"*/{METRICS}")):
        with suppress(UserError, OSError), claimed(folder):
            record = read(folder)
            if record and record["status"] == "running":
                write_record(folder, record | {"status": "failed", "reason": INTERRUPTED})


def peak_memory_mb() -> float | None:
    """Peak resident size of this process so far in MB (in a serial sweep, of all its runs); None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # Linux counts in kB, macOS in bytes


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epochs trained and the median seconds of the whole ones (of the cut one where there is no other)."""
    most = max((row["batches"] for row in rows), default=0)
    whole = [row["seconds"] for row in rows if row["batches"] == most]
    return {"epochs": len(rows), "seconds_per_epoch": statistics.median(whole) if whole else None}


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row per epoch, an empty cell where a set was not scored."""
    columns = max((list(row) for row in rows), key=len)
    write_rows(folder / HISTORY, [columns, *([row.get(column) for column in columns] for row in rows)])


def write_confusion(folder: Path, name: str, counts: Sequence[Sequence[int]]) -> None:
    """Write a set's 10 x 10 counts, rows: true class, columns: predicted class."""
    write_rows(folder / f"confusion_{name}.csv", counts)


def write_predictions(folder: Path, rows: Iterable[tuple[int, int, float]]) -> None:
    """Write a row per test image, in the set's order: true class, predicted class, probability of the latter."""
    cells = ((true, predicted, f"{probability:.6g}") for true, predicted, probability in rows)
    write_rows(folder / PREDICTIONS, [("true", "predicted", "probability"), *cells])


def write_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, None as an empty cell."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_figure(folder: Path, name: str, figure: "Figure") -> None:
    """Write a figure as PNG."""
    with replacing(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=120)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{HALF}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def commit() -> str | None:
    """The git commit of this code, None where there is no git or no repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.check_output(command, cwd=Path(__file__).parent, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
