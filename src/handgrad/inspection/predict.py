"""Classification of pictures."""

from collections.abc import Sequence
from glob import glob  # Path.glob takes no absolute pattern
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from handgrad.errors import UserError
from handgrad.inspection.digits import SIDE, Digit, find_digits
from handgrad.inspection.pictures import SUFFIXES, Grey, read
from handgrad.text import escape_control
from handgrad.training.build import Assembly
from handgrad.training.data import SCORING_BATCH_SIZE
from handgrad.training.modules import Classifier

MOST = 40  # most pictures shown in a terminal or a figure
COLUMNS = 4  # of pairs of pictures in a figure
UNSURE = 0.8  # probability below which an answer is doubtful


class Prediction(NamedTuple):
    """Prediction for a digit in a picture.

    path: the picture's file.
    grey: (H, W) the picture.
    number: of the digit in its picture, from 1, row by row, left to right.
    digit: the network's input, and where it is in the picture.
    classes: the most probable class and the runner-up.
    probabilities: of these two.
    """

    path: Path
    grey: Grey
    number: int
    digit: Digit
    classes: tuple[str, str]
    probabilities: tuple[float, float]

    @property
    def doubts(self) -> list[str]:
        """Why the answer may be wrong, in words."""
        unsure = [f"the network is unsure between {' and '.join(self.classes)}"]
        return [*self.digit.doubts, *(unsure if self.probabilities[0] < UNSURE else [])]


def found(images: Any) -> list[Path]:
    """Find the files that names, folders and glob patterns match, each once and in order.

    Args:
        images: one or a list; an existing file wins over a pattern of the same name, a folder means its pictures.

    Raises:
        UserError: none was named, or one matches nothing.
    """
    if images is None:
        raise UserError(
            "name the pictures: images=my_digit.png, images=folder, 'images=*.png', 'images=[one,another]'; "
            "or, for a network of data=table or arrays, the file of rows: rows=new.csv"
        )
    paths: dict[Path, None] = {}
    for name in map(str, images if isinstance(images, list) else [images]):
        path, what = Path(name), "does not exist"
        if path.is_dir():
            files, what = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES), "holds no picture"
        else:
            files = [path] if path.exists() else list(map(Path, sorted(glob(name, recursive=True))))  # noqa: PTH207
        if not files:
            raise UserError(f"images={name}: {path.absolute()} {what}")
        paths |= dict.fromkeys(files)
    return list(paths)


def like_mnist(shape: Sequence[int], class_names: Sequence[str]) -> bool:
    """Tell whether a data set's images (H, W) are digits of MNIST's size, as a drawing is prepared."""
    return tuple(shape) == (SIDE, SIDE) and all(name.isdigit() for name in class_names)


def as_it_is(path: Path, dataset: str, shape: tuple[int, int]) -> tuple[Grey, list[Digit]]:
    """Read a picture already prepared like a data set's own images: of their shape (H, W), light on black."""
    grey = read(path)[0]
    if grey.shape != shape:
        height, width = grey.shape
        raise UserError(
            f"{path} is {width} x {height} pixels: for a network of {dataset}, whose images are no digits on paper, "
            f"give pictures as that set has them, {shape[1]} x {shape[0]}, light on black"
        )
    return grey, [Digit(torch.from_numpy(grey).float(), (0.0, 0.0, 1.0, 1.0), ())]


def predict(assembly: Assembly, paths: Sequence[Path]) -> tuple[list[Prediction], list[str]]:
    """Preprocess pictures and classify them.

    Returns:
        a prediction per digit of each usable picture, and a sentence per unusable picture.

    Raises:
        UserError: the network takes no pictures.
    """
    if not hasattr(assembly.data, "class_names"):  # a data set from a file has read them already
        assembly.data.setup()
    usable: list[tuple[Path, Grey, int, Digit]] = []
    refused = []
    dataset, shape = assembly.data.dataset, assembly.data.image_shape
    if shape is None:
        raise UserError(f"images=...: the network takes {assembly.data.inputs} numbers of {dataset}, not pictures")
    drawn = like_mnist(shape, assembly.data.class_names)
    for path in paths:
        try:
            grey, digits = find_digits(path) if drawn else as_it_is(path, dataset, shape)
            usable += [(path, grey, number, digit) for number, digit in enumerate(digits, start=1)]
        except UserError as error:
            refused.append(str(error))
    if not usable:
        return [], refused
    names = assembly.data.class_names
    two = probabilities(assembly.module, torch.stack([digit.seen.flatten() for *_, digit in usable])).topk(2, dim=1)
    predicted = [
        Prediction(*each, (names[first], names[second]), (p, q))
        for each, (first, second), (p, q) in zip(usable, two.indices.tolist(), two.values.tolist(), strict=True)
    ]
    return predicted, refused


def predict_rows(assembly: Assembly, path: Path) -> list[tuple[str, float]]:
    """Prepare the rows of a file as the training rows were; return class and probability of each."""
    most, classes = probabilities(assembly.module, assembly.data.new_rows(path)).max(dim=1)
    return [(assembly.data.class_names[n], p) for n, p in zip(classes.tolist(), most.tolist(), strict=True)]


@torch.no_grad()
def probabilities(module: Classifier, x: Tensor) -> Tensor:
    """Return (N, C) probabilities of inputs (N, I) of any precision."""
    x = x.to(next(module.parameters()))
    logits = torch.cat([module(part) for part in torch.split(x, SCORING_BATCH_SIZE)])
    return torch.softmax(logits.float(), dim=1)


def rows(predicted: Sequence[Prediction], form: str = ".6g") -> list[tuple[str, ...]]:
    """Return a row of texts per prediction: picture, digit, class, probability, runner-up, its probability, doubts."""
    found: list[tuple[str, ...]] = []
    for each in predicted:
        (first, second), (p, q) = each.classes, each.probabilities
        doubts = "; ".join(each.doubts)
        found.append((str(each.path), str(each.number), first, f"{p:{form}}", second, f"{q:{form}}", doubts))
    return found


def plot(predicted: Sequence[Prediction]) -> Figure:
    """Plot each digit in its picture beside the network's input, under the two most probable classes; at most forty.

    Several digits of a picture are numbered, row by row; a question mark shows a doubt.
    """
    shown = predicted[:MOST]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.1 * lines), layout="constrained")
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, each in enumerate(shown):
        line, column = divmod(number, columns)
        picture, seen = grid[line, 2 * column], grid[line, 2 * column + 1]
        picture.imshow(each.grey, cmap="gray", vmin=0, vmax=1)
        height, width = each.grey.shape
        left, top, right, bottom = each.digit.box
        frame = Rectangle((left * width, top * height), (right - left) * width, (bottom - top) * height)
        frame.set(fill=False, edgecolor="tab:red", linewidth=1)
        picture.add_patch(frame)
        seen.imshow(each.digit.seen.numpy(), cmap="gray", vmin=0, vmax=1)
        (first, second), (p, q) = each.classes, each.probabilities
        name = escape_control(each.path.name)
        name = f"{each.number}: {name}" if sum(other.path == each.path for other in predicted) > 1 else name
        picture.set_title(name if len(name) <= 18 else f"{name[:17]}…", fontsize=8, parse_math=False)
        seen.set_title(f"{first}: {p:.1%}{' ?' if each.doubts else ''}\n{second}: {q:.1%}", fontsize=8)
    return figure
