"""Oracle: the sum of squares by hand, autograd in float64, and PyTorch's weight_decay."""

import torch

from handgrad.nn.losses import L2, no_penalty


def test_penalty_by_hand() -> None:
    weights = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0]])]
    assert L2(strength=0.5).penalty(weights) == 0.5 * (1 + 4 + 9)
    assert no_penalty().penalty(weights) == 0


def test_gradient_matches_autograd() -> None:
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    regularizer = L2(strength=1e-3)
    (expected,) = torch.autograd.grad(regularizer.penalty([weight]), weight)
    torch.testing.assert_close(regularizer.gradient(weight.detach()), expected, rtol=1e-12, atol=0)


def test_strength_is_half_of_weight_decay() -> None:
    start = torch.randn(5, 3, dtype=torch.float64)
    weight = torch.nn.Parameter(start.clone())
    weight.grad = torch.zeros_like(weight)
    torch.optim.SGD([weight], lr=0.1, weight_decay=2 * 1e-3).step()
    torch.testing.assert_close(weight.data, start - 0.1 * L2(strength=1e-3).gradient(start), rtol=1e-12, atol=0)
