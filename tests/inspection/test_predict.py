"""Oracle: MNIST's own images, which preprocessing must recover from pictures of every kind."""

import csv
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from conftest import RunScript, mostly_slow, ran, record_of, refusal
from handgrad.errors import UserError
from handgrad.inspection.digits import centred, find_digits, fit_to_box
from handgrad.inspection.ink import extract_ink
from handgrad.inspection.pictures import shades
from handgrad.training.mnist import MNISTDataModule

Pixels = NDArray[np.uint8]
DIGITS = range(10)  # the first ten test images: 7 2 1 0 4 1 4 9 5 9


@pytest.fixture(scope="session")
def digits(mnist: MNISTDataModule) -> Tensor:
    return mnist.sets["test"].rows[:10].view(-1, 28, 28)


def drawn(
    digit: Tensor, size: tuple[int, int] = (300, 400), side: int = 250, at: tuple[int, int] = (37, 81)
) -> Image.Image:
    """Draw a digit in black on a white canvas."""
    canvas = Image.new("L", size, 255)
    ink = Image.fromarray(255 - digit.numpy())
    canvas.paste(ink.resize((side, side), Image.Resampling.BICUBIC), at)
    return canvas


def coloured(picture: Image.Image) -> Image.Image:
    """Recolour to blue ink on yellow paper."""
    channels = zip((30, 40, 160), (250, 240, 150), strict=True)
    return Image.merge("RGB", [picture.point(lambda v, a=a, b=b: a + (b - a) * v / 255) for a, b in channels])


def transparent(picture: Image.Image, shade: int) -> Image.Image:
    """Draw in one shade on a transparent background."""
    glass = Image.new("RGBA", picture.size, (shade, shade, shade, 0))
    glass.putalpha(picture.point(lambda v: 255 - v))
    return glass


def photographed(picture: Image.Image) -> Image.Image:
    """Simulate a photograph, with uneven light and grain."""
    grain = np.random.default_rng(0)
    ink = 1 - np.asarray(picture.filter(ImageFilter.GaussianBlur(1)), dtype=float) / 255
    y, x = np.mgrid[0 : 1 : ink.shape[0] * 1j, 0 : 1 : ink.shape[1] * 1j]
    light = (0.5 + 0.4 * x - 0.2 * y * y) * (0.95 - 0.7 * ink) + grain.normal(0, 0.015, ink.shape)
    return Image.fromarray((255 * np.clip(light, 0, 1)).astype(np.uint8)).convert("RGB")


def dirty(picture: Image.Image) -> Image.Image:
    """Add dust and a dark edge."""
    pixels = np.asarray(picture).copy()
    pixels[10:13, 20:23] = pixels[390:392, 150:153] = 0
    pixels[:, :12] = 60
    return Image.fromarray(pixels)


def turned(picture: Image.Image) -> Image.Image:
    """Turn upside down, with EXIF orientation 3."""
    upside_down = picture.rotate(180)
    upside_down.getexif()[0x0112] = 3
    return upside_down


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "drawn.png": lambda picture: picture,
    "light on dark.png": lambda picture: picture.point(lambda v: 255 - v),
    "faint.png": lambda picture: picture.point(lambda v: 200 + v / 10),
    "compressed.jpg": lambda picture: picture,
    "plain.bmp": lambda picture: picture.convert("RGB"),
    "palette.gif": lambda picture: coloured(picture).convert("P"),
    "colour.webp": coloured,
    "colour.png": coloured,
    "black on nothing.png": lambda picture: transparent(picture, 0),
    "white on nothing.webp": lambda picture: transparent(picture, 255),
    "part of 16 bits.png": lambda picture: Image.fromarray(np.asarray(picture).astype(np.uint16) * 150 + 4000),
    "photo.jpg": photographed,
    "dirty.png": dirty,
    "turned.jpg": turned,
    "large.png": lambda picture: picture.resize((1800, 2400)),
    "black and white.png": lambda picture: picture.convert("1", dither=Image.Dither.NONE),
}


def seen_in(path: Path) -> Tensor:
    """(28, 28) the network's input for the one digit of a picture."""
    _, (digit,) = find_digits(path)
    return digit.seen.view(28, 28)


def are_recovered(seen: Sequence[Tensor], digits: Sequence[Tensor]) -> bool:
    """Check that results are close to the digits, most closer than to copies moved by a pixel or scaled by a tenth.

    Not all: a centre of mass between two pixels may be rounded either way.
    """
    distances = []
    for found, digit in zip(seen, digits, strict=True):
        whole = digit / 255
        larger = resize(whole[None], [31, 31], antialias=True)[0, 1:29, 1:29]
        smaller = torch.nn.functional.pad(resize(whole[None], [25, 25], antialias=True)[0], [2, 1, 2, 1])
        moved = [whole.roll(step, dims=axis) for step in (-1, 1) for axis in (0, 1)]
        distances.append([float((found - other).abs().mean()) for other in (whole, larger, smaller, *moved)])
    nearest = [row.index(min(row)) for row in distances]
    return max(min(row) for row in distances) < 0.06 and nearest.count(0) > len(digits) / 2


@pytest.mark.parametrize("name", mostly_slow(KINDS, always=6))
def test_preprocessing_recovers_mnist_images_from_pictures(tmp_path: Path, digits: Tensor, name: str) -> None:
    seen = []
    for digit in digits[:5]:
        picture = KINDS[name](drawn(digit))
        picture.save(tmp_path / name, exif=picture.getexif())
        seen.append(seen_in(tmp_path / name))
    assert are_recovered(seen, list(digits[:5]))


