"""How well are pictures read, as people take them? python benchmarks/pictures.py run=RUN [pairs] [SCENE ...].

Draws 40 test digits of MNIST in every scene, or pair of scenes, with a seed; counts how many are read correctly, and
how many of the wrong ones come without a warning. Bars: 36 of 40 in a scene, 30 in a pair, a third of the wrong ones
without a warning.
"""

import sys
import tempfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage import transform
from skimage.transform import ProjectiveTransform

from handgrad.config import to_dict
from handgrad.hydra_version import BASE
from handgrad.inspection.predict import predict
from handgrad.inspection.reopen import open_network
from handgrad.training.mnist import MNISTDataModule

COUNT, SIDE, SIZE = 40, 400, 28  # digits; pixels of a canvas, and of a digit
Field = NDArray[np.float64]


class Canvas(NamedTuple):
    """A picture in the making.

    ink: (H, W) share of ink in each pixel.
    light: (H, W) light of the paper and what is around it, from 0 to 1.
    opaque: (H, W) 1, or 0 where it is transparent.
    box: of the digit: left, top, right, bottom.
    digits: that should be read, left to right.
    """

    ink: Field
    light: Field
    opaque: Field
    box: tuple[int, int, int, int]
    digits: str


class Scene(NamedTuple):
    """A way in which pictures are taken; `order` says when it is applied: marks, paper, light."""

    order: int
    change: Callable[[Canvas, "Source"], Canvas]


class Source(NamedTuple):
    """Where a scene takes chance and a second digit from."""

    rng: np.random.Generator
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def placed(image: NDArray[np.uint8], side: int, left: int, top: int) -> tuple[Field, tuple[int, int, int, int]]:
    """Draw a digit smoothly on an empty canvas; also its bounding box."""
    canvas = Image.new("L", (SIDE, SIDE), 0)
    canvas.paste(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), (left, top))
    ink = np.clip((np.asarray(canvas, dtype=float) / 255 - 0.25) * 2, 0, 1)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink, (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))


def begin(source: Source, number: int) -> Canvas:
    """A digit on white paper."""
    side = int(source.rng.integers(190, 260))
    left, top = (int(source.rng.integers(40, SIDE - side - 40)) for _ in range(2))
    ink, box = placed(source.images[number], side, left, top)
    return Canvas(ink, np.ones_like(ink), np.ones_like(ink), box, str(source.labels[number]))


def pen(canvas: Canvas, draw: Callable[[ImageDraw.ImageDraw], None]) -> Canvas:
    """Add what is drawn with a pen."""
    drawing = Image.new("L", (SIDE, SIDE), 0)
    draw(ImageDraw.Draw(drawing))
    marks = np.asarray(drawing.filter(ImageFilter.GaussianBlur(0.7)), dtype=float) / 255
    return canvas._replace(ink=np.maximum(canvas.ink, marks))


def underlined(canvas: Canvas, source: Source) -> Canvas:
    """Underline the digit."""
    left, _, right, bottom = canvas.box
    y, tilt = bottom + 18, int(source.rng.integers(-5, 6))
    return pen(canvas, lambda d: d.line((left - 15, y, right + 15, y + tilt), fill=255, width=8))


def boxed(canvas: Canvas, source: Source) -> Canvas:
    """Draw a box around the digit."""
    left, top, right, bottom = canvas.box
    return pen(canvas, lambda d: d.rectangle((left - 25, top - 25, right + 25, bottom + 25), outline=255, width=5))


def circled(canvas: Canvas, source: Source) -> Canvas:
    """Draw a circle around the digit."""
    left, top, right, bottom = canvas.box
    x, y, r = (left + right) / 2, (top + bottom) / 2, np.hypot(right - left, bottom - top) / 2 + 15
    return pen(canvas, lambda d: d.ellipse((x - r, y - r, x + r, y + r), outline=255, width=6))


