"""Classifier, the base class of both engines, and AutogradModule, the engine with gradients from autograd."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from handgrad.errors import UserError, as_user_error
from handgrad.nn.activations import Activation
from handgrad.nn.losses import at_least_float32
from handgrad.nn.mlp import MLP
from handgrad.nn.optimizers import FactoredSGD
from handgrad.nn.regularizers import Regularizer, adversarial, weights_of
from handgrad.training.data import Batch, make_generator
from handgrad.training.distributed import all_gather_rows, all_reduce, is_distributed
from handgrad.training.schedules import check_optimizer, fill_total_steps


class Scores(nn.Module):
    """Running loss, accuracy and confusion matrix of one set of examples in a number of classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        # Not MeanMetric: torchmetrics 1.9 ignores the batch weights with "disable", and drops NaN batches without it.
        self.total_loss = SumMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(classes)

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add a batch: logits (B, C) and one-hot targets (B, C)."""
        logits = at_least_float32(logits)
        self.total_loss.update(cross_entropy(logits, y.to(logits.dtype), reduction="sum"))
        self.confusion.update(logits, y.argmax(dim=1))

    def reset(self) -> None:
        """Discard all batches."""
        self.total_loss.reset()
        self.confusion.reset()

    def confusion_matrix(self) -> Tensor:
        """Return the (C, C) confusion matrix, rows: true class, columns: predicted class."""
        return self.confusion.compute()

    def compute(self) -> dict[str, float]:
        """Return the "loss" in nats per example and the "accuracy" in [0, 1]."""
        counts = self.confusion_matrix()
        examples = int(counts.sum())
        return {"loss": float(self.total_loss.compute()) / examples, "accuracy": int(counts.trace()) / examples}


class Classifier(LightningModule):
    """Base class of both engines: parameters, optimizer, schedule, metrics and logging.

    Subclasses implement `forward` (batch to logits) and `training_step`, which passes the batch's mean cross-entropy,
    without the penalty, to `keep_loss`.

    In distributed training every process gets a part of each batch and takes the step of the whole batch, so that
    losses and scores equal those of a single process.

    Logs the loss of every n-th batch (`trainer.log_every_n_steps`) as `train/step_loss`, and per epoch
    `train/loss` (nats per example, mean over the epoch's batches, each before its step; with regularization, the loss
    that is trained on, without the penalty), `NAME/loss` and `NAME/accuracy` of every validation set NAME, and if
    examples are skipped `train/skipped`, their share.

    Args:
        network: network with the parameters; with autograd it may be another one than an MLP.
        classes: number of classes C.
        activation: phi of every hidden layer.
        regularizer: penalty added to the mean loss, dropout, label smoothing, adversarial examples.
        optimizer: makes the optimizer from (name, parameter) pairs.
        schedule: makes the learning-rate schedule from the optimizer, or None. Stepped after every batch;
            `ReduceLROnPlateau` after every epoch, on `val/loss` if there is a validation set, else on `train/loss`.
        skip: examples whose probabilities differ from the targets by this at most are left out of the backward pass.

    Raises:
        UserError: parts of the regularization do not fit each other or the network.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        activation: Activation,
        regularizer: Regularizer,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[Optimizer], LRScheduler | None],
        skip: float = 0.0,
    ) -> None:
        super().__init__()
        check_regularizer(regularizer, skip, network)
        self.skip = skip
        self.skipped = self.seen = 0  # of this epoch's examples in this process
        self.network = network.requires_grad_()  # DDP needs it under manual optimization, too
        self.activation = activation
        self.regularizer = regularizer
        self.make_optimizer = optimizer
        self.make_schedule = fill_total_steps(schedule, lambda: self.total_steps)
        self.test_logits: list[Tensor] = []  # (B, C) per test batch, in order
        self.step_losses: list[Tensor] = []  # of this epoch; tensors, to avoid a device synchronisation per step
        self.validated_after = 0  # number of this epoch's steps at the last validation
        self.train_scores, self.val_scores, self.test_scores = Scores(classes), Scores(classes), Scores(classes)

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule.

        Raises:
            UserError: one of them cannot be made or stepped, its gradient cannot be clipped, or precision is too low.
        """
        if self.regularizer.adversarial and str(self.trainer.precision).startswith("16"):
            raise UserError(
                f"regularizer.adversarial: trainer.precision={self.trainer.precision} rounds small gradients of the "
                "inputs to zero, and these examples would not be moved: use 32-true or bf16-mixed"
            )
        check_optimizer(self.make_optimizer, self.make_schedule)
        optimizer = self.make_optimizer(self.network.named_parameters())
        mixed = isinstance(self.trainer.precision_plugin, MixedPrecision)
        if mixed and self.clips and any(group.get("fused") for group in optimizer.param_groups):
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
        """Tell whether gradients are clipped."""
        return bool(self.trainer.gradient_clip_val)

    @property
    def total_steps(self) -> float:
        """Number of optimizer steps in the whole run, estimated from the Trainer's limits."""
        return self.trainer.estimated_stepping_batches

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Skip `ReduceLROnPlateau`, for `on_train_epoch_end`: Lightning steps it after saving the checkpoint."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def scores_of(self, name: str) -> Scores:
        """Return the scores of the set "train", "val" or "test"."""
        return {"train": self.train_scores, "val": self.val_scores, "test": self.test_scores}[name]

    def metrics_of(self, names: Iterable[str]) -> dict[str, float]:
        """Return `NAME/loss` in nats per example and `NAME/accuracy` in [0, 1] for every set NAME."""
        return {f"{name}/{metric}": value for name in names for metric, value in self.scores_of(name).compute().items()}

    def keep_loss(self, loss: Tensor) -> None:
        """Store and log a batch's mean cross-entropy () in nats per example, before its step."""
        self.step_losses.append(loss)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.logged_step + 1) % every == 0:  # calling `log` at every step takes a fifth of an epoch
            self.log("train/step_loss", loss)

    def masks_of(self, y: Tensor) -> list[Tensor | None] | None:
        """Draw this step's dropout masks for this process's part of the targets, y (B, C); None: no dropout.

        They are drawn for the whole batch, from the seed and the number of the batch.
        """
        if not self.regularizer.dropout:
            return None
        generator = make_generator(self.hparams["seed"], "dropout", self.trainer.fit_loop.total_batch_idx)
        weights = mlp_of(self, "dropout").weights
        masks = self.regularizer.masks(self.examples_of(y), weights, generator)
        together, process = self.trainer.world_size, self.trainer.global_rank
        return [None if mask is None else mask.tensor_split(together)[process] for mask in masks]

    def keep_skipped(self, rest: int, y: Tensor) -> None:
        """Count a batch's examples, y (B, C), and those that were skipped, all but the rest."""
        self.seen += len(y)
        self.skipped += len(y) - rest

    def skipped_share(self) -> dict[str, float]:
        """Return `train/skipped`, the share of this epoch's examples that were skipped; empty without `skip`."""
        if not self.skip:
            return {}
        skipped, seen = all_reduce(torch.tensor([self.skipped, self.seen], device=self.device)).tolist()
        return {"train/skipped": skipped / seen}

    @property
    def logged_step(self) -> int:
        """Step that Lightning passes to loggers: steps before this batch, or batches under manual optimization."""
        trainer = self.trainer
        return trainer.global_step if self.automatic_optimization else trainer.fit_loop.total_batch_idx

    def mean_train_loss(self) -> Tensor:
        """Return the () mean cross-entropy of this epoch's batches so far, in nats per example."""
        return torch.stack(self.step_losses).mean()

    def on_train_epoch_start(self) -> None:
        self.step_losses.clear()
        self.validated_after = self.skipped = self.seen = 0

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.mean_train_loss(), sync_dist=True)
        self.log_dict(self.skipped_share(), sync_dist=True)
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            if "val" not in self.val_sets:
                schedule.step(float(self.mean_train_loss()))
            elif self.val_is_fresh:
                schedule.step(self.scores_of("val").compute()["loss"])

    def examples_of(self, y: Tensor) -> int:
        """Return the size of the whole batch, given this process's part of the targets, y (B, C)."""
        return int(all_reduce(torch.tensor(len(y), device=self.device))) if is_distributed() else len(y)

    @property
    def val_is_fresh(self) -> bool:
        """Tell whether the validation sets were scored after this epoch's latest step."""
        return self.validated_after == len(self.step_losses) > 0

    @property
    def val_sets(self) -> list[str]:
        """Names of the sets scored after every epoch, in the order of the loaders."""
        return list(self.trainer.val_dataloaders or ())

    @property
    def test_sets(self) -> list[str]:
        """Names of the sets scored after training, in the order of the loaders."""
        return list(self.trainer.test_dataloaders or ())

    def on_validation_epoch_start(self) -> None:
        for name in self.val_sets:
            self.scores_of(name).reset()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        self.scores_of(self.val_sets[dataloader_idx]).update(self(x), y)

    def on_validation_epoch_end(self) -> None:
        self.validated_after = len(self.step_losses)
        self.log_dict(self.metrics_of(self.val_sets), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self.test_logits.clear()
        for name in self.test_sets:
            self.scores_of(name).reset()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        logits = self(x)
        self.scores_of(self.test_sets[dataloader_idx]).update(logits, y)
        if self.test_sets[dataloader_idx] == "test":
            self.test_logits.append(all_gather_rows(logits))


class AutogradModule(Classifier):
    """Engine with gradients by autograd: an ordinary `LightningModule` on `torch.nn`."""

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.phi = self.activation.reference()

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule; reject `FactoredSGD`, which needs factored gradients.

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
        """Map inputs (B, I) to logits (B, C)."""
        return cast(Tensor, self.network(x, self.phi) if isinstance(self.network, MLP) else self.network(x))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if not isinstance(self.network, MLP):  # dropout draws the same after a resume
            batches = self.trainer.fit_loop.total_batch_idx
            torch.manual_seed(make_generator(self.hparams["seed"], "network", batches).initial_seed())

    def training_step(self, batch: Batch) -> Tensor:
        x, y = batch
        y, masks = self.regularizer.smooth(y), self.masks_of(y)
        loss = self.adversarial_loss if self.regularizer.adversarial else self.loss_of
        mean_loss = loss(x, y, masks)
        self.keep_loss(all_reduce(mean_loss.detach().clone()))
        if is_distributed():
            mean_loss = mean_loss * self.trainer.world_size  # DDP averages gradients over processes
        if self.regularizer.strength:
            return mean_loss + self.regularizer.penalty(weights_of(self.network))
        return mean_loss

    def loss_of(self, x: Tensor, y: Tensor, masks: Sequence[Tensor | None] | None) -> Tensor:
        """Return the () mean cross-entropy of x (B, I) and y (B, C); for a part of the batch, its contribution."""
        logits = self.network(x, self.phi, masks) if isinstance(self.network, MLP) else self.network(x)
        if self.skip:  # learned examples get no gradient, by the rule of `backprop.without_learned`
            p = torch.softmax(at_least_float32(logits.detach()), dim=1)
            rest = (p - y).abs().amax(dim=1, keepdim=True) > self.skip
            self.keep_skipped(int(rest.sum()), y)
            logits = torch.where(rest, logits, logits.detach())
        if is_distributed():
            return cross_entropy(logits, y, reduction="sum") / self.examples_of(y)
        return cross_entropy(logits, y)

    def adversarial_loss(self, x: Tensor, y: Tensor, masks: Sequence[Tensor | None] | None) -> Tensor:
        """Return the () mean of the losses of a batch as it is and moved, see `regularizers.adversarial`.   (27)"""
        x = x.detach().requires_grad_()
        loss = self.loss_of(x, y, masks)
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        moved = adversarial(x.detach(), gradient, self.regularizer.adversarial)
        return (loss + self.loss_of(moved, y, masks)) / 2


def check_regularizer(regularizer: Regularizer, skip: float, network: nn.Module) -> None:
    """Check that the parts of the regularization fit each other and the network.

    Raises:
        UserError: they do not.
    """
    if skip and (regularizer.smoothing or regularizer.adversarial):
        why = "smoothing no example is learned so well" if regularizer.smoothing else "adversarial every example moves"
        raise UserError(f"skip={skip}: with regularizer.{why}: use skip=0")
    if not regularizer.dropout:
        return
    if not isinstance(network, MLP):
        raise UserError(
            f"regularizer.dropout needs an MLP: give {type(network).__name__} torch.nn.Dropout layers of its own"
        )
    with as_user_error("regularizer", ValueError):
        if not any(regularizer.dropout_rates(len(network.weights))):
            raise ValueError("dropout drops nothing: this network has no hidden layer, or every rate is 0")


def mlp_of(module: Classifier, what: str) -> MLP:
    """Return the module's MLP for a caller that needs its layers.

    Raises:
        UserError: it is not an MLP.
    """
    if not isinstance(module.network, MLP):
        raise UserError(f"{what} needs the layers of an MLP, and {type(module.network).__name__} is not one")
    return module.network
