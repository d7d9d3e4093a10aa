"""Oracle: the bounds of both initialisations by their papers' formulas; shapes counted by hand."""

import math

import pytest
import torch

from handgrad.nn.activations import Tanh
from handgrad.nn.backprop import loss_and_gradients
from handgrad.nn.mlp import MLP


def test_default_network_is_the_notebooks() -> None:
    network = MLP()
    assert [tuple(weight.shape) for weight in network.weights] == [(500, 784), (250, 500), (100, 250), (10, 100)]
    assert [tuple(bias.shape) for bias in network.biases] == [(500,), (250,), (100,), (10,)]
    assert sum(parameter.numel() for parameter in network.parameters()) == 543_860


def test_xavier_fills_its_interval_and_leaves_biases_zero() -> None:
    network = MLP(init="xavier_uniform")
    for weight in network.weights:
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.98 * bound < weight.abs().max() <= bound
        assert abs(weight.mean()) < 0.1 * bound
    assert all(bias.eq(0).all() for bias in network.biases)


def test_pytorch_init_fills_its_interval() -> None:
    network = MLP(init="pytorch")
    for weight, bias in zip(network.weights, network.biases, strict=True):
        bound = 1 / math.sqrt(weight.shape[1])
        assert 0.98 * bound < weight.abs().max() <= bound
        assert 0.5 * bound < bias.abs().max() <= bound


def test_same_random_state_gives_the_same_network() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(MLP([784, 20, 10]))
    torch.testing.assert_close(networks[0].state_dict(), networks[1].state_dict(), rtol=0, atol=0)


def test_unknown_init_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of xavier_uniform, pytorch, not 'zeros'"):
        MLP(init="zeros")


def test_one_size_makes_no_network() -> None:
    for sizes in ([5], [2, 0, 2], [2.0, 3], 5):
        with pytest.raises(ValueError, match=r"from the inputs to the outputs, \[2, 2, 2\], not .*"):
            MLP(sizes)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        MLP([2, 2]).weights[0] = torch.eye(2)  # type: ignore[index]


def test_network_of_any_sizes_learns_xor_by_plain_assignment() -> None:
    torch.manual_seed(0)
    x, y = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), torch.eye(2)[[0, 1, 1, 0]]
    network = MLP([2, 8, 2])
    for _ in range(1000):
        gradients = loss_and_gradients(x, y, network.weights, network.biases, Tanh()).gradients
        for layer, gradient in zip(network.linear, gradients, strict=True):
            layer.weight -= 0.5 * gradient.weight()
            layer.bias -= 0.5 * gradient.bias()  # type: ignore[misc]
    assert network(x, Tanh()).argmax(dim=1).tolist() == [0, 1, 1, 0]
