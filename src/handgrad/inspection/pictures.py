"""Pictures read from files as shades of grey, whatever their format, depth, colours and transparency."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from scipy import ndimage

from handgrad.errors import UserError

Grey = NDArray[np.float64]  # (H, W)
Mask = NDArray[np.bool_]  # (H, W)

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
LARGEST = 400  # pixels of a side: more detail than a box of 20 can show
FRAMES = 20  # pictures of a GIF that are looked at
FAINTEST = 0.06  # contrast, of white to black, below which there is nothing to be seen


def read(path: Path) -> list[Grey]:
    """Read a picture as shades of grey, its transparent parts as paper, upright, at most 400 pixels a side.

    Of an animation, the picture with the most contrast.

    Returns:
        luminance, and if the colours differ, their hue.

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
            return max(frames, key=lambda frame: max(float(each.std()) for each in frame))
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is not a picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: save it as one"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error})") from None


def shades(picture: Image.Image) -> list[Grey]:
    """Reduce a picture to shades of grey from 0 to 1, at most 400 pixels a side; a coloured one in two ways."""
    if picture.mode.startswith(("I", "F")):  # more than 8 bits, of which not all need be used
        deep = np.asarray(picture, dtype=np.float64)
        bits = next(bits for bits in (8, 10, 12, 14, 16, 32) if deep.max() < 2**bits)
        reduced = [Image.fromarray((deep / (2**bits - 1)).astype(np.float32))]
    else:
        reduced = on_paper(picture)
    for each in reduced:
        each.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return [np.asarray(each, dtype=np.float64) for each in reduced]


def on_paper(picture: Image.Image) -> list[Image.Image]:
    """Reduce colours to shades from 0 to 1 in mode "F", transparent parts to paper: luminance, and hue if it differs.

    If the opaque part has more than one shade, it is a picture with a rim, which gets the nearest opaque shade; else it
    is ink, and the paper gets the opposite shade.
    """
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    picture.thumbnail((2 * LARGEST, 2 * LARGEST), Image.Resampling.BOX)
    colours = np.asarray(picture, dtype=np.float64) / 255
    alpha = colours[..., 3] if colours.shape[-1] == 4 else np.ones(colours.shape[:2])
    light: Grey = colours[..., :3] @ np.array([0.299, 0.587, 0.114])
    opaque, found = alpha > 0.5, []
    for shade in (light, hue_of(colours[..., :3], opaque)):
        if shade is None:
            continue
        if alpha.min() < 1:
            inside = shade[opaque]
            if inside.size and np.ptp(np.percentile(inside, [1, 99])) > FAINTEST:
                nearest = ndimage.distance_transform_edt(~opaque, return_distances=False, return_indices=True)
                shade = np.where(opaque, shade, shade[tuple(nearest)])
            else:
                shade = shade * alpha + float(inside.size == 0 or inside.mean() < 0.5) * (1 - alpha)
        found.append(Image.fromarray(shade.astype(np.float32)))
    return found


def hue_of(colours: Grey, opaque: Mask) -> Grey | None:
    """Return the (H, W) contrast of colours, from 0 to 1; None if they hardly differ.

    Red ink on green paper can have the paper's luminance. Colours are compared as shares of their sum, which light and
    shadow do not change, along their first principal component.
    """
    if not opaque.any():
        return None
    shares = (colours - colours.mean(axis=2, keepdims=True)) / (colours.sum(axis=2, keepdims=True) + 0.05)  # 0: grey
    pixels = shares[opaque] - shares[opaque].mean(axis=0)
    hue: Grey = shares @ np.linalg.eigh(pixels.T @ pixels)[1][:, -1]
    lowest, highest = np.percentile(hue[opaque], [0.5, 99.5])
    return np.clip((hue - lowest) / (highest - lowest), 0, 1) if highest - lowest > FAINTEST else None
