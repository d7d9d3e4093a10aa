"""Tables: CSV and Parquet files with a column of classes."""

import logging
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from torch import Tensor

from handgrad.errors import UserError, did_you_mean
from handgrad.text import format_value, join_names
from handgrad.training.file_data import FileData, Labelled, read_file

log = logging.getLogger(__name__)

MOST_TEXTS = 1000  # different strings of a column, each an input
TEST = {"true": True, "yes": True, "test": True, "1": True, "false": False, "no": False, "train": False, "0": False}


class TableData(FileData):
    """Data module of a table: numbers standardised, strings one-hot, both fitted to the training rows.

    Args are described in conf/data/table.yaml; `shared` are those of `FileData`. UserError from `setup`: the file is
    not such a table, or a column is unusable.
    """

    def __init__(
        self,
        path: str,
        target: str | None = None,
        test_column: str | None = None,
        missing: str = "refuse",
        **shared: Any,
    ) -> None:
        super().__init__(path, **shared)
        self.target, self.test_column, self.missing = target, test_column, missing
        self.label = f"data.target={target}"

    def load(self, content: bytes) -> Labelled:
        """Parse the table and split its columns into features, target and test mark."""
        frame = parse(content, self.path)
        for option, name in (("data.target", self.target), ("data.test_column", self.test_column)):
            if name not in frame and (name or option == "data.target"):
                raise UserError(unknown(option, name, list(frame)))
        labels = frame.pop(self.target)
        if empty := int(labels.isna().sum()):
            raise UserError(f"{self.label} is empty in {empty} rows: remove them")
        in_test = None if self.test_column is None else test_rows(frame.pop(self.test_column))
        if frame.empty:
            raise UserError(
                f"{self.path} has no columns besides {self.label}" if len(labels) else f"{self.path} has no rows"
            )
        self.columns = list(frame)
        self.numbers = [name for name in frame if types.is_numeric_dtype(frame[name])]
        self.texts = [name for name in frame if name not in self.numbers]
        self.check_columns(frame)
        plain = labels.to_numpy() if types.is_numeric_dtype(labels) else labels.to_numpy(dtype=str)
        return Labelled(self.plain(frame), plain, in_test)

    def check_columns(self, frame: pd.DataFrame) -> None:
        """Check that every column holds numbers or a limited number of strings."""
        for name in self.texts:
            if not (types.is_object_dtype(frame[name]) or types.is_string_dtype(frame[name])):
                raise UserError(
                    f"{self.path}: column {name} is of type {frame[name].dtype}, neither numbers nor strings"
                )
            if (different := frame[name].nunique()) > MOST_TEXTS:
                raise UserError(
                    f"{self.path}: column {name} has {different:,} different strings, each an input: remove it"
                )
        if none := [name for name in frame if frame[name].isna().all()]:
            raise UserError(f"{self.path}: column {join_names(none)} is empty: remove it")

    def plain(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Convert numbers to floats and strings to objects; UserError at other, infinite or empty cells."""
        if wrong := [name for name in self.numbers if not types.is_numeric_dtype(frame[name])]:
            raise UserError(f"column {join_names(wrong)} has strings where the network was trained on numbers")
        frame = frame.astype(dict.fromkeys(self.numbers, float) | dict.fromkeys(self.texts, object))
        if infinite := [name for name in self.numbers if np.isinf(frame[name]).any()]:
            raise UserError(f"column {join_names(infinite)} has infinite numbers: remove the rows")
        empty = frame.isna().sum()
        if self.missing == "refuse" and empty.any():
            named = join_names([f"{name} ({count})" for name, count in empty[empty > 0].items()])
            raise UserError(f"empty cells in column {named}: fill them, remove the rows, or set data.missing=impute")
        frame[self.texts] = frame[self.texts].map(str, na_action="ignore")
        return frame.where(frame.notna(), np.nan)

    def fit(self, x: pd.DataFrame) -> None:
        """Fit imputers, scaler and encoder to the training rows."""
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        constant = [name for name in x if x[name].nunique() <= 1]
        if len(constant) == len(self.columns):
            raise UserError(
                f"{self.path}: every column is constant in the training rows: there is nothing to learn from"
            )
        if constant:
            log.warning("%s: column %s is constant in the training rows", self.path, join_names(constant))
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)  # an unknown string: all zeros
        scaling = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        encoding = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder)
        parts = [("numbers", scaling, self.numbers), ("texts", encoding, self.texts)]
        self.transformer = ColumnTransformer(parts).fit(x)

    def prepare(self, x: pd.DataFrame) -> Tensor:
        """Return (N, I) standardised numbers and one-hot texts."""
        return torch.from_numpy(np.asarray(self.transformer.transform(x), dtype=np.float32))

    def new_rows(self, path: Path) -> Tensor:
        """Prepare the rows of another table as the training rows were; its target and test column are ignored."""
        frame = parse(read_file(path, "rows"), path, self.texts)
        frame = frame.drop(columns=[name for name in (self.target, self.test_column) if name in frame])
        missing = [name for name in self.columns if name not in frame]
        other = [name for name in frame if name not in self.columns]
        if missing or other:
            said = [f"lacks the column {join_names(missing)}"] if missing else []
            said += [f"has the column {join_names(other)}, which {self.path} lacks"] if other else []
            raise UserError(f"rows={path} {' and '.join(said)}")
        if frame.empty:
            raise UserError(f"rows={path} has no rows")
        x = self.plain(frame)
        known_texts = self.transformer.named_transformers_["texts"][-1].categories_ if self.texts else []
        for name, known in zip(self.texts, known_texts, strict=True):
            if unknown := sorted(set(x[name].dropna()) - set(known)):
                log.warning(
                    "column %s: %s was not in the training rows: encoded as all zeros", name, join_names(unknown)
                )
        return self.prepare(x)


def parse(content: bytes, path: Path, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Parse a CSV or Parquet file, as its suffix says; nothing in it is executed.

    The cells of the columns `texts` stay texts even if they look like numbers. UserError if it is neither, is
    empty, or two columns have the same name.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{path} must be a .csv or a .parquet file")
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(BytesIO(content), engine="pyarrow").rename(columns=str)
        names = pd.read_csv(BytesIO(content), header=None, nrows=1, dtype=str).iloc[0].tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the first line
            frame = pd.read_csv(BytesIO(content), index_col=False, low_memory=False, dtype=dict.fromkeys(texts, str))
    except ImportError:
        raise UserError(f"{path}: Parquet needs pyarrow: pip install 'handgrad[parquet]', or save it as CSV") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty") from None
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is not a {path.suffix[1:]} file ({str(error).partition(chr(10))[0]})") from None
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise UserError(f"{path} has two columns named {join_names(twice)}: rename one")
    return frame


def unknown(option: str, name: str | None, columns: Sequence[str]) -> str:
    """Describe an unknown column: the closest name, and all names."""
    if not name:
        return f"{option}=... must name a column; it has {join_names(list(columns), 20)}"
    hint = did_you_mean(name, columns)
    found = f"{format_value(name)} is not a column of the table{f': {hint}It' if hint else '; it'}"
    return f"{option}={found} has {join_names(list(columns), 20)}"


def test_rows(column: pd.Series) -> np.ndarray:
    """Return which rows a column marks as test rows: numbers but 0, and true, yes or test."""
    if types.is_numeric_dtype(column):
        marked = column.map(lambda value: value != 0, na_action="ignore")
    else:
        marked = column.astype(str).str.strip().str.lower().map(TEST)
    if marked.isna().any():
        other = column[marked.isna()].iloc[0]
        raise UserError(f"data.test_column={column.name} has {format_value(str(other))}: it must be true or false")
    in_test: np.ndarray = marked.to_numpy(dtype=bool)
    if in_test.all() or not in_test.any():
        raise UserError(f"data.test_column={column.name} makes all rows {'test' if in_test.all() else 'training'} rows")
    return in_test
