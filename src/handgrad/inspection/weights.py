"""Formats of a network's weights: checkpoint, state_dict, the notebook's dictionary."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from torch import Tensor

from handgrad.errors import UserError
from handgrad.nn.mlp import MLP

NOTEBOOK = re.compile(r"[wb]\d+")  # "w1" (O, I), "b1" (O, 1), "w2" ...
NORMALIZED = (0.1307, 0.3081)  # mean and standard deviation of MNIST's training pixels, as in PyTorch's example
Layer = tuple[Tensor, Tensor]  # weight (O, I), bias (O,)


def layers_of(content: Any, source: object) -> list[Layer]:
    """Extract the layers from the content of a weights file.

    Args:
        content: a Lightning checkpoint, a state_dict whose names end in "weight" and "bias", or the notebook's
            dictionary.
        source: the file, for messages.

    Returns:
        (weight, bias) of every layer, from input to output.

    Raises:
        UserError: there are no layers, or they form no network or more than one.
    """
    for name in ("state_dict", "model_state_dict"):  # Lightning's key, and that of PyTorch's tutorial
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)} if is_named(content) else {}
    if tensors and all(NOTEBOOK.fullmatch(key) for key in tensors):
        weights = {f"{key[1:]}.weight": value for key, value in tensors.items() if key[0] == "w"}
        tensors = weights | {f"{key[1:]}.bias": value.flatten() for key, value in tensors.items() if key[0] == "b"}
    prefixes = [key.removesuffix("weight") for key in tensors if key.endswith("weight")]
    if not prefixes or {f"{prefix}{name}" for prefix in prefixes for name in ("weight", "bias")} != set(tensors):
        raise UserError(
            f"{source} does not hold a weight and a bias for every layer of a perceptron: "
            "it should be a checkpoint of this project, a state_dict of linear layers, or the notebook's w1, b1, ..."
        )
    prefixes = in_order(prefixes, [tuple(tensors[f"{prefix}weight"].shape) for prefix in prefixes], source)
    layers = [(tensors[f"{prefix}weight"], tensors[f"{prefix}bias"]) for prefix in prefixes]
    check_layers(layers, source)
    return layers


def check_layers(layers: Sequence[Layer], source: object) -> None:
    """Refuse layers whose shapes do not chain or whose numbers are integers or not finite."""
    shapes = [(tuple(weight.shape), tuple(bias.shape)) for weight, bias in layers]
    fit = all(len(weight) == 2 and bias == weight[:1] and 0 not in weight for weight, bias in shapes)
    fit = fit and chained(weight for weight, _ in shapes)
    if not fit:
        listed = ", ".join(f"{weight} with bias {bias}" for weight, bias in shapes)
        raise UserError(
            f"{source}: its weights (outputs, inputs) do not form a network, "
            f"each layer's inputs the outputs of the one before: {listed}"
        )
    if not all(tensor.is_floating_point() for layer in layers for tensor in layer):
        raise UserError(f"{source}: weights should be floating-point numbers")
    if not_finite := sum(int((~tensor.isfinite()).sum()) for layer in layers for tensor in layer):
        raise UserError(f"{source}: {not_finite:,} of its weights and biases are NaN or infinite")


def in_order(prefixes: list[str], shapes: Sequence[tuple[int, ...]], source: object) -> list[str]:
    """Sort the names of layers, with weights of these shapes (O, I), by the numbers in them, else in the file's order.

    Raises:
        UserError: the names have no numbers, and the layers fit each other in more than one order.
    """
    numbers = {prefix: tuple(map(int, re.findall(r"\d+", prefix))) for prefix in prefixes}
    numbered = sorted((prefix for prefix in prefixes if numbers[prefix]), key=numbers.__getitem__)
    by_number = iter(numbered)
    sorted_by_number = [next(by_number) if numbers[prefix] else prefix for prefix in prefixes]
    fits = dict(zip(prefixes, shapes, strict=True))
    told_apart = len(set(numbers.values())) == len(prefixes)  # one may have none, "out"
    if told_apart and chained(fits[prefix] for prefix in sorted_by_number):
        return sorted_by_number
    if all(len(shape) == 2 for shape in shapes) and len(list(islice(orders(tuple(shapes)), 2))) > 1:
        raise UserError(
            f"{source}: its layers fit each other in more than one order, and their names do not say which "
            f"({', '.join(prefix.rstrip('.') for prefix in prefixes)}): rename them with numbers, fc1, fc2, ..."
        )
    return prefixes


def chained(shapes: Iterable[tuple[int, ...]]) -> bool:
    """Tell whether the inputs of each layer are the outputs of the one before."""
    return all(above[-1] == below[0] for below, above in pairwise(shapes))


def orders(shapes: tuple[tuple[int, ...], ...], inputs: int | None = None) -> Iterator[tuple[int, ...]]:
    """Yield the orders in which layers form a network, of a number of inputs; layers of one shape are told apart."""
    if not shapes:
        yield ()
    for number, shape in enumerate(shapes):
        if inputs in (None, shape[1]):
            yield from ((number, *rest) for rest in orders(shapes[:number] + shapes[number + 1 :], shape[0]))


def take_normalized(layers: list[Layer], inputs: Any) -> list[Layer]:
    """Fold the normalization of its inputs into a network's first layer, which then takes pixels from 0 to 1.

        W (x - mean) / deviation + b  =  (W / deviation) x + (b - W mean / deviation)

    `inputs` is "normalized", for MNIST's mean 0.1307 and deviation 0.3081, or [mean, deviation].
    """
    mean, deviation = NORMALIZED if inputs == "normalized" else inputs
    weight, bias = (tensor.double() for tensor in layers[0])
    folded = weight / deviation, bias - weight.sum(dim=1) * mean / deviation
    return [(folded[0].to(layers[0][0]), folded[1].to(layers[0][1])), *layers[1:]]


def is_named(content: Any) -> bool:
    """Tell whether a value is a dictionary with text keys."""
    return isinstance(content, Mapping) and all(isinstance(key, str) for key in content)


def for_notebook(network: MLP) -> dict[str, Tensor]:
    """Return the notebook's dictionary: "w1" (O, I), "b1" (O, 1), ..."""
    weights = {f"w{number}": weight.detach().clone() for number, weight in enumerate(network.weights, start=1)}
    biases = {f"b{number}": bias.detach().clone()[:, None] for number, bias in enumerate(network.biases, start=1)}
    return weights | biases
