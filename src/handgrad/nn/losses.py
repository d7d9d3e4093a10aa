"""Cross-entropy and the L2 penalty, each beside its gradient; over S networks where tensors have S in front.

Equation numbers: docs/derivation.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Turn the last layer's pre-activations into log-probabilities.

        log p_c = z_c - log sum_k exp(z_k)                          (3)

    PyTorch's function subtracts the largest z first, so that no exponential overflows. Logits of lower precision are
    taken as float32.

    Args:
        logits: (B, C) pre-activations of the output layer.

    Returns:
        (B, C) log-probabilities; exp of a row sums to 1.
    """
    return torch.log_softmax(at_least_float32(logits), dim=-1)


def at_least_float32(numbers: Tensor) -> Tensor:
    """Numbers in float32 where they were in less; others as they are."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def cross_entropy(log_p: Tensor, y: Tensor, examples: int | None = None) -> Tensor:
    """Mean negative log-likelihood of the true classes, in nats per example.

        loss = -1/B sum_b sum_c y_bc log p_bc                       (4)

    Args:
        log_p: (B, C) log-probabilities, from `log_softmax`.
        y: (B, C) targets, each row non-negative with sum 1 (one-hot for MNIST).
        examples: of the whole batch, where these are a part of it; None for B.

    Returns:
        () the mean over the batch, or this part's share of it.
    """
    return (y * log_p).sum(dim=(-2, -1)) / -(examples or y.shape[-2])


def cross_entropy_delta(log_p: Tensor, y: Tensor, examples: int | None = None) -> Tensor:
    """Derivative of `cross_entropy` with respect to the logits: the delta of the output layer.

        delta = (p - y) / B                                         (BP1, 5)

    Args:
        log_p: (B, C) log-probabilities, from `log_softmax`.
        y: (B, C) targets, each row with sum 1.
        examples: of the whole batch, where these are a part of it; None for B.

    Returns:
        (B, C) dLoss/dz of the output layer.

    Source: Bishop, Pattern Recognition and Machine Learning, eq. 5.18 and 4.109, divided by B for the mean.
    """
    return log_p.exp().sub_(y).div_(examples or y.shape[-2])


@dataclass(frozen=True)
class L2:
    """L2 penalty on weight matrices, biases left free.

    Args:
        strength: lambda >= 0. It multiplies the plain sum of squares, without a factor 1/2: PyTorch's
            `weight_decay` with the same effect in plain SGD is 2 * strength.
    """

    strength: float = 1e-5

    def penalty(self, weights: Iterable[Tensor]) -> Tensor:
        """() strength * sum of w^2 over all weight matrices, to be added to the mean loss.   (9)"""
        return self.strength * torch.stack([weight.square().sum() for weight in weights]).sum()

    @property
    def weight_decay(self) -> float:
        """The factor c in the penalty's gradient c * W: 2 * strength.   (10)"""
        return 2 * self.strength

    def gradient(self, weight: Tensor) -> Tensor:
        """(O, I) derivative of the penalty with respect to one weight matrix: 2 * strength * W.   (10)"""
        return self.weight_decay * weight


def no_penalty() -> L2:
    """The absence of a penalty: L2 of strength 0."""
    return L2(strength=0.0)
