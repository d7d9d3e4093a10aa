"""Base class of data from a user's file: its hash, its classes, its test part."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from handgrad.errors import UserError, describe_os_error
from handgrad.text import format_value, join_names
from handgrad.training.data import ClassificationData, Examples, stratified

MOST_CLASSES = 1000
FEW_CLASSES = 20  # up to here, classes may be more than a tenth of the rows


class Labelled(NamedTuple):
    """Content of a file: x (N, ...), a class per row, and whether it is a test row; None: a part is drawn."""

    x: Any
    labels: np.ndarray
    in_test: np.ndarray | None


class FileData(ClassificationData):
    """Base class of data modules of one file. A subclass implements `load`, `fit` and `prepare`.

    Args are described in conf/data/table.yaml; `sha256` None accepts any content, `shared` are those of
    `ClassificationData`. UserError from `setup`: the file is missing, has changed or is unusable.
    """

    label = "y"  # the classes' name in messages

    def __init__(
        self, path: str, sha256: str | None = None, test_size: float = 0.2, split_seed: int = 0, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.path, self.sha256, self.test_size, self.split_seed = Path(path), sha256, test_size, split_seed
        self.dataset = self.path.name

    def load(self, content: bytes) -> Labelled:
        """Parse the file's content."""
        raise NotImplementedError

    def fit(self, x: Any) -> None:
        """Fit the preparation to the training rows, without test and validation rows."""

    def prepare(self, x: Any) -> Tensor:
        """Convert rows to (N, I) floats, or bytes of pictures."""
        raise NotImplementedError

    def read_sets(self) -> dict[str, Examples]:
        """Read the file and split it, then fit the preparation to the remaining training rows."""
        content = read_file(self.path, "data.path")
        if self.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise UserError(
                f"{self.path} has changed since training, which took classes and scaling from it: "
                "name the original file with data.path=..., or train again"
            )
        x, labels, in_test = self.load(content)
        self.class_names, numbers = classes_of(labels, self.label)
        train, test = (
            self.test_split(numbers) if in_test is None else (np.flatnonzero(~in_test), np.flatnonzero(in_test))
        )
        if none := self.classes_with(0, numbers[train]):
            raise UserError(
                f"{self.label}: class {join_names(none)} has test rows only: move some to the training rows"
            )
        targets = torch.nn.functional.one_hot(torch.from_numpy(numbers), len(self.class_names)).float()
        parts = {"train": train, "test": test}
        if self.val_size:
            kept, held_out = self._split(numbers[train])
            parts = {"val": train[held_out], "train": train[kept], "test": test}
        if not self.score_test:
            del parts["test"]
        take = getattr(x, "iloc", x)
        self.fit(take[parts["train"]])
        sets = {name: Examples(self.prepare(take[rows]), targets[rows]) for name, rows in parts.items()}
        self.inputs = sets["train"].rows.shape[1]
        return sets

    def test_split(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the indices of training and test rows, stratified by class; UserError if there are too few."""
        rows, classes = len(numbers), len(self.class_names)
        if rare := self.classes_with(1, numbers):
            raise UserError(
                f"{self.label}: class {join_names(rare)} has one row, which cannot be both trained on and tested: "
                "add rows of it, or remove it"
            )
        tested = int(np.ceil(self.test_size * rows))
        if not classes <= tested <= rows - classes:
            raise UserError(
                f"data.test_size={self.test_size} makes {tested} of {rows} rows the test set: "
                f"each side needs one for each of the {classes} classes"
            )
        return stratified(numbers, tested, self.split_seed)


def read_file(path: Path, option: str) -> bytes:
    """Read a file whole; UserError if there is none, or it cannot be read."""
    if not path.is_file():  # no device or pipe, which might never end
        raise UserError(f"{option}={path}: there is no such file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(describe_os_error(error, path)) from None


def classes_of(labels: np.ndarray, label: str) -> tuple[list[str], np.ndarray]:
    """Return the sorted names of the classes, and the (N,) number of each row's.

    `labels` (N,) are integers, whole floats, booleans or texts. UserError if there are none, one class, too many, or
    decimal numbers, which would be regression.
    """
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise UserError(
                f"{label} has {int((~np.isfinite(labels)).sum())} missing or infinite values: remove the rows"
            )
        if (decimal := labels[labels % 1 != 0]).size:
            raise UserError(
                f"{label} has decimal numbers such as {format_value(float(decimal[0]))}: regression is not "
                "supported; classes must be whole numbers or strings"
            )
        labels = labels.astype(np.int64)
    found, numbers = np.unique(labels, return_inverse=True)
    rows, names = len(labels), [str(name) for name in found.tolist()]
    if len(names) < 2:
        what = f"one class, {names[0]}" if names else "no rows"
        raise UserError(f"{label} has {what}: there is nothing to classify")
    if len(names) > min(MOST_CLASSES, max(FEW_CLASSES, rows / 10)):
        raise UserError(
            f"{label} has {len(names):,} different values in {rows:,} rows, too many for classes: "
            "if it is a quantity, that is regression, which is not supported; otherwise group them"
        )
    return names, numbers.astype(np.int64)
