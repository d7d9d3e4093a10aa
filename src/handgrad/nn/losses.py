"""Cross-entropy with its gradient, also for S networks, as a leading dimension.

Equation numbers: docs/derivation.md.
"""

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Compute log-probabilities from logits.

        log p_c = z_c - log sum_k exp(z_k)                          (3)

    PyTorch subtracts the largest z first, so that no exponential overflows. Logits below float32 precision are cast to
    float32.

    Args:
        logits: (B, C) pre-activations of the output layer.

    Returns:
        (B, C) log-probabilities; exp of a row sums to 1.
    """
    return torch.log_softmax(at_least_float32(logits), dim=-1)


def at_least_float32(numbers: Tensor) -> Tensor:
    """Cast to float32 if the precision is lower."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def cross_entropy(log_p: Tensor, y: Tensor, examples: int | None = None) -> Tensor:
    """Compute the mean negative log-likelihood of the true classes, in nats per example.

        loss = -1/B sum_b sum_c y_bc log p_bc                       (4)

    Args:
        log_p: (B, C) log-probabilities, from `log_softmax`.
        y: (B, C) targets; each row is non-negative and sums to 1 (one-hot for MNIST).
        examples: size of the whole batch if this is only a part of it; None for B.

    Returns:
        () mean over the batch; for a part, its contribution to that mean.

    Raises:
        ValueError: y is not shaped like log_p, e.g. holds class numbers.
    """
    check_targets(log_p, y)
    return (y * log_p).sum(dim=(-2, -1)) / -(examples or y.shape[-2])


def cross_entropy_delta(log_p: Tensor, y: Tensor, examples: int | None = None) -> Tensor:
    """Compute the delta of the output layer, the derivative of `cross_entropy` with respect to the logits.

        delta = (p - y) / B                                         (BP1, 5)

    Args:
        log_p: (B, C) log-probabilities, from `log_softmax`.
        y: (B, C) targets; each row sums to 1.
        examples: size of the whole batch if this is only a part of it; None for B.

    Returns:
        (B, C) dLoss/dz of the output layer.

    Raises:
        ValueError: y is not shaped like log_p, e.g. holds class numbers.

    Source: Bishop, Pattern Recognition and Machine Learning, eq. 5.18 and 4.109, divided by B for the mean.
    """
    check_targets(log_p, y)
    return log_p.exp().sub_(y).div_(examples or y.shape[-2])


def check_targets(log_p: Tensor, y: Tensor) -> None:
    """Check that targets have a number per example and class: class numbers would broadcast.

    Raises:
        ValueError: they do not.
    """
    if y.shape != log_p.shape or y.dim() < 2:
        expected = f"{tuple(log_p.shape)}, one-hot: torch.nn.functional.one_hot(y, {log_p.shape[-1]})"
        raise ValueError(f"y has shape {tuple(y.shape)}: targets must be {expected}")
