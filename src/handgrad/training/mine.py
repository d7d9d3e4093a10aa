"""MineModule: the engine with a student's functions."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import SGD, Optimizer

from handgrad.errors import UserError
from handgrad.nn.backprop import FactoredGradient, pre_activation
from handgrad.nn.losses import cross_entropy, log_softmax
from handgrad.nn.optimizers import FactoredSGD, step_sizes
from handgrad.nn.regularizers import Regularizer
from handgrad.process import SIGNALLED
from handgrad.training import handin
from handgrad.training.data import Batch
from handgrad.training.manual import ManualModule

log = logging.getLogger(__name__)

EXAMPLES = 3  # size of the batch that the functions are tried on


class MineModule(ManualModule):
    """Engine with a student's functions: activation, derivative, deltas, gradients and update.

    The file, whose content has the hash `sha256`, is executed when training starts. Scores are those of the network
    with the built-in activation, so that a trained network is opened without the file.
    """

    def __init__(self, *, file: str, sha256: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.file, self.sha256 = Path(file), sha256
        self.source, self.functions = b"", {}  # type: tuple[bytes, dict[str, Any]]

    def read(self) -> bytes:
        """Read the student's file; UserError if it is missing, or was changed since the configuration was made."""
        source = handin.read(self.file)
        if hashlib.sha256(source).hexdigest() != self.sha256:
            raise UserError(f"{self.file} was changed while the command started: start it again")
        return source

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule; execute the file and try its functions on a few random images."""
        configured = super().configure_optimizers()
        check_supported(self, configured["optimizer"])
        self.source = handin.as_code(self.read(), self.file)
        try:
            with handin.time_limit(handin.LIMIT):
                module = handin.execute(self.source)
        except (Exception, SystemExit) as error:
            raise self.blamed(error) from None
        self.functions = {name: handin.find(module, name) for name in handin.FUNCTIONS}
        weight = self.network.weights[0]
        x = torch.rand(EXAMPLES, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
        y = torch.eye(len(self.network.biases[-1]))[:EXAMPLES].to(weight)
        with handin.time_limit(handin.LIMIT):
            self.updated(self.gradients(x, y)[1], (0.0, 0.0))
        z = torch.linspace(-3, 3, 100).to(weight)
        if not torch.allclose(self.call("phi", z.shape, z), self.activation(z), atol=1e-4):
            log.warning("%s: phi is not the activation with which the network is scored: activation=...", self.file)
        return configured

    def blamed(self, error: BaseException, name: str | None = None) -> BaseException:
        """Return the exception for an error in the student's code: a sentence, unless a signal ended the command."""
        if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > SIGNALLED:
            return error
        where = f"{self.file}, {name}" if name else self.file
        return UserError(f"{where}, {handin.describe(error, self.source, self.functions.get(name or ''))}")

    def call(self, name: str, shape: Sequence[int], *arguments: Any) -> Tensor:
        """Call a student's function; UserError if it fails, or does not return a tensor of the right shape."""
        try:
            result = self.functions[name](*arguments)
        except (Exception, SystemExit) as error:
            raise self.blamed(error, name) from None
        if not isinstance(result, Tensor) or result.shape != shape:
            what = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else repr(result)
            raise UserError(f"{self.file}, {name} returned {what}, not a tensor of shape {tuple(shape)}")
        return result

    @torch.no_grad()
    def gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run both passes on x (B, I), y (B, C); return the () mean loss, and gradients with the penalty's."""
        inputs, slopes = [x], []
        for weight, bias in zip(self.network.weights[:-1], self.network.biases[:-1], strict=True):
            z = pre_activation(inputs[-1], weight, bias)
            inputs.append(self.call("phi", z.shape, z))
            slopes.append(self.call("derivative", z.shape, z, inputs[-1]))
        log_p = log_softmax(pre_activation(inputs[-1], self.network.weights[-1], self.network.biases[-1]))
        y = y.to(log_p.dtype)
        delta, found = self.call("output_delta", log_p.shape, log_p.exp(), y), []
        for layer in reversed(range(len(inputs))):
            weight = self.network.weights[layer]
            of_weight = self.call("weight_gradient", weight.shape, delta, inputs[layer])
            found += [
                self.call("bias_gradient", weight.shape[:1], delta),
                of_weight + self.regularizer.gradient(weight),
            ]
            if layer:
                slope = slopes[layer - 1]
                delta = self.call("hidden_delta", slope.shape, delta, weight, slope)
        return cross_entropy(log_p, y), found[::-1]

    @torch.no_grad()
    def updated(self, gradients: Sequence[Tensor], rates: tuple[float, float]) -> list[Tensor]:
        """Return every parameter after the student's update, with the learning rates of weights and biases."""
        parameters = zip(self.network.parameters(), gradients, strict=True)
        return [
            self.call("update", parameter.shape, parameter.detach().clone(), gradient, rates[number % 2])
            for number, (parameter, gradient) in enumerate(parameters)
        ]

    def training_step(self, batch: Batch) -> None:
        x, y = batch
        loss, gradients = self.gradients(x, y)
        self.keep_loss(loss)
        optimizer = cast(LightningOptimizer, self.optimizers())
        stepped = self.updated(gradients, step_sizes(optimizer.optimizer, len(x)))
        with torch.no_grad():
            for parameter, after in zip(self.network.parameters(), stepped, strict=True):
                parameter.copy_(after)
        # Lightning counts the wrapper's step() calls: call it without gradients, which changes nothing.
        if isinstance(optimizer.optimizer, FactoredSGD):
            empty = [
                FactoredGradient(w.new_zeros(0, w.shape[0]), w.new_zeros(0, w.shape[1])) for w in self.network.weights
            ]
            optimizer.step(gradients=empty)
        else:
            optimizer.step()
        self.step_schedule()


def check_supported(module: MineModule, optimizer: Optimizer) -> None:
    """Check that a student's functions can follow the options; UserError names one and says what to use."""
    trainer = module.trainer
    if module.clips or module.batches_per_step != 1:
        raise UserError("engine=mine neither clips nor accumulates gradients: leave the trainer's options out")
    if module.skip or module.regularizer != Regularizer(module.regularizer.strength):
        raise UserError("engine=mine regularizes by the L2 penalty alone: regularizer=none or l2, skip=0")
    if trainer.world_size > 1:
        raise UserError("engine=mine trains in one process: trainer.devices=1")
    if trainer.precision not in ("32-true", "64-true"):
        raise UserError(f"engine=mine needs trainer.precision=32-true or 64-true, not {trainer.precision}")
    plain = type(optimizer) is SGD and not any(
        group["momentum"] or group["weight_decay"] or group["maximize"] for group in optimizer.param_groups
    )
    if not plain and (not isinstance(optimizer, FactoredSGD) or optimizer.param_groups[0]["momentum"]):
        raise UserError(
            "engine=mine updates by your function, with the learning rate alone: "
            "optimizer=notebook_sgd, factored_sgd, grouped_sgd or sgd, without momentum and weight_decay"
        )
