"""Oracle: MNIST's published counts, the archives' own bytes, and torch.equal."""

import gzip
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ROOT
from forks import FORK_SERVER
from handgrad.errors import UserError
from handgrad.training.data import EpochBatches, make_loader
from handgrad.training.mnist import MNISTDataModule

ARCHIVES = ROOT / "data" / "MNIST" / "raw"
IMAGES = "t10k-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"
TRAIN_IMAGES_PER_DIGIT = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fresh clone's data folder: the four archives, nothing unpacked."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in ARCHIVES.glob("*.gz"):
        shutil.copy(archive, raw)
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every download fail at once, as without a network."""

    def refuse(url: str, *_: object, **__: object) -> None:
        raise OSError(f"no route to {url}")

    monkeypatch.setattr("handgrad.training.idx_files.download_url", refuse)


def load(root: Path, dataset: str = "MNIST", **options: Any) -> MNISTDataModule:
    data = MNISTDataModule(dataset, root=str(root), **options)
    data.prepare_data()
    data.setup()
    return data


def test_epoch_serves_every_image_once_as_floats_and_one_hot(mnist: MNISTDataModule) -> None:
    batches = list(mnist.train_dataloader())
    assert len(batches) == len(mnist.train_dataloader()) == 938
    x, y = batches[0]
    assert (x.shape, y.shape) == ((64, 784), (64, 10))
    assert x.dtype == y.dtype == torch.float32
    assert (x.min().item(), x.max().item()) == (0, 1)
    assert y.sum(dim=1).eq(1).all()
    assert y.max(dim=1).values.eq(1).all()
    assert sum(y.sum(dim=0) for _, y in batches).tolist() == TRAIN_IMAGES_PER_DIGIT
    served = sum(x.double().sum().item() for x, _ in batches)
    assert served == pytest.approx(mnist.sets["train"].rows.long().sum().item() / 255, rel=1e-6)


def test_order_depends_only_on_seed_and_epoch() -> None:
    orders = []
    for seed, epoch in [*itertools.product(range(4), range(50)), (0, 0)]:
        sampler = EpochBatches(500, 64, seed)
        sampler.set_epoch(epoch)
        orders.append(tuple(sampler.order().tolist()))
        torch.rand(1)
    assert len(set(orders)) == 4 * 50
    assert orders[0] == orders[-1]


@pytest.mark.parametrize(("part", "name"), [("train", "train"), ("test", "t10k")])
def test_images_and_labels_match_the_files(mnist: MNISTDataModule, part: str, name: str) -> None:
    images, labels = (
        torch.frombuffer(
            bytearray(gzip.decompress((ARCHIVES / f"{name}-{kind}-ubyte.gz").read_bytes())[header:]), dtype=torch.uint8
        )
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8))
    )
    loader = make_loader(mnist.sets[part], 64, 0 if part == "train" else None)
    order = torch.cat(list(loader.sampler))
    if part == "test":
        assert order.tolist() == list(range(10_000))
    served = 0
    for x, y in itertools.islice(loader, 20):
        now = order[served : served + len(x)]
        assert torch.equal((255 * x).round().to(torch.uint8), images.view(-1, 784)[now])
        assert torch.equal(y.argmax(dim=1), labels[now])
        served += len(x)


def test_validation_split_is_stratified_disjoint_and_by_the_seed(mnist: MNISTDataModule) -> None:
    data, other = (load(ROOT / "data", val_size=6000, seed=seed, score_test=False) for seed in (0, 1))
    assert set(data.sets) == {"train", "val"}
    train, val = data.sets["train"], data.sets["val"]
    assert (len(train.rows), len(val.rows)) == (54000, 6000)
    expected = torch.tensor(TRAIN_IMAGES_PER_DIGIT) / 10
    assert (val.targets.sum(dim=0) - expected).abs().max() < 1
    assert (train.targets.sum(dim=0) + val.targets.sum(dim=0)).tolist() == TRAIN_IMAGES_PER_DIGIT
    assert train.rows.long().sum() + val.rows.long().sum() == mnist.sets["train"].rows.long().sum()
    assert torch.equal(val.rows, load(ROOT / "data", val_size=6000).sets["val"].rows)
    assert not torch.equal(val.rows, other.sets["val"].rows)


def test_without_validation_split_the_test_set_is_watched(mnist: MNISTDataModule) -> None:
    assert list(load(ROOT / "data", val_size=6000).val_dataloader()) == ["val"]
    assert list(mnist.val_dataloader()) == ["test"]
    assert list(mnist.test_dataloader()) == ["train", "test"]


@pytest.mark.parametrize("val_size", [5, 59_995])
def test_val_size_must_leave_images_of_every_class(val_size: int) -> None:
    with pytest.raises(UserError, match=r"data.val_size must be 0 or between 10 and 59990"):
        load(ROOT / "data", val_size=val_size)


def test_archives_are_unpacked(root: Path) -> None:
    load(root)
    for archive in ARCHIVES.glob("*.gz"):
        assert (root / "MNIST" / "raw" / archive.stem).read_bytes() == gzip.decompress(archive.read_bytes())
    assert len(list((root / "MNIST" / "raw").iterdir())) == 8


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)


def wrong_magic(path: Path) -> None:
    path.write_bytes(b"\0\0\x08\x02" + path.read_bytes()[4:])


@pytest.mark.parametrize("damage", [cut, flip_one_bit, wrong_magic])
def test_damaged_unpacked_file_is_repaired_from_the_archive(root: Path, damage: Callable[[Path], None]) -> None:
    load(root)
    unpacked = root / "MNIST" / "raw" / IMAGES
    whole = unpacked.read_bytes()
    damage(unpacked)
    load(root)
    assert unpacked.read_bytes() == whole


def test_missing_archive_is_downloaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "MNIST" / "raw" / f"{LABELS}.gz").unlink()

    def fetch(url: str, folder: str, md5: str) -> None:
        if "ossci" in url:
            raise OSError("this mirror is down")
        shutil.copy(ARCHIVES / Path(url).name, folder)

    monkeypatch.setattr("handgrad.training.idx_files.download_url", fetch)
    monkeypatch.setattr(
        MNISTDataModule().dataset_class, "mirrors", ["https://ossci.example/", "https://other.example/"]
    )
    load(root)
    assert (root / "MNIST" / "raw" / f"{LABELS}.gz").exists()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """World-readable folder for a test that drops root rights, since root ignores read-only permissions."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_read_only_folder_is_named_with_the_remedy(unprivileged: Path) -> None:
    raw = unprivileged / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in ARCHIVES.glob("*.gz"):
        shutil.copyfile(archive, raw / archive.name)
    raw.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with pytest.raises(UserError, match=r"cannot unpack .*Permission denied.*: make .*raw writable or point data.root"):
        load(unprivileged)


