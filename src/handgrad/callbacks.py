"""What watches a run while it trains: divergence guard, history, progress; and a profiler that does nothing."""

import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.profilers import PassThroughProfiler

from handgrad import results
from handgrad.modules import Classifier

log = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between looks at the loss on an accelerator


class DivergenceGuard(Callback):
    """Stops the run at the step whose loss is not finite.

    On a CPU it looks after every step, which costs 0.2 microseconds there; on an accelerator, where a look makes the
    processor wait, after every 50th and at the end of the epoch. It names the first step whose loss was not finite.

    Raises:
        DivergedError: out of `Trainer.fit`.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        latest = pl_module.step_losses[-1]
        if (latest.is_cpu or (batch_idx + 1) % CHECK_EVERY == 0) and not math.isfinite(latest):
            self._stop(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        if trainer.sanity_checking:
            return
        if not math.isfinite(pl_module.step_losses[-1]):
            self._stop(trainer, pl_module)
        for name, number in pl_module.numbers_of(pl_module.validated).items():
            if not math.isfinite(number):  # the last step spoiled the weights
                raise results.DivergedError(name, number, trainer.current_epoch, trainer.global_step)

    def _stop(self, trainer: Trainer, pl_module: Classifier) -> None:
        finite = torch.stack(pl_module.step_losses).isfinite()
        step = int(finite.int().argmin())
        before = trainer.global_step - len(pl_module.step_losses)
        loss = float(pl_module.step_losses[step])
        raise results.DivergedError("train/loss", loss, trainer.current_epoch, before + step)


class History(Callback):
    """Keeps a row of numbers per epoch; writes them, and a checkpoint that holds them too, to the run's folder.

    The epoch's `seconds` are those of the training loop alone, scoring left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.started = self.stopped = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.started, self.stopped = time.perf_counter(), 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.stopped = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        stopped = self.stopped or time.perf_counter()  # no validation, no earlier stop
        self.rows.append(
            {"epoch": trainer.current_epoch, "train/loss": float(pl_module.mean_train_loss())}
            | pl_module.numbers_of(pl_module.validated)
            | {"lr": trainer.optimizers[0].param_groups[0]["lr"], "seconds": stopped - self.started}
        )
        results.write_history(self.folder, self.rows)
        # Lightning's ModelCheckpoint does no more here, but is asked three times per step: a hundredth of an epoch.
        trainer.save_checkpoint(self.folder / results.CHECKPOINTS / results.LAST)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class EpochLines(Callback):
    """One line per epoch, for an output that is a file."""

    def __init__(self, history: History) -> None:
        self.history = history

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        row = self.history.rows[-1]
        numbers = [f"{name} {value:.4f}" for name, value in row.items() if "/" in name]
        log.info("epoch %d/%d  %s  %.1f s", row["epoch"] + 1, trainer.max_epochs, "  ".join(numbers), row["seconds"])


class EpochBar(TQDMProgressBar):
    """Lightning's progress bar with the latest loss and the latest accuracy, fetched only when it is redrawn."""

    def __init__(self, history: History) -> None:
        super().__init__(refresh_rate=50)
        self.history = history

    def get_metrics(self, trainer: Trainer, pl_module: Classifier) -> dict[str, Any]:
        shown = {"loss": f"{float(pl_module.step_losses[-1]):.3f}"} if pl_module.step_losses else {}
        for name, value in (self.history.rows[-1] if self.history.rows else {}).items():
            if name.endswith("/accuracy"):
                shown[name] = f"{value:.4f}"
        return shown


class NoProfiler(PassThroughProfiler):
    """Measures nothing, with one context for all of a step's hooks; Lightning's default makes a new one for each.

    That is 30 to 70 microseconds of a step (docs/scaling.md).
    """

    nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return self.nothing
