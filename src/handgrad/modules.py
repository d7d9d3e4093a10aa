"""The two engines as LightningModules: the same network, loss and metrics, the gradients by hand or by autograd."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from handgrad import backprop, loss
from handgrad.activation import Activation
from handgrad.config import UserError
from handgrad.network import CLASSES, MLP
from handgrad.optim import FactoredSGD, rehearse
from handgrad.regularizer import L2

Batch = tuple[Tensor, Tensor]  # x: (B, 784) float in [0, 1], y: (B, 10) one-hot float


class Scores(nn.Module):
    """Loss, accuracy and confusion matrix over one set of images, batch by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable")  # by default it leaves NaN out and reports the rest
        self.confusion = MulticlassConfusionMatrix(CLASSES)

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add a batch: logits (B, 10) and one-hot targets (B, 10)."""
        self.loss.update(cross_entropy(logits, y), weight=len(y))
        self.confusion.update(logits, y.argmax(dim=1))

    def reset(self) -> None:
        """Forget every batch."""
        self.loss.reset()
        self.confusion.reset()

    def counts(self) -> Tensor:
        """(10, 10) confusion matrix, rows: true class, columns: predicted class."""
        return self.confusion.compute()

    def numbers(self) -> dict[str, float]:
        """The "loss" in nats per example and the "accuracy" in [0, 1]."""
        counts = self.counts()
        return {"loss": float(self.loss.compute()), "accuracy": int(counts.trace()) / int(counts.sum())}


class Classifier(LightningModule):
    """What both engines share: parameters, optimizer, schedule, metrics and their logging.

    A subclass says how a batch becomes logits (`forward`) and how it becomes a step (`training_step`, which appends the
    batch's mean cross-entropy, without the penalty, to `step_losses`).

    Logs once per epoch: `train/loss` (nats per example, the mean over the epoch's batches, each before its step) and,
    of every set NAME that the Trainer validates on, `NAME/loss` and `NAME/accuracy`.

    Args:
        network: the parameters.
        activation: phi of every hidden layer.
        regularizer: the penalty added to the mean loss.
        optimizer: makes the optimizer from (name, parameter) pairs.
        schedule: makes the learning-rate schedule from the optimizer, or None; stepped after every batch, or, one that
            waits for a plateau, after every epoch by `val/loss` where that is scored, by `train/loss` elsewhere.
    """

    def __init__(
        self,
        network: MLP,
        activation: Activation,
        regularizer: L2,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[Optimizer], LRScheduler | None],
    ) -> None:
        super().__init__()
        self.network = network
        self.activation = activation
        self.regularizer = regularizer
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.test_logits: list[Tensor] = []  # (B, 10) of every batch of the test set, in its order
        self.step_losses: list[Tensor] = []  # of this epoch; tensors, so that no step waits for a number
        self.validated_after = 0  # so many of this epoch's steps
        self.scores = nn.ModuleDict({f"{name}_set": Scores() for name in ("train", "val", "test")})

    def configure_optimizers(self) -> Any:
        rehearse(self.make_optimizer, self.make_schedule)
        optimizer = self.make_optimizer(self.network.named_parameters())
        if (schedule := self.make_schedule(optimizer)) is None:
            return {"optimizer": optimizer}
        described: dict[str, Any] = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau) and self.automatic_optimization:
            described = {"scheduler": schedule, "interval": "epoch", "monitor": "train/loss"}
        return {"optimizer": optimizer, "lr_scheduler": described}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Leave a schedule that waits for a plateau alone: Lightning comes to it after the checkpoint is saved."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def scores_of(self, name: str) -> Scores:
        """The scores of the set "train", "val" or "test"."""
        return cast(Scores, self.scores[f"{name}_set"])

    def numbers_of(self, names: Iterable[str]) -> dict[str, float]:
        """`NAME/loss` in nats per example and `NAME/accuracy` in [0, 1] of every set NAME."""
        return {f"{name}/{metric}": value for name in names for metric, value in self.scores_of(name).numbers().items()}

    def mean_train_loss(self) -> Tensor:
        """() mean cross-entropy of this epoch's batches so far, in nats per example."""
        return torch.stack(self.step_losses).mean()

    def on_train_epoch_start(self) -> None:
        self.step_losses.clear()
        self.validated_after = 0

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.mean_train_loss())
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            if "val" not in self.validated:
                schedule.step(float(self.mean_train_loss()))
            elif self.freshly_validated:
                schedule.step(self.scores_of("val").numbers()["loss"])

    @property
    def freshly_validated(self) -> bool:
        """Whether the `validated` sets have been scored since this epoch's latest step."""
        return self.validated_after == len(self.step_losses) > 0

    @property
    def validated(self) -> list[str]:
        """Names of the sets that are scored after every epoch, in the loaders' order."""
        return list(self.trainer.val_dataloaders or ())

    @property
    def tested(self) -> list[str]:
        """Names of the sets that are scored at the end, in the loaders' order."""
        return list(self.trainer.test_dataloaders or ())

    def on_validation_epoch_start(self) -> None:
        for name in self.validated:
            self.scores_of(name).reset()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        self.scores_of(self.validated[dataloader_idx]).update(self(x), y)

    def on_validation_epoch_end(self) -> None:
        self.validated_after = len(self.step_losses)
        self.log_dict(self.numbers_of(self.validated))

    def on_test_epoch_start(self) -> None:
        self.test_logits.clear()
        for name in self.tested:
            self.scores_of(name).reset()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        logits = self(x)
        self.scores_of(self.tested[dataloader_idx]).update(logits, y)
        if self.tested[dataloader_idx] == "test":
            self.test_logits.append(logits)


class ManualModule(Classifier):
    """Gradients by hand (`backprop.py`); no autograd graph is ever recorded.

    `FactoredSGD` gets them in factored form; every other optimizer finds the gradient of the whole loss, penalty
    included, in `.grad`.
    """

    automatic_optimization = False

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 784) to logits (B, 10)."""
        return backprop.forward(x, self.network.weights, self.network.biases, self.activation).logits

    @torch.no_grad()
    def training_step(self, batch: Batch) -> None:
        x, y = batch
        weights, biases = self.network.weights, self.network.biases
        passed = backprop.forward(x, weights, biases, self.activation)
        log_p = loss.log_softmax(passed.logits)
        self.step_losses.append(loss.cross_entropy(log_p, y))

        delta = loss.cross_entropy_delta(log_p, y)
        gradients = backprop.backward(delta, passed, weights, self.activation)
        optimizer = cast(LightningOptimizer, self.optimizers())  # Lightning counts steps by this wrapper's step()
        if isinstance(optimizer.optimizer, FactoredSGD):
            optimizer.step(gradients=gradients, decay=self.regularizer.decay)
        else:
            for weight, bias, gradient in zip(weights, biases, gradients, strict=True):
                weight.grad = gradient.weight() + self.regularizer.gradient(weight)
                bias.grad = gradient.bias()
            optimizer.step()
        schedule = cast(LRScheduler | None, self.lr_schedulers())
        if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
            schedule.step()


class AutogradModule(Classifier):
    """Gradients by autograd: what a Lightning user would write with `torch.nn`."""

    def __init__(self, network: MLP, activation: Activation, **shared: Any) -> None:
        super().__init__(network, activation, **shared)
        self.phi = activation.reference()

    def configure_optimizers(self) -> Any:
        """Refuse the one optimizer that autograd has nothing for.

        Raises:
            UserError: the optimizer is `FactoredSGD`.
        """
        configured = super().configure_optimizers()
        if isinstance(configured["optimizer"], FactoredSGD):
            raise UserError(
                "optimizer: FactoredSGD takes gradients by hand (engine=manual); with autograd use optimizer=sgd"
            )
        return configured

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 784) to logits (B, 10)."""
        return cast(Tensor, self.network(x, self.phi))

    def training_step(self, batch: Batch) -> Tensor:
        x, y = batch
        mean_loss = cross_entropy(self(x), y)
        self.step_losses.append(mean_loss.detach())
        if self.regularizer.strength:
            return mean_loss + self.regularizer.penalty(self.network.weights)
        return mean_loss
