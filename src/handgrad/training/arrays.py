"""Arrays: NumPy archives with x, pictures or vectors, and y, their classes."""

import logging
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handgrad.errors import UserError
from handgrad.text import join_names
from handgrad.training.file_data import FileData, Labelled, read_file

log = logging.getLogger(__name__)


class ArrayData(FileData):
    """Data module of arrays, which are used as they are; bytes of pictures are divided by 255.

    Args: those of `FileData`. The file is a .npz archive with `x` (N, I), (N, H, W) or (N, H, W, C) and `y` (N,),
    optionally `x_test` and `y_test`; without these a part of the rows is drawn. UserError from `setup` if it is not.
    """

    def load(self, content: bytes) -> Labelled:
        """Parse the arrays and check that they fit together."""
        arrays = parse(content, self.path, ("x", "y"), ("x_test", "y_test"))
        x, y = self.checked(arrays["x"], "x"), arrays["y"]
        self.label = f"y of {self.path}"
        if ("x_test" in arrays) != ("y_test" in arrays):
            raise UserError(f"{self.path} has one of x_test and y_test: it needs both or none")
        self.check_labels(x, y, "y")
        self.shape, self.kind = x.shape[1:], x.dtype
        if "x_test" in arrays:
            x_test, y_test = self.checked(arrays["x_test"], "x_test"), arrays["y_test"]
            self.check_labels(x_test, y_test, "y_test")
            self.check_like_x(x_test, "x_test")
            if (y.dtype.kind == "U") != (y_test.dtype.kind == "U"):
                raise UserError(f"{self.path}: one of y and y_test holds strings, the other numbers")
            in_test = np.arange(len(x) + len(x_test)) >= len(x)
            return Labelled(np.concatenate([x, x_test]), np.concatenate([y, y_test]), in_test)
        return Labelled(x, y, None)

    def checked(self, x: np.ndarray, name: str) -> np.ndarray:
        """Return rows as bytes if they are pictures of bytes, else as floats; UserError if they cannot be used."""
        if x.ndim not in (2, 3, 4) or 0 in x.shape:
            raise UserError(f"{self.path}: {name} is {x.shape}, but must be (N, I), (N, H, W) or (N, H, W, C)")
        if x.dtype.kind not in "biuf":
            raise UserError(f"{self.path}: {name} is of type {x.dtype}, not numbers")
        if x.dtype == np.uint8 and x.ndim > 2:
            return x
        with np.errstate(over="ignore"):  # infinity is refused below
            x = x.astype(np.float32)
        if bad := int((~np.isfinite(x)).sum()):
            raise UserError(f"{self.path}: {bad} numbers of {name} are NaN or infinite")
        return x

    def check_labels(self, x: np.ndarray, y: np.ndarray, name: str) -> None:
        """Check that there is a number or text per row."""
        if y.shape != x.shape[:1]:
            raise UserError(f"{self.path}: {name} is {y.shape}, but must be ({len(x)},), a class per row")
        if y.dtype.kind not in "biufU":
            raise UserError(f"{self.path}: {name} is of type {y.dtype}, neither whole numbers nor strings")

    def check_like_x(self, x: np.ndarray, name: str) -> None:
        """Check that rows are like those of the training array."""
        if x.shape[1:] != self.shape or x.dtype != self.kind:
            raise UserError(
                f"{name} has rows of {x.shape[1:]} {x.dtype}, those of {self.path} are {self.shape} {self.kind}"
            )

    def fit(self, x: np.ndarray) -> None:
        """Tell whether the rows are grey pictures; warn about numbers on an unusual scale."""
        grey = x.shape[1:3] if x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 1) else None
        in_range = x.dtype == np.uint8 or (x.min() >= 0 and x.max() <= 1)
        self.image_shape = (int(grey[0]), int(grey[1])) if grey and in_range else None
        if x.min() == x.max():
            raise UserError(f"{self.path}: all numbers of x are {x.min()}: there is nothing to learn from")
        size = float(np.sqrt(np.square(x, dtype=np.float64).mean()))
        if x.dtype != np.uint8 and not 0.1 <= size <= 10:
            log.warning(
                "the numbers of x in %s are of size %.3g and used as they are: a network learns best from numbers "
                "around 1, e.g. columns of mean 0 and deviation 1, pictures from 0 to 1",
                self.path,
                size,
            )

    def prepare(self, x: np.ndarray) -> Tensor:
        """Return the rows as (N, I)."""
        return torch.from_numpy(x.reshape(len(x), -1))

    def new_rows(self, path: Path) -> Tensor:
        """Read the x of another archive."""
        x = self.checked(parse(read_file(path, "rows"), path, ("x",))["x"], "x")
        self.check_like_x(x, f"rows={path}: x")
        rows = self.prepare(x)
        return rows / 255 if rows.dtype == torch.uint8 else rows


def parse(content: bytes, path: Path, needed: tuple[str, ...], more: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read arrays of a .npz archive; nothing in it is executed. UserError if one is missing or unusable."""
    if not zipfile.is_zipfile(BytesIO(content)):
        raise UserError(f"{path} is not an .npz archive: np.savez(path, x=x, y=y) writes one")
    try:
        with np.load(BytesIO(content), allow_pickle=False) as archive:
            found = {name: archive[name] for name in (*needed, *more) if name in archive}
            names = list(archive)
    except Exception as error:  # a damaged file can raise anything
        reason = "it holds objects" if "allow_pickle" in str(error) else str(error).partition("\n")[0]
        raise UserError(f"{path} is not an .npz archive of numbers and strings: {reason}") from None
    if lacking := [name for name in needed if name not in found]:
        raise UserError(f"{path} has no array {join_names(lacking)}: it has {join_names(names) or 'none'}")
    return found
