"""Record of a run, `metrics.json`: reading, writing, status, and lookup of a run by its configuration."""

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
from handgrad.runs.folder import CHECKPOINTS, METRICS, write_errors, write_json
from handgrad.text import canonical, differences, equal_typed, join_names

FINISHED = ("completed", "diverged")  # a rerun would give the same result


class DivergedError(UserError):
    """Error for a loss or weight that is not finite, at an epoch and a step since the start of training, from 0."""

    def __init__(self, name: str, loss: float, epoch: int, step: int) -> None:
        super().__init__(name, loss, epoch, step)  # unformatted, so that a worker's error can be pickled
        self.name, self.loss, self.epoch, self.step = name, loss, epoch, step

    def __str__(self) -> str:
        return (
            f"{self.name} was {self.loss} at epoch {self.epoch}, step {self.step}: "
            "try a smaller optimizer.lr, schedule=warmup, or another network.init; "
            "recipes that learned with every seed tried: experiment=plain, for Fashion-MNIST experiment=fashion"
        )


class Record(BaseModel):
    """Schema of `metrics.json`; docs/run-folder.md describes the fields."""

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
    classes: int = 10  # older runs all have ten
    versions: dict[str, str] = {}
    commit: str | None = None


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of the run in a folder, None if there is none; UserError if it is damaged."""
    path = folder / METRICS
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Record.model_validate(record)
        return record
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise UserError(f"{folder} is a file: name a folder") from None
    except ValidationError as error:
        damage = describe_invalid(error)
    except (OSError, ValueError, RecursionError) as error:
        damage = str(error)
    raise UserError(f"{path} is damaged ({damage}): delete {folder} to run it anew")


def find_existing_run(folder: Path, config: Mapping[str, Any], siblings: bool) -> tuple[Path, dict[str, Any] | None]:
    """Find the existing run with a configuration and its record, or the folder for a new one and None.

    In a sweep adding a seed renumbers the jobs: with `siblings` the folders beside the run's own are searched too, and
    if another run occupies its own, a hash of the configuration is appended to its name. Without `siblings` that is a
    UserError that names the differences.
    """
    record, config = read_record(folder), normalize(config)
    differ = differences(normalize(record["config"]), config) if record else []
    if record and not differ:
        return folder, record
    for other in sorted(path.parent for path in folder.parent.glob(f"*/{METRICS}")) if siblings else ():
        with suppress(UserError):  # skip a damaged record
            beside = read_record(other)
            if beside and equal_typed(normalize(beside["config"]), config):
                return other, beside
    # A run refused for a typo, say, left nothing to lose.
    empty = record and record["status"] == "failed" and not any((folder / CHECKPOINTS).glob("*"))
    if differ and not siblings and not empty:
        raise UserError(
            f"{folder} holds a run with another configuration: choose another folder, or move this one away; "
            f"it has {join_names(differ)}"
        )
    if differ and siblings:
        folder = folder.with_name(f"{folder.name}_{hashlib.sha256(canonical(config).encode()).hexdigest()[:8]}")
    return folder, None


def newest_run(outputs: Path) -> Path:
    """Return the folder of the run completed last in `runs/` or `sweeps/` of a folder; UserError if there is none."""
    for path in newest_records(outputs):
        with suppress(UserError):  # skip a damaged record
            record = read_record(path.parent)
            if record and record["status"] == "completed":
                return path.parent
    raise UserError(f"{outputs} holds no completed run: make one with python src/train.py, or name one with run=...")


def newest_records(outputs: Path) -> list[Path]:
    """List the paths of all records, including those of sweeps, newest first."""
    records = [*outputs.glob(f"runs/*/{METRICS}"), *outputs.glob(f"sweeps/*/*/{METRICS}")]
    return sorted(records, key=lambda path: path.stat().st_mtime, reverse=True)


@contextmanager
def track_status(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Record the run's status in `metrics.json`: "running" on entry, "completed", "diverged" or "failed" on exit.

    The status of a run interrupted by a signal or a crash stays "running", but its folder is no longer locked. `facts`
    are name, seed, choices and config. Entries added to the yielded record are written at the end. UserError if the
    folder is not writable.
    """
    versions = {name: version(name) for name in ("torch", "lightning", "hydra-core")}
    record = {"status": "running", "reason": None, **facts, "metrics": {}, "versions": versions, "commit": git_commit()}
    started = time.perf_counter()
    try:
        with write_errors(folder):
            write_json(folder / METRICS, record)
            yield record
        record["status"] = "completed"
    except DivergedError as error:
        record |= {"status": "diverged", "reason": str(error), "epoch": error.epoch, "step": error.step}
        raise
    except Exception as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        raise
    finally:
        if record["status"] != "running":  # else interrupted by a signal: keep "running"
            record |= {"seconds": time.perf_counter() - started, "peak_memory_mb": peak_memory_mb()}
            with write_errors(folder) if record["status"] == "completed" else suppress(OSError):
                write_json(folder / METRICS, record)


def peak_memory_mb() -> float | None:
    """Return this process's peak resident memory in MB (over all runs of a serial sweep); None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # Linux counts in kB, macOS in bytes


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return epochs trained and median seconds per full epoch, one with the maximum number of batches."""
    most = max((row["batches"] for row in rows), default=0)
    whole = [row["seconds"] for row in rows if row["batches"] == most]
    return {"epochs": len(rows), "seconds_per_epoch": statistics.median(whole) if whole else None}


def git_commit() -> str | None:
    """Return the git commit of this code, None without git or a repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.check_output(command, cwd=Path(__file__).parent, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
