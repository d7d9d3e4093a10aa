"""Train one network, score it, and leave the results in its folder; with -m, a sweep of them."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from handgrad.config import Training, UserError, build, check, explained, resolved, run

if TYPE_CHECKING:
    import lightning

    from handgrad.callbacks import History
    from handgrad.data import MNISTDataModule
    from handgrad.modules import Classifier

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Compose, check, train, show; a run that was finished before is skipped, an interrupted one goes on.

    Returns:
        the metric that `objective` names, for a search.
    """
    from handgrad import results  # nothing heavy before the configuration is composed

    job = HydraConfig.get()
    sweep = job.mode == RunMode.MULTIRUN
    choices = {group: choice for group, choice in job.runtime.choices.items() if "/" not in group}
    config = resolved(cfg)
    facts = {"name": cfg.name, "seed": cfg.seed, "choices": choices, "config": config}
    folder = Path(job.runtime.output_dir)
    alone = job.launcher._target_.endswith("BasicLauncher")  # else the launcher shows the progress of all its runs
    try:
        own = folder
        folder, record = results.earlier(own, config, siblings=sweep) or (own, None)
        if folder != own:
            results.abandon(own)
        if record and record["status"] in results.FINISHED:
            log.info("%s: %s before, skipped (%s)", cfg.name, record["status"], os.path.relpath(folder))
        else:
            with results.recorded(folder, facts) as record:
                check(config, Training)
                train(cfg, folder, record, show_progress=alone)
            if alone:
                show(record, folder)
            else:
                log.info("%s: %s", cfg.name, in_words(record["metrics"]))
    except UserError as error:
        if sweep:  # Hydra goes on, and in the end shows only the first job's error
            log.error("%s: %s", cfg.name, error)
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


class Assembly(NamedTuple):
    """Everything that a training run is made of."""

    trainer: "lightning.Trainer"
    module: "Classifier"
    data: "MNISTDataModule"
    history: "History"


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

    from handgrad import results
    from handgrad.artifacts import write_scores

    trainer, module, data, history = assemble(cfg, folder, show_progress)
    last = folder / results.CHECKPOINTS / results.LAST
    if interrupted := last.exists():
        log.info("%s: goes on from %s", cfg.name, os.path.relpath(last))
        # Lightning restores first and converts then, which would round what a float64 run has saved.
        trainer.precision_plugin.convert_module(module)
    with explained("trainer", MisconfigurationException):
        trainer.fit(module, data, ckpt_path=last if interrupted else None, weights_only=True)
    # Scored from the file, as the notebook does: what is reported is what was saved.
    trainer.test(module, data, last, verbose=False, weights_only=True)
    shown = hyperparameters(cfg, record["choices"])
    metrics = write_scores(trainer, module, folder, data.class_names, history.rows, shown)
    record |= {"metrics": metrics} | results.summarize(history.rows)


def assemble(cfg: DictConfig, folder: Path, show_progress: bool = True) -> Assembly:
    """Build data, module and Trainer with all that watches it, from the seed on.

    Raises:
        UserError: as `train`.
    """
    import lightning
    import torch
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import TensorBoardLogger

    from handgrad import callbacks, results

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Lightning 2.6 calls what torch 2.14 calls deprecated, at every run.
    warnings.filterwarnings("ignore", ".*LeafSpec.*", module="lightning")
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    data = build(cfg.data, seed=cfg.seed)
    data.prepare_data()
    data.setup()
    lightning.seed_everything(cfg.seed, verbose=False)
    parts = {name: build(cfg[name]) for name in ("network", "activation", "regularizer", "optimizer")}
    total_steps = cfg.trainer.max_epochs * len(data.train_dataloader())
    parts["schedule"] = build(cfg.schedule, **({"total_steps": total_steps} if "total_steps" in cfg.schedule else {}))
    module = build(cfg.engine)(**parts)
    with explained("optimizer or schedule", TypeError, ValueError):  # refused before any work is done
        module.configure_optimizers()

    history = callbacks.History(folder)
    terminal = sys.stdout.isatty()
    progress = [callbacks.EpochBar(history) if terminal else callbacks.EpochLines(history)] if show_progress else []
    trainer = build(
        cfg.trainer,
        enable_progress_bar=show_progress and terminal,
        enable_checkpointing=False,  # the history saves its own
        logger=TensorBoardLogger(folder, name="", version=results.TENSORBOARD, default_hp_metric=False),
        callbacks=[
            callbacks.DivergenceGuard(),
            history,
            *progress,
            LearningRateMonitor("step"),
        ],
    )
    return Assembly(trainer, module, data, history)


def hyperparameters(cfg: DictConfig, choices: dict[str, str]) -> dict[str, Any]:
    """What TensorBoard's HParams table shows of a run."""
    return {
        **{group: choices[group] for group in ("activation", "engine", "regularizer", "data", "optimizer", "schedule")},
        "strength": cfg.regularizer.get("strength", 0.0),
        "lr": cfg.optimizer.lr,
        "batch_size": cfg.data.batch_size,
        "hidden_sizes": str(cfg.network.hidden_sizes),
        "init": cfg.network.init,
        "max_epochs": cfg.trainer.max_epochs,
        "seed": cfg.seed,
    }


def show(record: dict[str, Any], folder: Path) -> None:
    """Print a finished run: choices, accuracies, seconds, folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=record["name"], show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # a folder cut short could not be copied
    table.add_row("choices", ", ".join(f"{group}={choice}" for group, choice in record["choices"].items() if choice))
    for name, value in record["metrics"].items():
        table.add_row(name, f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4f} nats")
    table.add_row("seconds per epoch", f"{record['seconds_per_epoch']:.2f} ({record['epochs']} epochs)")
    table.add_row("seconds", f"{record['seconds']:.1f}")
    table.add_row("folder", os.path.relpath(folder))
    Console().print(table)


if __name__ == "__main__":
    run(main)