def test_two_processes_unpack_a_fresh_clone_at_the_same_time(root: Path) -> None:
    processes = [FORK_SERVER.Process(target=load, args=(root,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((root / "MNIST" / "raw").iterdir())) == 8


def test_fashion_mnist_reads_its_own_folder_and_classes(root: Path) -> None:
    """MNIST's unpacked files stand in for FashionMNIST's, which the repository does not hold."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in ARCHIVES.glob("*.gz"):
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    data = load(root, "FashionMNIST")
    assert len(data.sets["train"].rows) == 60_000
    assert data.class_names[0] == "T-shirt/top"


def packed_by_another(root: Path) -> dict[Path, bytes]:
    """Replace the archives by a user's own: same names, different content and compression."""
    raw = root / "MNIST" / "raw"
    for archive in raw.glob("*.gz"):
        content = gzip.decompress(archive.read_bytes())
        header = 16 if "idx3" in archive.name else 8
        archive.write_bytes(gzip.compress(content[:header] + content[header:][::-1], compresslevel=1, mtime=0))
    return {archive: archive.read_bytes() for archive in raw.glob("*.gz")}


def test_users_own_archives_are_used_with_a_warning_and_never_overwritten(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load(root)  # the original's content is unpacked already
    theirs = packed_by_another(root)
    monkeypatch.setattr(
        "handgrad.training.idx_files.download_url",
        lambda url, folder, md5: shutil.copy(ARCHIVES / Path(url).name, folder),
    )
    labels = load(root).sets["test"].targets.argmax(dim=1)
    assert {path: path.read_bytes() for path in theirs} == theirs
    original = load(ROOT / "data").sets["test"].targets.argmax(dim=1)
    assert torch.equal(labels, original.flip(0))
    for archive in theirs:
        assert f"{archive} is not the original archive (its checksum differs): it is used as it is" in caplog.text


def test_users_own_unpacked_file_is_renamed_and_kept(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(root)
    theirs = root / "MNIST" / "raw" / LABELS
    theirs.write_bytes(theirs.read_bytes()[:-1] + b"\x09")
    content = theirs.read_bytes()
    load(root)
    (kept,) = theirs.parent.glob(f"{LABELS}.*.kept")
    assert kept.read_bytes() == content
    assert f"unpacked again; the old file is now {kept}" in caplog.text


def test_missing_root_is_named_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/no/where/MNIST/raw/.*gz is missing and could not be downloaded"):
        load(tmp_path / "no" / "where")
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_unpacking_are_removed(root: Path) -> None:
    load(root)
    left = root / "MNIST" / "raw" / ".unpacking.abc"
    left.mkdir()
    (left.parent / ".lock").touch()
    (left / IMAGES).write_bytes(b"half")
    load(root)
    assert len(list((root / "MNIST" / "raw").iterdir())) == 8


def idx_file(values: Tensor, kind: int = 8) -> bytes:
    """An IDX file of a tensor."""
    header = bytes([0, 0, kind, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.numpy().astype(values.numpy().dtype.newbyteorder(">")).tobytes()


def own_data(root: Path, labels: Tensor, brightest: int = 255) -> None:
    """The user's own images, unpacked and without archives."""
    raw = root / "MNIST" / "raw"
    for archive in raw.glob("*.gz"):
        archive.unlink()
    images = torch.full((len(labels), 28, 28), brightest, dtype=torch.uint8)
    for name in ("train", "t10k"):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx_file(images))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx_file(labels))


FORTY = torch.arange(40, dtype=torch.uint8) % 10
PIXELS, ARE = FORTY[:, None, None], "is an IDX file of"
ALONE = [  # an unpacked file that no archive can repair, and what is said of it
    (IMAGES, b"no", "is not an IDX file"),
    (IMAGES, idx_file(FORTY), rf"{ARE} unsigned bytes, 40 \("),
    (IMAGES, idx_file(torch.zeros(40, 28, 28), 0x0D), rf"{ARE} float32, 40 x 28 x 28 \(unsigned bytes, N x 28 x 28"),
    (IMAGES, idx_file(PIXELS.expand(40, 32, 32)), f"{ARE} unsigned bytes, 40 x 32 x 32"),
    (IMAGES, idx_file(PIXELS.expand(40, 28, 28))[:-7], "is 7 bytes too short for its shape, 40 x 28 x 28"),
    (LABELS, idx_file(FORTY.int(), 0x0C), rf"{ARE} int32, 40 \(unsigned bytes, one per image, are expected\)"),
    (LABELS, idx_file(FORTY + 1), r"test labels in .*raw are not all between 0 and 9: delete"),
    (LABELS, idx_file(FORTY[:39]), r"40 images but 39 labels of the test set: delete"),
]


@pytest.mark.parametrize(("name", "content", "words"), ALONE, ids=[words for *_, words in ALONE])
def test_unusable_unpacked_file_is_described(root: Path, name: str, content: bytes, words: str) -> None:
    own_data(root, FORTY)
    (root / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"({name} )?{words}"):
        load(root)


WHOLE = (ARCHIVES / f"{LABELS}.gz").read_bytes()
DAMAGED = {
    "empty": b"",
    "garbage": b"garbage",
    "cut": WHOLE[:3000],
    "another bit": WHOLE[:3000] + bytes([WHOLE[3000] ^ 1]) + WHOLE[3001:],
    "no IDX": gzip.compress(b"no IDX"),
    "cut IDX": gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"),
}


@pytest.mark.parametrize("how", [*DAMAGED, "missing"])
def test_unusable_archive_is_named_with_the_remedy_and_not_modified(root: Path, how: str) -> None:
    archive = root / "MNIST" / "raw" / f"{LABELS}.gz"
    archive.unlink() if how == "missing" else archive.write_bytes(DAMAGED[how])
    words = "is missing and could not be downloaded" if how == "missing" else r"is damaged \(.+\)"
    with pytest.raises(UserError, match=rf"{LABELS}.gz {words}: put the original there"):
        load(root)
    assert archive.exists() == (how != "missing")
    assert how == "missing" or archive.read_bytes() == DAMAGED[how]
    assert not archive.with_suffix("").exists()


def test_class_with_one_image_cannot_be_split(root: Path) -> None:
    own_data(root, torch.cat([FORTY.clamp(max=8), FORTY[9:10]]))
    with pytest.raises(UserError, match=r"data.val_size=20 needs two examples of every class.*class 9 has one"):
        load(root, val_size=20)
    assert len(load(root).sets["train"].rows) == 41


@pytest.mark.parametrize(("brightest", "said"), [(1, True), (127, True), (200, False)])
def test_dim_images_are_said(root: Path, caplog: pytest.LogCaptureFixture, brightest: int, said: bool) -> None:
    own_data(root, FORTY, brightest)
    load(root)
    assert (f"divided by 255, but the brightest one is {brightest}" in caplog.text) == said
