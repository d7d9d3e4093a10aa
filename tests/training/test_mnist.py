"""Oracle: small IDX files in the layout in which QMNIST and EMNIST are published, made from MNIST's own images."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import RunScript, ran, record_of
from handgrad.errors import UserError
from handgrad.training.data import Examples
from handgrad.training.mnist import MNISTDataModule

COUNTS = {"balanced": 47, "letters": 26, "digits": 10}


def write_idx(path: Path, array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> None:
    """Write an IDX file: bytes, or big-endian 32-bit integers."""
    kind, data = (8, array) if array.dtype == np.uint8 else (12, array.astype(">i4"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">4B{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + data.tobytes())


def make_emnist(root: Path, split: str, images: Examples, first: int) -> None:
    """Write a split with images that lie on their side, labelled in turn by each class."""
    for name, part in (("train", images.rows[:400]), ("test", images.rows[400:600])):
        path = root / "EMNIST" / "raw" / f"emnist-{split}-{name}"
        write_idx(Path(f"{path}-images-idx3-ubyte"), part.view(-1, 28, 28).transpose(1, 2).contiguous().numpy())
        labels = first + np.arange(len(part)) % COUNTS[split]
        write_idx(Path(f"{path}-labels-idx1-ubyte"), labels.astype(np.uint8))


@pytest.mark.parametrize(
    ("split", "first", "names"), [("balanced", 0, "0At"), ("letters", 1, "akz"), ("digits", 0, "049")]
)
def test_emnist_is_turned_upright_with_labels_from_0(
    tmp_path: Path, images_640: Examples, split: str, first: int, names: str
) -> None:
    make_emnist(tmp_path, split, images_640, first)
    data = MNISTDataModule("EMNIST", root=str(tmp_path), split=split)
    data.prepare_data()
    data.setup()
    assert len(data.class_names) == COUNTS[split]
    assert [data.class_names[i] for i in (0, {"balanced": 10, "letters": 10, "digits": 4}[split], -1)] == list(names)
    assert data.sets["train"].rows.equal(images_640.rows[:400])
    assert data.sets["test"].targets.argmax(dim=1).equal(torch.arange(200) % COUNTS[split])


def test_qmnist_takes_the_digit_of_its_eight_columns(tmp_path: Path, images_640: Examples) -> None:
    raw, labels = tmp_path / "QMNIST" / "raw", images_640.targets.argmax(dim=1)
    for name in ("train", "test"):
        write_idx(raw / f"qmnist-{name}-images-idx3-ubyte", images_640.rows.view(-1, 28, 28).numpy())
        columns = np.stack([labels.numpy(), *(np.full(640, number) for number in range(90, 97))], axis=1)
        write_idx(raw / f"qmnist-{name}-labels-idx2-int", columns.astype(np.int32))
    data = MNISTDataModule("QMNIST", root=str(tmp_path))
    data.setup()
    assert data.sets["train"].targets.equal(images_640.targets)
    assert data.sets["test"].rows.equal(images_640.rows)


def test_26_letters_train_and_are_drawn(
    run_script: RunScript, tmp_path: Path, images_640: Examples, drawn: None
) -> None:
    make_emnist(tmp_path, "letters", images_640, first=1)
    words = ["data=emnist", "data.split=letters", f"data.root={tmp_path}", "network.hidden_sizes=[8]", "logger=none"]
    printed = ran(run_script, *words, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert "turned upright" in printed
    assert record_of(Path("run"))["classes"] == 26
    ran(run_script, "run=run", script="explain.py")
    page = Path("run", "explain.html").read_text(encoding="utf-8")
    assert ('id="pad"' in page, "Nothing to draw on" in page) == (False, True)


def test_missing_files_and_splits_are_refused_in_a_sentence(tmp_path: Path, images_640: Examples) -> None:
    for dataset, split in (("EMNIST", "digits"), ("QMNIST", None)):
        with pytest.raises(UserError, match=rf"{dataset}.raw has no usable files .*torchvision\.datasets\.{dataset}\("):
            MNISTDataModule(dataset, root=str(tmp_path), split=split).setup()
    for dataset, split in (("EMNIST", None), ("MNIST", "letters")):
        with pytest.raises(UserError, match="splits are EMNIST's"):
            MNISTDataModule(dataset, split=split)
    make_emnist(tmp_path, "digits", images_640, first=1)
    with pytest.raises(UserError, match=r"labels in .* are not all between 0 and 9"):
        MNISTDataModule("EMNIST", root=str(tmp_path), split="digits").setup()
