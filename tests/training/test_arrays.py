"""Oracle: the arrays that were written, scikit-learn's digits, and sentences for every unusable archive."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from conftest import RunScript, mostly_slow, ran, record_of, refused
from handgrad.errors import UserError
from handgrad.training.arrays import ArrayData

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (60, 5, 4), dtype=np.uint8)
VECTORS = RNG.normal(size=(60, 5))
Y = np.arange(60) % 3


def arrays(folder: Path, **content: Any) -> ArrayData:
    """Write an archive and read it as data."""
    np.savez(folder / "a.npz", **content)
    data = ArrayData(str(folder / "a.npz"))
    data.setup()
    return data


@pytest.mark.parametrize(
    ("x", "inputs", "shape"),
    [
        (VECTORS, 5, None),
        (BYTES, 20, (5, 4)),
        (BYTES / 255, 20, (5, 4)),
        (BYTES[..., None], 20, (5, 4)),
        (np.stack([BYTES] * 3, axis=-1), 60, None),
        (BYTES / 25.0, 20, None),
        (BYTES[:, 0] > 9, 4, None),
    ],
    ids=["vectors", "bytes", "floats", "one channel", "colour", "other range", "booleans"],
)
def test_rows_are_the_arrays_and_grey_pictures_have_a_shape(
    tmp_path: Path, x: np.ndarray, inputs: int, shape: tuple[int, int] | None
) -> None:
    data = arrays(tmp_path, x=x, y=Y)
    assert (data.inputs, data.image_shape, data.class_names) == (inputs, shape, ["0", "1", "2"])
    flat = x.reshape(60, -1) / (255 if x.dtype == np.uint8 else 1)
    expected = {(label, *row) for label, row in zip(Y.tolist(), flat.astype(np.float32).tolist(), strict=True)}
    found = set()
    for part in data.sets.values():
        rows, targets = part.first(len(part))
        found |= {(int(y.argmax()), *row) for row, y in zip(rows.tolist(), targets, strict=True)}
    assert found == expected


def test_test_arrays_are_the_test_set(tmp_path: Path) -> None:
    names = np.array(["cat", "ant", "bee"])
    data = arrays(tmp_path, x=VECTORS, y=names[Y], x_test=VECTORS[:7] + 1, y_test=names[Y[:7]])
    assert data.class_names == ["ant", "bee", "cat"]
    rows, targets = data.sets["test"].first(7)
    assert rows.equal(torch.tensor(VECTORS[:7] + 1, dtype=torch.float32))
    assert [data.class_names[number] for number in targets.argmax(dim=1)] == names[Y[:7]].tolist()
    assert data.sets["train"].rows.equal(torch.tensor(VECTORS, dtype=torch.float32))


@pytest.mark.parametrize("x", [BYTES, VECTORS])
def test_new_rows_are_prepared_as_the_training_rows(tmp_path: Path, x: np.ndarray) -> None:
    data = arrays(tmp_path, x=x, y=Y, x_test=x[:9], y_test=Y[:9])
    np.savez(tmp_path / "new.npz", x=x[:9])
    assert data.new_rows(tmp_path / "new.npz").equal(data.sets["test"].first(9)[0])
    np.savez(tmp_path / "new.npz", x=x[:9].astype(np.float64 if x.dtype == np.uint8 else np.uint8))
    if x.dtype == np.uint8:
        with pytest.raises(UserError, match=r"those of .* are \(5, 4\) uint8"):
            data.new_rows(tmp_path / "new.npz")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": VECTORS}, "has no array y: it has x"),
        ({"x": VECTORS, "y": Y[:5]}, r"y is \(5,\), but must be \(60,\)"),
        ({"x": VECTORS, "y": np.eye(3)[Y]}, r"y is \(60, 3\), but must be \(60,\)"),
        ({"x": np.where(VECTORS > 1, np.nan, VECTORS), "y": Y}, "numbers of x are NaN or infinite"),
        ({"x": VECTORS * 1e300, "y": Y}, "numbers of x are NaN or infinite"),
        ({"x": VECTORS[0], "y": Y[:5]}, r"must be \(N, I\), \(N, H, W\) or \(N, H, W, C\)"),
        ({"x": VECTORS.astype(str), "y": Y}, "x is of type <U32, not numbers"),
        ({"x": VECTORS, "y": Y.astype(complex)}, "y is of type complex128, neither"),
        ({"x": np.array([object()] * 60), "y": Y}, "it holds objects"),
        ({"x": np.ones((60, 5)), "y": Y}, "all numbers of x are 1.0"),
        ({"x": VECTORS, "y": VECTORS[:, 0]}, "regression is not supported"),
        ({"x": VECTORS, "y": Y * 0}, "one class, 0"),
        ({"x": VECTORS, "y": Y, "x_test": VECTORS}, "one of x_test and y_test"),
        ({"x": VECTORS, "y": Y, "x_test": VECTORS[:, 1:], "y_test": Y}, r"x_test has rows of \(4,\) float32"),
        ({"x": VECTORS, "y": Y, "x_test": VECTORS, "y_test": Y.astype(str)}, "one of y and y_test holds strings"),
        ({"x": VECTORS, "y": Y, "x_test": VECTORS, "y_test": Y + 1}, "class 3 has test rows only"),
    ],
)
def test_unusable_arrays_are_named_in_one_sentence(tmp_path: Path, content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        arrays(tmp_path, **content)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x05\x06" + bytes(18), b"\x93NUMPY"])
def test_files_that_are_no_archive_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"is not an .npz archive|has no array x, y"):
        ArrayData(str(tmp_path / "a.npz")).setup()


def test_numbers_on_another_scale_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays(tmp_path, x=VECTORS, y=Y)
    assert caplog.text == ""
    arrays(tmp_path, x=np.where(VECTORS > 0, 300.0, -300.0), y=Y)
    assert "of size 300 and used as they are" in caplog.text


@pytest.mark.parametrize("engine", mostly_slow(["manual", "autograd"], always=1))
def test_both_engines_learn_digits_and_classify_rows_and_pictures(
    run_script: RunScript, tmp_path: Path, engine: str, drawn: None
) -> None:
    digits = load_digits()
    np.savez("digits.npz", x=digits.images / 16, y=digits.target)
    options = ["data=arrays", "data.path=digits.npz", f"engine={engine}", "data.batch_size=16", "logger=none"]
    options += ["optimizer.lr=0.001"] if engine == "autograd" else []
    ran(run_script, *options, "trainer.max_epochs=8", "hydra.run.dir=run")
    assert record_of(Path("run"))["metrics"]["test/accuracy"] >= 0.95
    assert Path("run/predictions.png").exists()
    assert " another " not in ran(run_script, "run=run", script="evaluate.py")
    np.savez("new.npz", x=digits.images[:200] / 16)
    ran(run_script, "run=run", "rows=new.npz", "output=rows", script="predict.py")
    found = pd.read_csv("rows/predictions.csv")
    assert (found["class"] == digits.target[:200]).mean() > 0.95
    Image.fromarray((digits.images[0] * 255 / 16).astype(np.uint8)).save("zero.png")
    ran(run_script, "run=run", "images=zero.png", "output=pictures", script="predict.py")
    assert pd.read_csv("pictures/predictions.csv")["class"].tolist() == [found["class"][0]]
    for content, sentence in (
        ({"x": digits.images[:3, 1:] / 16}, "rows=new.npz: x has rows of (7, 8) float32"),
        ({"z": digits.images}, "new.npz has no array x"),
    ):
        np.savez("new.npz", **content)
        refused(run_script, sentence, "run=run", "rows=new.npz", script="predict.py")
