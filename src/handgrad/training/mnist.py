"""MNIST and its relatives, from the IDX files of `torchvision.datasets`."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from handgrad.errors import UserError
from handgrad.training.data import ClassificationData, Examples
from handgrad.training.idx_files import LOCK, SCRATCH, SIDE, ensure_unpacked, is_complete, unpack_lock

log = logging.getLogger(__name__)

INPUTS = SIDE * SIDE
AS_THEY_ARE = ("QMNIST", "EMNIST")  # other file names than MNIST's: neither unpacked nor downloaded
DIM = 128  # a brightest pixel below this is not that of images from 0 to 255


class MNISTDataModule(ClassificationData):
    """Data module of images (784,) in [0, 1], from a class of `torchvision.datasets` with MNIST's four files.

    Missing archives of `<dataset>/raw/` are downloaded there, except for QMNIST and EMNIST, whose unpacked files must
    be there. EMNIST's splits, "balanced" (47 classes), "letters" (26) and "digits", are published lying on their side,
    and are turned upright. UserError: only EMNIST has splits; from `prepare_data` and `setup`: a file is missing,
    damaged or has the wrong content.
    """

    inputs = INPUTS
    image_shape = (SIDE, SIDE)

    def __init__(self, dataset: str = "MNIST", root: str = "data", split: str | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.dataset = dataset
        self.dataset_class: type[datasets.MNIST] = getattr(datasets, dataset)
        if (split is not None) != (dataset == "EMNIST"):
            raise UserError(
                f"data.dataset={dataset}, data.split={split}: splits are EMNIST's, data=emnist data.split=letters"
            )
        names = datasets.EMNIST.classes_split_dict[split] if split else self.dataset_class.classes
        self.class_names = [name.split(" - ")[0] for name in names if name != "N/A"]  # "0" ... "9" for the digits
        self.options = {"split": split} if split else {}
        self.root = root
        self.prepared = False

    def prepare_data(self) -> None:
        """Verify and unpack the four files and download missing archives; a second call does nothing."""
        if self.prepared or self.dataset in AS_THEY_ARE:
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
        """Read the images (N, 784) as bytes and the labels (N, C) as one-hot float."""
        train = name == "train"
        folder = Path(self.root, self.dataset_class.__name__, "raw").absolute()
        images, labels = self.images_and_labels(train, folder)
        if len(images) != len(labels):
            raise UserError(
                f"{folder} holds {len(images)} images but {len(labels)} labels of the "
                f"{'training' if train else 'test'} set: delete the folder's unpacked files (those without .gz)"
            )
        classes = len(self.class_names)
        if not labels.numel() or labels.min() < 0 or labels.max() >= classes:
            raise UserError(
                f"the {'training' if train else 'test'} labels in {folder} are not all between 0 and {classes - 1}: "
                "delete the folder's unpacked files (those without .gz) and put the original archives there"
            )
        if (brightest := int(images.max())) < DIM:
            log.warning(
                "pixels in %s are divided by 255, but the brightest one is %d",
                folder,
                brightest,
            )
        targets = torch.nn.functional.one_hot(labels, classes).float()
        return Examples(images.reshape(-1, self.inputs), targets)

    def images_and_labels(self, train: bool, folder: Path) -> tuple[Tensor, Tensor]:
        """Read the images (N, 28, 28), upright, and the labels (N,), from 0."""
        try:
            found = self.dataset_class(self.root, train=train, **self.options)
        except Exception as error:
            if self.dataset not in AS_THEY_ARE:
                raise
            arguments = "".join(f"{key}={value!r}, " for key, value in {"root": self.root, **self.options}.items())
            raise UserError(
                f"{folder} has no usable files of {self.dataset} ({error}): "
                f"torchvision.datasets.{self.dataset}({arguments}download=True) puts them there"
            ) from error
        if self.dataset == "QMNIST":
            return found.data, found.targets[:, 0]  # the other columns say who wrote it, and where
        if self.dataset == "EMNIST":
            log.info("EMNIST's images, published lying on their side, are turned upright")
            return found.data.transpose(1, 2), found.targets - int(self.options["split"] == "letters")  # 1 is a
        return found.data, found.targets
