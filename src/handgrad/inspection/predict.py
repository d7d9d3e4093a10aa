"""Classification of pictures."""

from collections.abc import Iterator, Sequence
from glob import glob  # Path.glob takes no absolute pattern
from pathlib import Path
from typing import Any, NamedTuple

import torch

from handgrad.errors import UserError
from handgrad.inspection.digits import Digit, as_it_is, find_digits, like_mnist
from handgrad.inspection.pictures import SUFFIXES, Grey
from handgrad.text import escape_control
from handgrad.training.build import Assembly
from handgrad.training.data import SCORING_BATCH_SIZE

MOST = 40  # most pictures shown in a terminal or a figure
UNSURE = 0.8  # probability below which an answer is doubtful
HEADINGS = ("picture", "digit", "class", "probability", "runner-up", "its probability", "doubts")


class Prediction(NamedTuple):
    """Prediction for a digit in a picture.

    path: the picture's file.
    grey: (H, W) the picture.
    number: of the digit in its picture, from 1 at the left.
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
        unsure = self.probabilities[0] < UNSURE
        return [
            *self.digit.doubts,
            *([f"the network is unsure between {' and '.join(self.classes)}"] if unsure else []),
        ]


def found(images: Any) -> list[Path]:
    """Find the files that names, folders and glob patterns match, each once and in order.

    Args:
        images: one or a list; an existing file wins over a pattern of the same name, a folder means its pictures.

    Raises:
        UserError: none was named, or one matches nothing.
    """
    if images is None:
        raise UserError("name the pictures: images=my_digit.png, images=folder, 'images=*.png', 'images=[one,another]'")
    paths: dict[Path, None] = {}
    for name in images if isinstance(images, list) else [images]:
        path = Path(str(name))
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        else:
            pattern = str(name)
            files = [path] if path.exists() else [Path(file) for file in sorted(glob(pattern, recursive=True))]  # noqa: PTH207
        if not files:
            what = "holds no picture" if path.is_dir() else "is not there"
            raise UserError(f"images={name}: {path.absolute()} {what}")
        paths |= dict.fromkeys(files)
    return list(paths)


def predict(assembly: Assembly, paths: Sequence[Path]) -> tuple[list[Prediction], list[str]]:
    """Preprocess pictures and classify them.

    Args:
        assembly: a trained network's assembly.
        paths: the pictures' files.

    Returns:
        a prediction per digit of each usable picture, and a sentence per unusable picture.
    """
    if not hasattr(assembly.data, "class_names"):  # a file has them
        assembly.data.setup()
    usable: list[tuple[Path, Grey, int, Digit]] = []
    refused = []
    dataset, shape = assembly.data.dataset, assembly.data.image_shape
    if shape is None:
        raise UserError(f"images=...: the network takes {assembly.data.inputs} numbers of {dataset}, no pictures")
    drawn = like_mnist(shape, assembly.data.class_names)
    for path in paths:
        try:
            grey, digits = find_digits(path) if drawn else as_it_is(path, dataset, shape)
            usable += [(path, grey, number, digit) for number, digit in enumerate(digits, start=1)]
        except UserError as error:
            refused.append(str(error))
    if not usable:
        return [], refused
    module, names = assembly.module, assembly.data.class_names
    x = torch.stack([digit.seen.flatten() for *_, digit in usable]).to(next(module.network.parameters()))
    with torch.no_grad():
        two = torch.softmax(module(x).float(), dim=1).topk(2, dim=1)
    predicted = [
        Prediction(*each, (names[first], names[second]), (p, q))
        for each, (first, second), (p, q) in zip(usable, two.indices.tolist(), two.values.tolist(), strict=True)
    ]
    return predicted, refused


def predict_rows(assembly: Assembly, path: Path) -> list[tuple[str, float]]:
    """Prepare the rows of a file as the training rows were, and classify them.

    Returns:
        class and probability of each row.

    Raises:
        UserError: the data are no file's, or the rows do not fit them.
    """
    module, names = assembly.module, assembly.data.class_names
    x = assembly.data.new_rows(path).to(next(module.parameters()))
    with torch.no_grad():
        logits = torch.cat([module(part) for part in torch.split(x, SCORING_BATCH_SIZE)])
    most, classes = torch.softmax(logits.float(), dim=1).max(dim=1)
    return list(zip((names[number] for number in classes.tolist()), most.tolist(), strict=True))


def rows(predicted: Sequence[Prediction]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of `predictions.csv`."""
    yield "picture", "digit", "class", "probability", "runner_up", "runner_up_probability", "doubts"
    for each in predicted:
        (first, second), (p, q) = each.classes, each.probabilities
        yield each.path, each.number, first, f"{p:.6g}", second, f"{q:.6g}", "; ".join(each.doubts)


def cells(prediction: Prediction) -> tuple[str, ...]:
    """Format a prediction as a row of texts, under `HEADINGS`."""
    (first, second), (p, q) = prediction.classes, prediction.probabilities
    name = escape_control(str(prediction.path))
    return name, str(prediction.number), first, f"{p:.1%}", second, f"{q:.1%}", "; ".join(prediction.doubts)
