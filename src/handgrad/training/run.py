"""Train and score one run: in full, as a fast_dev_run, or as a DDP worker."""

import logging
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from handgrad.console import is_interactive
from handgrad.errors import UserError, as_user_error, is_peer_failure
from handgrad.process import silence_ddp_worker
from handgrad.runs.checkpoint import logged_step, read_checkpoint, resumable, resume_errors
from handgrad.runs.folder import CHECKPOINTS, LAST, MINE, remove_empty_run, replacing
from handgrad.runs.record import summarize
from handgrad.text import flatten
from handgrad.training.artifacts import write_scores
from handgrad.training.build import assemble
from handgrad.training.callbacks import LastCheckpoint
from handgrad.training.mine import MineModule

log = logging.getLogger(__name__)


def train(cfg: DictConfig, folder: Path, record: dict[str, Any], show_progress: bool = True) -> None:
    """Train and score a run in its folder; resume from the checkpoint there if there is one.

    A progress bar is shown on a terminal, a line per epoch elsewhere. `record` gets metrics, threads, matmul precision,
    epochs and seconds per epoch. UserError if the data are unusable, a library rejects a value of the configuration, or
    no step was taken; DivergedError if the loss or a weight is not finite.
    """
    last = folder / CHECKPOINTS / LAST
    last.parent.mkdir(exist_ok=True)  # fail now if the folder cannot be created, not after an epoch
    resumed = resumable(last, record["config"])
    if resumed:
        log.info("%s: resuming from %s", record["name"], last)
    with resume_errors(last, lambda: False):
        step = logged_step(resumed) if resumed else 0
    trainer, module, data, history = assemble(cfg, folder, show_progress, is_interactive(), step)
    if trainer.world_size > 1:
        check_not_multirun(trainer.world_size)
    if isinstance(module, MineModule):
        with replacing(folder / MINE) as half:
            half.write_bytes(module.read())
    # Lightning converts only after restoring the checkpoint, which would round float64 weights.
    trainer.precision_plugin.convert_module(module)
    saver = next(each for each in trainer.checkpoint_callbacks if isinstance(each, LastCheckpoint))
    unhurt = resume_errors(last, lambda: saver.best_model_path or not resumed)
    with unhurt, as_user_error("trainer", MisconfigurationException, ModuleNotFoundError):
        trainer.fit(module, data, ckpt_path=last if resumed else None, weights_only=True)
    if not history.rows:
        raise UserError("trainer: training ended before its first step, by max_time or a callback: nothing to score")
    # Score the saved weights, so that the metrics describe the checkpoint. With `ckpt_path=last` a weight-averaging
    # callback would replace them by those of the last step.
    module.load_state_dict(read_checkpoint(last)[0]["state_dict"])
    trainer.test(module, data, verbose=False)
    settings = record["choices"] | flatten(record["config"])
    metrics = write_scores(trainer, module, data, folder, history.rows, settings)
    record |= {"metrics": metrics, "threads": torch.get_num_threads(), "matmul": torch.get_float32_matmul_precision()}
    record |= summarize(history.rows) | {"classes": len(data.class_names)}


def fast_dev_run(cfg: DictConfig, folder: Path) -> None:
    """Run a few batches of training, validation and test with Lightning's `fast_dev_run`; keep no files."""
    trainer, module, data, _ = assemble(cfg, folder, show_progress=False)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        remove_empty_run(folder)
    count = int(cfg.trainer.fast_dev_run)
    log.info("fast_dev_run: %d batch(es) each of training, validation and test went well; nothing is recorded", count)


def train_as_worker(cfg: DictConfig, folder: Path, record: dict[str, Any]) -> None:
    """Train as a DDP worker: like rank 0, but without output."""
    silence_ddp_worker()
    try:
        if cfg.trainer.get("fast_dev_run"):
            fast_dev_run(cfg, folder)
        else:
            train(cfg, folder, record, show_progress=False)
    except UserError:
        pass
    except RuntimeError as error:
        if not is_peer_failure(error):
            raise


def check_not_multirun(processes: int) -> None:
    """Check that Lightning can start the DDP workers from this command line: no sweep, no quotes in the folder."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        raise UserError(
            f"trainer.devices: in a sweep each of the {processes} processes would start the whole sweep again: "
            "run every cell by a command of its own (without -m), or on one device"
        )
    if set(job.run.dir) & set('"\\'):
        raise UserError(
            f"hydra.run.dir={job.run.dir} contains a character that cannot be passed on to {processes} processes"
        )
