"""Oracle: autograd with PyTorch's own layers, and finite differences, both in float64; one example by hand."""

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ACTIVATIONS
from handgrad.nn import backprop, losses
from handgrad.nn.activations import Activation, ReLU, Tanh
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer
from handgrad.training.data import Examples

HIDDEN: dict[str, Sequence[int]] = {"no hidden": [], "one hidden": [9], "three hidden": [12, 8, 6]}
STRENGTH = 1e-3


def gradients_by_hand(network: MLP, x: Tensor, y: Tensor, phi: Activation, regularizer: Regularizer) -> list[Tensor]:
    """Return every layer's weight and bias gradients from the manual engine."""
    step = backprop.loss_and_gradients(x, y, network.weights, network.biases, phi)
    gradients = []
    for weight, gradient in zip(network.weights, step.gradients, strict=True):
        gradients += [gradient.weight() + regularizer.gradient(weight.detach()), gradient.bias()]
    return gradients


def objective(network: MLP, x: Tensor, y: Tensor, phi: Activation, strength: float) -> Tensor:
    """Return the training objective, cross-entropy plus penalty, in plain PyTorch."""
    squares = sum(p.square().sum() for name, p in network.named_parameters() if name.endswith("weight"))
    return torch.nn.functional.cross_entropy(network(x, phi.reference()), y) + strength * squares


