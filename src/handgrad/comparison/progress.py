"""Progress of a sweep: jobs done, running and to go, and a time estimate from earlier runs."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from handgrad.comparison.again import start_of
from handgrad.errors import UserError
from handgrad.identity import normalize
from handgrad.runs.folder import METRICS, is_locked
from handgrad.runs.record import newest_records, read_record
from handgrad.text import flatten

MOST_RECORDS = 300  # newest earlier runs, from which times are estimated
ENGINE, EPOCHS = "engine", "trainer.max_epochs"
# Settings that determine an epoch's duration: those without which an earlier run tells nothing, and the others, the
# most important first.
SAME = (ENGINE, "data._target_", "data.path", "trainer.limit_train_batches")
LIKE = (
    *("network.hidden_sizes", "data.batch_size", "regularizer.adversarial", "optimizer._target_"),
    *("data.deform.elastic", "activation"),
)


def in_time(seconds: float) -> str:
    """Format a duration: 40 s, 12 min, 1 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def jobs_of(options: Sequence[str]) -> list[list[str]]:
    """Expand the overrides of a sweep into those of each job, by Hydra's own sweeper; HydraException if invalid."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(list(options)), max_batch_size=None)
    return jobs


def of_sweep(folder: Path) -> str:
    """Say how far a sweep is; empty if its jobs are unknown (no saved start, or a search) or all done."""
    try:
        start = start_of(folder)
        if start is None or not (folder / "multirun.yaml").exists() or start.searches:
            return ""
        total = len(jobs_of(start.task))
    except (UserError, HydraException):
        return ""
    records = [record for record in map(readable, folder.glob(f"*/{METRICS}")) if record]
    running = sum(record["status"] == "running" and is_locked(record["folder"]) for record in records)
    done = sum(record["status"] != "running" for record in records)
    if done >= total:
        return ""
    seconds = [record["seconds"] for record in records if record.get("seconds")]
    rest, at_once = total - done, workers_of(start.launcher)
    time = f", about {in_time(median(seconds) * rest / at_once)}" if seconds else ""
    return f"{done} of {total} runs done, {running} running, {rest - running} to go{time}."


def readable(path: Path) -> dict[str, Any] | None:
    """Read a run's record and add its folder; None if it is missing or damaged."""
    with suppress(UserError, RecursionError):
        record = read_record(path.parent)
        return record | {"folder": path.parent} if record else None
    return None


def workers_of(launcher: str) -> int:
    """Return how many jobs a launcher runs at once."""
    return 1 if launcher == "basic" else os.cpu_count() or 1


def seconds_of(
    config: Mapping[str, Any], choices: Mapping[str, Any], known: Sequence[Mapping[str, Any]]
) -> float | None:
    """Estimate a run's seconds from the most similar of `earlier_runs`; None if none has its engine and data."""
    wanted = flatten(normalize(config)) | dict(choices)
    alike = [(record, flatten(record["config"]) | record["choices"]) for record in known]
    for many in range(len(LIKE), -1, -1):
        keys = [*SAME, *LIKE[:many]]
        found = [record for record, theirs in alike if all(theirs.get(key) == wanted.get(key) for key in keys)]
        if found:
            per_epoch = median(record["seconds_per_epoch"] for record in found)
            around = median(record["seconds"] - record["epochs"] * record["seconds_per_epoch"] for record in found)
            return float(wanted[EPOCHS] * per_epoch + around)
    return None


def estimate(seconds: Sequence[float | None], at_once: int, known: int) -> str:
    """Estimate how long runs will take, `at_once` in parallel, each estimated or None, by a number of `known` runs."""
    times = [number for number in seconds if number is not None]
    if not times:
        return "No earlier run in outputs/ allows a time estimate."
    rest = sum(times) / len(times) * len(seconds) / at_once
    return f"Estimated from {known} earlier runs: about {in_time(rest)}."


def earlier_runs(outputs: Path) -> list[dict[str, Any]]:
    """Read the records of the newest completed runs below a folder that have times; their configurations normalized."""
    needed = ("seconds", "epochs", "seconds_per_epoch")
    return [
        record | {"config": normalize(record["config"])}
        for record in map(readable, newest_records(outputs)[:MOST_RECORDS])
        if record and record["status"] == "completed" and all(record.get(name) for name in needed)
    ]