def two_digits(canvas: Canvas, source: Source, rows: bool) -> Canvas:
    """Replace the digit by two, beside or below each other."""
    first, second = source.rng.integers(0, len(source.images), 2)
    side, across = int(source.rng.integers(150, 190)), int(source.rng.integers(80, 140))
    places = [(20, across), (205, across + int(source.rng.integers(-20, 21)))]
    one, two = (place[::-1] if rows else place for place in places)
    left, box = placed(source.images[first], side, *one)
    right, box2 = placed(source.images[second], side, *two)
    whole = (min(box[0], box2[0]), min(box[1], box2[1]), max(box[2], box2[2]), max(box[3], box2[3]))
    digits = f"{source.labels[first]}{source.labels[second]}"
    return canvas._replace(ink=np.maximum(left, right), box=whole, digits=digits)


def lines(canvas: Canvas, source: Source, squared: bool) -> Canvas:
    """Paper with printed lines, which are thinner and fainter than a pen's."""
    light, every = canvas.light.copy(), int(source.rng.integers(24, 44))
    first = int(source.rng.integers(0, every))
    for start in range(first, SIDE, every):
        light[start : start + 2] *= 0.72
        if squared:
            light[:, start : start + 2] *= 0.72
    return canvas._replace(light=light)


def stained(canvas: Canvas, source: Source) -> Canvas:
    """Leave the ring of a cup on the paper."""
    y, x = np.mgrid[:SIDE, :SIDE]
    (left, top), radius = source.rng.uniform(80, 320, 2), source.rng.uniform(60, 110)
    away = np.hypot(x - left, y - top) - radius
    return canvas._replace(light=canvas.light * (1 - 0.3 * np.exp(-((away / 4) ** 2)) - 0.08 * (away < 0)))


def punched(canvas: Canvas, source: Source) -> Canvas:
    """Punch two holes near the left edge, through which a dark table is seen."""
    y, x = np.mgrid[:SIDE, :SIDE]
    hole = np.minimum(np.hypot(x - 22, y - 110), np.hypot(x - 22, y - 290)) < 14
    return canvas._replace(light=np.where(hole, 0.15, canvas.light))


def shadow(canvas: Canvas, source: Source) -> Canvas:
    """Let a hard shadow fall on half of the picture."""
    y, x = np.mgrid[-1 : 1 : canvas.light.shape[0] * 1j, -1 : 1 : canvas.light.shape[1] * 1j]
    angle = source.rng.uniform(0, np.pi)
    dark = x * np.cos(angle) + y * np.sin(angle) > source.rng.uniform(-0.3, 0.3)
    return canvas._replace(light=canvas.light * np.where(dark, 0.5, 1.0))


def around(canvas: Canvas, rim: tuple[int, int, int, int], light: Field | float, opaque: float = 1.0) -> Canvas:
    """Put something around the sheet: widths of left, top, right, bottom."""
    left, top, right, bottom = rim
    pad = ((top, bottom), (left, right))
    wide = np.pad(canvas.light, pad, constant_values=np.nan)
    wide = np.where(np.isnan(wide), light, wide)
    opacity = np.pad(canvas.opaque, pad, constant_values=opaque)
    return canvas._replace(ink=np.pad(canvas.ink, pad), light=wide, opaque=opacity)


def on_table(canvas: Canvas, source: Source) -> Canvas:
    """Lay the sheet on a dark, grainy table."""
    rim = tuple(int(width) for width in source.rng.integers(30, 120, 4))
    shape = (canvas.light.shape[0] + rim[1] + rim[3], canvas.light.shape[1] + rim[0] + rim[2])
    return around(canvas, rim, 0.22 + source.rng.normal(0, 0.03, shape))  # type: ignore[arg-type]


def perspective(canvas: Canvas, source: Source) -> Canvas:
    """Take the picture of a sheet on a dark table at an angle: sheared, its far side up to a half smaller."""
    canvas = on_table(canvas, source)
    height, width = canvas.ink.shape
    (far_x, far_y), shear = source.rng.uniform(-0.3, 0.3, 2), source.rng.uniform(-0.2, 0.2)
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    tilt = np.array([[1, shear, 0], [0, 1, 0], [2 * far_x / width, 2 * far_y / height, 1]])
    warp = ProjectiveTransform(np.linalg.inv(centre) @ tilt @ centre)
    ink, light = (transform.warp(field, warp, mode="edge") for field in (canvas.ink, canvas.light))
    return canvas._replace(ink=ink, light=light)


