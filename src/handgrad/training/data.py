"""Data sets in memory with one-hot targets: batches, and `ClassificationData`, the base class of data modules."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from handgrad.errors import UserError
from handgrad.training.deform import basis, coefficients, warp

SCORING_BATCH_SIZE = 2000  # scoring needs no small batches

Batch = tuple[Tensor, Tensor]  # x: (B, I) float, y: (B, C) one-hot float


# Purpose of random numbers: extra seed words; () keeps the order of older runs.
PURPOSES = {"order": (), "network": (1,), "dropout": (2,), "deform": (3,)}


def seed_sequence(seed: int, purpose: str, epoch: int) -> np.random.SeedSequence:
    """Return the entropy of `make_generator`, for a generator of numpy."""
    return np.random.SeedSequence([seed, epoch, *PURPOSES[purpose]])


def make_generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """Make an epoch's (or batch's) generator for a purpose, the same in every process and after a resume."""
    mixed = seed_sequence(seed, purpose, epoch).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


class Examples(Dataset[Batch]):
    """In-memory dataset of rows (N, I), floats, or bytes of pictures divided by 255, and one-hot targets (N, C)."""

    def __init__(self, rows: Tensor, targets: Tensor) -> None:
        self.rows = rows
        self.targets = targets
        self.divisor = 255 if rows.dtype == torch.uint8 else 1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Tensor) -> Batch:
        return self.rows.index_select(0, indices) / self.divisor, self.targets.index_select(0, indices)

    def first(self, count: int, like: Tensor | None = None) -> Batch:
        """Return the first examples, on the device and in the precision of a tensor."""
        x, y = self.rows[:count], self.targets[:count]
        return (x / self.divisor, y) if like is None else (x.to(like) / self.divisor, y.to(like))


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


class DeformedExamples(Examples):
    """Pictures that are deformed anew in every epoch.

    A deformation is a function of (seed, epoch, number of the picture in the set), so that batch size, number of
    processes and resuming do not change it.

    Args:
        pictures: the training set.
        shape: (H, W) of the pictures.
        sampler: the loader's sampler, whose epoch Lightning sets.
        seed: seed of the deformations.
        sigma: deviation of the elastic fields' smoothing, in pixels.
        strengths: elastic, rotation, scale, shear and shift, as for `deform.coefficients`.
    """

    def __init__(
        self,
        pictures: Examples,
        shape: tuple[int, int],
        sampler: EpochBatches,
        seed: int,
        sigma: float = 4.0,
        **strengths: float,
    ) -> None:
        super().__init__(pictures.rows, pictures.targets)
        self.shape, self.sampler, self.seed, self.strengths = shape, sampler, seed, strengths
        self.basis = basis(shape, sigma if strengths.get("elastic") else None)
        self.drawn_for = -1  # epoch of the coefficients

    def __getitem__(self, indices: Tensor) -> Batch:
        x, y = super().__getitem__(indices)
        if self.drawn_for != self.sampler.epoch:
            self.drawn_for = self.sampler.epoch
            rng = np.random.Generator(np.random.SFC64(seed_sequence(self.seed, "deform", self.drawn_for)))
            self.drawn = coefficients(rng, len(self), len(self.basis) - 3, **self.strengths)
        return warp(x, self.drawn.index_select(0, indices), self.basis, self.shape), y


def make_loader(
    examples: Examples, batch_size: int, seed: int | None = None, processes: int = 1, process: int = 0
) -> DataLoader[Batch]:
    """Make a loader of whole batches, without per-sample collation; arguments as for `EpochBatches`."""
    sampler = EpochBatches(len(examples), batch_size, seed, processes, process)
    return DataLoader(examples, batch_size=None, sampler=sampler, collate_fn=tuple)


def stratified(labels: np.ndarray, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the indices of the examples to keep and of those to hold out, stratified by their classes."""
    from sklearn.model_selection import train_test_split  # takes a second to import

    kept, out = train_test_split(np.arange(len(labels)), test_size=held_out, stratify=labels, random_state=seed)
    return kept, out


