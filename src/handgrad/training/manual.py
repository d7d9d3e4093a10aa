"""ManualModule: the engine with gradients derived by hand (nn/backprop.py)."""

import math
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from handgrad.errors import UserError
from handgrad.nn import backprop
from handgrad.nn.backprop import FactoredGradient, accumulate
from handgrad.nn.mlp import MLP
from handgrad.nn.optimizers import FactoredSGD
from handgrad.nn.regularizers import adversarial
from handgrad.training.data import Batch
from handgrad.training.distributed import all_gather_factors, all_reduce, all_reduce_list
from handgrad.training.modules import Classifier


class ManualModule(Classifier):
    """Engine with gradients by hand (`backprop.py`); no autograd graph is recorded.

    `FactoredSGD` gets factored gradients. Every other optimizer reads the full gradient, including the penalty, from
    `.grad`.

    Args:
        accumulate_grad_batches: number of batches averaged into one step.
        gradient_clip_val: maximum norm of the gradient ("norm") or maximum magnitude of an entry ("value").
        gradient_clip_algorithm: "norm" (default) or "value".
        shared: arguments of `Classifier`.
    """

    automatic_optimization = False
    network: MLP

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
        self.accumulated: list[list[FactoredGradient]] = []  # gradients of the batches since the last step
        self.examples = 0  # in these batches, of all processes

    @property
    def clips(self) -> bool:
        return self.clip_val is not None

    @property
    def total_steps(self) -> float:
        steps, trainer = super().total_steps, self.trainer  # super() sets up the data; it counts batches, not steps
        if self.batches_per_step == 1:
            return steps
        steps = math.ceil(trainer.num_training_batches / self.batches_per_step) * (trainer.max_epochs or 1)
        return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule; reject options that `FactoredSGD` does not support.

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
        """Loss scaler of 16-mixed precision, else None; Lightning unscales the gradients before the step."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, I) to logits (B, C)."""
        return backprop.forward(x, self.network.weights, self.network.biases, self.activation).logits

    def training_step(self, batch: Batch) -> None:
        x, y = batch
        y, masks, examples = self.regularizer.smooth(y), self.masks_of(y), self.examples_of(y)
        run = partial(
            backprop.loss_and_gradients,
            y=y,
            weights=self.network.weights,
            biases=self.network.biases,
            phi=self.activation,
            examples=examples,
            scale=self.scaler.scale if self.scaler else None,
            masks=masks,
            skip=self.skip,
        )
        loss, _, gradients = run(x)
        if self.skip:
            self.keep_skipped(len(gradients[0].delta), y)
        if self.regularizer.adversarial:
            g = backprop.input_gradient(gradients[0], self.network.weights[0], masks[0] if masks else None)
            other, _, moved = run(adversarial(x, g, self.regularizer.adversarial))
            loss, gradients = (loss + other) / 2, accumulate([gradients, moved], 2)
        self.keep_loss(all_reduce(loss))
        self.accumulated.append(gradients)
        self.examples += examples
        if len(self.accumulated) == self.batches_per_step or self.trainer.is_last_batch:
            self.take_step()

    @torch.no_grad()
    def take_step(self) -> None:
        """Step the optimizer on the accumulated gradients."""
        share = len(self.accumulated) / self.batches_per_step  # below 1 for an incomplete last step of the epoch
        gradients = (
            self.accumulated[0] if self.batches_per_step == 1 else accumulate(self.accumulated, self.batches_per_step)
        )
        examples, self.examples = self.examples, 0
        self.accumulated.clear()
        decay = self.regularizer.weight_decay * share * (self.scaler.get_scale() if self.scaler is not None else 1)
        optimizer = cast(LightningOptimizer, self.optimizers())  # Lightning counts the wrapper's step() calls
        if isinstance(optimizer.optimizer, FactoredSGD):
            gradients = all_gather_factors(gradients)
            optimizer.step(gradients=gradients, decay=decay, max_norm=self.clip_val, examples=examples)
        else:
            weights = all_reduce_list([gradient.weight().to(self.dtype) for gradient in gradients])
            biases = all_reduce_list([gradient.bias().to(self.dtype) for gradient in gradients])
            for layer, weight, bias in zip(self.network.linear, weights, biases, strict=True):
                layer.weight.grad = weight + decay * layer.weight
                layer.bias.grad = bias
            optimizer.step()
        self.step_schedule()

    def step_schedule(self) -> None:
        """Step the learning-rate schedule, if there is one that steps per batch."""
        schedule = cast(LRScheduler | None, self.lr_schedulers())
        if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
            schedule.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip_val and not isinstance(optimizer, FactoredSGD):
            self.clip_gradients(optimizer, self.clip_val, self.clip_algorithm)
