"""Oracle: torch.nn.functional.cross_entropy, weight_decay and autograd in float64; examples by hand."""

import math

import pytest
import torch

from handgrad.nn.losses import cross_entropy, cross_entropy_delta, log_softmax
from handgrad.nn.regularizers import Regularizer

ONE_HOT = torch.eye(10, dtype=torch.float64)[:7]
SOFT = torch.softmax(torch.linspace(0, 5, 70, dtype=torch.float64).view(10, 7).T, dim=1)


@pytest.mark.parametrize("y", [ONE_HOT, SOFT, 0.9 * ONE_HOT + 0.01], ids=["one-hot", "soft", "smoothed"])
def test_loss_and_delta_match_autograd(y: torch.Tensor) -> None:
    logits = torch.randn(7, 10, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(logits, y)
    (delta,) = torch.autograd.grad(expected, logits)
    log_p = log_softmax(logits.detach())
    before = log_p.clone(), y.clone()
    torch.testing.assert_close(cross_entropy(log_p, y), expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(cross_entropy_delta(log_p, y), delta, rtol=1e-12, atol=1e-16)
    assert log_p.equal(before[0])
    assert y.equal(before[1])


def test_two_classes_by_hand() -> None:
    """Logits (ln 3, 0) are probabilities 3/4 and 1/4."""
    log_p = log_softmax(torch.tensor([[math.log(3), 0]], dtype=torch.float64))
    y = torch.tensor([[0, 1]], dtype=torch.float64)
    torch.testing.assert_close(log_p.exp(), torch.tensor([[0.75, 0.25]], dtype=torch.float64))
    assert math.isclose(cross_entropy(log_p, y).item(), math.log(4))
    torch.testing.assert_close(cross_entropy_delta(log_p, y), torch.tensor([[0.75, -0.75]], dtype=torch.float64))


def test_large_logits_do_not_overflow() -> None:
    log_p = log_softmax(torch.tensor([[1e30, 0, -1e30]]))
    y = torch.tensor([[1.0, 0, 0]])
    assert cross_entropy(log_p, y) == 0
    assert cross_entropy_delta(log_p, y).eq(0).all()


def test_penalty_by_hand() -> None:
    weights = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0]])]
    assert Regularizer(strength=0.5).penalty(weights) == 0.5 * (1 + 4 + 9)
    assert Regularizer().penalty(weights) == 0


def test_gradient_matches_autograd() -> None:
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    regularizer = Regularizer(strength=1e-3)
    (expected,) = torch.autograd.grad(regularizer.penalty([weight]), weight)
    torch.testing.assert_close(regularizer.gradient(weight.detach()), expected, rtol=1e-12, atol=0)


def test_strength_is_half_of_weight_decay() -> None:
    start = torch.randn(5, 3, dtype=torch.float64)
    weight = torch.nn.Parameter(start.clone())
    weight.grad = torch.zeros_like(weight)
    torch.optim.SGD([weight], lr=0.1, weight_decay=2 * 1e-3).step()
    torch.testing.assert_close(
        weight.data, start - 0.1 * Regularizer(strength=1e-3).gradient(start), rtol=1e-12, atol=0
    )