def folded(canvas: Canvas, source: Source) -> Canvas:
    """Fold the sheet across: one half is darker, and the crease has a shadow and a light edge."""
    height, width = canvas.light.shape
    y, x = np.mgrid[:height, :width]
    angle, middle = source.rng.uniform(-0.3, 0.3), source.rng.uniform(0.35, 0.65)
    above = middle * height + angle * (x - width / 2) - y
    if source.rng.random() < 0.5:
        above = middle * width + angle * (y - height / 2) - x
    light = canvas.light * np.where(above > 0, 0.85, 1.0) * (1 - 0.3 * np.exp(-(((above - 1) / 1.5) ** 2)))
    return canvas._replace(light=np.clip(light + 0.05 * np.exp(-(((above + 4) / 2) ** 2)), 0, 1))


def shows_through(canvas: Canvas, source: Source) -> Canvas:
    """Let another digit show through from the back of the sheet, mirrored, blurred and a fifth as dark."""
    number, side = int(source.rng.integers(0, len(source.images))), int(source.rng.integers(190, 260))
    left, top = (int(place) for place in source.rng.integers(10, SIDE - side - 10, 2))
    back, _ = placed(source.images[number], side, left, top)
    back = ndimage.gaussian_filter(back[:, ::-1], 2)
    rows, columns = canvas.light.shape
    return canvas._replace(light=canvas.light * (1 - 0.2 * back[:rows, :columns]))


def finger(canvas: Canvas, source: Source) -> Canvas:
    """Hold the sheet with a finger, which reaches in from an edge."""
    height, width = canvas.light.shape
    y, x = np.mgrid[:height, :width]
    place = source.rng.uniform(0.1, 0.9)
    horizontal = source.rng.random() < 0.5
    along, into = (y / height, x / width) if horizontal else (x / width, y / height)
    into = into if source.rng.random() < 0.5 else 1 - into
    inside = np.clip((1 - ((along - place) / 0.09) ** 2 - (into / 0.2) ** 2) * 8, 0, 1)
    skin = 0.62 + 0.06 * ndimage.gaussian_filter(source.rng.normal(size=inside.shape), 3)
    return canvas._replace(light=canvas.light * (1 - inside) + skin * inside, ink=canvas.ink * (1 - inside))


def screenshot(canvas: Canvas, source: Source) -> Canvas:
    """Add black bars above and below."""
    return around(canvas, (0, int(source.rng.integers(40, 110)), 0, int(source.rng.integers(40, 110))), 0.0)


def transparent_rim(canvas: Canvas, source: Source) -> Canvas:
    """Add a transparent rim."""
    return around(canvas, (40, 40, 40, 40), 0.0, opaque=0.0)


SCENES: dict[str, Scene] = {
    "underlined": Scene(0, underlined),
    "in a box": Scene(0, boxed),
    "circled": Scene(0, circled),
    "two digits": Scene(-1, lambda canvas, source: two_digits(canvas, source, rows=False)),
    "two rows": Scene(-1, lambda canvas, source: two_digits(canvas, source, rows=True)),
    "ruled paper": Scene(1, lambda canvas, source: lines(canvas, source, squared=False)),
    "squared paper": Scene(1, lambda canvas, source: lines(canvas, source, squared=True)),
    "hard shadow": Scene(2, shadow),
    "stained": Scene(1, stained),
    "punched": Scene(1, punched),
    "folded": Scene(1, folded),
    "shows through": Scene(1, shows_through),
    "finger": Scene(2, finger),
    "perspective": Scene(3, perspective),
    "sheet on a dark table": Scene(3, on_table),
    "black bars": Scene(4, screenshot),
    "transparent rim": Scene(5, transparent_rim),
}
SHEETS = {"sheet on a dark table", "perspective"}
PENCILS = {"red": (200, 70, 60), "blue": (90, 120, 190), "green": (90, 150, 90), "orange": (225, 140, 60)}
FILES = (
    "coloured pencils",
    "red ink on green paper",
    "16 bits to 1023",
    "16 bits to 4095",
    "GIF with a blank first picture",
)