@pytest.mark.parametrize(
    ("size", "side", "at"), [((28, 28), 28, (0, 0)), ((60, 60), 40, (20, 0)), ((900, 300), 100, (700, 150))]
)
def test_size_and_position_do_not_matter(
    tmp_path: Path, digits: Tensor, size: tuple[int, int], side: int, at: tuple[int, int]
) -> None:
    seen = []
    for digit in digits:
        drawn(digit, size, side, at).save(tmp_path / "x.png")
        seen.append(seen_in(tmp_path / "x.png"))
    assert are_recovered(seen, list(digits))


def test_digit_is_scaled_and_centred_like_mnist(digits: Tensor) -> None:
    """Longer side 20, centre of mass at (14, 14) within half a pixel, as in all of MNIST."""
    where = torch.arange(28.0)
    for digit in digits:
        found = extract_ink(1 - digit.double().numpy() / 255)
        assert found is not None
        ink = found[1]
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        field = centred(fit_to_box(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
        assert max(int(field.any(dim=axis).sum()) for axis in (0, 1)) == 20
        for axis in (0, 1):
            assert abs(float((field.sum(dim=axis) * where).sum() / field.sum()) - 14) <= 0.5


def test_thin_stroke_becomes_as_thick_as_in_mnist(tmp_path: Path) -> None:
    pixels = np.full((400, 400), 255, dtype=np.uint8)
    pixels[100:300, 199:202] = 0
    Image.fromarray(pixels).save(tmp_path / "one.png")
    seen = seen_in(tmp_path / "one.png")
    assert 1.2 <= float(seen.sum(dim=1).max()) <= 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("black.png", Image.new("L", (50, 60), 0), "is empty: nothing in it stands out"),
        ("nothing.png", Image.new("RGBA", (50, 60), (0, 0, 0, 0)), "is empty: nothing in it stands out"),
        ("pixel.png", Image.new("L", (1, 1), 0), "is empty: nothing in it stands out"),
        ("grain.png", Image.effect_noise((80, 80), 40), "is empty: nothing in it stands out"),
        ("text.png", b"hello", "is not a picture in PNG, JPEG, BMP, GIF or WEBP"),
        ("paper.pdf", b"%PDF-1.4", "is not a picture in PNG"),
        ("nothing at all.gif", b"", "is not a picture in PNG"),
        ("cut.png", None, "cannot be read as a picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_without_a_digit_is_refused_in_one_sentence(
    tmp_path: Path, digits: Tensor, name: str, content: Image.Image | bytes | None, words: str
) -> None:
    path = tmp_path / name
    if isinstance(content, Image.Image):
        content.save(path)
    elif content is not None:
        path.write_bytes(content)
    else:
        drawn(digits[0]).save(path)
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=f"{re.escape(str(path))} {words}"):
        find_digits(path)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_command_predicts_usable_pictures_and_names_the_rest(run_script: RunScript, digits: Tensor) -> None:
    options = ["network.hidden_sizes=[60]", "trainer.max_epochs=12", "logger=none", "optimizer.lr=0.003"]
    ran(run_script, *options, "hydra.run.dir=run")
    assert record_of(Path("run"))["metrics"]["test/accuracy"] > 0.8
    Path("mine").mkdir()
    for number, digit in enumerate(digits):
        drawn(digit).save(f"mine/{number}.png")
    Path("mine", "notes.txt").write_text("not looked at")
    Path("broken.png").write_bytes(b"x")
    asked = ["images=[mine,broken.png,'mine/*0.png']", "output=found"]
    printed = refusal(run_script, "run=run", *asked, script="predict.py")
    assert "broken.png is not a picture" in printed
    assert "1 of 11 pictures could not be used" in printed
    assert "Error executing job" not in printed
    rows = rows_of(Path("found", "predictions.csv"))
    assert [row["picture"] for row in rows] == [f"mine/{number}.png" for number in DIGITS]
    Path("odd").mkdir()
    shutil.copy("mine/0.png", "odd/\x1b]0;x\x07.png")
    _, said = run_script("run=run", "images=odd", "output=named", script="predict.py")
    assert "odd/\\x1b]0;x\\x07.png" in said
    assert "\x1b" not in said
    own = [row["predicted"] for row in rows_of(Path("run", "predictions.csv"))][:10]
    assert sum(row["class"] == digit for row, digit in zip(rows, own, strict=True)) >= 9
    shares = [(float(row["probability"]), float(row["runner_up_probability"])) for row in rows]
    assert all(p >= q >= 0 and 2 / 10 <= p + q <= 1.00001 for p, q in shares)
    assert Path("found", "predictions.png").stat().st_size > 10_000
    for row in rows:
        assert re.search(rf"{row['picture']} +│ 1 +│ {row['class']} ", printed)

    ran(run_script, "run=run", "images=mine/3.png", script="predict.py")
    assert len(list(Path("outputs", "predictions").glob("*/predictions.csv"))) == 1
    for images, words in (
        (["images=nix.png"], "nix.png does not exist"),
        (["images=found/x"], "does not exist"),
        (["images=[]"], "invalid value images=[]"),
        ([], "name the pictures: images=my_digit.png"),
    ):
        assert words in refusal(run_script, "run=run", *images, script="predict.py")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16, 31])
def test_deep_pixels_are_scaled_by_the_bits_that_they_use(bits: int) -> None:
    values = np.array([[0, 2**bits // 3], [2**bits // 2 + 1, 2**bits - 1]])
    (grey,) = shades(Image.fromarray(values.astype(np.int32), mode="I"))
    scale = 2**bits - 1 if bits < 31 else 2**32 - 1
    np.testing.assert_allclose(grey, values / scale, atol=1e-6)
