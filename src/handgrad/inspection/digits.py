"""Preprocessing of digit pictures, as MNIST was preprocessed.

LeCun, Cortes and Burges, The MNIST database: "The original black and white (bilevel) images from NIST were size
normalized to fit in a 20x20 pixel box while preserving their aspect ratio. The resulting images contain grey levels as
a result of the anti-aliasing technique used by the normalization algorithm. The images were centered in a 28x28 image
by computing the center of mass of the pixels." In MNIST's own files the rounded centre is pixel (14, 14), counted
from 0, and the brightest pixel is 254 or 255.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from handgrad.errors import UserError

Grey = NDArray[np.float64]  # (H, W)

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
SIDE, BOX, CENTRE = 28, 20, 14
LARGEST = 400  # longest side in pixels; a box of 20 shows no more detail
FAINTEST = 0.06  # least contrast, as a share of white to black; below it a picture is empty
CLEAN = 0.005  # most noise, as a share of the contrast, in a drawn picture; photographs have more
THINNEST = 1.6  # least stroke width in the box, in pixels; MNIST's strokes have two to three
SPECK = 0.04  # least share of the largest stroke's ink; smaller spots are dirt


def to_mnist(path: Path) -> tuple[Grey, Tensor]:
    """Read a picture and preprocess it as MNIST was.

    Args:
        path: a PNG, JPEG, BMP, GIF or WebP file, of any size and colour, dark on light or light on dark.

    Returns:
        the picture, (H, W) from 0 (black) to 1 (white); and the network's input, (784,) from 0 (paper) to 1 (ink).

    Raises:
        UserError: the file is no such picture, or nothing in it stands out from the background.
    """
    grey = read(path)
    ink = extract_ink(grey)
    if ink is None:
        raise UserError(f"{path} is empty: nothing in it stands out from its background")
    return grey, centred(fit_to_box(strokes(ink))).flatten()


def as_it_is(path: Path, dataset: str) -> tuple[Grey, Tensor]:
    """Read a picture that is prepared as a data set's own images are: 28 x 28, light on black.

    Returns:
        the picture, (28, 28) from 0 to 1; the same as the network sees it, (784,).

    Raises:
        UserError: the file is no such picture.
    """
    grey = read(path)
    if grey.shape != (SIDE, SIDE):
        height, width = grey.shape
        raise UserError(
            f"{path} is {width} x {height} pixels: for a network of {dataset}, whose images are no digits on paper, "
            f"give pictures as that set has them, {SIDE} x {SIDE}, light on black"
        )
    return grey, torch.from_numpy(grey).float().flatten()


def read(path: Path) -> Grey:
    """Read a picture in greyscale, upright, with transparent parts as paper, at most 400 pixels a side.

    Raises:
        UserError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            file.draft("L", (LARGEST, LARGEST))  # decode a JPEG at reduced size
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith(("I", "F")):  # 16 bits
                deep = np.asarray(picture, dtype=np.float64)
                picture = Image.fromarray((deep / (65535 if deep.max() > 255 else 255)).astype(np.float32))
            else:
                picture = on_paper(picture)
            picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
            return np.asarray(picture, dtype=np.float64)
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is not a picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: save it as one"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error})") from None


def on_paper(picture: Image.Image) -> Image.Image:
    """Convert to greyscale from 0 to 1 in mode "F"; transparent parts become black or white, unlike the rest."""
    light = np.asarray(picture.convert("RGB").convert("L"), dtype=np.float32) / 255
    if picture.has_transparency_data:
        opaque = np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.float32) / 255
        shade = float((light * opaque).sum() / max(float(opaque.sum()), 1e-9))
        light = light * opaque + (1 - opaque) * (shade < 0.5)
    return Image.fromarray(light)


def extract_ink(grey: Grey) -> Grey | None:
    """Return the ink density from 0 to 1, without the background's shading; None if there is no ink."""
    difference, noise = from_background(grey)
    smooth = ndimage.uniform_filter(difference, 3) if min(grey.shape) >= BOX else difference
    if smooth.max() < -smooth.min():
        difference, smooth = -difference, -smooth  # dark on light
    peak = smooth.max()
    if peak < max(FAINTEST, 5 * noise):
        return None
    full = np.percentile(difference[difference > peak / 2], 75)  # not the maximum: it may be a single dark spot
    ink = np.clip(difference / full, 0, 1)
    if noise > CLEAN * full:  # suppress the grain of paper and camera
        ink = np.clip((ink - 0.3) / 0.4, 0, 1)
    return without_dirt(ink)


