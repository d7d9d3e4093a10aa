"""Oracle: losses made non-finite at a known step, known delays, and losses recorded step by step."""

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR

import fitting
from fitting import Engine, make
from handgrad.nn.activations import ReLU
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer
from handgrad.runs.record import DivergedError
from handgrad.training.callbacks import DivergenceGuard, EpochBar, History, NoProfiler
from handgrad.training.data import Examples
from handgrad.training.manual import ManualModule
from handgrad.training.modules import AutogradModule


class Spoiler(Callback):
    """Callback that makes weights infinite after a given step: the next step's loss is the first non-finite one."""

    def __init__(self, after_step: int) -> None:
        self.after_step = after_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.after_step:
            with torch.no_grad():
                pl_module.network.weights[0][0, :] = math.inf


def fit(engine: Engine, images_640: Examples, *callbacks: Callback, **options: Any) -> Trainer:
    """Train for two epochs of ten steps."""
    schedule = partial(LinearLR, start_factor=0.5, total_iters=40)
    parts: dict[str, Any] = {"regularizer": Regularizer(), "optimizer": partial(SGD, lr=0.1), "schedule": schedule}
    saving = any(isinstance(callback, Checkpoint) for callback in callbacks)
    options |= {"callbacks": list(callbacks), "enable_checkpointing": saving}
    module = make(engine, ReLU(), network=MLP([784, 20, 10]), **parts)
    return fitting.fit(module, images_640, 2, precision="32-true", **options)


@pytest.mark.parametrize("engine", [ManualModule, AutogradModule])
def test_run_stops_at_the_first_non_finite_loss(images_640: Examples, engine: Engine) -> None:
    with pytest.raises(DivergedError, match=r"train/loss was nan at epoch 1, step 13: try") as caught:
        fit(engine, images_640, DivergenceGuard(), Spoiler(after_step=13))
    assert (caught.value.epoch, caught.value.step) == (1, 13)


def test_non_finite_weights_after_the_last_step_are_noticed(images_640: Examples) -> None:
    with pytest.raises(DivergedError, match=r"test/loss was nan at epoch 0, step 10: try"):
        fit(ManualModule, images_640, DivergenceGuard(), Spoiler(after_step=10))


class Sleeper(Callback):
    """Callback that delays every validation batch by half a second."""

    def on_validation_batch_end(self, *_: Any) -> None:
        time.sleep(0.5)


def test_seconds_exclude_validation(images_640: Examples, tmp_path: Path) -> None:
    history = History(tmp_path)
    fit(ManualModule, images_640, history, Sleeper())
    assert [row["epoch"] for row in history.rows] == [0, 1]
    assert all(0 < row["seconds"] < 0.5 for row in history.rows)


class Bystander(Callback):
    """Callback that records every step's loss, by epoch."""

    def __init__(self) -> None:
        self.losses: list[list[float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.losses.append([])

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.losses[-1].append(float(pl_module.step_losses[-1]))


@pytest.mark.parametrize("engine", [ManualModule, AutogradModule])
def test_history_row_describes_its_own_epoch(images_640: Examples, tmp_path: Path, engine: Engine) -> None:
    history, bystander = History(tmp_path), Bystander()
    trainer = fit(engine, images_640, history, bystander, check_val_every_n_epoch=2, limit_train_batches=7)
    assert [row["train/loss"] for row in history.rows] == pytest.approx([sum(of) / 7 for of in bystander.losses])
    assert [row["batches"] for row in history.rows] == [7, 7]
    assert [row["lr"] for row in history.rows] == pytest.approx([0.1 * (0.5 + 0.5 * step / 40) for step in (7, 14)])
    assert [row["test/accuracy"] is None for row in history.rows] == [True, False]
    module: Any = trainer.lightning_module
    x, y = images_640.rows[:64] / 255, images_640.targets[:64]
    with torch.no_grad():
        expected = float(cross_entropy(module(x), y))
    assert history.rows[1]["test/loss"] == pytest.approx(expected, rel=1e-5)


def test_no_profiler_does_not_change_the_loss(images_640: Examples) -> None:
    """Oracle: Lightning's default profiler."""
    losses = []
    for options in ({}, {"profiler": NoProfiler()}):
        torch.manual_seed(0)
        losses.append(fit(ManualModule, images_640, **options).callback_metrics["train/loss"])
    assert losses[0] == losses[1]


def test_non_finite_weights_are_never_saved(images_640: Examples, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"a weight was nan at epoch 0, step 10: try"):
        fit(ManualModule, images_640, DivergenceGuard(), Spoiler(10), ModelCheckpoint(tmp_path), limit_val_batches=0)
    assert not list(tmp_path.iterdir())


def test_progress_bar_shows_the_latest_loss_and_accuracies(tmp_path: Path) -> None:
    history, trainer, module = History(tmp_path), Trainer(logger=False, enable_checkpointing=False), make(ManualModule)
    bar = EpochBar(history)
    assert bar.get_metrics(trainer, module) == {}
    module.step_losses = [torch.tensor(2.0), torch.tensor(0.25)]
    history.rows = [{"train/accuracy": 0.1}, {"train/accuracy": 0.9, "test/accuracy": None, "train/loss": 1.0}]
    assert bar.get_metrics(trainer, module) == {"loss": "0.250", "train/accuracy": "0.9000"}
