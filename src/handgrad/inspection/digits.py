"""Digits in pictures, prepared as MNIST prepared its own.

LeCun, Cortes and Burges, The MNIST database: "The original black and white (bilevel) images from NIST were size
normalized to fit in a 20x20 pixel box while preserving their aspect ratio. The resulting images contain grey levels as
a result of the anti-aliasing technique used by the normalization algorithm. The images were centered in a 28x28 image
by computing the center of mass of the pixels." In MNIST's own files that centre, rounded, is pixel (14, 14), counted
from 0, and the brightest pixel is 254 or 255.
"""

from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from handgrad.errors import UserError
from handgrad.inspection.ink import bounds, extract_ink, parts
from handgrad.inspection.pictures import Grey, Mask, read

SIDE, BOX, CENTRE = 28, 20, 14
THINNEST = 1.6  # pixels of a stroke in the box; MNIST's have two to three
# Shares of the tallest mark's height:
ROW_GAP, BROKEN_GAP = 0.05, 0.6  # between rows of digits; between marks that may be halves of one
SMALLER = 0.3  # lower marks are fragments, not digits
NEAR = 0.4  # a fragment farther away belongs to no digit
HIGH = 0.85  # least height of a digit, as a share of its width; half a digit is lower
WIDEST = 1.35  # greatest width of a digit, as a share of its height; one in a hundred of MNIST's is wider
SPECK_BESIDE = 0.03  # of the largest mark's area: smaller ones are left out silently
CLOSE = "it is close to another mark: perhaps they are one digit"
STACKED = "it has parts one above the other: perhaps two digits"


class Digit(NamedTuple):
    """A digit found in a picture.

    seen: (H, W) what the network sees, from 0, paper, to 1, ink.
    box: its left, top, right and bottom in the picture, as shares of width and height.
    doubts: why it may be misread, in words; empty where nothing is unusual.
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
        UserError: the file is not such a picture, or nothing stands out in it.
    """
    luminance, *hue = read(path)
    found = [
        (weight, each)
        for weight, grey in ((1.0, luminance), *((0.5, grey) for grey in hue))
        if (each := extract_ink(grey))
    ]
    if not found:
        raise UserError(f"{path} is empty: nothing in it stands out from its background")
    _, (_, ink, doubts) = max(found, key=lambda each: each[0] * each[1][0])
    height, width = ink.shape
    digits = []
    for part, own_doubts in separate(ink):
        own = np.where(part, ink, 0)
        top, left, bottom, right = bounds(own > 0.1)
        said = [*doubts, *own_doubts]
        if min(left, top) == 0 or right == width or bottom == height:
            said.append("it reaches the picture's edge")
        if right - left > WIDEST * (bottom - top):
            said.append("it is wider than a digit: perhaps two that touch")
        box = (left / width, top / height, right / width, bottom / height)
        digits.append(Digit(centred(fit_to_box(strokes(own))), box, tuple(said)))
    return luminance, digits


def separate(ink: Grey) -> list[tuple[Mask, list[str]]]:
    """Separate digits, row by row and from left to right, and tell what is unusual about each.

    A fragment goes with the nearest digit, if it is above, below or very near it; a decimal point is left out.
    """
    labels, regions = parts(ink > 0.1)
    tallest = max(region.image.shape[0] for region in regions)
    bodies = [region for region in regions if region.image.shape[0] >= SMALLER * tallest]
    fragments = [region for region in regions if region.image.shape[0] < SMALLER * tallest]
    groups = in_lines(cut(bodies, tallest))
    said: list[list[str]] = [[STACKED] if is_stacked(group) else [] for group in groups]
    for one, other in combinations(range(len(groups)), 2):
        if may_be_one(groups[one], groups[other], tallest):
            said[one].append(CLOSE)
            said[other].append(CLOSE)
    for fragment in fragments:
        gaps, number = min(
            (gaps_between(body, fragment), number) for number, group in enumerate(groups) for body in group
        )
        if gaps[0] <= NEAR * tallest and (gaps[1] <= 0 or gaps[0] <= NEAR * tallest / 4):
            groups[number].append(fragment)
        elif fragment.area > SPECK_BESIDE * max(body.area for body in bodies):
            said[number].append("a small mark beside it was left out")
    return [
        (np.isin(labels, [region.label for region in group]), doubts)
        for group, doubts in zip(groups, said, strict=True)
    ]


