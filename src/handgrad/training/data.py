"""MNIST and its drop-in replacements with one-hot labels, as a LightningDataModule that keeps all images in memory."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from handgrad.errors import UserError
from handgrad.nn.mlp import CLASSES, INPUTS
from handgrad.training.idx_files import LOCK, SCRATCH, ensure_unpacked, is_complete, unpack_lock

log = logging.getLogger(__name__)

DIM = 128  # a brightest pixel below this is not that of images from 0 to 255
SCORING_BATCH_SIZE = 2000  # scoring needs no small batches

Batch = tuple[Tensor, Tensor]  # x: (B, 784) float in [0, 1], y: (B, 10) one-hot float


PURPOSES = {"order": ()}  # purpose of random numbers: extra seed words; () keeps the order of older runs


def make_generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """Make an epoch's random generator for one purpose, the same in every process and after a resume.

    Args:
        seed: seed of the run.
        purpose: a key of `PURPOSES`.
        epoch: epoch, from 0.
    """
    mixed = np.random.SeedSequence([seed, epoch, *PURPOSES[purpose]]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


class Images(Dataset[Batch]):
    """In-memory dataset of images and targets, indexed by whole batches.

    Args:
        images: (N, 784) bytes; returned as float in [0, 1].
        targets: (N, 10) one-hot float.
    """

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> Batch:
        return self.images.index_select(0, indices) / 255, self.targets.index_select(0, indices)


class EpochBatches(SequentialSampler):
    """Batch sampler that yields index tensors, shuffled by (seed, epoch) only.

    Lightning calls `set_epoch` before every epoch, also after a resume. Subclasses `SequentialSampler` because with
    `overfit_batches` Lightning replaces any other sampler by one of single examples.

    Args:
        examples: number of examples N.
        batch_size: examples per batch and process; the last batch may be smaller.
        seed: shuffles by (seed, epoch); None keeps the order.
        processes: world size; the concatenated shares of all ranks are the batches of `processes * batch_size` that a
            single process would get.
        process: rank of this process.
    """

    def __init__(
        self, examples: int, batch_size: int, seed: int | None = None, processes: int = 1, process: int = 0
    ) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.processes, self.process = processes, process
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return the (N,) example indices in this epoch's order."""
        if self.seed is None:
            return torch.arange(self.examples)
        return torch.randperm(self.examples, generator=make_generator(self.seed, "order", self.epoch))

    def __len__(self) -> int:
        return -(-self.examples // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        for whole in torch.split(self.order(), self.batch_size * self.processes):
            yield whole.tensor_split(self.processes)[self.process]


def make_loader(
    images: Images, batch_size: int, seed: int | None = None, processes: int = 1, process: int = 0
) -> DataLoader[Batch]:
    """Make a loader of whole batches, without per-sample collation; arguments as for `EpochBatches`."""
    sampler = EpochBatches(len(images), batch_size, seed, processes, process)
    return DataLoader(images, batch_size=None, sampler=sampler, collate_fn=tuple)


class MNISTDataModule(LightningDataModule):
    """Data module with batches (x: (B, 784) float in [0, 1], y: (B, 10) one-hot float).

    Args:
        dataset: class of `torchvision.datasets` with MNIST's four files, e.g. "FashionMNIST".
        root: folder of `<dataset>/raw/` with the four archives; missing ones are downloaded there.
        batch_size: examples per training batch and process.
        val_size: number of training images held out for validation, stratified by class; 0 for none.
        score_test: whether to score the test set; false during model selection on the validation set.
        seed: seed of the shuffling and the validation split.

    Raises:
        UserError: from `prepare_data` and `setup`: a file is missing, damaged or has the wrong content, or val_size
            leaves fewer images than classes on one side of the split.
    """

    def __init__(
        self,
        dataset: str = "MNIST",
        root: str = "data",
        batch_size: int = 64,
        val_size: int = 0,
        seed: int = 0,
        score_test: bool = True,
    ) -> None:
        super().__init__()
        self.dataset_class: type[datasets.MNIST] = getattr(datasets, dataset)
        self.root = root
        self.batch_size = batch_size
        self.val_size = val_size
        self.seed = seed
        self.score_test = score_test
        self.prepared = False
        self.sets: dict[str, Images] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the ten classes; "0" ... "9" for the digits."""
        return [name.split(" - ")[0] for name in self.dataset_class.classes]

    def prepare_data(self) -> None:
        """Verify and unpack the four files and download missing archives; a second call does nothing."""
        if self.prepared:
            return
        raw = Path(self.root, self.dataset_class.__name__, "raw").absolute()
        archives = {raw / url: md5 for url, md5 in self.dataset_class.resources}
        for archive, md5 in archives.items():
            if archive.exists() and not check_integrity(archive, md5):
                log.warning("%s is not the original archive (its checksum differs): it is used as it is", archive)
        left = [*raw.glob(f"{SCRATCH}*"), *raw.glob(LOCK)]  # of a killed or running process
        if left or not all(is_complete(path.with_suffix(""), path) for path in archives):
            with unpack_lock(raw):
                for archive, md5 in archives.items():
                    ensure_unpacked(archive, md5, self.dataset_class.mirrors)
        self.prepared = True

    def setup(self, stage: str | None = None) -> None:
        """Read both sets into memory and split off the validation images; a second call does nothing."""
        if self.sets:
            return
        if not self.score_test and not self.val_size:
            raise UserError("data.score_test=false leaves nothing to score: hold images out with data.val_size=6000")
        images, targets = self._read(train=True)
        if self.val_size:
            kept, held_out = self._split(targets)
            self.sets["val"] = Images(images[held_out], targets[held_out])
            images, targets = images[kept], targets[kept]
        self.sets["train"] = Images(images, targets)
        if self.score_test:
            self.sets["test"] = Images(*self._read(train=False))

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Read the images (N, 784) as bytes and the labels (N, 10) as one-hot float."""
        dataset = self.dataset_class(self.root, train=train)
        folder = Path(dataset.raw_folder).absolute()
        if len(dataset.data) != len(dataset.targets):
            raise UserError(
                f"{folder} holds {len(dataset.data)} images but {len(dataset.targets)} labels of the "
                f"{'training' if train else 'test'} set: delete the folder's unpacked files (those without .gz)"
            )
        if not dataset.targets.numel() or dataset.targets.max() >= CLASSES:
            raise UserError(
                f"the {'training' if train else 'test'} labels in {folder} are not all between 0 and 9: "
                "delete the folder's unpacked files (those without .gz) and put the original archives there"
            )
        if (brightest := int(dataset.data.max())) < DIM:
            log.warning(
                "the brightest pixel in %s is %d: MNIST's is 255, by which pixels are divided",
                folder,
                brightest,
            )
        return dataset.data.view(-1, INPUTS), torch.nn.functional.one_hot(dataset.targets, CLASSES).float()

    def _split(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the indices of the training and validation images, stratified by class."""
        from sklearn.model_selection import train_test_split  # takes a second to import

        labels = targets.argmax(dim=1)
        if not CLASSES <= self.val_size <= len(labels) - CLASSES:
            raise UserError(
                f"data.val_size must be 0 or between {CLASSES} and {len(labels) - CLASSES} "
                f"({len(labels)} training images in {CLASSES} classes), not {self.val_size}"
            )
        counts = torch.bincount(labels, minlength=CLASSES)
        if rare := [str(number) for number in range(CLASSES) if counts[number] == 1]:
            raise UserError(
                f"data.val_size={self.val_size} needs two images of every class, one to train on and one to hold out: "
                f"class {', '.join(rare)} has one; add images of it or use data.val_size=0"
            )
        kept, held_out = train_test_split(
            torch.arange(len(labels)).numpy(), test_size=self.val_size, stratify=labels.numpy(), random_state=self.seed
        )
        return torch.from_numpy(kept), torch.from_numpy(held_out)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Make the shuffled training loader; with `overfit_batches`, the same batches in every epoch."""
        overfit = getattr(self.trainer, "overfit_batches", 0)
        return self._loader("train", self.batch_size, None if overfit else self.seed)

    def val_dataloader(self) -> dict[str, DataLoader[Batch]]:
        """Make the loader of the set scored after every epoch: "val" if one is held out, else "test"."""
        name = "val" if self.val_size else "test"
        return {name: self._loader(name)}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch directly: Lightning's search for tensors takes longer than the move."""
        x, y = batch
        return x.to(device, non_blocking=True), y.to(device, non_blocking=True)

    def test_dataloader(self) -> dict[str, DataLoader[Batch]]:
        """Make an unshuffled large-batch loader of every set, for the final scoring."""
        return {name: self._loader(name) for name in self.sets}

    def _loader(self, name: str, batch_size: int = SCORING_BATCH_SIZE, seed: int | None = None) -> DataLoader[Batch]:
        """Make a loader of a set, with this process's share in distributed training."""
        together = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return make_loader(self.sets[name], batch_size, seed, *together)
