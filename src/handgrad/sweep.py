"""Hydra callback of a sweep: dry run before it, comparison report after it."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from handgrad.checks import check_direction, check_options
from handgrad.config import TrainConfig, check, to_dict
from handgrad.errors import UserError
from handgrad.identity import normalize
from handgrad.runs.folder import METRICS
from handgrad.runs.record import FINISHED

log = logging.getLogger(__name__)

SWEEP_ONLY_KEYS = ("report", "dry_run", "mine")  # settings that change no run; `engine` names the file that it reads


class Sweep(Callback):
    """Callback that prints what a sweep would do instead of running it (`dry_run`), or compares its runs (`report`)."""

    folder: Path | None = None
    wanted = False

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        Sweep.folder = Path(config.hydra.sweep.dir).absolute()
        Sweep.wanted = bool(config.get("report")) and not config.get("dry_run")
        try:
            if config.get("dry_run"):
                print(dry_run_summary(config))
                raise SystemExit(0)
            if direction := config.hydra.sweeper.get("direction"):
                check_direction("hydra.sweeper.direction", direction, config.get("optimized_metric"))
        except Exception as error:  # Hydra would only warn, and start the sweep
            print(f"dry_run=true: {error}" if config.get("dry_run") else error, file=sys.stderr)
            raise SystemExit(1) from None
        Sweep.folder.mkdir(parents=True, exist_ok=True)  # a search creates its study there before its first job

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        Sweep.report()

    @classmethod
    def report(cls) -> None:
        """Compare the sweep's runs, once, if there are any; a failure is only logged, since the runs are done."""
        if cls.folder is None or not cls.wanted or not any(cls.folder.glob(f"*/{METRICS}")):
            return
        cls.wanted = False
        try:
            # Imported late: this takes as long as training a small network.
            from handgrad.comparison.report import build_report, write_and_print
            from handgrad.comparison.table import CompareOptions

            write_and_print(build_report([cls.folder], CompareOptions(), Path.cwd()), cls.folder / "comparison")
        except Exception as error:
            log.warning("no report: %s", error)


def dry_run_summary(config: DictConfig) -> str:
    """Describe what a sweep would do: its cells and runs, which are done already, and how long the others take.

    Raises:
        UserError: a job's configuration is invalid, or the sweep is a search.
        HydraException: an override cannot be parsed.
    """
    from handgrad.comparison import progress
    from handgrad.comparison.cells import settings_of
    from handgrad.comparison.own import joined
    from handgrad.text import canonical, counted, escape_control

    if not config.hydra.sweeper._target_.endswith("BasicSweeper"):
        raise UserError("a search chooses its jobs as it goes")
    jobs = progress.jobs_of(config.hydra.overrides.task)
    known = progress.earlier_runs(Path("outputs"))
    there = map(progress.readable, sorted(Path(config.hydra.sweep.dir).glob(f"*/{METRICS}")))
    finished = {
        canonical(normalize(record["config"])): record["folder"].name
        for record in there
        if record and record["status"] in FINISHED
    }
    done, cells, seconds = [], set(), list[float | None]()
    for options in jobs:
        settings, choices = compose_job(config, options)
        cells.add(canonical(settings_of({"choices": choices, "config": settings})))
        if name := finished.get(canonical(normalize(settings))):
            done.append(name)
        else:
            seconds.append(progress.seconds_of(settings, choices, known))
    many = f"{counted(len(cells), 'cell')}, {counted(len(jobs), 'run')}"
    said = [f"{many}: {len(done)} are done already, {len(seconds)} to run."]
    said += [f"Done: {joined(done, most=20)}."] if done else []
    if seconds:
        at_once = progress.workers_of(str(config.hydra.runtime.choices.get("hydra/launcher")))
        said.append(progress.estimate(seconds, at_once, len(known)))
    return "\n".join(map(escape_control, said))


def compose_job(config: DictConfig, options: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Compose a job's settings and its config-group choices, of a sweep's configuration with Hydra's own node."""
    job = GlobalHydra.instance().config_loader().load_sweep_config(config, list(options))
    HydraConfig.instance().set_config(job)
    choices = choices_of(job.hydra.runtime.choices)
    with open_dict(job):
        del job["hydra"]
    settings = run_config(to_dict(job))
    check_options(settings)
    return settings, choices


def choices_of(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's config-group choices, without Hydra's own groups."""
    return {group: choice for group, choice in runtime.items() if not group.startswith("hydra/")}


def run_config(config: dict[str, Any]) -> dict[str, Any]:
    """Check a configuration and drop the keys that concern only the sweep, so that they change no run.

    Raises:
        UserError: names each invalid value.
    """
    check(config, TrainConfig)
    return {key: value for key, value in config.items() if key not in SWEEP_ONLY_KEYS}
