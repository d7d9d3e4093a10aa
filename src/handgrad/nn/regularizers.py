"""Regularization: L2 penalty, dropout, label smoothing, adversarial examples. Equation numbers: docs/derivation.md."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handgrad.nn.losses import at_least_float32


@dataclass(frozen=True)
class Regularizer:
    """Regularization of the mean loss, by any combination of parts; 0 turns a part off.

    Args:
        strength: lambda >= 0 of the L2 penalty on the weight matrices, not on the biases. Multiplies the sum of squares
            without a factor 1/2, so that the equivalent PyTorch `weight_decay` in plain SGD is 2 * strength.
        dropout: probability that a unit is dropped in a training step: one for every hidden layer, or a list with the
            inputs' before those of the hidden layers.
        smoothing: label smoothing, the share of each target that is spread over all classes.
        adversarial: Euclidean length by which each example is moved to where its loss rises, to be trained on too.
    """

    strength: float = 0.0
    dropout: float | Sequence[float] = 0.0
    smoothing: float = 0.0
    adversarial: float = 0.0

    def penalty(self, weights: Iterable[Tensor]) -> Tensor:
        """() penalty strength * sum of w^2 over all weight matrices, to add to the mean loss.   (9)"""
        return self.strength * torch.stack([weight.square().sum() for weight in weights]).sum()

    @property
    def weight_decay(self) -> float:
        """Factor c = 2 * strength of the penalty's gradient c * W.   (10)"""
        return 2 * self.strength

    def gradient(self, weight: Tensor) -> Tensor:
        """(O, I) gradient 2 * strength * W of the penalty with respect to one weight matrix.   (10)"""
        return self.weight_decay * weight

    def smooth(self, y: Tensor) -> Tensor:
        """Smooth targets (B, C): (1 - s) y + s / C; rows still sum to 1.   (30)

        Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016, section 7.
        """
        return (1 - self.smoothing) * y + self.smoothing / y.shape[-1] if self.smoothing else y

    def dropout_rates(self, layers: int) -> list[float]:
        """Return the L rates of the layers' inputs, x first.

        Raises:
            ValueError: the list has another number of rates.
        """
        rates = [0.0, *[self.dropout] * (layers - 1)] if isinstance(self.dropout, int | float) else list(self.dropout)
        if len(rates) != layers:
            raise ValueError(f"dropout has {len(rates)} rates, it needs {layers}: of the inputs and each hidden layer")
        return rates

    def masks(self, examples: int, weights: Sequence[Tensor], generator: torch.Generator) -> list[Tensor | None]:
        """Draw the masks of a training step.   (28)

        Args:
            examples: number of examples B.
            weights: L matrices, each (O, I).
            generator: random generator on the CPU.

        Returns:
            for each layer's input a mask (B, I), 1 / (1 - rate) with probability 1 - rate, else 0; None at rate 0.

        Raises:
            ValueError: dropout has another number of rates.
        """
        drawn: list[Tensor | None] = []
        for rate, weight in zip(self.dropout_rates(len(weights)), weights, strict=True):
            kept = torch.rand(weight.shape[1], examples, generator=generator) >= rate if rate else None
            drawn.append(None if kept is None else (kept.to(weight) / (1 - rate)).mT)
        return drawn


def dropped(a: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply a layer's input, or its derivative, by its dropout mask, if there is one.   (28, 29)"""
    return a if mask is None else a * mask


def adversarial(x: Tensor, gradient: Tensor, length: float) -> Tensor:
    """Move each example by a length to where its loss rises fastest.

        x' = x + length * g / |g|                                   (27)

    Args:
        x: (B, I) inputs.
        gradient: (B, I) dLoss/dx; a row g of any length.
        length: Euclidean length of the move.

    Returns:
        (B, I) adversarial examples; where g is 0, x itself.

    Source: Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015, there by the sign of g; the
    Euclidean length as in Miyato et al., Distributional Smoothing with Virtual Adversarial Training, 2016.
    """
    # Scaled by a power of two, which rounds nothing, because normalize leaves rows below 1e-12 too short.
    scaled = at_least_float32(gradient) * 2**40
    return x + (length * torch.nn.functional.normalize(scaled, dim=-1)).to(x.dtype)


def weights_of(network: nn.Module) -> list[Tensor]:
    """Return the penalised tensors: the parameters of two or more dimensions, an MLP's weight matrices."""
    return [parameter for parameter in network.parameters() if parameter.dim() > 1]
