"""Train one network, score it, and write the results to its folder; with -m, run a sweep."""

import logging
import os
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from handgrad.config import check_monitored, to_dict
from handgrad.console import make_console
from handgrad.errors import UserError
from handgrad.process import end_with_parent, install_handlers, is_ddp_worker, run
from handgrad.runs.folder import METRICS, remove_empty_run, run_lock, write_errors, write_text
from handgrad.runs.record import FINISHED, find_existing_run, track_status
from handgrad.sweep import Sweep, run_config
from handgrad.text import escape_control

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Check the configuration, train, print; skip a run that is finished, resume one that was interrupted.

    Returns:
        the metric that `optimized_metric` names, for a search.
    """
    install_handlers()  # a worker of a parallel sweep starts here
    job = HydraConfig.get()
    sweep = job.mode == RunMode.MULTIRUN
    if sweep and "joblib" in job.launcher._target_:
        end_with_parent()
    os.chdir(job.runtime.cwd)  # relative paths refer to the directory of the start, whatever hydra.job.chdir is
    try:
        return found_or_trained(cfg, Path(job.runtime.output_dir), sweep)
    except UserError as error:
        if sweep:  # Hydra continues, and at the end shows only the first job's error
            log.error("%s: %s", cfg.get("name"), error)
        raise


def found_or_trained(cfg: DictConfig, own: Path, sweep: bool) -> float | None:
    """Find the finished run of a configuration, here or in a sibling folder, or train it; return `optimized_metric`.

    Raises:
        UserError: the configuration is invalid; the run diverged, now or before; or it could not be finished.
    """
    config = run_config(to_dict(cfg))
    check_monitored(config)
    if cfg.dry_run:
        raise UserError("dry_run=true only works with -m")
    composed, cfg = cfg, OmegaConf.create(config)
    job = HydraConfig.get()
    choices = {group: choice for group, choice in job.runtime.choices.items() if "/" not in group}
    facts = {"name": str(cfg.name), "seed": cfg.seed, "choices": choices, "config": config}
    if is_ddp_worker() or config["trainer"].get("fast_dev_run"):
        from handgrad.training import run as training  # imports torch: only if there is something to train

        training.train_as_worker(cfg, own, facts) if is_ddp_worker() else training.fast_dev_run(cfg, own)
        return None
    # Other launchers show the progress of all their runs.
    alone = not sweep or job.launcher._target_.endswith("BasicLauncher")
    folder, _ = find_existing_run(own, config, siblings=sweep)
    if folder != own and not (own / METRICS).exists():
        remove_empty_run(own)
    with run_lock(folder, patiently=sweep):
        _, record = find_existing_run(folder, config, siblings=False)
        if record and record["status"] in FINISHED:
            log.info("%s: %s before, skipped (%s)", cfg.name, record["status"], escape_control(str(folder)))
            if record["status"] == "diverged":
                raise UserError(f"{record['reason']} (delete {folder} to try again)")
        else:
            from handgrad.training.run import train

            save_composition(folder, composed)
            with track_status(folder, facts) as record:
                train(cfg, folder, record, show_progress=alone)
            show(record, folder, briefly=not alone)
    return optimized_metric(cfg.optimized_metric, record["metrics"])


def save_composition(folder: Path, composed: DictConfig) -> None:
    """Write `.hydra/`, as Hydra would before it is known whether the folder holds another run."""
    job = HydraConfig.get()
    with write_errors(folder):
        (folder / ".hydra").mkdir(exist_ok=True)
        for name, part in (("config", composed), ("hydra", {"hydra": job}), ("overrides", job.overrides.task)):
            write_text(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(part))


def optimized_metric(name: str | None, metrics: dict[str, float]) -> float | None:
    """Return the metric that a search optimizes; None without a name.

    Raises:
        UserError: no metric has that name.
    """
    if name is not None and name not in metrics:
        raise UserError(f"optimized_metric={name} is not among this run's metrics: {', '.join(metrics) or 'none'}")
    return None if name is None else metrics[name]


def show(record: dict[str, Any], folder: Path, briefly: bool) -> None:
    """Print a finished run: choices, scores, seconds, folder; or, `briefly`, one line with the accuracies."""
    scores = {
        name: f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4f} nats"
        for name, value in record["metrics"].items()
    }
    if briefly:
        accuracies = [f"{name} {score}" for name, score in scores.items() if name.endswith("accuracy")]
        log.info("%s: %s", record["name"], ", ".join(accuracies))
        return
    from rich.table import Table

    table = Table(title=record["name"], show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # a truncated path could not be copied
    table.add_row("choices", ", ".join(f"{group}={choice}" for group, choice in record["choices"].items() if choice))
    for name, score in scores.items():
        table.add_row(name, score)
    table.add_row("seconds per epoch", f"{record['seconds_per_epoch']:.2f} ({record['epochs']} epochs)")
    table.add_row("seconds", f"{record['seconds']:.1f}")
    table.add_row("folder", str(folder))
    make_console().print(table)


if __name__ == "__main__":
    run(main, on_error=Sweep.report)  # if a job fails, Hydra ends a sweep without calling its callbacks
