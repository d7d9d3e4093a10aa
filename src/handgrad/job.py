"""One job: find the finished run of a configuration, or train it; for src/train.py and `handgrad.train`."""

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from handgrad.checks import check_monitored, check_options
from handgrad.config import to_dict
from handgrad.console import make_console
from handgrad.errors import UserError
from handgrad.process import import_from_here, is_ddp_worker
from handgrad.runs.folder import METRICS, remove_empty_run, run_lock, write_errors, write_text
from handgrad.runs.record import FINISHED, find_existing_run, track_status
from handgrad.sweep import choices_of, run_config
from handgrad.text import counted, escape_control

log = logging.getLogger(__name__)


def find_or_train(cfg: DictConfig, own: Path, sweep: bool = False, quiet: bool = False) -> tuple[Path, dict[str, Any]]:
    """Find the finished run of a configuration, in its own folder or a sibling one, or train it; print it.

    `cfg` is composed and `HydraConfig` set; a job of a sweep searches the sibling folders too. Returns the run's
    folder and its record, empty for a `fast_dev_run` or a worker. UserError if the configuration is invalid, the
    run diverged, now or before, or it could not be finished.
    """
    config = run_config(to_dict(cfg))
    check_options(config)
    check_monitored(config)
    if cfg.dry_run:
        raise UserError("dry_run=true only works with -m")
    if cfg.mine and not sweep and not cfg.engine._target_.endswith("MineModule"):
        log.warning("mine=%s has no effect: only engine=mine trains with that file's functions", cfg.mine)
    composed, cfg = cfg, OmegaConf.create(config)
    import_from_here()
    job = HydraConfig.get()
    facts = {"name": str(cfg.name), "seed": cfg.seed, "choices": choices_of(job.runtime.choices), "config": config}
    if is_ddp_worker() or config["trainer"].get("fast_dev_run"):
        from handgrad.training import run as training  # imports torch: only if there is something to train

        training.train_as_worker(cfg, own, facts) if is_ddp_worker() else training.fast_dev_run(cfg, own)
        return own, {}
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
                train(cfg, folder, record, show_progress=alone and not quiet)
            if not quiet:
                show(record, folder, briefly=not alone)
    return folder, record


def save_composition(folder: Path, composed: DictConfig) -> None:
    """Write `.hydra/`, as Hydra would before it is known whether the folder holds another run."""
    job = HydraConfig.get()
    with write_errors(folder):
        (folder / ".hydra").mkdir(exist_ok=True)
        for name, part in (("config", composed), ("hydra", {"hydra": job}), ("overrides", job.overrides.task)):
            write_text(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(part))


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
    table.add_row("seconds per epoch", f"{record['seconds_per_epoch']:.2f} ({counted(record['epochs'], 'epoch')})")
    table.add_row("seconds", f"{record['seconds']:.1f}")
    table.add_row("folder", str(folder))
    make_console().print(table)
