"""Collectives for data-parallel training; no-ops in a single process."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torchmetrics.utilities.distributed import gather_all_tensors

from handgrad.nn.backprop import FactoredGradient


def is_distributed() -> bool:
    """Tell whether this process is one of several in distributed training."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def all_reduce(numbers: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place; the result is bitwise equal in every process."""
    if is_distributed():
        distributed.all_reduce(numbers)
    return numbers


def all_reduce_list(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sum each of several tensors over all processes, with a single all-reduce.   (25)"""
    if not is_distributed():
        return list(tensors)
    joined = all_reduce(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = torch.split(joined, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def all_gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows (B, N) of all processes, in rank order; B may differ between them, and be 0."""
    return torch.cat(gather_all_tensors(rows.contiguous())) if is_distributed() else rows


def all_gather_factors(gradients: Sequence[FactoredGradient]) -> list[FactoredGradient]:
    """All-gather the factored gradients of the whole batch, in layer order: join the factors of all processes.   (25)

    The deltas are divided by the whole batch's size. The factors of all layers are sent as one tensor, sum over layers
    of (O + I) numbers per example.
    """
    if not is_distributed():
        return list(gradients)
    factors = [factor for gradient in gradients for factor in gradient]
    rows = all_gather_rows(torch.cat(factors, dim=1))
    parts = torch.split(rows, [factor.shape[1] for factor in factors], dim=1)
    return [FactoredGradient(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
