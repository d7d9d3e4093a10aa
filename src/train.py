"""Train one network, score it, and leave the results in its folder; with -m, a sweep of them."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from handgrad import command
from handgrad.config import Training, UserError, check, check_monitored, explained, resolved

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Compose, check, train, show; a run that was finished before is skipped, an interrupted one goes on.

    Returns:
        the metric that `objective` names, for a search.
    """
    from handgrad import results  # nothing heavy before the configuration is composed

    command.prepare()  # a worker of a parallel sweep starts here
    job = HydraConfig.get()
    sweep = job.mode == RunMode.MULTIRUN
    if sweep and "joblib" in job.launcher._target_:
        command.end_with_parent()
    os.chdir(job.runtime.cwd)  # whatever hydra.job.chdir says, a relative path means the directory of the start
    alone = not sweep or job.launcher._target_.endswith(
        "BasicLauncher"
    )  # else the launcher shows the progress of all its runs
    config, own = resolved(cfg), Path(job.runtime.output_dir)
    name = str(config.get("name"))
    try:
        check(config, Training)
        check_monitored(config)
        if command.helps_another():
            help_along(cfg, own, {"name": name, "choices": {}, "config": config})
            return None
        if config["trainer"].get("fast_dev_run"):
            try_out(cfg, own)
            return None
        folder, _ = results.earlier(own, config, siblings=sweep) or (own, None)
        if folder != own:
            results.abandon(own)
        with results.claimed(folder, patiently=sweep):
            _, record = results.earlier(folder, config, siblings=False) or (folder, None)
            if record and record["status"] in results.FINISHED:
                log.info("%s: %s before, skipped (%s)", name, record["status"], folder)
                if record["status"] == "diverged":
                    raise UserError(f"{record['reason']} (delete {folder} to try again)")
            else:
                choices = {group: choice for group, choice in job.runtime.choices.items() if "/" not in group}
                facts = {"name": name, "seed": cfg.seed, "choices": choices, "config": config}
                with results.recorded(folder, facts) as record:
                    train(cfg, folder, record, show_progress=alone)
                if alone:
                    show(record, folder)
                else:
                    log.info("%s: %s", name, in_words(record["metrics"]))
    except UserError as error:
        if sweep:  # Hydra goes on, and in the end shows only the first job's error
            log.error("%s: %s", name, error)
        raise
    return objective(cfg, record["metrics"])


def objective(cfg: DictConfig, metrics: dict[str, float]) -> float | None:
    """The metric that a search asked for.

    Raises:
        UserError: there is none of that name.
    """
    if cfg.objective is None:
        return None
    if cfg.objective not in metrics:
        raise UserError(f"objective={cfg.objective} is not among this run's metrics: {', '.join(metrics) or 'none'}")
    return metrics[cfg.objective]


def in_words(metrics: dict[str, float]) -> str:
    """The accuracies, in a line."""
    return ", ".join(f"{name} {value:.2%}" for name, value in metrics.items() if name.endswith("accuracy"))


def train(cfg: DictConfig, folder: Path, record: dict[str, Any], show_progress: bool = True) -> None:
    """Train, from the folder's checkpoint on if there is one, and score what a configuration describes.

    Args:
        cfg: a checked configuration.
        folder: where the results go.
        record: gets the metrics, epochs and seconds per epoch.
        show_progress: a bar on a terminal, a line per epoch elsewhere.

    Raises:
        UserError: the data, or a value that only a library can judge, cannot be used.
        DivergedError: the loss stopped being finite.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from handgrad import checkpoint, results
    from handgrad.artifacts import write_scores
    from handgrad.assembly import assemble
    from handgrad.settings import flat

    last = folder / results.CHECKPOINTS / results.LAST
    last.parent.mkdir(exist_ok=True)  # what stands in its way is found before an epoch is trained
    resumed = checkpoint.sound(last, record["config"])
    if resumed:
        log.info("%s: goes on from %s", record["name"], last)
    trainer, module, data, history = assemble(
        cfg, folder, show_progress, sys.stdout.isatty(), checkpoint.logged_step(resumed) if resumed else 0
    )
    if trainer.world_size > 1:
        check_alone(trainer.world_size)
    # Lightning restores first and converts then, which would round what a float64 run has saved.
    trainer.precision_plugin.convert_module(module)
    with explained("trainer", MisconfigurationException):
        trainer.fit(module, data, ckpt_path=last if resumed else None, weights_only=True)
    # Scored from the file, as the notebook does: what is reported is what was saved.
    trainer.test(module, data, last, verbose=False, weights_only=True)
    settings = record["choices"] | flat(record["config"])
    metrics = write_scores(trainer, module, folder, data.class_names, history.rows, settings)
    record |= {"metrics": metrics} | results.summarize(history.rows)


def check_alone(processes: int) -> None:
    """Check that what Lightning starts the other processes with, this command line and folder, is one run's.

    Raises:
        UserError: it is a sweep's, or the folder's name cannot be handed on.
    """
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        raise UserError(
            f"trainer.devices: in a sweep each of the {processes} processes would start the whole sweep again: "
            "run every cell by a command of its own (without -m), or on one device"
        )
    if set(job.run.dir) & set('"\\'):
        raise UserError(f"hydra.run.dir={job.run.dir} has a sign that cannot be handed on to {processes} processes")


def help_along(cfg: DictConfig, folder: Path, record: dict[str, Any]) -> None:
    """Do what the first of several processes does, and say nothing of what it will say itself."""
    command.help_quietly()
    try:
        if cfg.trainer.get("fast_dev_run"):
            try_out(cfg, folder)
        else:
            train(cfg, folder, record, show_progress=False)
    except UserError:
        pass
    except RuntimeError as error:
        if not command.left_alone(error):
            raise


def try_out(cfg: DictConfig, folder: Path) -> None:
    """Run a batch or a few of everything, as Lightning's `fast_dev_run` has it; nothing is left behind."""
    from handgrad import results
    from handgrad.assembly import assemble

    trainer, module, data, _ = assemble(cfg, folder, show_progress=False)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        results.abandon(folder)
    count = int(cfg.trainer.fast_dev_run)
    log.info("fast_dev_run: %d batch(es) each of training, validation and test went well; nothing is recorded", count)


def show(record: dict[str, Any], folder: Path) -> None:
    """Print a finished run: choices, accuracies, seconds, folder."""
    from rich.table import Table

    table = Table(title=record["name"], show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # a folder cut short could not be copied
    table.add_row("choices", ", ".join(f"{group}={choice}" for group, choice in record["choices"].items() if choice))
    for name, value in record["metrics"].items():
        table.add_row(name, f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4f} nats")
    table.add_row("seconds per epoch", f"{record['seconds_per_epoch']:.2f} ({record['epochs']} epochs)")
    table.add_row("seconds", f"{record['seconds']:.1f}")
    table.add_row("folder", str(folder))
    command.console().print(table)


if __name__ == "__main__":
    command.run(main)
