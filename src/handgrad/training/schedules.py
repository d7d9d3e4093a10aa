"""Learning-rate schedules that torch lacks, and a trial step of optimizer and schedule."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from handgrad.errors import UserError, as_user_error
from handgrad.nn.backprop import FactoredGradient
from handgrad.nn.optimizers import FactoredSGD


def check_optimizer(make_optimizer: Callable[..., Optimizer], make_schedule: Callable[[Optimizer], Any]) -> None:
    """Step optimizer and schedule once on dummy parameters, so that a bad configuration fails before training.

    The optimizer is made from (name, parameter) pairs, the schedule, or None, from it. UserError names what cannot
    be made or stepped, and the reason.
    """
    named = [(name, Parameter(torch.zeros(1, 1))) for name in ("weight", "bias")]
    evaluations = 0

    def closure() -> float:
        nonlocal evaluations
        evaluations += 1
        for _, parameter in named:
            parameter.grad = torch.ones_like(parameter)
        return 0.0

    with as_user_error("optimizer", Exception):
        optimizer = make_optimizer(iter(named))
    with as_user_error("schedule", Exception):
        schedule = make_schedule(optimizer)
    with as_user_error("optimizer", Exception):
        factored = {"gradients": [FactoredGradient(torch.ones(1, 1), torch.ones(1, 1))]}
        optimizer.step(closure, **(factored if isinstance(optimizer, FactoredSGD) else {}))
    if evaluations != 1:
        name = type(optimizer).__name__
        raise UserError(
            f"optimizer: {name} evaluates the closure {evaluations} times within a step, which is not supported"
        )
    with as_user_error("schedule", Exception):
        if schedule is not None:
            schedule.step(*([0.0] if isinstance(schedule, ReduceLROnPlateau) else []))


def fill_total_steps(schedule: Callable[..., Any], steps: Callable[[], float]) -> Callable[[Optimizer], Any]:
    """Fill in a schedule's `total_steps: null` with the run's steps, known only once the Trainer has the data.

    The schedule is refused by a UserError when it is made if `total_steps` is less than that.
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
    """Make no schedule: the learning rate is constant, and no step pays for a scheduler."""


def warmup_cosine(optimizer: Optimizer, start_factor: float, warmup_steps: int, total_steps: int) -> LRScheduler:
    """Rise linearly from `start_factor` times the learning rate, then fall to zero along a half cosine.

    The peak is reached after `warmup_steps`, zero after `total_steps`. ValueError unless
    0 < `warmup_steps` < `total_steps`.

    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts (2017), eq. 5, without restarts.
    """
    if not 0 < warmup_steps < total_steps:
        raise ValueError(f"warmup_steps={warmup_steps} must be at least 1 and below the run's {total_steps} steps")
    rise = LinearLR(optimizer, start_factor, total_iters=warmup_steps)
    fall = CosineAnnealingLR(optimizer, total_steps - warmup_steps)
    return SequentialLR(optimizer, [rise, fall], [warmup_steps])
