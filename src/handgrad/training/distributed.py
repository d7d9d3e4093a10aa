"""Collectives for data-parallel training; no-ops in a single process."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torchmetrics.utilities.distributed import gather_all_tensors

from handgrad.nn.backprop import FactoredGradient


def is_distributed() -> bool:
    """Whether this process trains along with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def all_reduce(numbers: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place; every process gets the same sum, to the last digit."""
    if is_distributed():
        distributed.all_reduce(numbers)
    return numbers


def all_reduce_list(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sum each of several tensors over all processes, in one message.   (25)"""
    if not is_distributed():
        return list(tensors)
    joined = all_reduce(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = torch.split(joined, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def all_gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes, in the order of ranks.

    Args:
        rows: (B, N), of this process; B may be another in every process, and 0.

    Returns:
        (sum of B, N), in every process the same.
    """
    return torch.cat(gather_all_tensors(rows.contiguous())) if is_distributed() else rows


def all_gather_factors(gradients: Sequence[FactoredGradient]) -> list[FactoredGradient]:
    """Gather the factored gradient of the whole batch from every process's share of it: factors, stacked.   (25)

    The factors of all layers go over in one piece, sum over layers of (O + I) numbers per example.

    Args:
        gradients: of this process's examples, from the input on; the deltas are those of the mean over the whole batch.

    Returns:
        L gradients, from the input on, of the whole batch.
    """
    if not is_distributed():
        return list(gradients)
    factors = [factor for gradient in gradients for factor in gradient]
    rows = all_gather_rows(torch.cat(factors, dim=1))
    parts = torch.split(rows, [factor.shape[1] for factor in factors], dim=1)
    return [FactoredGradient(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
