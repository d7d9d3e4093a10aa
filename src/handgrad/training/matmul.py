"""How PyTorch multiplies float32 matrices: as it does by default, or faster where that is as exact."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from handgrad.nn.backprop import FactoredGradient, hidden_delta, pre_activation

log = logging.getLogger(__name__)


DEFAULT = "highest"  # PyTorch's name for it
FASTER = "medium"  # lets a library round to bfloat16, or take another way that rounds nothing
MOST = 4.0  # times the default's error


def set_matmul_precision(matmul: str, weights: Sequence[Tensor], batch_size: int, device: torch.device) -> str:
    """Set PyTorch's switch for products in float32, for the whole process.

    On a CPU without units for bfloat16 matrices, "medium" rounds nothing: PyTorch then takes oneDNN's kernels in place
    of MKL's, which use AVX-512 on any maker's CPU. Elsewhere it rounds; so "fastest" tries it before it takes it. On
    Intel's CPUs MKL uses AVX-512 itself, and is the faster of the two (docs/scaling.md).

    Args:
        matmul: "default"; "fastest": "medium" where the CPU is not Intel's and no product's error, against float64, is
            above 4 times the default's; or PyTorch's "high" or "medium" untried.
        weights: L matrices, each (O, I), whose shapes the products have.
        batch_size: B.
        device: where the products will be made.

    Returns:
        what was set: PyTorch's "highest", "high" or "medium".
    """
    torch.set_float32_matmul_precision(DEFAULT)
    if matmul == "fastest" and device.type == "cpu" and "Intel" in str(torch.cpu.get_capabilities().get("cpu_name")):
        log.debug("matmul=fastest: the default is, on a CPU of Intel's")
    elif matmul == "fastest":
        usual = largest_errors(weights, batch_size, device)
        torch.set_float32_matmul_precision(FASTER)
        worst = float((largest_errors(weights, batch_size, device) / usual).max())
        taken = worst <= MOST
        log.debug("matmul=fastest: %.1f times the default's error: %s", worst, "taken" if taken else "not taken")
        if not taken:
            torch.set_float32_matmul_precision(DEFAULT)
    elif matmul != "default":
        torch.set_float32_matmul_precision(matmul)
    return torch.get_float32_matmul_precision()


def largest_errors(weights: Sequence[Tensor], batch_size: int, device: torch.device) -> Tensor:
    """The largest error of every product of a step, of numbers drawn from a normal distribution.

    Args:
        weights: L matrices, each (O, I), whose shapes the products have.
        batch_size: B.
        device: where the products are made.

    Returns:
        (L, 3) float64: of each layer's pre-activations (1), deltas (6) and weight gradient (8), as shares of the
        largest entry.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator)

    errors = []
    for outputs, inputs in (weight.shape for weight in weights):
        weight, bias = drawn(outputs, inputs), drawn(1, outputs)[0]
        # A unit's values side by side, as `backprop.py` leaves them.
        a, delta, derivative = drawn(inputs, batch_size).T, drawn(outputs, batch_size).T, drawn(inputs, batch_size).T
        factors = (a, delta, weight, bias, derivative)
        exact = layer_matmuls(*(factor.double() for factor in factors))
        made = layer_matmuls(*(factor.to(device) for factor in factors))
        for product, right in zip(made, exact, strict=True):
            errors.append((product.cpu() - right).abs().max() / right.abs().max())
    return torch.stack(errors).view(-1, 3)


def layer_matmuls(*factors: Tensor) -> list[Tensor]:
    """A layer's three products; factors: its input, delta, weight, bias and the derivative of the layer below."""
    a, delta, weight, bias, derivative = factors
    return [
        pre_activation(a, weight, bias),
        hidden_delta(delta, weight, derivative),
        FactoredGradient(delta, a).weight(),
    ]
