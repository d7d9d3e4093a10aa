"""Oracle: PyTorch's activations and their autograd derivatives in float64; limits worked out by hand."""

import math

import pytest
import torch

from conftest import ACTIVATIONS
from handgrad.nn.activations import Activation, LeakyReLU, Softplus, normal_distribution

every_activation = pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)


@every_activation
def test_function_and_derivative_match_pytorch(phi: Activation) -> None:
    z = torch.cat([torch.linspace(-30, 30, 601, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    z.requires_grad_()
    expected = phi.reference()(z)
    (derivative,) = torch.autograd.grad(expected.sum(), z)
    a = phi(z.detach())
    torch.testing.assert_close(a, expected.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(phi.derivative(z.detach(), a), derivative, rtol=1e-12, atol=1e-14)


@every_activation
def test_arguments_are_not_modified(phi: Activation) -> None:
    z = torch.linspace(-3, 3, 7)
    z_before, a = z.clone(), phi(z)
    a_before = a.clone()
    phi.derivative(z, a)
    assert z.equal(z_before)
    assert a.equal(a_before)


@every_activation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_finite_input_overflows(phi: Activation, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    z = torch.tensor([-largest, -1e30, -1000, -100, 100, 1000, 1e30, largest], dtype=dtype)
    a = phi(z)
    derivative = phi.derivative(z, a)
    assert a.dtype == derivative.dtype == dtype
    assert a.isfinite().all()
    assert derivative.isfinite().all()


def test_normal_distribution_does_not_cancel() -> None:
    # Abramowitz and Stegun, table 26.2: -log10 of the upper tail
    tails = {2.0: 1.64302, 4.0: 4.49933, 5.0: 6.54265, 6.0: 9.00586, 8.0: 15.20614, 10.0: 23.11805}
    for z, logarithm in tails.items():
        tail = normal_distribution(torch.tensor(-z)).item()
        assert -math.log10(tail) == pytest.approx(logarithm, abs=2e-5)


def test_softplus_does_not_cancel() -> None:
    """log(1 + x) = x - x^2 / 2 + ...: at x = exp(-40) this is x to the last digit."""
    z = torch.tensor(-40.0, dtype=torch.float64)
    assert Softplus()(z).item() == pytest.approx(math.exp(-40), rel=1e-15, abs=0)


def test_derivatives_at_zero_by_hand() -> None:
    z = torch.zeros(1, dtype=torch.float64)
    at_zero = {type(phi).__name__: phi.derivative(z, phi(z)).item() for phi in ACTIVATIONS}
    assert at_zero == {
        "Sigmoid": 0.25,
        "Tanh": 1,
        "ReLU": 0,
        "LeakyReLU": 0.1,
        "SiLU": 0.5,
        "GELU": 0.5,
        "Softplus": 0.5,
    }


def test_default_slope_of_leaky_relu_is_torchs() -> None:
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(LeakyReLU()(z), torch.nn.LeakyReLU()(z), rtol=0, atol=0)
