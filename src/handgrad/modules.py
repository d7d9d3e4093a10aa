"""The two engines as LightningModules: the same network, loss and metrics, the gradients by hand or by autograd."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from handgrad import backprop
from handgrad.activation import Activation
from handgrad.backprop import LayerGradient, stacked
from handgrad.config import UserError
from handgrad.data import Batch
from handgrad.loss import at_least_float32
from handgrad.network import CLASSES, MLP
from handgrad.optim import FactoredSGD, planned, rehearse
from handgrad.processes import gathered, gathered_factors, summed, summed_each, together
from handgrad.regularizer import L2


class Scores(nn.Module):
    """Loss, accuracy and confusion matrix over one set of images, batch by batch."""

    def __init__(self) -> None:
        super().__init__()
        # Not MeanMetric: torchmetrics 1.9 forgets the batches' weights with "disable", and batches with NaN without it.
        self.total_loss = SumMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(CLASSES)

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add a batch: logits (B, 10) and one-hot targets (B, 10)."""
        logits = at_least_float32(logits)
        self.total_loss.update(cross_entropy(logits, y.to(logits.dtype), reduction="sum"))
        self.confusion.update(logits, y.argmax(dim=1))

    def reset(self) -> None:
        """Forget every batch."""
        self.total_loss.reset()
        self.confusion.reset()

    def counts(self) -> Tensor:
        """(10, 10) confusion matrix, rows: true class, columns: predicted class."""
        return self.confusion.compute()

    def numbers(self) -> dict[str, float]:
        """The "loss" in nats per example and the "accuracy" in [0, 1]."""
        counts = self.counts()
        examples = int(counts.sum())
        return {"loss": float(self.total_loss.compute()) / examples, "accuracy": int(counts.trace()) / examples}


