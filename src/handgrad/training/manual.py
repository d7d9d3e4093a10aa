"""ManualModule: the engine whose gradients are derived by hand (nn/backprop.py)."""

import math
from typing import Any, Literal, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from handgrad.errors import UserError
from handgrad.nn import backprop
from handgrad.nn.backprop import FactoredGradient, accumulate
from handgrad.nn.optimizers import FactoredSGD
from handgrad.training.data import Batch
from handgrad.training.distributed import all_gather_factors, all_reduce, all_reduce_list
from handgrad.training.modules import Classifier


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
        self.accumulated: list[list[FactoredGradient]] = []  # of the batches since the latest step

    @property
    def clips(self) -> bool:
        return self.clip_val is not None

    @property
    def total_steps(self) -> float:
        steps, trainer = super().total_steps, self.trainer  # which reads the data, and counts batches
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
        return getattr(self.trainer.precision_plugin, "scaler", None)

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
        self.keep_loss(all_reduce(loss))
        self.accumulated.append(gradients)
        if len(self.accumulated) == self.batches_per_step or self.trainer.is_last_batch:
            self.take_step()

    @torch.no_grad()
    def take_step(self) -> None:
        """Move the parameters by the gradient of the batches that wait."""
        share = len(self.accumulated) / self.batches_per_step  # of an epoch's last step, less than one
        gradients = (
            self.accumulated[0] if self.batches_per_step == 1 else accumulate(self.accumulated, self.batches_per_step)
        )
        self.accumulated.clear()
        decay = self.regularizer.weight_decay * share * (self.scaler.get_scale() if self.scaler is not None else 1)
        optimizer = cast(LightningOptimizer, self.optimizers())  # Lightning counts steps by this wrapper's step()
        if isinstance(optimizer.optimizer, FactoredSGD):
            gradients = all_gather_factors(gradients)
            optimizer.step(gradients=gradients, decay=decay, max_norm=self.clip_val)
        else:
            weights = all_reduce_list([gradient.weight().to(self.dtype) for gradient in gradients])
            biases = all_reduce_list([gradient.bias().to(self.dtype) for gradient in gradients])
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
