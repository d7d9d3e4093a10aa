"""MNIST and its drop-in replacements, from their four IDX files."""

import logging
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from handgrad.errors import UserError
from handgrad.training.data import ClassificationData, Examples
from handgrad.training.idx_files import LOCK, SCRATCH, SIDE, ensure_unpacked, is_complete, unpack_lock

log = logging.getLogger(__name__)

INPUTS, CLASSES = SIDE * SIDE, 10
DIM = 128  # a brightest pixel below this is not that of images from 0 to 255


class MNISTDataModule(ClassificationData):
    """Data module of images (784,) in [0, 1] in ten classes.

    Args:
        dataset: class of `torchvision.datasets` with MNIST's four files, e.g. "FashionMNIST".
        root: folder of `<dataset>/raw/` with the four archives; missing ones are downloaded there.
        shared: arguments of `ClassificationData`.

    Raises:
        UserError: from `prepare_data` and `setup`: a file is missing, damaged or has the wrong content.
    """

    inputs = INPUTS
    image_shape = (SIDE, SIDE)

    def __init__(self, dataset: str = "MNIST", root: str = "data", **shared: Any) -> None:
        super().__init__(**shared)
        self.dataset = dataset
        self.dataset_class: type[datasets.MNIST] = getattr(datasets, dataset)
        self.class_names = [name.split(" - ")[0] for name in self.dataset_class.classes]  # "0" ... "9" for the digits
        self.root = root
        self.prepared = False

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

    def read(self, name: str) -> Examples:
        """Read the images (N, 784) as bytes and the labels (N, 10) as one-hot float."""
        train = name == "train"
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
        targets = torch.nn.functional.one_hot(dataset.targets, CLASSES).float()
        return Examples(dataset.data.view(-1, self.inputs), targets)
