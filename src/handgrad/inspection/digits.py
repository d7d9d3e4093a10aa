"""Digits in pictures, prepared as MNIST prepared its own.

LeCun, Cortes and Burges, The MNIST database: "The original black and white (bilevel) images from NIST were size
normalized to fit in a 20x20 pixel box while preserving their aspect ratio. The resulting images contain grey levels as
a result of the anti-aliasing technique used by the normalization algorithm. The images were centered in a 28x28 image
by computing the center of mass of the pixels." In MNIST's own files that centre, rounded, is pixel (14, 14), counted
from 0, and the brightest pixel is 254 or 255.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops
from skimage.morphology import isotropic_opening
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from handgrad.errors import UserError
from handgrad.inspection.pictures import FAINTEST, Grey, Mask, read

SIDE, BOX, CENTRE = 28, 20, 14
CLEAN = 0.005  # noise, as a share of the contrast, of a picture that was drawn and not photographed
THINNEST = 1.6  # pixels of a stroke in the box; MNIST's have two to three
SPECK = 0.04  # share of the largest stroke's ink below which a spot is dirt
CUT_OUT = 64  # pixels of a side up to which a picture is taken for a digit cut out, on an even background
WIDEST_STROKE = 0.17  # of a picture's longer side; what is wider is background
THICKEST = 0.7  # of its own length: what is as thick is a spot
THINNER = 0.4  # of the strokes' width: what is thinner and long is a printed line, a box, a circle
ROW_GAP = 0.2  # of the tallest mark's height: between two rows of digits, more than between parts of one
SMALLER = 0.35  # of the tallest mark's height: what is lower is a fragment, and no digit of its own


class Digit(NamedTuple):
    """A digit found in a picture.

    seen: (H, W) what the network sees, from 0, paper, to 1, ink.
    box: its left, top, right and bottom in the picture, as shares of width and height.
    doubts: why it may be read wrongly, in words; empty where nothing is unusual.
    """

    seen: Tensor
    box: tuple[float, float, float, float]
    doubts: tuple[str, ...]


def find_digits(path: Path) -> tuple[Grey, list[Digit]]:
    """Read a picture, dark on light or light on dark, and prepare its digits as MNIST's were.

    The digits come row by row, from left to right.

    Returns:
        the picture, (H, W) from 0, black, to 1, white; and its digits, at least one.

    Raises:
        UserError: the file is no such picture, or nothing stands out in it.
    """
    found = [(each, grey) for grey in read(path) if (each := extract_ink(grey))]
    if not found:
        raise UserError(f"{path} is empty: nothing in it stands out from its background")
    (_, ink, doubts), grey = max(found, key=lambda each: each[0][0])
    height, width = ink.shape
    digits = []
    for part in separate(ink):
        own = np.where(part, ink, 0)
        top, left, bottom, right = bounds(own > 0.1)
        said = list(doubts)
        if min(left, top) == 0 or right == width or bottom == height:
            said.append("it reaches the picture's edge")
        if right - left > 1.6 * (bottom - top):
            said.append("it is wider than a digit: perhaps two that touch")
        box = (left / width, top / height, right / width, bottom / height)
        digits.append(Digit(centred(fit_to_box(strokes(own))), box, tuple(said)))
    return grey, digits


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what a mask holds, the latter two exclusive."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def rim(field: NDArray[Any]) -> NDArray[Any]:
    """The pixels at the four edges."""
    return np.concatenate([field[0], field[-1], field[:, 0], field[:, -1]])


def extract_ink(grey: Grey) -> tuple[float, Grey, list[str]] | None:
    """Find how much ink is where, from 0 to 1, without background, shadows, lines and dirt; None where there is none.

    Dark ink is what a morphological closing wider than a stroke fills (a black top-hat), as a share of the paper's
    light, so that a shadow changes nothing; light ink likewise. Source: scipy.ndimage.grey_closing; Gonzalez and Woods,
    Digital Image Processing, 9.6.

    Returns:
        how much it stands out; (H, W) ink; what is unusual about it, in words.
    """
    size = max(grey.shape)
    width = round(size * WIDEST_STROKE) | 1
    noise = 1.4826 * float(np.median(abs(grey - ndimage.median_filter(grey, 3))))
    best: tuple[float, Grey, list[str]] = 0.0, grey, []
    hats = [(shade, *top_hat(shade, width)) for shade in (grey, 1 - grey)]
    sheet = hats[0][2]  # nothing beside it counts
    for shade, ink, paper in hats:
        if found := cleaned(np.where(sheet, ink, 0), paper & sheet, noise):
            strong = found[0] > 0.5
            across = sum(side.any() for side in (strong[0], strong[-1], strong[:, 0], strong[:, -1])) > 1
            score = float(found[0].sum()) ** 0.5 * stands_out(shade, strong, sheet) * (0.1 if across else 1)
            best = max(best, (score, *found), key=lambda each: each[0])
    return best if best[0] else None


def stands_out(grey: Grey, mask: Mask, paper: Mask) -> float:
    """How much a mask looks like ink on paper, from 0 to 1: paper has the shade around it, and not its own.

    What lies between strokes has the paper's own shade.
    """
    near = ndimage.binary_dilation(mask, iterations=soft_edge(mask))
    ring = ndimage.binary_dilation(near, iterations=2) & ~near & paper
    if not (mask.any() and ring.any()):
        return 0.0
    shades = [float(np.median(grey[part])) for part in (ring, mask)]
    contrast = abs(shades[0] - shades[1])
    close = max(0.25 * contrast, FAINTEST / 3)
    around, own = ((abs(grey[paper] - shade) < close).mean() for shade in shades)
    return float((around * (1 - own)) ** 2 * contrast)


def top_hat(grey: Grey, width: int) -> tuple[Grey, Mask]:
    """Dark ink as a share of the paper's light, and where there is paper."""
    if max(grey.shape) <= CUT_OUT:
        level = max(float(np.median(rim(grey))), 0.05)
        return np.clip((level - grey) / level, 0, 1), np.ones(grey.shape, dtype=bool)
    # Padded, so that the strip of a table at the edge is not taken for a stroke.
    paper = ndimage.grey_closing(np.pad(grey, width, mode="edge"), size=(width, width))[width:-width, width:-width]
    usual = float(np.percentile(paper, 90))
    dark = ndimage.label(paper < 0.4 * usual)[0]
    at_edge = np.unique(rim(dark))
    table = np.isin(dark, at_edge[at_edge > 0])
    if table.mean() > 0.75 or np.median(grey[~table]) < 0.6 * usual:  # no sheet: light strokes on a dark ground
        table[:] = False
    elif table.any():
        table = ndimage.binary_dilation(table, iterations=max(2, width // 12))
    return np.where(table, 0, (paper - grey) / np.maximum(paper, 0.05)), ~table


def cleaned(ink: Grey, paper: Mask, noise: float) -> tuple[Grey, list[str]] | None:
    """Scale ink from 0 to 1, leave out lines, dirt and what reaches in from the edge, and tell what is unusual."""
    if not paper.any():
        return None
    ink = ink - np.median(ink[paper])  # the closing follows the lightest grain
    peak = float((ndimage.uniform_filter(ink, 3) if min(ink.shape) >= BOX else ink).max())
    if peak < max(FAINTEST, 5 * noise):
        return None
    full = float(np.percentile(ink[ink > peak / 2], 75))  # one dark spot is no measure of a stroke
    ink = np.clip(ink / full, 0, 1)
    grain = float(np.percentile(abs(ink[paper & (ink < 0.3)]), 84))  # of dithered colours too
    if max(noise / full, grain) > CLEAN:  # the grain of paper and camera is no grey level of a stroke
        ink = np.clip((ink - 0.3) / 0.4, 0, 1)
    doubts = []
    solid = blobs(ink > 0.4)
    if solid.any():
        doubts.append("a spot wider than a stroke was left out")
        ink = np.where(ndimage.binary_dilation(solid, iterations=soft_edge(solid)), 0, ink)
    for level in (0.15, 0.4):  # with the soft edges of strokes; without the faint lines of paper
        mask = ink > level
        lines = thin_lines(mask)
        if not lines.any():
            break
    if lines.any():
        near = ndimage.binary_dilation(lines, iterations=2)
        if (near & mask & ~lines).sum() > 0.02 * mask.sum():
            doubts.append("a line ran through it or along it")
        ink, mask = np.where(near & ~core(mask), 0, ink), mask & ~lines
    kept, left_out = marks(ink, mask)
    if not kept.any():
        return None
    strong = kept & (ink > 0.4)
    faint = kept & ~ndimage.binary_dilation(strong, iterations=soft_edge(strong))
    if faint.sum() > 0.05 * strong.sum():
        doubts.append("something fainter was left out")
        ink, kept = np.where(faint, 0, ink), kept & ~faint
    if left_out > 0.15:
        doubts.append("other marks in the picture were left out")
    near = ndimage.binary_dilation(kept, iterations=2 if lines.any() else soft_edge(kept))
    return np.where(near, ink, 0), doubts


def stroke_width(mask: Mask) -> float:
    """Width of the widest strokes in pixels; where they meet they are a third wider."""
    return 1.5 * float(ndimage.distance_transform_edt(np.pad(mask, 1)).max())


def soft_edge(mask: Mask) -> int:
    """How far the soft edge of a stroke may reach out of its mask, in pixels."""
    return 1 + int(stroke_width(mask) / 3)


def blobs(mask: Mask) -> Mask:
    """Where there are filled spots, holes of a punch or stains, beside other marks: as thick as they are long."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    deepest = np.array(ndimage.maximum(depth, labels, np.arange(1, count + 1)))
    longer = np.array([max(region.image.shape) for region in regionprops(labels)])
    solid = (2 * deepest > THICKEST * longer) & (longer > 0.03 * max(mask.shape))
    return np.isin(labels, 1 + np.flatnonzero(solid)) if not solid.all() else np.zeros_like(mask)


def core(mask: Mask) -> Mask:
    """What is left of a mask where it is as thick as a stroke."""
    radius = THINNER * stroke_width(mask) / 2
    opened: Mask = isotropic_opening(np.pad(mask, 1, mode="edge"), radius)[1:-1, 1:-1] if radius >= 1 else mask
    return opened


def thin_lines(mask: Mask) -> Mask:
    """Where there are lines far thinner than the strokes and longer than half of what is drawn thick."""
    thick = core(mask)
    if not thick.any() or max(mask.shape) <= CUT_OUT:
        return np.zeros_like(mask)
    top, left, bottom, right = bounds(thick)
    extent = max(bottom - top, right - left)
    thin, _ = ndimage.label(mask & ~ndimage.binary_dilation(thick, iterations=2), structure=np.ones((3, 3)))
    return np.isin(thin, [region.label for region in regionprops(thin) if max(region.image.shape) > 0.5 * extent])


def marks(ink: Grey, mask: Mask) -> tuple[Mask, float]:
    """Choose the connected parts that may be digits.

    Leave out specks, flat strokes, and what reaches in from the picture's edge or surrounds other parts.

    Returns:
        the parts; how much ink was left out, as a share of what was kept.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return mask, 0.0
    numbers = np.arange(1, count + 1)
    mass = ndimage.sum_labels(ink, labels, numbers)
    regions = regionprops(labels)
    boxes = np.array([region.bbox for region in regions])  # top, left, bottom, right
    at_edge = np.array([near_edge(region, mask.shape) for region in regions])
    usable = mass >= SPECK * mass.max()
    for number, (top, left, bottom, right) in enumerate(boxes):
        others = usable & (numbers != number + 1)
        if not usable[number] or not others.any() or mass[others].max() < 0.05 * mass[number]:
            continue
        inside = others & (boxes[:, :2] > (top, left)).all(axis=1) & (boxes[:, 2:] < (bottom, right)).all(axis=1)
        surrounds = mass[inside].max(initial=0) > 0.15 * mass[number] and regions[number].extent < 0.35
        height, others_height = bottom - top, (boxes[others, 2] - boxes[others, 0]).max()
        flat = right - left > 3 * height and others_height > 2.5 * height
        reaches_in = at_edge[number] and mass[others & ~at_edge].max(initial=0) > 0.25 * mass[number]
        usable[number] = not (surrounds or flat or reaches_in)
    kept = np.isin(labels, numbers[usable & (mass >= SPECK * mass[usable].max(initial=0))])
    left_out = float(mass[~usable].sum() / max(mass[usable].sum(), 1e-9))
    return kept, left_out


def near_edge(region: Any, shape: tuple[int, ...]) -> bool:
    """Tell whether a region reaches a picture's edge, where what is wider than a stroke, a finger, fades out."""
    close = max(shape) // 50
    top, left, bottom, right = region.bbox
    return bool(min(top, left) <= close or bottom >= shape[0] - close or right >= shape[1] - close)


def separate(ink: Grey) -> list[Mask]:
    """Separate digits, row by row and from left to right; fragments go with the digit that they are nearest to."""
    labels, _ = ndimage.label(ink > 0.1, structure=np.ones((3, 3)))
    regions = regionprops(labels)
    tallest = max(region.image.shape[0] for region in regions)
    bodies = [region for region in regions if region.image.shape[0] >= SMALLER * tallest]
    groups = cut(bodies, ROW_GAP * tallest)
    for fragment in (region for region in regions if region not in bodies):
        min(groups, key=lambda group: min(distance(each, fragment) for each in group)).append(fragment)
    return [np.isin(labels, [region.label for region in group]) for group in groups]


def cut(regions: list[Any], gap: float) -> list[list[Any]]:
    """Cut regions into rows with a gap between them, those into columns that overlap by less than half, and so on.

    Source: recursive X-Y cut (Nagy and Seth, 1984).
    """
    for axis in (0, 1):
        first, *others = sorted(regions, key=lambda region: region.bbox[axis])
        groups = [[first]]
        for region in others:
            before, own = span(groups[-1], axis), span([region], axis)
            shared = min(before[1], own[1]) - max(before[0], own[0])  # below zero: what is between them
            if shared > (0.5 * min(np.ptp(before), np.ptp(own)) if axis else -gap):
                groups[-1].append(region)
            else:
                groups.append([region])
        if len(groups) > 1:
            return [part for group in groups for part in cut(group, gap)]
    return [regions]


def span(group: list[Any], axis: int) -> tuple[int, int]:
    """The first and the last row, or column, of a group of regions."""
    return min(region.bbox[axis] for region in group), max(region.bbox[axis + 2] for region in group)


def distance(one: Any, other: Any) -> float:
    """Distance of two regions' boxes."""
    gaps = [max(one.bbox[k], other.bbox[k]) - min(one.bbox[k + 2], other.bbox[k + 2]) for k in (0, 1)]
    return float(np.hypot(*np.maximum(gaps, 0)))


def strokes(ink: Grey) -> Grey:
    """Crop the digit, and thicken strokes that would be too thin in the box."""
    top, left, bottom, right = bounds(ink > 0.1)
    ink = ink[top:bottom, left:right]
    scale = max(ink.shape) / BOX
    stroke, width = np.pad(ink > 0.5, 1), 1.0
    if stroke.any():  # in a stroke of width w the mean distance to the edge is w / 4
        width = 4 * float(ndimage.distance_transform_edt(stroke)[stroke].mean()) - 2
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