class Classifier(LightningModule):
    """What both engines share: parameters, optimizer, schedule, metrics and their logging.

    A subclass says how a batch becomes logits (`forward`) and how it becomes a step (`training_step`, which appends the
    batch's mean cross-entropy, without the penalty, to `step_losses`).

    Where several processes train together, each is served a part of every batch, and all take the step of the whole
    batch: losses and scores are those that one process would have had.

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
        self.make_schedule = planned(schedule, lambda: self.planned_steps)
        self.test_logits: list[Tensor] = []  # (B, 10) of every batch of the test set, in its order
        self.step_losses: list[Tensor] = []  # of this epoch; tensors, so that no step waits for a number
        self.validated_after = 0  # so many of this epoch's steps
        self.scores = nn.ModuleDict({f"{name}_set": Scores() for name in ("train", "val", "test")})

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule.

        Raises:
            UserError: one of them cannot be made or stepped, or its gradient cannot be clipped.
        """
        rehearse(self.make_optimizer, self.make_schedule)
        optimizer = self.make_optimizer(self.network.named_parameters())
        mixed = self._trainer is not None and isinstance(self.trainer.precision_plugin, MixedPrecision)
        if mixed and self.clips and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UserError(
                "trainer.gradient_clip_val: in mixed precision Lightning clips nothing for a fused optimizer: "
                "add optimizer.fused=false"
            )
        if (schedule := self.make_schedule(optimizer)) is None:
            return {"optimizer": optimizer}
        described: dict[str, Any] = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau) and self.automatic_optimization:
            described = {"scheduler": schedule, "interval": "epoch", "monitor": "train/loss"}
        return {"optimizer": optimizer, "lr_scheduler": described}

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped."""
        return bool(self.trainer.gradient_clip_val)

    @property
    def planned_steps(self) -> float:
        """How many steps the optimizer will take in the whole run, as far as the Trainer's limits tell."""
        return self.trainer.estimated_stepping_batches

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
        self.log("train/loss", self.mean_train_loss(), sync_dist=True)
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            if "val" not in self.validated:
                schedule.step(float(self.mean_train_loss()))
            elif self.freshly_validated:
                schedule.step(self.scores_of("val").numbers()["loss"])

    def examples_of(self, y: Tensor) -> int:
        """How many examples a batch has, of which this process was served the targets y (B, 10)."""
        return int(summed(torch.tensor(len(y), device=self.device))) if together() else len(y)

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
        self.log_dict(self.numbers_of(self.validated), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self.test_logits.clear()
        for name in self.tested:
            self.scores_of(name).reset()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        logits = self(x)
        self.scores_of(self.tested[dataloader_idx]).update(logits, y)
        if self.tested[dataloader_idx] == "test":
            self.test_logits.append(gathered(logits))


class ManualModule(Classifier):
    """Gradients by hand (`backprop.py`); no autograd graph is ever recorded.

    `FactoredSGD` gets them in factored form; every other optimizer finds the gradient of the whole loss, penalty
    included, in `.grad`.

    Args:
        accumulate_grad_batches: batches whose gradients are averaged into a step.
        gradient_clip_val: the most that the gradient may be long ("norm") or an entry of it large ("value").
        gradient_clip_algorithm: "norm" (the default) or "value".
        shared: as for every `Classifier`.
    """

    automatic_optimization = False

    def __init__(
        self,
        *,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.batches_per_step = accumulate_grad_batches
        self.clip_val = gradient_clip_val or None  # 0 clips nothing
        self.clip_algorithm = gradient_clip_algorithm or "norm"
        self.waiting: list[list[LayerGradient]] = []  # of the batches since the latest step

    @property
    def clips(self) -> bool:
        return self.clip_val is not None

    @property
    def planned_steps(self) -> float:
        steps, trainer = super().planned_steps, self.trainer  # which reads the data, and counts batches
        if self.batches_per_step == 1:
            return steps
        steps = math.ceil(trainer.num_training_batches / self.batches_per_step) * (trainer.max_epochs or 1)
        return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)

    def configure_optimizers(self) -> Any:
        """Refuse what only a gradient that is multiplied out allows.

        Raises:
            UserError: `FactoredSGD` with clipping by value, or with 16-mixed precision's scaled gradients.
        """
        configured = super().configure_optimizers()
        if isinstance(configured["optimizer"], FactoredSGD):
            if self.clip_val and self.clip_algorithm == "value":
                raise UserError("trainer.gradient_clip_algorithm=value needs the whole gradient: use optimizer=sgd")
            if self.scaler is not None:
                raise UserError("trainer.precision=16-mixed scales the whole gradient: use optimizer=sgd or bf16-mixed")
        return configured

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What keeps small deltas from vanishing in float16; Lightning divides it out again before the step."""
        return getattr(self._trainer and self.trainer.precision_plugin, "scaler", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 784) to logits (B, 10)."""
        return backprop.forward(x, self.network.weights, self.network.biases, self.activation).logits

    def training_step(self, batch: Batch) -> None:
        x, y = batch
        loss, _, gradients = backprop.loss_and_gradients(
            x,
            y,
            self.network.weights,
            self.network.biases,
            self.activation,
            examples=self.examples_of(y),
            scale=self.scaler.scale if self.scaler else None,
        )
        self.step_losses.append(summed(loss))
        self.waiting.append(gradients)
        if len(self.waiting) == self.batches_per_step or self.trainer.is_last_batch:
            self.take_step()

    @torch.no_grad()
    def take_step(self) -> None:
        """Move the parameters by the gradient of the batches that wait."""
        share = len(self.waiting) / self.batches_per_step  # of an epoch's last step, less than one
        gradients = self.waiting[0] if self.batches_per_step == 1 else stacked(self.waiting, self.batches_per_step)
        self.waiting.clear()
        decay = self.regularizer.decay * share * (self.scaler.get_scale() if self.scaler is not None else 1)
        optimizer = cast(LightningOptimizer, self.optimizers())  # Lightning counts steps by this wrapper's step()
        if isinstance(optimizer.optimizer, FactoredSGD):
            gradients = gathered_factors(gradients)
            optimizer.step(gradients=gradients, decay=decay, max_norm=self.clip_val)
        else:
            weights = summed_each([gradient.weight().to(self.dtype) for gradient in gradients])
            biases = summed_each([gradient.bias().to(self.dtype) for gradient in gradients])
            for layer, weight, bias in zip(self.network.linear, weights, biases, strict=True):
                layer.weight.grad = weight + decay * layer.weight
                layer.bias.grad = bias
            optimizer.step()
        self.step_schedule()

    def step_schedule(self) -> None:
        """Let the schedule, where there is one, set the next step's rate."""
        schedule = cast(LRScheduler | None, self.lr_schedulers())
        if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
            schedule.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip_val and not isinstance(optimizer, FactoredSGD):
            self.clip_gradients(optimizer, self.clip_val, self.clip_algorithm)


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
        if together():
            share = cross_entropy(self(x), y, reduction="sum") / self.examples_of(y)
            self.step_losses.append(summed(share.detach().clone()))
            mean_loss = share * self.trainer.world_size  # Lightning's wrapper takes the mean over the processes
        else:
            mean_loss = cross_entropy(self(x), y)
            self.step_losses.append(mean_loss.detach())
        if self.regularizer.strength:
            return mean_loss + self.regularizer.penalty(self.network.weights)
        return mean_loss
