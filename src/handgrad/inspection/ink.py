"""Ink extraction: handwriting without paper, shadows, printed lines, frames, stains and dirt."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops
from skimage.morphology import isotropic_opening

from handgrad.inspection.pictures import FAINTEST, Grey, Mask

CLEAN = 0.005  # most noise of a drawn, not photographed picture, as a share of the contrast
SPECK = 0.04  # share of the largest stroke's ink below which a spot is dirt
SMALLEST = 20  # pixels of a side from which a peak is averaged over its neighbours
CUT_OUT = 64  # pixels of a side up to which a picture is a cut-out digit on an even background
WIDEST_STROKE = 0.17  # of a picture's longer side; wider marks are background
ALONG = 0.05  # of a sheet's edge: marks that cover more are lit or shaded paper
THICKEST = 0.7  # of its own length: a mark as thick is a spot
THINNER = 0.4  # of the strokes' width: thinner long marks are printed lines, boxes, circles


def extract_ink(grey: Grey) -> tuple[float, Grey, list[str]] | None:
    """Extract the ink, from 0 to 1, without background, shadows, lines and dirt; None if there is none.

    Dark ink is a black top-hat (filled by a morphological closing wider than a stroke), as a share of the paper's
    light, so that shadows cancel; light ink is the negative's. Source: scipy.ndimage.grey_closing; Gonzalez and Woods,
    Digital Image Processing, 9.6.

    Returns:
        a score of how much it stands out; (H, W) ink; doubts, in words.
    """
    size = max(grey.shape)
    width = round(size * WIDEST_STROKE) | 1
    noise = 1.4826 * float(np.median(abs(grey - ndimage.median_filter(grey, 3))))
    best: tuple[float, Grey, list[str]] = 0.0, grey, []
    hats = [(shade, *top_hat(shade, width)) for shade in (grey, 1 - grey)]
    sheet = hats[0][2]  # marks beside it are ignored
    for shade, ink, paper in hats:
        if found := cleaned(np.where(sheet, ink, 0), paper & sheet, noise):
            strong = found[0] > 0.5
            along = strong[sheet & ~ndimage.binary_erosion(sheet, iterations=3)].mean()
            score = float(found[0].sum()) ** 0.5 * stands_out(shade, strong, sheet) * (0.1 if along > ALONG else 1)
            best = max(best, (score, *found), key=lambda each: each[0])
    return best if best[0] else None


def stands_out(grey: Grey, mask: Mask, paper: Mask) -> float:
    """Score how much a mask looks like ink on paper, from 0 to 1: paper has the shade around it, and not its own.

    Gaps between strokes have the paper's own shade.
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
    """Return dark ink as a share of the paper's light, and the paper's mask."""
    if max(grey.shape) <= CUT_OUT:
        level = max(float(np.median(rim(grey))), 0.05)
        return np.clip((level - grey) / level, 0, 1), np.ones(grey.shape, dtype=bool)
    # Padded, so that the strip of a table at the edge is not taken for a stroke.
    paper = ndimage.grey_closing(np.pad(grey, width, mode="edge"), size=(width, width))[width:-width, width:-width]
    usual = float(np.percentile(paper, 90))
    dark = ndimage.label(paper < 0.4 * usual)[0]
    at_edge = np.unique(rim(dark))
    table = np.isin(dark, at_edge[at_edge > 0])
    if table.mean() > 0.75 or np.median(grey[~table]) < 0.45 * usual:  # no sheet: light strokes on a dark ground
        table[:] = False
    elif table.any():
        table = ndimage.binary_dilation(table, iterations=max(2, width // 12))
    return np.where(table, 0, (paper - grey) / np.maximum(paper, 0.05)), ~table


def cleaned(ink: Grey, paper: Mask, noise: float) -> tuple[Grey, list[str]] | None:
    """Scale ink from 0 to 1, leave out lines, dirt and marks that reach in from the edge, and return doubts."""
    scaled = scale(ink, paper, noise) if paper.any() else None
    if scaled is None:
        return None
    ink, doubts = scaled, []
    framing = frames(ink > 0.4)
    if framing.any():
        doubts.append("a frame around it was left out")
        ink = np.where(ndimage.binary_dilation(framing, iterations=2), 0, ink)
    solid = blobs(ink > 0.4)
    if solid.any():
        doubts.append("a filled spot was left out")
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
    strong = kept & (ink > 0.5)
    faint = kept & ~ndimage.binary_dilation(strong, iterations=soft_edge(strong))
    if faint.sum() > 0.05 * strong.sum():
        doubts.append("something fainter was left out")
        ink, kept = np.where(faint, 0, ink), kept & ~faint
    if left_out:
        doubts.append("other marks in the picture were left out")
    near = ndimage.binary_dilation(kept, iterations=2 if lines.any() else soft_edge(kept))
    return np.where(near, ink, 0), doubts


def scale(ink: Grey, paper: Mask, noise: float) -> Grey | None:
    """Scale ink from 0, paper and its grain, to 1, a stroke; None where nothing rises above the noise."""
    ink = ink - np.median(ink[paper])  # the closing follows the lightest grain
    peak = float((ndimage.uniform_filter(ink, 3) if min(ink.shape) >= SMALLEST else ink).max())
    if peak < max(FAINTEST, 5 * noise):
        return None
    full = float(np.percentile(ink[ink > peak / 2], 75))  # robust: one dark spot must not set the scale
    ink = np.clip(ink / full, 0, 1)
    grain = float(np.percentile(abs(ink[paper & (ink < 0.3)]), 84))  # of dithered colours too
    if max(noise / full, grain) > CLEAN:  # the grain of paper and camera must not look like a stroke
        ink = np.clip((ink - 0.3) / 0.4, 0, 1)
    return ink


def parts(mask: Mask) -> tuple[NDArray[Any], list[Any]]:
    """Label connected components of a mask: (H, W) numbers from 1, and the components in that order."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return labels, regionprops(labels)


def depths(mask: Mask, labels: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the largest distance to the edge in each of `count` parts."""
    inwards = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.array(ndimage.maximum(inwards[mask], labels[mask], np.arange(1, count + 1)))


def stroke_width(mask: Mask) -> float:
    """Estimate the width of the widest strokes in pixels; where they meet they are a third wider."""
    if not mask.any():
        return 0.0
    top, left, bottom, right = bounds(mask)
    return 1.5 * float(ndimage.distance_transform_edt(np.pad(mask[top:bottom, left:right], 1)).max())


def soft_edge(mask: Mask) -> int:
    """Return how far a stroke's soft edge may reach out of its mask, in pixels."""
    return 1 + int(stroke_width(mask) / 3)


def frames(mask: Mask) -> Mask:
    """Find circles and boxes that surround other marks; close gaps of a grainy line."""
    gap = max(mask.shape) // 100
    closed = ndimage.binary_closing(np.pad(mask, gap), iterations=gap) if gap else mask
    labels, regions = parts(closed)
    boxes = np.array([region.bbox for region in regions]).reshape(-1, 4)  # top, left, bottom, right
    areas = np.array([region.area for region in regions])

    def surrounds(region: Any) -> bool:
        inside = (boxes[:, :2] > region.bbox[:2]).all(axis=1) & (boxes[:, 2:] < region.bbox[2:]).all(axis=1)
        return bool(areas[inside].max(initial=0) > 0.15 * region.area)

    found = [region.label for region in regions if region.extent < 0.35 and surrounds(region)]
    whole = np.isin(labels, found)
    return whole[gap:-gap, gap:-gap] if gap else whole


def blobs(mask: Mask) -> Mask:
    """Find filled spots (punch holes, stains) beside other marks: as thick as they are long."""
    labels, regions = parts(mask)
    longer = np.array([max(region.image.shape) for region in regions])
    solid = (2 * depths(mask, labels, len(regions)) > THICKEST * longer) & (longer > 0.03 * max(mask.shape))
    return np.isin(labels, 1 + np.flatnonzero(solid)) if not solid.all() else np.zeros_like(mask)


def core(mask: Mask) -> Mask:
    """Return the part of a mask that is as thick as a stroke."""
    radius = THINNER * stroke_width(mask) / 2
    opened: Mask = isotropic_opening(np.pad(mask, 1, mode="edge"), radius)[1:-1, 1:-1] if radius >= 1 else mask
    return opened


def thin_lines(mask: Mask) -> Mask:
    """Find lines far thinner than the strokes and longer than half the extent of the thick ones."""
    thick = core(mask)
    if not thick.any() or max(mask.shape) <= CUT_OUT:
        return np.zeros_like(mask)
    top, left, bottom, right = bounds(thick)
    extent = max(bottom - top, right - left)
    labels, regions = parts(mask & ~ndimage.binary_dilation(thick, iterations=2))
    return np.isin(labels, [region.label for region in regions if max(region.image.shape) > 0.5 * extent])


def marks(ink: Grey, mask: Mask) -> tuple[Mask, bool]:
    """Choose the connected parts that may be digits.

    Leave out specks, flat strokes, and marks that reach in from the picture's edge.

    Returns:
        the parts; whether a possible digit was left out.
    """
    labels, regions = parts(mask)
    if not regions:
        return mask, False
    numbers = np.arange(1, len(regions) + 1)
    mass = ndimage.sum_labels(ink, labels, numbers)
    depth = depths(mask, labels, len(regions))
    boxes = np.array([region.bbox for region in regions])  # top, left, bottom, right
    usable = mass >= SPECK * mass.max()
    strokes = np.median(depth[usable])
    close = np.asarray(depth > 1.5 * strokes)[:, None] * (max(mask.shape) // 50)  # a finger fades out at the very edge
    at_edge = ((boxes[:, :2] <= close) | (boxes[:, 2:] >= np.array(mask.shape) - close)).any(axis=1)
    for number, (top, left, bottom, right) in enumerate(boxes):
        others = usable & (numbers != number + 1)
        if not usable[number] or not others.any() or mass[others].max() < 0.05 * mass[number]:
            continue
        height, others_height = bottom - top, (boxes[others, 2] - boxes[others, 0]).max()
        flat = right - left > 3 * height and others_height > 2.5 * height
        reaches_in = at_edge[number] and mass[others & ~at_edge].max(initial=0) > 0.25 * mass[number]
        usable[number] = not (flat or reaches_in)
    kept = usable & (mass >= SPECK * mass[usable].max(initial=0))
    dropped, own = mass[~usable], mass[kept]
    left_out = dropped.sum() > 0.15 * own.sum() or dropped.max(initial=0) > 0.5 * np.median(own)
    return np.isin(labels, numbers[kept]), bool(left_out)


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Return the bounding box of a mask: top, left, bottom, right, the last two exclusive."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def rim(field: NDArray[Any]) -> NDArray[Any]:
    """Return the pixels at the four edges."""
    return np.concatenate([field[0], field[-1], field[:, 0], field[:, -1]])
