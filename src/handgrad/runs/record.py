"""The record of a run, `metrics.json`: reading, writing, status, and finding a run by its configuration."""

import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from handgrad.errors import UserError, describe_invalid
from handgrad.identity import normalize
from handgrad.runs.folder import METRICS, write_errors, write_json
from handgrad.text import canonical, differences, equal_typed, join_names

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
    reason: str | None
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


def read_record(folder: Path) -> dict[str, Any] | None:
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
        damage = describe_invalid(error)
    except (OSError, ValueError, RecursionError) as error:
        damage = str(error)
    raise UserError(f"{path} is damaged ({damage}): delete {folder} to run it anew")


def find_existing_run(folder: Path, config: Mapping[str, Any], siblings: bool) -> tuple[Path, dict[str, Any] | None]:
    """Find the run that was already begun with a configuration, or the folder to begin it in.

    Args:
        folder: where it would be begun.
        config: the composed configuration.
        siblings: of a sweep, whose jobs are numbered anew with one more seed: look in the folders beside it as well,
            and where another run has the folder take one that is named by the configuration.

    Returns:
        the run's folder and record, None where there is no such run.

    Raises:
        UserError: the folder itself holds a run with another configuration; says where they differ.
    """
    record, config = read_record(folder), normalize(config)
    differ = differences(normalize(record["config"]), config) if record else []
    if record and not differ:
        return folder, record
    for other in sorted(path.parent for path in folder.parent.glob(f"*/{METRICS}")) if siblings else ():
        with suppress(UserError):  # a damaged neighbour is not this run
            beside = read_record(other)
            if beside and equal_typed(normalize(beside["config"]), config):
                return other, beside
    if differ and not siblings:
        raise UserError(
            f"{folder} holds a run with another configuration: choose another folder or delete this one; "
            f"it has {join_names(differ)}"
        )
    if differ:
        folder = folder.with_name(f"{folder.name}_{hashlib.sha256(canonical(config).encode()).hexdigest()[:8]}")
    return folder, None


def newest_run(outputs: Path) -> Path:
    """The folder of the run that was completed last, a sweep's runs among them.

    Args:
        outputs: holds `runs/` and `sweeps/`.

    Raises:
        UserError: there is none.
    """
    for path in newest_records(outputs):
        with suppress(UserError):  # a damaged one is passed over
            record = read_record(path.parent)
            if record and record["status"] == "completed":
                return path.parent
    raise UserError(f"{outputs} holds no completed run: make one by python src/train.py, or name one with run=...")


def newest_records(outputs: Path) -> list[Path]:
    """The records of all runs, a sweep's among them, the last written first."""
    records = [*outputs.glob(f"runs/*/{METRICS}"), *outputs.glob(f"sweeps/*/*/{METRICS}")]
    return sorted(records, key=lambda path: path.stat().st_mtime, reverse=True)


@contextmanager
def track_status(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Record the run's status in `metrics.json`: running, then completed, diverged or failed.

    A run that was interrupted, by a signal or a crash, stays "running"; nobody holds its folder's lock then.

    Args:
        folder: the run's folder.
        facts: name, seed, choices and config of the run.

    Yields:
        the record; what is added to it while the run goes on is written when the run ends.

    Raises:
        UserError: the folder cannot be written (any more).
    """
    record = {"status": "running", "reason": None, **facts, "metrics": {}}
    record |= {
        "versions": {name: version(name) for name in ("torch", "lightning", "hydra-core")},
        "commit": git_commit(),
    }
    started = time.perf_counter()
    try:
        with write_errors(folder):
            write_record(folder, record)
            yield record
        record["status"] = "completed"
    except DivergedError as error:
        record |= {"status": "diverged", "reason": str(error), "epoch": error.epoch, "step": error.step}
        raise
    except Exception as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        raise
    finally:
        if record["status"] != "running":  # else a signal ended it: "running" in a folder that nobody holds
            record |= {"seconds": time.perf_counter() - started, "peak_memory_mb": peak_memory_mb()}
            with write_errors(folder) if record["status"] == "completed" else suppress(OSError):
                write_record(folder, record)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a run's `metrics.json`."""
    write_json(folder / METRICS, record)


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


def git_commit() -> str | None:
    """The git commit of this code, None where there is no git or no repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.check_output(command, cwd=Path(__file__).parent, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