class ClassificationData(LightningDataModule):
    """Base class of every data module: examples in memory with one-hot targets. A subclass implements `read`.

    dataset: name of the data.
    inputs: numbers per example; known after `setup`, as `class_names`.
    class_names: names of the classes.
    image_shape: (H, W) of examples that are grey pictures, bytes or from 0, black, to 1, white; else None.

    Args:
        batch_size: examples per training batch and process.
        val_size: number of training examples held out for validation, stratified by class; 0 for none.
        score_test: whether to score the test set; false during model selection on the validation set.
        seed: seed of the shuffling, the validation split and the deformations.
        deform: strengths by which training pictures are deformed, as for `DeformedExamples`; None: not at all. Scoring
            and `overfit_batches` use the pictures as they are.
    """

    dataset = "data"
    inputs: int
    class_names: list[str]
    image_shape: tuple[int, int] | None = None

    def __init__(
        self,
        batch_size: int = 64,
        val_size: int = 0,
        seed: int = 0,
        score_test: bool = True,
        deform: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_size = val_size
        self.seed = seed
        self.score_test = score_test
        self.deform = deform
        self.sets: dict[str, Examples] = {}

    def read(self, name: str) -> Examples:
        """Read the set "train" or "test"."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read all sets into memory; a second call does nothing."""
        if self.sets:
            return
        if not self.score_test and not self.val_size:
            raise UserError("data.score_test=false leaves nothing to score: hold examples out with data.val_size=6000")
        self.sets = self.read_sets()

    def read_sets(self) -> dict[str, Examples]:
        """Read the training and test set, and split off the validation examples."""
        sets, train = dict[str, Examples](), self.read("train")
        if self.val_size:
            kept, held_out = self._split(train.targets.argmax(dim=1).numpy())
            sets["val"] = Examples(train.rows[held_out], train.targets[held_out])
            train = Examples(train.rows[kept], train.targets[kept])
        sets["train"] = train
        if self.score_test:
            sets["test"] = self.read("test")
        return sets

    def new_rows(self, path: Path) -> Tensor:
        """Read (N, I) new examples from a file; only data that come from a file can."""
        raise UserError(f"rows=...: the network takes pictures of {self.dataset}: use images=...")

    def classes_with(self, count: int, labels: np.ndarray) -> list[str]:
        """Return the names of the classes that have this many examples."""
        counts = np.bincount(labels, minlength=len(self.class_names))
        return [self.class_names[number] for number in np.flatnonzero(counts == count)]

    def _split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the indices of the training and validation examples, stratified by class."""
        classes = len(self.class_names)
        if not classes <= self.val_size <= len(labels) - classes:
            raise UserError(
                f"data.val_size must be 0 or between {classes} and {len(labels) - classes} "
                f"({len(labels)} training examples in {classes} classes), not {self.val_size}"
            )
        if rare := self.classes_with(1, labels):
            raise UserError(
                f"data.val_size={self.val_size} needs two examples of every class, one to train on, one to hold out: "
                f"class {', '.join(rare)} has one; add examples of it or use data.val_size=0"
            )
        return stratified(labels, self.val_size, self.seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Make the training loader, shuffled and deformed; with `overfit_batches`, the same batches in every epoch.

        Raises:
            UserError: the examples to deform are not pictures.
        """
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit or not self.deform:
            return self._loader("train", self.batch_size, None if overfit else self.seed)
        if not self.image_shape:
            raise UserError(
                f"data.deform is for grey pictures, and the rows of {self.dataset} are not: leave out data/deform=..."
            )
        train = self.sets["train"]
        sampler = EpochBatches(len(train), self.batch_size, self.seed, *self._processes())
        pictures = DeformedExamples(train, self.image_shape, sampler, self.seed, **self.deform)
        return DataLoader(pictures, batch_size=None, sampler=sampler, collate_fn=tuple)

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
        return make_loader(self.sets[name], batch_size, seed, *self._processes())

    def _processes(self) -> tuple[int, int]:
        """Return the number of processes that train together, and this one's rank."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
