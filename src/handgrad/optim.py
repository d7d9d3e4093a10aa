"""SGD that takes the gradient in factored form, and learning-rate schedules that torch lacks."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch.nn import Parameter
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from handgrad.backprop import LayerGradient
from handgrad.config import UserError, explained


class FactoredSGD(Optimizer):
    """Stochastic gradient descent that never forms a weight gradient.

        W <- (1 - r * decay) W - r * delta.T @ input                (21)
        b <- b - lr * sum of delta over the batch

    with r = lr, or r = lr * B where weights move by the sum over the batch of B, as in the notebook (20). The deltas
    are those of the mean loss. Stepped, scheduled and saved like any other optimizer, but with `step(gradients=...)`.

    Args:
        named_parameters: (name, parameter) pairs, from the input on; names end in "weight" or "bias".
        lr: learning rate of biases and, before the reduction, of weights.
        weight_reduction: "mean" for plain SGD, "sum" for the notebook's.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Parameter]],
        lr: float,
        weight_reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        named = list(named_parameters)
        groups = [
            {"name": "weights", "params": [pair for pair in named if pair[0].endswith("weight")]},
            {"name": "biases", "params": [pair for pair in named if pair[0].endswith("bias")]},
        ]
        super().__init__(groups, {"lr": lr})
        self.weight_reduction = weight_reduction

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        *,
        gradients: Sequence[LayerGradient],
        decay: float = 0.0,
        max_norm: float | None = None,
    ) -> None:
        """Move every parameter once.

        Args:
            closure: called first, as Lightning asks of every optimizer; its value is not used.
            gradients: of every layer, from the input on, without the penalty.
            decay: c where the penalty's gradient is c * W.
            max_norm: the gradient of all parameters is shortened to this length where it is longer.
        """
        if closure is not None:
            closure()
        weights, biases = (group["params"] for group in self.param_groups)
        layers = list(zip(weights, biases, gradients, strict=True))
        share = 1.0
        if max_norm is not None:  # as torch.nn.utils.clip_grad_norm_ has it
            squares = torch.stack([gradient.squared_norm(weight, decay) for weight, _, gradient in layers])
            share = min(1.0, max_norm / (float(squares.sum().sqrt()) + 1e-6))
        rate, of_biases = (share * each for each in rates_of(self, len(gradients[0].delta)))
        for weight, bias, gradient in layers:
            delta, a = gradient
            if delta.dtype != weight.dtype or a.dtype != weight.dtype:  # less with mixed precision
                delta, a = delta.to(weight.dtype), a.to(weight.dtype)
            weight.addmm_(delta.T, a, beta=1 - rate * decay, alpha=-rate)
            bias.sub_(gradient.bias(), alpha=of_biases)


def rates_of(optimizer: Optimizer, examples: int) -> tuple[float, float]:
    """The rates of an SGD's next step, for the gradient of a batch's mean loss.   (20)

    Args:
        optimizer: with one group of parameters, or weights before biases.
        examples: B.

    Returns:
        that of the weights, that of the biases.
    """
    of_weights, of_biases = optimizer.param_groups[0]["lr"], optimizer.param_groups[-1]["lr"]
    return of_weights * (examples if getattr(optimizer, "weight_reduction", "mean") == "sum" else 1), of_biases


def grouped_sgd(named_parameters: Iterable[tuple[str, Parameter]], lr: float, weight_factor: float) -> SGD:
    """Make torch's SGD with a rate of its own for the weights, for either engine.

    With the batch size as `weight_factor` it takes the notebook's step (20) for every full batch.

    Args:
        named_parameters: (name, parameter) pairs; names end in "weight" or "bias".
        lr: learning rate of the biases.
        weight_factor: the weights' learning rate in units of `lr`.
    """
    named = list(named_parameters)
    groups = [
        {"name": "weights", "params": [pair for pair in named if pair[0].endswith("weight")], "lr": lr * weight_factor},
        {"name": "biases", "params": [pair for pair in named if pair[0].endswith("bias")], "lr": lr},
    ]
    return SGD(groups, lr, fused=True)


def rehearse(make_optimizer: Callable[..., Optimizer], make_schedule: Callable[[Optimizer], Any]) -> None:
    """Take a step of an optimizer and its schedule with numbers that nobody needs: what fails, fails before any work.

    Args:
        make_optimizer: makes an optimizer from (name, parameter) pairs.
        make_schedule: makes a schedule from an optimizer, or None.

    Raises:
        UserError: one of them cannot be made or stepped; says which and why.
    """
    named = [(name, Parameter(torch.zeros(1, 1))) for name in ("weight", "bias")]
    evaluations = 0

    def closure() -> float:
        nonlocal evaluations
        evaluations += 1
        for _, parameter in named:
            parameter.grad = torch.ones_like(parameter)
        return 0.0

    with explained("optimizer", Exception):
        optimizer = make_optimizer(iter(named))
    with explained("schedule", Exception):
        schedule = make_schedule(optimizer)
    with explained("optimizer", Exception):
        factored = {"gradients": [LayerGradient(torch.ones(1, 1), torch.ones(1, 1))]}
        optimizer.step(closure, **(factored if isinstance(optimizer, FactoredSGD) else {}))
    if evaluations != 1:
        name = type(optimizer).__name__
        raise UserError(
            f"optimizer: {name} asks for the gradient {evaluations} times in a step: choose one that asks once"
        )
    with explained("schedule", Exception):
        if schedule is not None:
            schedule.step(*([0.0] if isinstance(schedule, ReduceLROnPlateau) else []))


def planned(schedule: Callable[..., Any], steps: Callable[[], float]) -> Callable[[Optimizer], Any]:
    """Fill in a schedule's `total_steps: null` with the steps of the run, known once the Trainer has the data.

    Raises:
        UserError: when the schedule is made: the run takes more steps than it was given.
    """
    options = getattr(schedule, "keywords", {})
    if "total_steps" not in options:
        return schedule

    def make(optimizer: Optimizer) -> Any:
        total = steps() if options["total_steps"] is None else options["total_steps"]
        if total < steps():
            raise UserError(f"schedule.total_steps={total} is less than the {steps()} steps of this run: leave it null")
        return schedule(optimizer, total_steps=total)

    return make


def constant(optimizer: Optimizer) -> None:
    """Make no schedule: the learning rate stays, and no step asks a schedule for what it knows."""


def warmup_cosine(optimizer: Optimizer, start_factor: float, warmup_steps: int, total_steps: int) -> LRScheduler:
    """Rise linearly from `start_factor` times the learning rate, then fall to zero along a half cosine.

    Args:
        optimizer: its learning rates are the peaks.
        start_factor: the first step's share of the peak.
        warmup_steps: steps until the peak.
        total_steps: steps until zero.

    Raises:
        ValueError: the warm-up leaves no step to fall in.

    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts (2017), eq. 5, without restarts.
    """
    if not 0 < warmup_steps < total_steps:
        raise ValueError(f"warmup_steps={warmup_steps} must lie between 0 and the run's {total_steps} steps")
    rise = LinearLR(optimizer, start_factor, total_iters=warmup_steps)
    fall = CosineAnnealingLR(optimizer, total_steps - warmup_steps)
    return SequentialLR(optimizer, [rise, fall], [warmup_steps])
