"""Activation functions with derivatives derived by hand.

Each class is one elementwise function phi:

- `phi(z)` returns the activation a, same shape and dtype as z.
- `phi.derivative(z, a)` returns phi'(z), same shape and dtype; passing a = phi(z) shortens several derivatives.
- `phi.reference()` returns PyTorch's module for phi: the autograd engine uses it, and the tests compare with it.

None overflows for any finite z. Equation numbers: docs/derivation.md.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Activation(Protocol):
    """Interface of an activation function; see the module docstring."""

    def __call__(self, z: Tensor) -> Tensor: ...
    def derivative(self, z: Tensor, a: Tensor) -> Tensor: ...
    def reference(self) -> nn.Module: ...


def is_activation(phi: object) -> bool:
    """Tell whether an object is an activation: not its class, and not a function without a derivative."""
    return not isinstance(phi, type) and hasattr(phi, "derivative")


@dataclass(frozen=True)
class Sigmoid:
    """a = 1 / (1 + exp(-z)); phi' = a (1 - a) = a - a^2.   (11)"""

    def __call__(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z)

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        return torch.addcmul(a, a, a, value=-1)

    def reference(self) -> nn.Module:
        return nn.Sigmoid()


@dataclass(frozen=True)
class Tanh:
    """a = tanh(z); phi' = 1 - a^2.   (12)"""

    def __call__(self, z: Tensor) -> Tensor:
        return torch.tanh(z)

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        return 1 - a * a

    def reference(self) -> nn.Module:
        return nn.Tanh()


@dataclass(frozen=True)
class ReLU:
    """a = max(z, 0); phi' = [z > 0], with phi'(0) = 0 by convention.   (13)"""

    def __call__(self, z: Tensor) -> Tensor:
        return z.clamp(min=0)

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        # Compare straight into a float tensor: casting a bool mask is ten times slower.
        return torch.gt(z, 0, out=torch.empty_like(z))

    def reference(self) -> nn.Module:
        return nn.ReLU()


@dataclass(frozen=True)
class LeakyReLU:
    """a = z if z > 0, else s z; phi' = 1 if z > 0, else the negative slope s.   (14)"""

    negative_slope: float = 0.01

    def __call__(self, z: Tensor) -> Tensor:
        return torch.where(z > 0, z, self.negative_slope * z)

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        return torch.where(z > 0, torch.ones_like(z), self.negative_slope)

    def reference(self) -> nn.Module:
        return nn.LeakyReLU(self.negative_slope)


@dataclass(frozen=True)
class SiLU:
    """a = z s with s = sigmoid(z); phi' = s + a (1 - s).   (15)"""

    def __call__(self, z: Tensor) -> Tensor:
        return z * torch.sigmoid(z)

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        s = torch.sigmoid(z)
        return s + a * (1 - s)

    def reference(self) -> nn.Module:
        return nn.SiLU()


@dataclass(frozen=True)
class GELU:
    """a = z Phi(z); phi' = Phi(z) + z N(z), with Phi and N the standard normal CDF and density.   (16)

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016 (exact form, not the tanh approximation).
    """

    def __call__(self, z: Tensor) -> Tensor:
        return z * normal_distribution(z)

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return normal_distribution(z) + z * density

    def reference(self) -> nn.Module:
        return nn.GELU()


def normal_distribution(z: Tensor) -> Tensor:
    """Phi(z) = erfc(-z / sqrt(2)) / 2; the erf form of torch.special.ndtr cancels to 0 below z = -5.75 in float32."""
    return 0.5 * torch.erfc(z * -math.sqrt(0.5))


@dataclass(frozen=True)
class Softplus:
    """a = log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)); phi' = sigmoid(z).   (17)"""

    def __call__(self, z: Tensor) -> Tensor:
        return z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))

    def derivative(self, z: Tensor, a: Tensor) -> Tensor:
        return torch.sigmoid(z)

    def reference(self) -> nn.Module:
        # PyTorch returns z above the threshold; the default of 20 gives an error of 2e-9.
        return nn.Softplus(threshold=40)