def from_background(grey: Grey) -> tuple[Grey, float]:
    """Subtract a smooth background, as light falls on paper; return the difference and its noise level.

    The background is a quadratic surface, fitted to the picture's rim, then to all pixels with values close to it.
    """
    every = max(1, min(grey.shape) // 64)  # subsample: still enough pixels to fit six parameters
    light, terms = grey[::every, ::every].ravel(), surface_terms(grey.shape)
    fitted = terms[::every, ::every].reshape(-1, 6)
    rim = 1 - max(0.1, 4 / min(grey.shape))
    near = abs(fitted[:, 1:3]).max(axis=1) > rim
    near &= abs(light - np.median(light[near])) < 0.25
    surface, noise = np.zeros(6), 0.0
    for usable in (1, 3, 6, 6, 6):  # numbers of terms: constant, linear, quadratic
        if near.sum() < 12:
            break
        surface[:usable] = np.linalg.lstsq(fitted[near, :usable], light[near], rcond=None)[0]
        left = light - fitted @ surface
        noise = 1.4826 * float(np.median(abs(left[near])))
        near = abs(left) < max(3 * noise, 0.02)
    return grey - terms @ surface, noise


def surface_terms(shape: tuple[int, ...]) -> Grey:
    """Return the (H, W, 6) terms of a quadratic surface: 1, x, y, x^2, xy, y^2, with x and y from -1 to 1."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def without_dirt(ink: Grey) -> Grey:
    """Remove specks and, if there is a digit away from the picture's edge, spots that touch the edge."""
    labels, count = ndimage.label(ink > 0.15, structure=np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    mass = ndimage.sum_labels(ink, labels, numbers)
    at_edge = np.isin(numbers, np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inside = mass[~at_edge].max(initial=0)
    if inside > 0.25 * mass.max():
        mass[at_edge] = 0
    kept = numbers[mass >= SPECK * mass.max()]
    near = ndimage.binary_dilation(np.isin(labels, kept), iterations=2)  # keep soft edges
    return np.where(near, ink, 0)


def strokes(ink: Grey) -> Grey:
    """Crop the digit, and thicken strokes that would be too thin in the box."""
    rows, columns = (np.flatnonzero((ink > 0.1).any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = max(ink.shape) / BOX
    stroke = ink > 0.5
    # In a stroke of width w the mean distance to the edge is w / 4.
    width = 4 * float(ndimage.distance_transform_edt(np.pad(stroke, 1))[1:-1, 1:-1][stroke].mean()) - 2
    missing = round((THINNEST * scale - width) / 2)
    if missing > 0:
        ink = np.pad(ink, missing)
        y, x = np.ogrid[-missing : missing + 1, -missing : missing + 1]
        ink = ndimage.grey_dilation(ink, footprint=x * x + y * y <= missing * missing)
    return ink


def fit_to_box(ink: Grey) -> Tensor:
    """Resize the digit to fit (20, 20): longer side 20 pixels, aspect kept, brightest pixel 1."""
    blank = max(ink.shape) - np.array(ink.shape)
    square = np.pad(ink, [(missing // 2, missing - missing // 2) for missing in blank])
    small: Tensor = resize(torch.from_numpy(square)[None], [BOX, BOX], antialias=True)[0].clamp(0, 1)
    return small / small.max()


def centred(small: Tensor) -> Tensor:
    """Place the digit in (28, 28), its centre of mass at pixel (14, 14) or as near as possible without cropping."""
    weights = [small.sum(dim=1 - axis) for axis in (0, 1)]
    masses = [float((weight * torch.arange(BOX)).sum() / weight.sum()) for weight in weights]
    top, left = (min(max(round(mass), CENTRE + BOX - SIDE), CENTRE) for mass in masses)
    wide = torch.nn.functional.pad(small.float(), [CENTRE] * 4)
    return wide[top : top + SIDE, left : left + SIDE]
