"""Deformation of pictures: random affine maps and elastic fields (Simard et al. 2003), given random numbers.

The positions that pictures are sampled at are one matrix product, coefficients (N * 2, K) @ basis (K, H * W). They are
in pixels from the picture's centre, x to the right, y down.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

VARIANCE = 0.999  # least share of an elastic field's variance along each axis that its modes keep
FEWEST = 32  # rows of a product


def elastic_modes(size: int, sigma: float) -> Tensor:
    """Return the Karhunen-Loeve modes of a smoothed random field along one axis.

        C_ij = exp(-(i - j)^2 / (4 sigma^2)) = U S U^T,    A = U_k sqrt(S_k)              (34)

    C is the covariance of white noise smoothed by a Gaussian of deviation sigma, scaled to variance 1.

    Args:
        size: number of pixels n.
        sigma: deviation of the Gaussian in pixels.

    Returns:
        (n, k) A, of the fewest modes with `VARIANCE` of the variance.

    Source: docs/derivation.md, eq. 34.
    """
    at = torch.arange(size, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.exp(-((at[:, None] - at) ** 2) / (4 * sigma**2)))
    values, vectors = values.flip(0), vectors.flip(1)  # the largest first
    count = int((values.cumsum(0) < VARIANCE * values.sum()).sum()) + 1
    modes: Tensor = vectors[:, :count] * values[:count].sqrt()
    return modes


def basis(shape: Sequence[int], sigma: float | None) -> Tensor:
    """Return the functions of (x, y) whose linear combinations are all positions that pictures are sampled at.

        F = A_H M A_W^T,    M (k_H, k_W) standard normal                                  (35)

    Args:
        shape: (H, W) of the pictures.
        sigma: deviation of the elastic field's smoothing in pixels; None for affine maps alone.

    Returns:
        (K, H * W) float: x, y, 1 and the k_H k_W elastic modes, in pixels.

    Source: docs/derivation.md, eq. 35; P. Simard, D. Steinkraus and J. Platt, Best Practices for Convolutional Neural
    Networks, 2003, section 2.
    """
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in shape), indexing="ij")
    functions = torch.stack([x, y, torch.ones_like(x)])
    if sigma is not None:
        modes = torch.einsum("hi,wj->ijhw", *(elastic_modes(size, sigma) for size in shape))
        functions = torch.cat([functions, modes.flatten(0, 1)])
    return functions.flatten(1).float()


def coefficients(
    rng: np.random.Generator,
    count: int,
    modes: int,
    elastic: float = 0.0,
    rotation: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: float = 0.0,
) -> Tensor:
    """Draw the coefficients of random deformations; without any strength, of the identity.

        x' = cos t s_x x + (cos t tan u - sin t) s_y y + d_x + F_x
        y' = sin t s_x x + (sin t tan u + cos t) s_y y + d_y + F_y                        (36)

    The pixel at (x, y) becomes the picture's value at (x', y').

    Args:
        rng: the random numbers.
        count: number of deformations N.
        modes: number of elastic modes of the basis, k_H k_W; 0 for none.
        elastic: displacement by the elastic field in pixels, root mean square along each axis.
        rotation: largest angle |t| in degrees.
        scale: largest |s - 1| of each axis.
        shear: largest angle |u| in degrees.
        shift: largest |d| in pixels, along each axis.

    Returns:
        (N, 2, K) float, of x' and y'; angles, scales and shifts are uniform.

    Source: docs/derivation.md, eq. 36.
    """
    t, u, s_x, s_y, d_x, d_y = rng.uniform(-1, 1, (6, count))
    t, u, s_x, s_y = math.radians(rotation) * t, math.radians(shear) * u, 1 + scale * s_x, 1 + scale * s_y
    along_x = [np.cos(t) * s_x, (np.cos(t) * np.tan(u) - np.sin(t)) * s_y, shift * d_x]
    along_y = [np.sin(t) * s_x, (np.sin(t) * np.tan(u) + np.cos(t)) * s_y, shift * d_y]
    affine = np.stack([along_x, along_y]).transpose(2, 0, 1)  # (N, 2, 3)
    field = rng.standard_normal((count, 2, modes), np.float32) * np.float32(elastic)
    return torch.from_numpy(np.concatenate([affine.astype(np.float32), field], axis=2))


def warp(pictures: Tensor, drawn: Tensor, functions: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sample every picture at its own positions, bilinearly; black outside.

    Args:
        pictures: (N, H * W) grey pictures, 0 is black.
        drawn: (N, 2, K) coefficients.
        functions: (K, H * W) basis.
        shape: (H, W).

    Returns:
        (N, H * W) deformed pictures; each depends on its own row only, bit for bit.
    """
    height, width = shape
    unit = drawn.new_tensor([[2 / width], [2 / height]])  # of grid_sample, from -1 to 1 between the edges
    factors = (drawn * unit).flatten(0, 1)
    # A product of few rows takes another path (GEMV), which rounds differently.
    product = torch.nn.functional.pad(factors, (0, 0, 0, max(0, FEWEST - len(factors)))) @ functions
    grid = product[: len(factors)].view(len(drawn), 2, height, width).permute(0, 2, 3, 1)
    images = pictures.view(len(drawn), 1, height, width)
    return torch.nn.functional.grid_sample(images, grid.to(images.dtype), align_corners=False).flatten(1)
