"""The multilayer perceptron: sizes, initialisation, parameters."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from handgrad.nn.regularizers import dropped


class MLP(nn.Module):
    """Weights (O, I) and biases (O,) of a multilayer perceptron; both engines use it.

    The parameters require no gradient, so that `layer.weight -= lr * gradient` works as written; for autograd call
    `requires_grad_()`, as the engines do.

    Args:
        sizes: units per layer: inputs, every hidden layer, outputs.
        init: "xavier_uniform" (uniform in +-sqrt(6 / (I + O)), biases zero; Glorot and Bengio 2010, eq. 16) or
            "pytorch" (uniform in +-1/sqrt(I), biases too). Both draw from torch's global RNG.

    Raises:
        ValueError: init is neither of the two, or there are fewer than two sizes.
    """

    def __init__(self, sizes: Sequence[int] = (784, 500, 250, 100, 10), init: str = "xavier_uniform") -> None:
        super().__init__()
        if not isinstance(sizes, Sequence) or len(sizes) < 2 or not all(type(n) is int and n > 0 for n in sizes):
            raise ValueError(f"sizes must be whole numbers, from the inputs to the outputs, [2, 2, 2], not {sizes}")
        self.linear = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
        self.layers = nn.ModuleList(self.linear)  # registers the parameters
        if init not in INITIALISATIONS:
            raise ValueError(f"network.init must be one of {', '.join(INITIALISATIONS)}, not {init!r}")
        INITIALISATIONS[init](self)
        self.requires_grad_(False)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Weight matrices, each (O, I), in layer order."""
        return tuple(layer.weight for layer in self.linear)

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """Bias vectors, each (O,), in layer order."""
        return tuple(layer.bias for layer in self.linear)

    def forward(self, x: Tensor, phi: nn.Module, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """Map inputs (B, I) to logits (B, C), tracked by autograd; phi follows every layer but the last.

        With dropout, masks are those of every layer's input, each (B, I) or None.
        """
        first, *others = masks or [None] * len(self.linear)
        *hidden, output = self.linear
        x = dropped(x, first)
        for layer, mask in zip(hidden, others, strict=True):
            x = dropped(phi(layer(x)), mask)
        return cast(Tensor, output(x))


def xavier_uniform(network: MLP) -> None:
    """Draw the weights uniformly from +-sqrt(6 / (I + O)) and set the biases to zero.   (18)"""
    for layer in network.linear:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def pytorch(network: MLP) -> None:
    """Keep the initialisation of `nn.Linear`: weights and biases uniform in +-1/sqrt(I).   (19)"""


INITIALISATIONS: dict[str, Callable[[MLP], None]] = {"xavier_uniform": xavier_uniform, "pytorch": pytorch}
