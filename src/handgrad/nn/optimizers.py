"""SGD on factored gradients, and SGD with separate learning rates for weights and biases."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Optimizer

from handgrad.nn.backprop import FactoredGradient


class FactoredSGD(Optimizer):
    """SGD on factored gradients, which never forms a weight gradient.

        W <- (1 - r * decay) W - r * delta.T @ input                (21)
        b <- b - lr * sum of delta over the batch

    The deltas are those of the mean loss. r = lr for plain SGD; r = lr * B sums the weight gradient over the batch, as
    the notebook does (20). With momentum, the steps of `torch.optim.SGD` (32, 33), whose buffer V the state keeps. An
    ordinary optimizer, except that gradients are passed to `step(gradients=...)`.

    Args:
        named_parameters: (name, parameter) pairs in layer order; names end in "weight" or "bias".
        lr: learning rate; multiplied by B for the weights if weight_reduction is "sum".
        weight_reduction: "mean" for plain SGD, "sum" for the notebook's.
        momentum: factor mu of the previous steps' gradients, 0 <= mu < 1.
        nesterov: Nesterov's momentum.

    Raises:
        ValueError: Nesterov's momentum without momentum.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Parameter]],
        lr: float,
        weight_reduction: Literal["mean", "sum"] = "mean",
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError("nesterov=true needs momentum, e.g. optimizer.momentum=0.9")
        named = list(named_parameters)
        groups = [
            {"name": "weights", "params": [pair for pair in named if pair[0].endswith("weight")]},
            {"name": "biases", "params": [pair for pair in named if pair[0].endswith("bias")]},
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum})
        self.weight_reduction, self.nesterov = weight_reduction, nesterov

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("momentum", 0.0)  # checkpoints from before there was one

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        *,
        gradients: Sequence[FactoredGradient],
        decay: float = 0.0,
        max_norm: float | None = None,
        examples: int | None = None,
    ) -> None:
        """Update every parameter once.

        Args:
            closure: called first, as Lightning requires; its value is ignored.
            gradients: gradients of every layer in layer order, without the penalty.
            decay: factor c of the penalty's gradient c * W.
            max_norm: clips the Euclidean norm of the gradient of all parameters together; None for no clipping.
            examples: number of examples B of the step; None: one per row of the gradients.
        """
        if closure is not None:
            closure()
        weights, biases = (group["params"] for group in self.param_groups)
        layers = list(zip(weights, biases, gradients, strict=True))
        share = 1.0
        if max_norm is not None:  # same formula as torch.nn.utils.clip_grad_norm_
            squares = torch.stack([gradient.squared_norm(weight, decay) for weight, _, gradient in layers])
            share = min(1.0, max_norm / (float(squares.sum().sqrt()) + 1e-6))
        rate, of_biases = step_sizes(self, len(gradients[0].delta) if examples is None else examples)
        mu = self.param_groups[0]["momentum"]  # a schedule may change it
        for weight, bias, gradient in layers:
            delta, a = gradient
            if delta.dtype != weight.dtype or a.dtype != weight.dtype:  # lower with mixed precision
                delta, a = delta.to(weight.dtype), a.to(weight.dtype)
            if mu:
                self.move(weight, rate, mu, share, (delta.T, a), decay)
                self.move(bias, of_biases, mu, share, gradient.bias())
            else:
                weight.addmm_(delta.T, a, beta=1 - share * rate * decay, alpha=-share * rate)
                bias.sub_(gradient.bias(), alpha=share * of_biases)

    def move(
        self,
        parameter: Parameter,
        rate: float,
        mu: float,
        share: float,
        g: Tensor | tuple[Tensor, Tensor],
        decay: float = 0.0,
    ) -> None:
        """Move one parameter with momentum.

            V' = mu V + g + c W,    W' = W - r V'                   (32)
            Nesterov:               W' = W - r (g + c W + mu V') = W + r mu V - r (1 + mu) V'       (33)

        The second form of (33) needs only V and V', so that g is never formed.

        Args:
            parameter: W, changed in place.
            rate: learning rate r.
            mu: momentum.
            share: factor of the gradient, below 1 if its norm is clipped.
            g: gradient, or its two factors.
            decay: factor c of the penalty's gradient c * W.
        """
        if not self.state[parameter]:
            self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = self.state[parameter]["momentum_buffer"]
        penalized = share * decay * parameter if decay else None  # before W moves
        if self.nesterov:
            parameter.add_(buffer, alpha=rate * mu)
        if isinstance(g, tuple):
            buffer.addmm_(*g, beta=mu, alpha=share)
        else:
            buffer.mul_(mu).add_(g, alpha=share)
        if penalized is not None:
            buffer.add_(penalized)
        parameter.sub_(buffer, alpha=rate * (1 + mu if self.nesterov else 1))


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
