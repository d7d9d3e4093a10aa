"""What watches a run: the divergence guard, the history, the progress shown, the final scores."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from handgrad import figures, results
from handgrad.modules import Classifier

log = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between looks at the loss where a look makes the processor wait for the accelerator


class DivergenceGuard(Callback):
    """Stops the run at the step whose loss is not finite.

    On a CPU it looks after every step, which costs nothing there; on an accelerator after every 50th and at the end of
    the epoch, and still names the first step whose loss was not finite.

    Raises:
        DivergedError: out of `Trainer.fit`.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        latest = pl_module.step_losses[-1]
        if (latest.is_cpu or (batch_idx + 1) % CHECK_EVERY == 0) and not torch.isfinite(latest):
            self._stop(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        if not torch.isfinite(pl_module.step_losses[-1]):
            self._stop(trainer, pl_module)

    def _stop(self, trainer: Trainer, pl_module: Classifier) -> None:
        finite = torch.stack(pl_module.step_losses).isfinite()
        step = int(finite.int().argmin())
        before = trainer.global_step - len(pl_module.step_losses)
        raise results.DivergedError(trainer.current_epoch, before + step, float(pl_module.step_losses[step]))


class History(Callback):
    """Keeps a row of numbers per epoch and writes them to the run's folder after each; part of every checkpoint.

    The epoch's `seconds` are those of the training loop alone, scoring left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.started = self.stopped = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.started = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.stopped = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        row = {"epoch": trainer.current_epoch, "train/loss": float(pl_module.mean_train_loss())}
        for name in pl_module.validated:
            row |= {f"{name}/{metric}": value for metric, value in pl_module.scores_of(name).numbers().items()}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "seconds": self.stopped - self.started}
        self.rows.append(row)
        results.write_history(self.folder, self.rows)

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


class FinalScores(Callback):
    """Writes what `Trainer.test` found to the run's folder and to TensorBoard.

    Args:
        folder: the run's folder.
        class_names: of the ten classes.
        history: the epochs before.
        hyperparameters: what TensorBoard's HParams table shows beside the final metrics.

    Attributes:
        metrics: `NAME/accuracy` and `NAME/loss` of every set NAME that was scored.
    """

    def __init__(self, folder: Path, class_names: list[str], history: History, hyperparameters: dict[str, Any]) -> None:
        self.folder = folder
        self.class_names = class_names
        self.history = history
        self.hyperparameters = hyperparameters
        self.metrics: dict[str, float] = {}

    def on_test_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        assert isinstance(trainer.logger, TensorBoardLogger)
        board = trainer.logger.experiment
        for name in pl_module.tested:
            scores = pl_module.scores_of(name)
            numbers, counts = scores.numbers(), scores.counts().cpu()
            self.metrics |= {f"{name}/{metric}": value for metric, value in numbers.items()}
            results.write_confusion(self.folder, name, counts.tolist())
            title = f"{name}: {numbers['accuracy']:.2%} of {counts.sum():,} images right"
            figure = figures.confusion(counts, self.class_names, title)
            board.add_figure(f"confusion/{name}", figure, trainer.global_step, close=False)
            if name == "test":
                results.write_figure(self.folder, "confusion_test", figure)

        results.write_figure(self.folder, "curves", figures.curves(self.history.rows))
        results.write_figure(self.folder, "predictions", self._first_ten(trainer, pl_module))
        losses = [name for name in self.history.rows[0] if name.endswith("/loss")]
        board.add_custom_scalars({"loss": {" and ".join(losses): ["Multiline", losses]}})
        final = {f"final/{name.replace('/', '_')}": value for name, value in self.metrics.items()}
        trainer.logger.log_hyperparams(self.hyperparameters, final, trainer.global_step)

    def _first_ten(self, trainer: Trainer, pl_module: Classifier) -> Figure:
        assert trainer.test_dataloaders is not None
        x, y = next(iter(trainer.test_dataloaders["test"]))
        with torch.no_grad():
            guesses = pl_module(x[:10].to(pl_module.device, pl_module.dtype)).argmax(dim=1)
        actual, predicted = ([self.class_names[i] for i in labels] for labels in (y[:10].argmax(dim=1), guesses))
        return figures.predictions(x[:10], actual, predicted)
