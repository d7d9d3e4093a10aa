"""SGD on factored gradients, and SGD with separate learning rates for weights and biases."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch.nn import Parameter
from torch.optim import SGD, Optimizer

from handgrad.nn.backprop import FactoredGradient


class FactoredSGD(Optimizer):
    """SGD on factored gradients, which never forms a weight gradient.

        W <- (1 - r * decay) W - r * delta.T @ input                (21)
        b <- b - lr * sum of delta over the batch

    The deltas are those of the mean loss. r = lr for plain SGD; r = lr * B sums the weight gradient over the batch, as
    the notebook does (20). An ordinary optimizer, except that gradients are passed to `step(gradients=...)`.

    Args:
        named_parameters: (name, parameter) pairs in layer order; names end in "weight" or "bias".
        lr: learning rate; multiplied by B for the weights if weight_reduction is "sum".
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
        """Update every parameter once.

        Args:
            closure: called first, as Lightning requires; its value is ignored.
            gradients: gradients of every layer in layer order, without the penalty.
            decay: factor c of the penalty's gradient c * W.
            max_norm: clips the Euclidean norm of the gradient of all parameters together; None for no clipping.
        """
        if closure is not None:
            closure()
        weights, biases = (group["params"] for group in self.param_groups)
        layers = list(zip(weights, biases, gradients, strict=True))
        share = 1.0
        if max_norm is not None:  # same formula as torch.nn.utils.clip_grad_norm_
            squares = torch.stack([gradient.squared_norm(weight, decay) for weight, _, gradient in layers])
            share = min(1.0, max_norm / (float(squares.sum().sqrt()) + 1e-6))
        rate, of_biases = (share * each for each in step_sizes(self, len(gradients[0].delta)))
        for weight, bias, gradient in layers:
            delta, a = gradient
            if delta.dtype != weight.dtype or a.dtype != weight.dtype:  # lower with mixed precision
                delta, a = delta.to(weight.dtype), a.to(weight.dtype)
            weight.addmm_(delta.T, a, beta=1 - rate * decay, alpha=-rate)
            bias.sub_(gradient.bias(), alpha=of_biases)


def step_sizes(optimizer: Optimizer, examples: int) -> tuple[float, float]:
    """Return the step sizes of SGD's next step, which multiply the gradient of the mean loss.   (20)

    Args:
        optimizer: SGD with one parameter group, or with weights before biases.
        examples: batch size B.

    Returns:
        step size of the weights, step size of the biases.
    """
    of_weights, of_biases = optimizer.param_groups[0]["lr"], optimizer.param_groups[-1]["lr"]
    return of_weights * (examples if getattr(optimizer, "weight_reduction", "mean") == "sum" else 1), of_biases


def grouped_sgd(named_parameters: Iterable[tuple[str, Parameter]], lr: float, weight_factor: float) -> SGD:
    """Make torch's SGD with separate learning rates for weights and biases, for either engine.

    With the batch size as `weight_factor`, it takes the notebook's step (20) on every full batch.

    Args:
        named_parameters: (name, parameter) pairs; names end in "weight" or "bias".
        lr: learning rate of the biases.
        weight_factor: learning rate of the weights divided by `lr`.
    """
    named = list(named_parameters)
    groups = [
        {"name": "weights", "params": [pair for pair in named if pair[0].endswith("weight")], "lr": lr * weight_factor},
        {"name": "biases", "params": [pair for pair in named if pair[0].endswith("bias")], "lr": lr},
    ]
    return SGD(groups, lr, fused=True)
