"""SGD that takes the gradient in factored form, and SGD with a rate of its own for the weights."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch.nn import Parameter
from torch.optim import SGD, Optimizer

from handgrad.nn.backprop import FactoredGradient


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
        gradients: Sequence[FactoredGradient],
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
        rate, of_biases = (share * each for each in step_sizes(self, len(gradients[0].delta)))
        for weight, bias, gradient in layers:
            delta, a = gradient
            if delta.dtype != weight.dtype or a.dtype != weight.dtype:  # less with mixed precision
                delta, a = delta.to(weight.dtype), a.to(weight.dtype)
            weight.addmm_(delta.T, a, beta=1 - rate * decay, alpha=-rate)
            bias.sub_(gradient.bias(), alpha=of_biases)


def step_sizes(optimizer: Optimizer, examples: int) -> tuple[float, float]:
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
