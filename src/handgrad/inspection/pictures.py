"""Pictures read from files as shades of grey, whatever their format, depth, colours and transparency."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from handgrad.errors import UserError

Grey = NDArray[np.float64]  # (H, W)
Mask = NDArray[np.bool_]  # (H, W)

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
LARGEST = 400  # pixels of a side: more detail than a box of 20 can show
FRAMES = 20  # pictures of a GIF that are looked at
FAINTEST = 0.06  # contrast, of white to black, below which there is nothing to be seen


def read(path: Path) -> Grey:
    """Read a picture as shades of grey, its transparent parts as paper, upright, at most 400 pixels a side.

    Of an animation, the picture with the most contrast.

    Raises:
        UserError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            file.draft("RGB", (LARGEST, LARGEST))  # a JPEG is read at the size that is needed
            frames = [
                shades(ImageOps.exif_transpose(frame))
                for _, frame in zip(range(FRAMES), ImageSequence.Iterator(file), strict=False)
            ]
            return max(frames, key=lambda frame: float(frame.std()))
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is not a picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: save it as one"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error})") from None


def shades(picture: Image.Image) -> Grey:
    """Reduce a picture to shades of grey from 0 to 1, at most 400 pixels a side."""
    if picture.mode.startswith(("I", "F")):  # more than 8 bits, of which not all need be used
        deep = np.asarray(picture, dtype=np.float64)
        bits = next(bits for bits in (8, 10, 12, 14, 16, 32) if deep.max() < 2**bits)
        reduced = Image.fromarray((deep / (2**bits - 1)).astype(np.float32))
    else:
        reduced = on_paper(picture)
    reduced.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return np.asarray(reduced, dtype=np.float64)


def on_paper(picture: Image.Image) -> Image.Image:
    """Reduce colours to shades from 0 to 1 in mode "F", transparent parts to paper.

    Paper has the shade of the opaque part where there is more than one shade in it, else the opposite one.
    """
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    picture.thumbnail((2 * LARGEST, 2 * LARGEST), Image.Resampling.BOX)
    colours = np.asarray(picture, dtype=np.float64) / 255
    opaque = colours[..., 3] if colours.shape[-1] == 4 else np.ones(colours.shape[:2])
    light = contrasted(colours[..., :3], opaque > 0.5)
    if opaque.min() < 1:
        inside = light[opaque > 0.5]
        if inside.size and np.ptp(np.percentile(inside, [1, 99])) > FAINTEST:
            paper = float(np.median(inside))
        else:
            paper = float(inside.size == 0 or inside.mean() < 0.5)
        light = light * opaque + paper * (1 - opaque)
    return Image.fromarray(light.astype(np.float32))


def contrasted(colours: Grey, opaque: Mask) -> Grey:
    """(H, W) luminance, or the first principal component of the colours where it has far more contrast.

    Red ink on green paper can have the paper's luminance.
    """
    light: Grey = colours @ np.array([0.299, 0.587, 0.114])
    pixels = colours[opaque]
    if len(pixels) < 2:
        return light
    centred_pixels = pixels - pixels.mean(axis=0)
    along: Grey = colours @ np.linalg.eigh(centred_pixels.T @ centred_pixels)[1][:, -1]
    lowest, highest = float(along[opaque].min()), float(along[opaque].max())
    if np.std(along[opaque]) < 2.5 * np.std(light[opaque]) or highest - lowest < FAINTEST:
        return light
    return np.clip(along - lowest, 0, 1)