def save(canvas: Canvas, file: str, folder: Path) -> Path:
    """Save a canvas as a kind of file."""
    grey = canvas.light * (1 - 0.85 * canvas.ink)
    pixels = Image.fromarray((255 * np.clip(grey, 0, 1)).astype(np.uint8))
    path = folder / "x.png"
    if file.startswith("red"):
        red, green = np.array([214, 60, 50]), np.array([70, 132, 70])  # both 105 of 255 in grey
        colours = canvas.light[..., None] * (green + (red - green) * canvas.ink[..., None])
        pixels = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    elif file.startswith("coloured"):  # their strokes are grainy: the paper's texture stays white
        random = np.random.default_rng(int(canvas.ink.sum()))
        grain = np.clip(1.1 - abs(ndimage.gaussian_filter(random.normal(size=canvas.ink.shape), 0.8)), 0.3, 1)
        colour = np.array(list(PENCILS.values())[random.integers(len(PENCILS))])
        share = (canvas.ink * grain)[..., None]
        pixels = Image.fromarray(
            (canvas.light[..., None] * (255 + (colour - 255) * share)).clip(0, 255).astype(np.uint8)
        )
    elif file.startswith("16"):
        pixels = Image.fromarray((int(file.split()[-1]) * np.clip(grey, 0, 1)).astype(np.uint16))
    elif file.startswith("GIF"):
        path = folder / "x.gif"
        blank = Image.new("L", pixels.size, 255)
        blank.save(path, save_all=True, append_images=[pixels], duration=100)
        return path
    if canvas.opaque.min() < 1 and not file.startswith("16"):
        pixels.putalpha(Image.fromarray((255 * canvas.opaque).astype(np.uint8)))
    pixels.save(path)
    return path


def changed(canvas: Canvas, names: tuple[str, ...], source: Source) -> tuple[Canvas, str]:
    """Apply scenes in their order; return the canvas, and the kind of file that one of them may be."""
    for scene in sorted((SCENES[name] for name in names if name in SCENES), key=lambda scene: scene.order):
        canvas = scene.change(canvas, source)
    return canvas, next((name for name in names if name in FILES), "")


def tried(names: tuple[str, ...], network: Any, source: Source) -> tuple[int, int, int]:
    """Read 40 pictures of a scene: how many are right, wrong with a warning, wrong without one."""
    right = warned = unwarned = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(COUNT):
            canvas, file = changed(begin(source, number), names, source)
            path = save(canvas, file, Path(folder))
            predicted, _ = predict(network.assembly, [path])
            if "".join(each.classes[0] for each in predicted) == canvas.digits:
                right += 1
            elif not predicted or any(each.doubts for each in predicted):
                warned += 1
            else:
                unwarned += 1
    return right, warned, unwarned


def possible(one: str, other: str) -> bool:
    """Tell whether two scenes can be combined: one file, one replacement of the digit, one sheet."""
    return not any({one, other} <= alike for alike in (set(FILES), {"two digits", "two rows"}, SHEETS))


def main(*words: str) -> None:
    """Print a row per scene, or per pair of scenes."""
    root = Path(__file__).parents[1]
    run = next((word for word in words if word.startswith("run=")), "run=null")
    with hydra.initialize_config_dir(str(root / "conf"), **BASE):
        network = open_network(to_dict(hydra.compose("predict", [run])), images=False)
    data = MNISTDataModule(root=str(root / "data"))
    data.prepare_data()
    data.setup()
    images, labels = data.sets["test"].rows, data.sets["test"].targets.argmax(dim=1)
    pixels = images[:COUNT].view(-1, SIZE, SIZE).numpy()
    every = ["plain", *SCENES, *FILES]
    cases: list[tuple[str, ...]] = [(name,) for name in every]
    if "pairs" in words:
        cases = [pair for pair in combinations(every[1:], 2) if possible(*pair)]
    wanted = {word for word in words if word != "pairs" and not word.startswith("run=")}
    table = Table("scene", "right of 40", "wrong, warned", "wrong without a warning")
    totals = np.zeros(3, dtype=int)
    for case in cases:
        if not wanted or wanted & set(case):
            counts = tried(case, network, Source(np.random.default_rng(0), pixels, labels.numpy()))
            totals += counts
            table.add_row(" + ".join(case), *map(str, counts))
    table.add_row("all", *map(str, totals))
    Console(width=120).print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
