"""What a run leaves behind: names and formats of its files, known to this module alone. docs/run-folder.md lists them.

Every file is written under a temporary name and renamed, so that a reader never sees half of one.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handgrad.config import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = "metrics.json"
HISTORY = "history.csv"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
TENSORBOARD = "tensorboard"


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
            "try a smaller optimizer.lr, schedule=warmup, or another network.init"
        )


@contextmanager
def recorded(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Claim a folder for one run and keep its `metrics.json` true to what becomes of the run.

    Args:
        folder: the run's folder; it must not hold a run already.
        facts: name, seed and choices of the run.

    Yields:
        the record; what is added to it while the run goes on is written when the run ends.

    Raises:
        UserError: the folder holds a run.
    """
    record = {"status": "running", "reason": None, **facts, "metrics": {}}
    record |= {"versions": {name: version(name) for name in ("torch", "lightning", "hydra-core")}, "commit": commit()}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / METRICS).open("x") as file:
            json.dump(record, file, indent=2)
    except FileExistsError:
        raise UserError(f"{folder} already holds a run: choose another folder or delete this one") from None
    started = time.perf_counter()
    try:
        yield record
        record["status"] = "completed"
    except DivergedError as error:
        record |= {"status": "diverged", "reason": str(error), "epoch": error.epoch, "step": error.step}
        raise
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        record |= {"status": "failed", "reason": "interrupted"}
        raise
    except Exception as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        raise
    finally:
        record |= {"seconds": time.perf_counter() - started, "peak_memory_mb": peak_memory_mb()}
        with replacing(folder / METRICS) as path:
            path.write_text(json.dumps(record, indent=2) + "\n")


def peak_memory_mb() -> float | None:
    """Peak resident size of this process so far in MB (in a serial sweep, of all its runs); None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # Linux counts in kB, macOS in bytes


def summarize(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Epochs trained and the median of their seconds, for the record."""
    return {"epochs": len(rows), "seconds_per_epoch": statistics.median(row["seconds"] for row in rows)}


def write_history(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write a row per epoch."""
    with replacing(folder / HISTORY) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_confusion(folder: Path, name: str, counts: Sequence[Sequence[int]]) -> None:
    """Write a set's 10 x 10 counts, rows: true class, columns: predicted class."""
    with replacing(folder / f"confusion_{name}.csv") as path, path.open("w", newline="") as file:
        csv.writer(file).writerows(counts)


def write_figure(folder: Path, name: str, figure: "Figure") -> None:
    """Write a figure as PNG."""
    with replacing(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=120)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def commit() -> str | None:
    """The git commit of this code, None where there is no git or no repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.check_output(command, cwd=Path(__file__).parent, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
