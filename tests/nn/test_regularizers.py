"""Oracle: the derivation's worked example, masks and moves by hand; torch's label smoothing and dropout rates."""

import math

import pytest
import torch

from handgrad.nn import backprop, losses
from handgrad.nn.activations import ReLU, Tanh
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer, adversarial
from handgrad.training.data import Examples


def test_gradient_of_the_inputs_and_the_move_along_it_by_hand() -> None:
    """The example of docs/derivation.md: deltas (-1/4, 1/8) and (3/8, 0), W_1 ((1/2, -1/4), (1, 1))."""
    weight = torch.tensor([[0.5, -0.25], [1, 1]], dtype=torch.float64)
    delta = torch.tensor([[-1 / 4, 1 / 8], [3 / 8, 0]], dtype=torch.float64)
    x = torch.tensor([[1, 2], [0, -0.5]], dtype=torch.float64)
    gradient = backprop.input_gradient(backprop.FactoredGradient(delta, x), weight)
    torch.testing.assert_close(gradient, torch.tensor([[0, 3 / 16], [3 / 16, -3 / 32]], dtype=torch.float64))
    moved = adversarial(x, gradient, 0.5)
    root = math.sqrt(5)
    expected = torch.tensor([[1, 2.5], [1 / root, -0.5 - 0.5 / root]], dtype=torch.float64)
    torch.testing.assert_close(moved, expected)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        few = x.to(dtype)
        assert adversarial(few, torch.zeros_like(few), 0.5).equal(few)  # no direction, no NaN
    tiny = adversarial(x.float(), 1e-20 * gradient.float(), 0.5)
    torch.testing.assert_close(tiny, expected.float())  # the length does not depend on the gradient's, e.g. on 1/B


def test_masked_pass_by_hand() -> None:
    """One image of two pixels, two tanh units, the second pixel and the first unit dropped at rate 1/2."""
    x, y = torch.tensor([[1.0, 3.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    weights = [torch.tensor([[0.5, 7], [0.25, 7]]).double(), torch.tensor([[5.0, 1], [5, -1]]).double()]
    biases = [torch.zeros(2).double(), torch.zeros(2).double()]
    masks = [torch.tensor([[2.0, 0]]).double(), torch.tensor([[0, 2.0]]).double()]
    result = backprop.loss_and_gradients(x, y, weights, biases, Tanh(), masks=masks)
    a = math.tanh(0.5)  # of the second unit: 2 * 1 * 0.25
    logit = 2 * a
    p = 1 / (1 + math.exp(-2 * logit))
    assert float(result.loss) == pytest.approx(-math.log(p), rel=1e-14)
    first, second = result.gradients
    torch.testing.assert_close(second.delta, torch.tensor([[p - 1, 1 - p]]).double())
    torch.testing.assert_close(second.weight(), torch.tensor([[0, (p - 1) * 2 * a], [0, (1 - p) * 2 * a]]).double())
    slope = 2 * (p - 1) * 2 * (1 - a * a)  # delta_2 W_2 is 2 (p - 1) for that unit; phi' of tanh(z), not of the masked
    torch.testing.assert_close(first.delta, torch.tensor([[0, slope]]).double())
    torch.testing.assert_close(first.weight(), torch.tensor([[0.0, 0], [slope * 2, 0]]).double())
    of_x = backprop.input_gradient(first, weights[0], masks[0])
    torch.testing.assert_close(of_x, torch.tensor([[slope * 0.25 * 2, 0]]).double())


def test_masks_have_their_rates_and_keep_the_mean() -> None:
    weights = MLP([50, 40, 30, 10]).weights
    generator = torch.Generator().manual_seed(0)
    x, first, second = Regularizer(dropout=[0.0, 0.2, 0.5]).masks(5000, weights, generator)
    assert x is None
    assert first is not None
    assert second is not None
    for mask, rate in ((first, 0.2), (second, 0.5)):
        assert sorted(set(mask.flatten().tolist())) == pytest.approx([0, 1 / (1 - rate)])
        assert float((mask == 0).float().mean()) == pytest.approx(rate, abs=0.01)
        assert float(mask.mean()) == pytest.approx(1, abs=0.01)
        assert float(mask.mean(dim=0).std()) < 0.05  # no unit is dropped for all examples
    assert Regularizer(dropout=0.2).dropout_rates(4) == [0, 0.2, 0.2, 0.2]
    with pytest.raises(ValueError, match="dropout has 2 rates, it needs 3: of the inputs and each hidden layer"):
        Regularizer(dropout=[0.1, 0.2]).masks(5, weights, generator)


def test_smoothed_targets_give_torchs_loss_and_hard_ones_are_unchanged() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64)
    y = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0, 1]]
    smooth = Regularizer(smoothing=0.1).smooth(y)
    assert smooth[0].tolist() == pytest.approx([0.925, 0.025, 0.025, 0.025])
    expected = torch.nn.functional.cross_entropy(logits, y, label_smoothing=0.1)
    torch.testing.assert_close(losses.cross_entropy(losses.log_softmax(logits), smooth), expected)
    assert Regularizer().smooth(y) is y


def test_skipping_leaves_out_exactly_what_is_learned(images_640: Examples) -> None:
    x, y = (part.double() for part in images_640.first(64))
    torch.manual_seed(0)
    network = MLP([784, 30, 10]).double()
    with torch.no_grad():
        network.biases[-1].copy_(torch.tensor([6.0, *[0] * 9]))  # zeros are nearly learned
    parts = (network.weights, network.biases, ReLU())
    whole = backprop.loss_and_gradients(x, y, *parts)
    apart = (whole.gradients[-1].delta * 64).abs().amax(dim=1)
    limit = float(apart.sort().values[5])  # six at most as far
    skipped = backprop.loss_and_gradients(x, y, *parts, skip=limit)
    rest = apart > limit
    assert [len(gradient.delta) for gradient in skipped.gradients] == [int(rest.sum())] * 2 == [58, 58]
    assert skipped.loss == whole.loss
    for ours, all_of_it in zip(skipped.gradients, whole.gradients, strict=True):
        torch.testing.assert_close(ours.weight(), all_of_it.delta[rest].mT @ all_of_it.input[rest])
    everything = backprop.loss_and_gradients(x, y, *parts, skip=1.0)
    assert all(gradient.weight().eq(0).all() for gradient in everything.gradients)
