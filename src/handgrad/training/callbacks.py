"""Callbacks: divergence guard, history, last checkpoint, SIGTERM handler, progress bar; and a no-op profiler."""

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.profilers import PassThroughProfiler

from handgrad.runs.folder import CHECKPOINTS, LAST, write_history
from handgrad.runs.record import DivergedError
from handgrad.training.modules import Classifier

log = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between checks of the loss on an accelerator


class DivergenceGuard(Callback):
    """Stops training with a DivergedError that names the first step whose loss is not finite.

    On a CPU every step is checked, at 0.2 microseconds each. On an accelerator a check forces a device
    synchronisation, so it happens every 50 steps and at the end of the epoch.
    """

    looked_at = 0  # number of this epoch's steps checked so far

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.looked_at = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        latest = pl_module.step_losses[self.looked_at :]
        if latest[-1].is_cpu:
            finite = all(map(math.isfinite, latest))
        elif len(latest) >= CHECK_EVERY:
            finite = bool(torch.stack(latest).isfinite().all())
        else:
            return
        self.looked_at += len(latest)
        if not finite:
            self._stop(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        if trainer.sanity_checking:
            return
        if not math.isfinite(pl_module.step_losses[-1]):
            self._stop(trainer, pl_module)
        for name, number in pl_module.metrics_of(pl_module.val_sets).items():
            if not math.isfinite(number):  # the last step made the weights non-finite
                raise DivergedError(name, number, trainer.current_epoch, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Raise before non-finite weights are saved, even if the epoch was not scored."""
        for parameter in pl_module.parameters():
            if not parameter.isfinite().all():
                raise DivergedError("a weight", math.nan, trainer.current_epoch, trainer.global_step)

    def _stop(self, trainer: Trainer, pl_module: Classifier) -> None:
        finite = torch.stack(pl_module.step_losses).isfinite()
        step = int(finite.int().argmin())
        before = trainer.global_step - len(pl_module.step_losses)
        loss = float(pl_module.step_losses[step])
        raise DivergedError("train/loss", loss, trainer.current_epoch, before + step)


class History(Checkpoint):
    """Records metrics per epoch, writes them to `history.csv` and stores them in every checkpoint.

    `seconds` is the time of the training loop without scoring, `batches` the number of batches. The scores of a set are
    None unless it was scored after the epoch's last step. With `lines` it logs a line per epoch. Subclasses
    `Checkpoint` so that Lightning calls it last at the end of an epoch.
    """

    def __init__(self, folder: Path, lines: bool = False) -> None:
        self.folder = folder
        self.lines = lines
        self.rows: list[dict[str, Any]] = []
        self.started = self.seconds = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.started, self.seconds = time.perf_counter(), 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the enclosed work of another callback from the epoch's time."""
        began = time.perf_counter()
        yield
        self.started += time.perf_counter() - began

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.seconds += time.perf_counter() - self.started

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        seconds = self.seconds + time.perf_counter() - self.started
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "train/loss": float(pl_module.mean_train_loss())}
        row |= pl_module.skipped_share()
        if pl_module.val_is_fresh:
            row |= pl_module.metrics_of(pl_module.val_sets)
        else:
            row |= {f"{name}/{metric}": None for name in pl_module.val_sets for metric in ("loss", "accuracy")}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "seconds": seconds}
        self.rows.append(row | {"batches": len(pl_module.step_losses)})
        if trainer.is_global_zero:
            write_history(self.folder, self.rows)
        if self.lines:
            numbers = [f"{name} {value:.4f}" for name, value in row.items() if "/" in name and value is not None]
            log.info("epoch %d/%d  %s  %.1f s", row["epoch"] + 1, trainer.max_epochs, "  ".join(numbers), seconds)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [checked_row(row) for row in state_dict["rows"]]


def checked_row(row: Any) -> dict[str, Any]:
    """Copy an epoch's row from a checkpoint; ValueError if a number is missing, not finite or of another type."""
    needed = {"epoch", "train/loss", "lr", "seconds", "batches"}
    if not needed <= row.keys() or any(type(row[name]) not in (int, float) for name in needed):
        raise ValueError("a row of its history is malformed")
    if not all(math.isfinite(row[name]) for name in needed):
        raise ValueError("a number of its history is not finite")
    if any(type(value) not in (int, float, type(None)) for value in row.values()):
        raise ValueError("its history has values that are not numbers")
    return dict(row)


class LastCheckpoint(ModelCheckpoint):
    """Saves `checkpoints/last.ckpt` after every epoch; its state is empty, under a key that ignores its arguments."""

    def __init__(self, folder: Path) -> None:
        name = LAST.partition(".")[0]
        super().__init__(folder / CHECKPOINTS, name, save_on_train_epoch_end=True, enable_version_counter=False)

    @property
    def state_key(self) -> str:
        return type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load nothing: the state is empty."""


class OwnSignals(Callback):
    """Restores this process's SIGTERM handler in distributed training.

    Lightning's handler runs a broadcast at an arbitrary point of the program, which deadlocks with the other processes.
    """

    def __init__(self) -> None:
        self.own = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        signal.signal(signal.SIGTERM, self.own)


class EpochBar(TQDMProgressBar):
    """Lightning's progress bar with latest loss and accuracy, fetched only when the bar is redrawn."""

    def __init__(self, history: History) -> None:
        super().__init__(refresh_rate=50)
        self.history = history

    def get_metrics(self, trainer: Trainer, pl_module: Classifier) -> dict[str, Any]:
        shown = {"loss": f"{float(pl_module.step_losses[-1]):.3f}"} if pl_module.step_losses else {}
        for name, value in (self.history.rows[-1] if self.history.rows else {}).items():
            if name.endswith("/accuracy") and value is not None:
                shown[name] = f"{value:.4f}"
        return shown


class NoProfiler(PassThroughProfiler):
    """No-op profiler with one shared context: Lightning's default makes one per hook, 50 microseconds per step."""

    nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return self.nothing