def cut(regions: list[Any], tallest: float) -> list[list[Any]]:
    """Cut regions into rows with a gap between them, those into columns that overlap by less than half, and so on.

    The halves of a broken digit, which are wider than high, are no rows unless they are far apart.

    Source: recursive X-Y cut (Nagy and Seth, 1984).
    """
    for axis in (0, 1):
        first, *others = sorted(regions, key=lambda region: region.bbox[axis])
        groups = [[first]]
        for region in others:
            before, own = span(groups[-1], axis), span([region], axis)
            gap = gap_between(before, own)
            if axis == 0:
                high = is_high(groups[-1]) and is_high([other for other in others if other.bbox[0] >= own[0]])
                apart = gap >= (ROW_GAP if high else BROKEN_GAP) * tallest
            else:
                apart = -gap <= 0.5 * min(np.ptp(before), np.ptp(own))
            if apart:
                groups.append([region])
            else:
                groups[-1].append(region)
        if len(groups) > 1:
            return [part for group in groups for part in cut(group, tallest)]
    return [regions]


def in_lines(groups: list[list[Any]]) -> list[list[Any]]:
    """Order groups as `cut` returns them line by line, and each from left to right; a line may rise or fall."""
    lines: list[list[list[Any]]] = []
    for group in groups:
        own, ends = span(group, 0), [span(line[-1], 0) for line in lines]
        overlaps = [-gap_between(own, end) for end in ends]
        best = int(np.argmax(overlaps)) if overlaps else 0
        if overlaps and overlaps[best] > 0.4 * min(np.ptp(own), np.ptp(ends[best])):
            lines[best].append(group)
        else:
            lines.append([group])
    return [group for line in sorted(lines, key=lambda line: span(line[0], 0)) for group in line]


def may_be_one(one: list[Any], other: list[Any], tallest: float) -> bool:
    """Tell whether two groups may be halves of a broken digit: together as wide as one, or hardly apart in height."""
    (top, bottom), (left, right) = (span([*one, *other], axis) for axis in (0, 1))
    rows, columns = (gap_between(span(one, axis), span(other, axis)) for axis in (0, 1))
    if rows < 0:
        return bool(right - left < 0.9 * (bottom - top))
    return columns < 0 and rows < 0.3 * tallest


def is_high(group: list[Any]) -> bool:
    """Tell whether a region is about as high as wide, as a digit is and its upper or lower half is not."""
    return any(region.image.shape[0] >= HIGH * region.image.shape[1] for region in group)


def is_stacked(group: list[Any]) -> bool:
    """Tell whether a region of a group lies above another one."""
    return any(one.bbox[2] <= other.bbox[0] for one in group for other in group)


def span(group: list[Any], axis: int) -> tuple[int, int]:
    """Return the first and last row, or column, of a group of regions."""
    return min(region.bbox[axis] for region in group), max(region.bbox[axis + 2] for region in group)


def gap_between(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Return the gap between two spans; below zero: their overlap."""
    return max(one[0], other[0]) - min(one[1], other[1])


def gaps_between(one: Any, other: Any) -> tuple[float, float]:
    """Return the distance of two regions' boxes, and the gap between their columns, below zero where they overlap."""
    gaps = [gap_between(span([one], axis), span([other], axis)) for axis in (0, 1)]
    return float(np.hypot(*np.maximum(gaps, 0))), float(gaps[1])


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