def batch_of(images_640: Examples, size: int) -> tuple[Tensor, Tensor]:
    return images_640.rows[:size].double() / 255, images_640.targets[:size].double()


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("regularizer", [Regularizer(), Regularizer(STRENGTH)], ids=["none", "l2"])
@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_manual_gradients_match_autograd_and_finite_differences(
    images_640: Examples, phi: Activation, regularizer: Regularizer, hidden: Sequence[int], size: int
) -> None:
    torch.manual_seed(size)
    network = MLP([784, *hidden, 10], init="pytorch").double().requires_grad_()
    x, y = batch_of(images_640, size)
    by_hand = gradients_by_hand(network, x, y, phi, regularizer)

    parameters = list(network.parameters())
    by_autograd = torch.autograd.grad(objective(network, x, y, phi, regularizer.strength), parameters)
    for ours, theirs in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)

    step = 1e-6
    with torch.no_grad():
        for parameter, gradient in zip(parameters, by_hand, strict=True):
            direction = torch.randn_like(parameter)
            parameter.add_(direction, alpha=step)
            above = objective(network, x, y, phi, regularizer.strength)
            parameter.sub_(direction, alpha=2 * step)
            below = objective(network, x, y, phi, regularizer.strength)
            parameter.add_(direction, alpha=step)
            expected = (gradient * direction).sum()
            torch.testing.assert_close((above - below) / (2 * step), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_stacked_networks_match_single_networks(images_640: Examples, phi: Activation) -> None:
    """Three stacked networks, one batch each: losses and gradients match, and every product is column-major."""
    torch.manual_seed(0)
    networks = [MLP([784, 12, 8, 10], init="pytorch").double() for _ in range(3)]
    x, y = (tensor.view(3, 7, -1) for tensor in batch_of(images_640, 21))
    weights = [torch.stack(layer) for layer in zip(*(network.weights for network in networks), strict=True)]
    biases = [torch.stack(layer) for layer in zip(*(network.biases for network in networks), strict=True)]
    losses, passed, together = backprop.loss_and_gradients(x, y, weights, biases, phi)
    assert all(z.mT.is_contiguous() for z in passed.zs)
    for s, network in enumerate(networks):
        alone = gradients_by_hand(network, x[s], y[s], phi, Regularizer())
        ours = [tensor[s] for gradient in together for tensor in (gradient.weight(), gradient.bias())]
        torch.testing.assert_close(ours, [gradient.detach() for gradient in alone], rtol=1e-12, atol=1e-15)
        expected = objective(network, x[s], y[s], phi, strength=0).detach()
        torch.testing.assert_close(losses[s], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_hidden_tensors_are_column_major(images_640: Examples, phi: Activation) -> None:
    """Column-major tensors make the products fast; an activation that changed the layout would slow them silently."""
    network = MLP([784, 12, 8, 10])
    x, y = images_640.rows[:16] / 255, images_640.targets[:16]
    _, passed, (*hidden, _) = backprop.loss_and_gradients(x, y, network.weights, network.biases, phi)
    for tensor in (*passed.zs, *passed.inputs[1:], *(gradient.delta for gradient in hidden)):
        assert tensor.T.is_contiguous()


def test_two_layers_by_hand() -> None:
    """The example of docs/derivation.md: two images of two pixels, two hidden units, two classes."""
    ln3 = math.log(3)
    t = 4 * (1 - ln3)
    x = torch.tensor([[1, 2], [0, t]], dtype=torch.float64)
    y = torch.tensor([[1, 0], [0, 1]], dtype=torch.float64)
    weights = [
        torch.tensor([[0.5, -0.25], [1, 1]], dtype=torch.float64),
        torch.tensor([[1, 0], [0, 0.5]], dtype=torch.float64),
    ]
    biases = [torch.tensor([1, -1], dtype=torch.float64), torch.tensor([0, 0], dtype=torch.float64)]

    passed = backprop.forward(x, weights, biases, ReLU(), slopes=True)
    assert_equal(passed.zs[0], [[1, 2], [ln3, t - 1]])
    assert_equal(passed.inputs[1], [[1, 2], [ln3, 0]])
    assert_equal(passed.slopes[0], [[1, 1], [1, 0]])
    assert_equal(passed.logits, [[1, 1], [ln3, 0]])
    log_p = losses.log_softmax(passed.logits)
    assert_equal(log_p.exp(), [[1 / 2, 1 / 2], [3 / 4, 1 / 4]])
    assert math.isclose(losses.cross_entropy(log_p, y), 1.5 * math.log(2))

    first, second = backprop.backward(losses.cross_entropy_delta(log_p, y), passed, weights)
    assert_equal(second.delta, [[-1 / 4, 1 / 4], [3 / 8, -3 / 8]])
    assert_equal(second.weight(), [[-1 / 4 + 3 / 8 * ln3, -1 / 2], [1 / 4 - 3 / 8 * ln3, 1 / 2]])
    assert_equal(second.bias(), [1 / 8, -1 / 8])
    assert_equal(first.delta, [[-1 / 4, 1 / 8], [3 / 8, 0]])
    assert_equal(first.weight(), [[-1 / 4, -1 / 2 + 3 / 8 * t], [1 / 8, 1 / 4]])
    assert_equal(first.bias(), [1 / 8, 1 / 8])


def assert_equal(actual: Tensor, expected: Sequence[object]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-15)


def test_backward_modifies_no_argument(images_640: Examples) -> None:
    network, (x, y) = MLP([784, 6, 5, 10]).double(), batch_of(images_640, 4)
    passed = backprop.forward(x, network.weights, network.biases, Tanh(), slopes=True)
    delta = losses.cross_entropy_delta(losses.log_softmax(passed.logits), y)
    given = [x, y, delta, *(tensor for part in passed for tensor in part)]
    before = [tensor.clone() for tensor in given]
    for gradient in backprop.backward(delta, passed, network.weights):
        gradient.weight(), gradient.bias()
    backprop.loss_and_gradients(x, y, network.weights, network.biases, Tanh())
    assert all(map(torch.equal, given, before))


def test_no_graph_is_recorded(images_640: Examples) -> None:
    network = MLP([784, 12, 8, 10]).double().requires_grad_()
    x, y = batch_of(images_640, 7)

    def refuse(tensor: Tensor) -> None:
        raise AssertionError("autograd saved a tensor")

    with torch.autograd.graph.saved_tensors_hooks(refuse, lambda packed: packed):
        _, passed, gradients = backprop.loss_and_gradients(x, y, network.weights, network.biases, Tanh())
    tensors = [*passed.zs, *passed.inputs, *(tensor for gradient in gradients for tensor in gradient)]
    assert not any(tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_of_the_parameters_is_kept(images_640: Examples, dtype: torch.dtype) -> None:
    network = MLP([784, 12, 8, 10]).to(dtype)
    x, y = images_640.rows[:7].to(dtype) / 255, images_640.targets[:7].to(dtype)
    gradients = gradients_by_hand(network, x, y, ReLU(), Regularizer(STRENGTH))
    assert {gradient.dtype for gradient in gradients} == {dtype}
    assert [gradient.shape for gradient in gradients] == [parameter.shape for parameter in network.parameters()]


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_squared_norm_is_that_of_the_gradient_multiplied_out(
    images_640: Examples, hidden: Sequence[int], decay: float
) -> None:
    torch.manual_seed(0)
    network = MLP([784, *hidden, 10], init="pytorch").double().requires_grad_()
    x, y = batch_of(images_640, 7)
    mean_loss = torch.nn.functional.cross_entropy(network(x, torch.nn.Tanh()), y)
    penalty = decay / 2 * sum(weight.square().sum() for weight in network.weights)  # its gradient is decay * W
    by_autograd = torch.autograd.grad(mean_loss + penalty, list(network.parameters()))
    gradients = backprop.loss_and_gradients(x, y, network.weights, network.biases, Tanh()).gradients
    ours = sum(
        gradient.squared_norm(weight.detach(), decay)
        for gradient, weight in zip(gradients, network.weights, strict=True)
    )
    theirs = sum(gradient.square().sum() for gradient in by_autograd)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_squared_norm_by_hand() -> None:
    delta, a = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[3.0], [4.0]])
    gradient = backprop.FactoredGradient(delta, a)  # delta.T @ a = (3, 2), bias gradient (1, 1)
    assert gradient.squared_norm(torch.zeros(2, 1), 0.0).item() == 9 + 4 + 1 + 1
    assert gradient.squared_norm(torch.tensor([[1.0], [2.0]]), 0.5).item() == 3.5**2 + 3**2 + 1 + 1


def test_stacked_factors_are_the_mean_of_the_batches(images_640: Examples) -> None:
    torch.manual_seed(0)
    network = MLP([784, 9, 10], init="pytorch").double().requires_grad_()
    x, y = batch_of(images_640, 50)
    batches, parts = [(x[:20], y[:20]), (x[20:40], y[20:40]), (x[40:], y[40:])], []
    for images, targets in batches:
        parts.append(backprop.loss_and_gradients(images, targets, network.weights, network.biases, ReLU()).gradients)
    losses = [
        torch.nn.functional.cross_entropy(network(images, torch.nn.ReLU()), targets) for images, targets in batches
    ]
    by_autograd = torch.autograd.grad(torch.stack(losses).mean(), list(network.parameters()))
    ours = [each for gradient in backprop.accumulate(parts, 3) for each in (gradient.weight(), gradient.bias())]
    torch.testing.assert_close(ours, list(by_autograd), rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"x": torch.rand(3, 4)}, ValueError, "x has shape (3, 4): W_1 (5, 3) takes (B, 3), one example per row"),
        ({"x": torch.rand(3)}, ValueError, "x has shape (3,): W_1 (5, 3) takes (B, 3), one example per row"),
        ({"x": torch.ones(4, 3, dtype=torch.uint8)}, TypeError, "not torch.uint8: divide images of bytes by 255"),
        ({"x": [[1.0, 2, 3]] * 4}, TypeError, "x must be a tensor of floating-point numbers, not list"),
        ({"x": torch.rand(4, 3).double()}, TypeError, "x is torch.float64, the weights are torch.float32"),
        ({"biases": [torch.zeros(5)]}, ValueError, "2 weights and 1 biases"),
        (
            {"biases": [torch.zeros(5, 1), torch.zeros(2)]},
            ValueError,
            "b_1 has shape (5, 1), W_1 (5, 3): the bias must",
        ),
        (
            {"biases": [torch.zeros(5), torch.zeros(1)]},
            ValueError,
            "b_2 has shape (1,), W_2 (2, 5): the bias must be (2,)",
        ),
        ({"weights": [torch.rand(5, 3), torch.rand(2, 4)]}, ValueError, "W_2 has shape (2, 4), but layer 1 has 5"),
        ({"phi": torch.relu}, TypeError, "an activation with a derivative, e.g. handgrad.activations.ReLU(), not relu"),
        ({"phi": ReLU}, TypeError, "an activation with a derivative, e.g. handgrad.activations.ReLU(), not ReLU"),
        ({"y": torch.tensor([0, 1, 0, 1])}, ValueError, "y has shape (4,): targets must be (4, 2), one-hot"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changed: dict[str, Any], kind: type[Exception], said: str) -> None:
    fitting: dict[str, Any] = {"x": torch.rand(4, 3), "y": torch.eye(2)[[0, 1, 0, 1]], "phi": ReLU()}
    fitting |= {"weights": [torch.rand(5, 3), torch.rand(2, 5)], "biases": [torch.zeros(5), torch.zeros(2)]}
    backprop.loss_and_gradients(**fitting)
    with pytest.raises(kind, match=re.escape(said)):
        backprop.loss_and_gradients(**fitting | changed)


def test_backward_needs_slopes_and_a_delta_like_the_logits() -> None:
    network, x = MLP([3, 5, 2]), torch.rand(4, 3)
    with pytest.raises(ValueError, match=r"call forward\(..., slopes=True\)"):
        backprop.backward(x[:, :2], backprop.forward(x, network.weights, network.biases, ReLU()), network.weights)
    passed = backprop.forward(x, network.weights, network.biases, ReLU(), slopes=True)
    with pytest.raises(ValueError, match=r"output_delta has shape \(4, 1\), the logits \(4, 2\)"):
        backprop.backward(torch.rand(4, 1), passed, network.weights)
