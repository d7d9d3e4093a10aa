"""Oracle: the same digit on plain paper, in every scene of benchmarks/pictures.py."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pictures
import pytest
import torch
from PIL import Image
from torch import Tensor

import handgrad
from conftest import RunScript, Trained, mostly_slow, ran
from handgrad.errors import UserError
from handgrad.inspection.digits import Digit, find_digits, is_stacked
from handgrad.inspection.predict import as_it_is
from handgrad.training.mnist import MNISTDataModule


@pytest.fixture
def source(mnist: MNISTDataModule) -> pictures.Source:
    test = mnist.sets["test"]
    digits = test.rows[:40].view(-1, 28, 28).numpy()
    return pictures.Source(np.random.default_rng(0), digits, test.targets.argmax(dim=1).numpy())


ALONE = [name for name in (*pictures.SCENES, *pictures.FILES) if "two" not in name]
TOGETHER = [("in a box", "coloured pencils"), ("circled", "perspective"), ("hard shadow", "sheet on a dark table")]
TOGETHER += [("hard shadow", "black bars"), ("stained", "black bars"), ("ruled paper", "hard shadow")]
TOGETHER += [("squared paper", "red ink on green paper")]  # each was read wrongly


@pytest.mark.parametrize("names", mostly_slow([*((name,) for name in ALONE), *TOGETHER], always=12), ids=" and ".join)
def test_digit_is_found_in_every_scene(tmp_path: Path, source: pictures.Source, names: tuple[str, ...]) -> None:
    for number in range(16 if names == ("hard shadow",) else 4):
        plain = pictures.begin(source, number)
        canvas, file = pictures.changed(plain, names, source)
        _, (expected,) = find_digits(pictures.save(plain, "", tmp_path))
        _, (found, *others) = find_digits(pictures.save(canvas, file, tmp_path))
        if "stained" in names and found.doubts:  # a piece of the ring is left, and told
            continue
        assert not others
        assert ("a filled spot was left out" in found.doubts) >= ("punched" in names)
        assert float((found.seen - expected.seen).abs().mean()) < 0.1  # of another digit, 0.2


@pytest.mark.parametrize("rows", [False, True])
def test_several_digits_are_numbered_row_by_row_from_left_to_right(
    tmp_path: Path, source: pictures.Source, rows: bool
) -> None:
    for _ in range(4):
        canvas = pictures.two_digits(pictures.begin(source, 0), source, rows)
        path = pictures.save(canvas, "", tmp_path)
        grey, (first, second) = find_digits(path)
        assert first.box[2 + rows] < second.box[rows]
        for digit, part in ((first, slice(0, 200)), (second, slice(200, 400))):  # each as if it were alone
            alone = np.ones_like(grey)
            own = (part, slice(None)) if rows else (slice(None), part)
            alone[own] = grey[own]
            Image.fromarray((255 * alone).astype(np.uint8)).save(tmp_path / "alone.png")
            _, (expected,) = find_digits(tmp_path / "alone.png")
            torch.testing.assert_close(digit.seen, expected.seen, rtol=0, atol=0.02)


def test_two_by_two_digits_are_read_row_by_row(tmp_path: Path, source: pictures.Source) -> None:
    """The lower row is shifted, so that its left digit is below both upper ones."""
    ink = np.zeros((pictures.SIDE, pictures.SIDE))
    places = [(20, 20), (160, 30), (100, 210), (230, 200)]
    for number, place in enumerate(places):
        ink = np.maximum(ink, pictures.placed(source.images[number], 150, *place)[0])
    canvas = pictures.begin(source, 0)._replace(ink=ink)
    _, digits = find_digits(pictures.save(canvas, "", tmp_path))
    found = [digit.box[:2] for digit in digits]
    assert [(x < 0.4, y < 0.5) for x, y in found] == [(True, True), (False, True), (True, False), (False, False)]


def test_halves_of_a_broken_digit_stay_together(tmp_path: Path, source: pictures.Source) -> None:
    canvas = pictures.begin(source, 0)
    middle = (canvas.box[1] + canvas.box[3]) // 2
    canvas.ink[middle - 4 : middle + 4] = 0
    _, (digit,) = find_digits(pictures.save(canvas, "", tmp_path))
    height = (canvas.box[3] - canvas.box[1]) / pictures.SIDE
    assert digit.box[3] - digit.box[1] == pytest.approx(height, abs=0.02)


def digits_of(
    folder: Path, source: pictures.Source, places: list[tuple[int, int, int]], ink: np.ndarray | None = None
) -> list[Digit]:
    """Find digits drawn at (side, left, top), and further ink."""
    ink = np.zeros((pictures.SIDE, pictures.SIDE)) if ink is None else ink
    for number, place in enumerate(places):
        ink = np.maximum(ink, pictures.placed(source.images[number], *place)[0])
    return find_digits(pictures.save(pictures.begin(source, 0)._replace(ink=ink), "", folder))[1]


def test_digit_close_to_the_edge_is_kept(tmp_path: Path, source: pictures.Source) -> None:
    """Six of 400 pixels from it, where a finger may be left out."""
    places = [(70, left, 150) for left in (-10, 70, 140, 210, 280)]
    digits = digits_of(tmp_path, source, places)
    assert len(digits) == 5
    assert 0 < digits[0].box[0] < 0.02


def test_point_of_a_number_is_left_out_and_told(tmp_path: Path, source: pictures.Source) -> None:
    y, x = np.mgrid[: pictures.SIDE, : pictures.SIDE]
    point = (np.hypot((x - 196) / 6, (y - 236) / 11) < 1).astype(float)
    alone = digits_of(tmp_path, source, [(150, 20, 100), (150, 230, 100)])
    digits = digits_of(tmp_path, source, [(150, 20, 100), (150, 230, 100)], point)
    assert [digit.box for digit in digits] == [digit.box for digit in alone]
    assert "small mark" in "".join(doubt for digit in digits for doubt in digit.doubts)


def test_small_digit_beside_a_large_one_is_read(tmp_path: Path, source: pictures.Source) -> None:
    large, small = digits_of(tmp_path, source, [(250, 0, 100), (95, 290, 180)])
    assert large.box[2] < small.box[0]


def test_digits_of_a_rising_line_are_read_from_left_to_right(tmp_path: Path, source: pictures.Source) -> None:
    digits = digits_of(tmp_path, source, [(90, 5 + 95 * number, 150 - 15 * number) for number in range(4)])
    lefts = [digit.box[0] for digit in digits]
    assert lefts == sorted(lefts)
    assert len(lefts) == 4


@pytest.mark.parametrize("vertical", [False, True])
def test_digit_in_two_halves_is_doubted(tmp_path: Path, source: pictures.Source, vertical: bool) -> None:
    for number in (0, 2):  # a seven and a one
        canvas = pictures.begin(source, number)
        left, top, right, bottom = canvas.box
        middle = (left + right) // 2 if vertical else (top + bottom) // 2
        gap = slice(middle - 8, middle + 8)
        canvas.ink[(slice(None), gap) if vertical else gap] = 0
        _, digits = find_digits(pictures.save(canvas, "", tmp_path))
        assert all(digit.doubts for digit in digits) or len(digits) == 1


def test_bluish_ink_is_found_by_its_luminance_which_is_shown(tmp_path: Path, source: pictures.Source) -> None:
    canvas = pictures.begin(source, 0)
    ink = canvas.ink[..., None] * np.array([0.85, 0.85, 0.8])
    noise = source.rng.normal(0, 0.02, ink.shape)
    Image.fromarray((255 * (0.95 - ink + noise).clip(0, 1)).astype(np.uint8)).save(tmp_path / "blue.png")
    grey, (digit,) = find_digits(tmp_path / "blue.png")
    _, (expected,) = find_digits(pictures.save(canvas, "", tmp_path))
    assert grey[canvas.ink > 0.9].mean() < 0.2 < 0.9 < grey[canvas.ink < 0.1].mean()
    assert float((digit.seen - expected.seen).abs().mean()) < 0.05


def test_doubts_are_told(tmp_path: Path) -> None:
    """A hook that reaches each edge; a hook with half of another one, cut by the edge, beside it."""
    hook = np.full((400, 300), 255, dtype=np.uint8)
    hook[100:300, 140:180] = hook[100:140, 60:180] = 0
    for pixels, doubt in (
        *(
            (cut, "reaches the picture's edge")
            for half in (hook[:, 60:], hook[:300])
            for cut in (half, half[::-1, ::-1])
        ),
        (np.hstack([hook[:, 80:], hook]), "other marks"),
    ):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "x.png")
        _, digits = find_digits(tmp_path / "x.png")
        assert doubt in " ".join(digits[-1].doubts)


def test_clothes_are_not_prepared_as_digits(
    run_script: RunScript, trained: Trained, tmp_path: Path, tiny_mnist: Path, mnist: MNISTDataModule
) -> None:
    """A network of Fashion-MNIST, whose files MNIST's stand in for; its images, shifted, are read as they are."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "FashionMNIST").symlink_to(tiny_mnist / "MNIST")
    trained("data=fashion_mnist", f"data.root={root}", sizes="30")
    (tmp_path / "own").mkdir()
    images = np.roll(mnist.sets["test"].rows[:30].view(-1, 28, 28).numpy(), -7, axis=2)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "own" / f"{number:02}.png")
    ran(run_script, "run=run", "images=own", "output=found", script="predict.py")
    names = list(pd.read_csv(tmp_path / "found" / "predictions.csv")["class"])
    module = handgrad.load("run")
    with torch.no_grad():
        own = module(torch.from_numpy(images.reshape(30, 784)) / 255).argmax(dim=1)
        prepared = [find_digits(tmp_path / "own" / f"{number:02}.png")[1][0].seen for number in range(30)]
        assert not own.equal(module(torch.stack(prepared).view(30, 784)).argmax(dim=1))
    classes = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    assert names == [classes[number] for number in own]
    Image.fromarray(images[0]).resize((280, 280)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match=r"280 x 280 pixels: for a network of FashionMNIST.*28 x 28, light on black"):
        as_it_is(tmp_path / "large.png", "FashionMNIST", (28, 28))


def test_raw_images_of_mnist_are_left_as_they_are(tmp_path: Path, mnist: MNISTDataModule) -> None:
    images: Tensor = mnist.sets["test"].rows[:20].view(-1, 28, 28)
    for image in images:
        Image.fromarray(image.numpy()).save(tmp_path / "x.png")
        _, (digit,) = find_digits(tmp_path / "x.png")
        assert float((digit.seen.view(28, 28) - image / 255).abs().mean()) < 0.03


def test_regions_above_each_other_are_stacked_and_those_beside_each_other_are_not() -> None:
    upper, lower, beside = (SimpleNamespace(bbox=box) for box in ((0, 50, 40, 90), (45, 48, 90, 88), (0, 100, 40, 130)))
    assert is_stacked([upper, lower])
    assert is_stacked([lower, upper])
    assert not is_stacked([upper, beside])
