"""The penalty on the weights and its gradient, side by side. Equation numbers: docs/derivation.md."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


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
    def decay(self) -> float:
        """The factor c in the penalty's gradient c * W: 2 * strength.   (10)"""
        return 2 * self.strength

    def gradient(self, weight: Tensor) -> Tensor:
        """(O, I) derivative of the penalty with respect to one weight matrix: 2 * strength * W.   (10)"""
        return self.decay * weight


def no_penalty() -> L2:
    """The absence of a penalty: L2 of strength 0."""
    return L2(strength=0.0)
