"""Oracle: torch's affine_grid, scipy's gaussian_filter of white noise, pictures rolled and turned; torch.equal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from torch import Tensor

from conftest import (
    RunScript,
    compose,
    ended_at_scoring,
    head_of,
    mostly_slow,
    ran,
    record_of,
    refused,
    without_seconds,
)
from handgrad.config import RunConfig, check, to_dict
from handgrad.errors import UserError
from handgrad.identity import normalize
from handgrad.inspection.allowlist import check_part
from handgrad.training.data import DeformedExamples, EpochBatches, Examples
from handgrad.training.deform import basis, coefficients, elastic_modes, warp
from handgrad.training.mnist import MNISTDataModule
from made_runs import everything, leave_run

SIDE = (28, 28)
AFFINE = {"rotation": 10, "scale": 0.1, "shear": 10, "shift": 1}
ELASTIC = AFFINE | {"elastic": 0.8, "sigma": 4}
SHORT = ["trainer.max_epochs=3", "network.hidden_sizes=[30]", "logger=none", "schedule=constant"]


class Extreme(np.random.Generator):
    """Generator whose uniform numbers are all the largest, and whose normal numbers are 0."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def uniform(self, low: Any = 0, high: Any = 1, size: Any = None) -> Any:
        return np.full(size, float(high))

    def standard_normal(self, size: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return np.zeros(size, dtype)


def largest(picture: Tensor, **strengths: float) -> Tensor:
    """Deform a picture (H, W) by the largest angles, scales and shifts."""
    shape = (picture.shape[0], picture.shape[1])
    drawn = coefficients(Extreme(), 1, 0, **strengths)
    return warp(picture.reshape(1, -1), drawn, basis(shape, None), shape).view(shape)


PICTURE = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
BLACK = torch.zeros(7, 1)


# Of two bright pixels beside the centre of an oblong picture, and where a right angle takes them, at the same distance.
LYING, STANDING = torch.zeros(7, 5), torch.zeros(7, 5)
LYING[3, 1] = STANDING[4, 2] = 1
LYING[3, 3] = STANDING[2, 2] = 0.5


@pytest.mark.parametrize(
    ("picture", "strengths", "expected"),
    [
        (PICTURE, {}, PICTURE),
        (PICTURE, {"shift": 1}, torch.cat([torch.cat([PICTURE[1:, 1:], torch.zeros(1, 4)]), BLACK], dim=1)),
        (PICTURE[:5], {"rotation": 90}, torch.rot90(PICTURE[:5])),
        (LYING, {"rotation": 90}, STANDING),
    ],
    ids=["none", "shift along both axes", "square", "oblong"],
)
def test_largest_deformation_is_that_of_the_strength(
    picture: Tensor, strengths: dict[str, float], expected: Tensor
) -> None:
    tolerance = 1e-5 if "rotation" in strengths else 1e-6
    torch.testing.assert_close(largest(picture, **strengths), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(28, 28), (12, 20)])
def test_affine_maps_match_affine_grid(shape: tuple[int, int]) -> None:
    """The map as rotation times shear times scaling, in pixels, then in affine_grid's coordinates."""
    height, width = shape
    pictures = torch.rand(50, 1, *shape, generator=torch.Generator().manual_seed(1))
    t, u, s_x, s_y, d_x, d_y = np.random.default_rng(5).uniform(-1, 1, (6, 50))
    t, u = np.deg2rad(30) * t, np.deg2rad(20) * u
    one, zero = np.ones(50), np.zeros(50)

    def matrices(*rows: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.stack(row, -1) for row in rows], 1)

    turned = matrices([np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)])
    sheared, scaled = matrices([one, np.tan(u)], [zero, one]), matrices([1 + 0.2 * s_x, zero], [zero, 1 + 0.2 * s_y])
    to_pixels = np.diag([width / 2, height / 2])
    square = np.linalg.inv(to_pixels) @ turned @ sheared @ scaled @ to_pixels
    shifted = np.linalg.inv(to_pixels) @ np.stack([3 * d_x, 3 * d_y], -1)[..., None]
    theta = torch.from_numpy(np.concatenate([square, shifted], 2)).float()
    grid = torch.nn.functional.affine_grid(theta, list(pictures.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(pictures, grid, align_corners=False)
    drawn = coefficients(np.random.default_rng(5), 50, 0, rotation=30, scale=0.2, shear=20, shift=3)
    found = warp(pictures.flatten(1), drawn, basis(shape, None), shape)
    torch.testing.assert_close(found, expected.flatten(1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "sigma"), [(28, 4.0), (28, 1.0), (8, 2.0), (40, 6.0)])
def test_elastic_modes_keep_the_covariance_of_smoothed_noise(size: int, sigma: float) -> None:
    at = np.arange(size)
    covariance = np.exp(-((at[:, None] - at) ** 2) / (4 * sigma**2))
    modes = elastic_modes(size, sigma).numpy()
    left = np.linalg.eigvalsh(covariance - modes @ modes.T)
    assert left.min() > -1e-9
    assert left.sum() <= 0.001 * size  # of a variance of 1 per pixel
    one_less = covariance - modes[:, :-1] @ modes[:, :-1].T
    assert np.trace(one_less) > 0.001 * size
    assert elastic_modes(28, 4.0).shape == (28, 7)


def test_elastic_field_is_distributed_as_simards() -> None:
    """Correlation over the distance in pixels, along each axis, against white noise that scipy smooths."""
    noise = gaussian_filter(np.random.default_rng(0).uniform(-1, 1, (1500, 1500)), 4, mode="wrap")
    drawn = coefficients(np.random.default_rng(1), 4000, 49, elastic=0.8)
    drawn[:, :, :3] = 0
    fields = (drawn.flatten(0, 1) @ basis(SIDE, 4.0)).view(4000, 2, *SIDE)
    assert fields.square().mean((0, 2, 3)).sqrt().tolist() == pytest.approx([0.8, 0.8], rel=0.01)
    assert abs((fields[:, 0] * fields[:, 1]).mean().item()) < 0.01  # along x and along y independent
    for apart in (1, 2, 4, 6, 9):
        expected = (noise * np.roll(noise, apart, 0)).mean() / np.square(noise).mean()
        for axis in (2, 3):
            near, far = (fields.narrow(axis, start, 28 - apart) for start in (0, apart))
            assert (near * far).mean().item() / 0.64 == pytest.approx(expected, abs=0.02)


def deformed(pictures: Examples, batch_size: int, epoch: int = 0, seed: int = 0, processes: int = 1) -> Tensor:
    """Return all pictures of an epoch in the order of the set, as training gets them in batches."""
    found = torch.full((len(pictures), 784), torch.nan)
    for process in range(processes):
        sampler = EpochBatches(len(pictures), batch_size, seed, processes, process)
        examples = DeformedExamples(pictures, SIDE, sampler, seed, **ELASTIC)
        sampler.set_epoch(epoch)
        for indices in sampler:
            found[indices], targets = examples[indices]
            assert targets.equal(pictures.targets[indices])
    return found


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_batch_size_and_processes_change_no_bit(images_640: Examples, precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    try:
        whole = deformed(images_640, 640)
        assert not whole.isnan().any()
        for batch_size in (64, 33, 1):
            assert deformed(images_640, batch_size).equal(whole)
        for batch_size in (32, 33):  # the second leaves one process a batch of its own size
            assert deformed(images_640, batch_size, processes=2).equal(whole)
        assert deformed(head_of(images_640, 3), 2, processes=3).shape == (3, 784)  # one process gets no picture
    finally:
        torch.set_float32_matmul_precision("highest")


def test_deformation_depends_on_seed_epoch_and_picture(images_640: Examples) -> None:
    first = deformed(images_640, 64)
    assert first.equal(deformed(images_640, 64))
    for other in (deformed(images_640, 64, epoch=1), deformed(images_640, 64, seed=1)):
        assert (first != other).any(dim=1).all()
    same = Examples(images_640.rows[:1].repeat(20, 1), images_640.targets[:1].repeat(20, 1))
    assert len({tuple(row) for row in deformed(same, 64).tolist()}) == 20
    assert 0.02 < (first - images_640.rows / 255).abs().mean() < 0.1
    assert 0 <= first.min() <= first.max() <= 1.00001


def test_a_loader_knows_its_epoch_and_scoring_sees_the_images_as_they_are(tiny_mnist: Path) -> None:
    plain, data = (
        MNISTDataModule(root=str(tiny_mnist), val_size=280, deform=deform, seed=3) for deform in (None, ELASTIC)
    )
    for each in (plain, data):
        each.setup()
    assert type(plain.train_dataloader().dataset) is Examples
    assert all(data.sets[name].rows.equal(plain.sets[name].rows) for name in ("train", "val", "test"))
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    order = torch.cat(list(loader.sampler))
    served = torch.cat([x for x, _ in loader])
    assert served.equal(deformed(data.sets["train"], 64, epoch=2, seed=3)[order])
    for name, scored in (data.val_dataloader() | data.test_dataloader()).items():
        assert torch.cat([x for x, _ in scored]).equal(data.sets[name].rows / 255)


@pytest.mark.parametrize("engine", mostly_slow(["manual", "autograd"], always=1))
@pytest.mark.usefixtures("drawn")
def test_resumed_run_equals_the_uninterrupted_one(run_script: RunScript, engine: str) -> None:
    options = [*SHORT, f"engine={engine}", "data/deform=elastic", "trainer.precision=64-true"]
    with ended_at_scoring(2):
        assert run_script(*options, "hydra.run.dir=killed")[0] == 143
    printed = ran(run_script, *options, "hydra.run.dir=killed")
    assert "resuming from" in printed
    assert run_script(*options, "hydra.run.dir=whole")[0] == 0
    assert without_seconds("killed") == without_seconds("whole")
    assert record_of(Path("killed"))["metrics"] == record_of(Path("whole"))["metrics"]
    assert record_of(Path("whole"))["choices"]["data/deform"] == "elastic"
    assert Path("killed", "deformed.png").read_bytes() == Path("whole", "deformed.png").read_bytes()
    with Image.open(Path("whole", "deformed.png")) as picture:
        assert picture.width > 600
    printed = ran(run_script, "run=whole", script="evaluate.py")
    assert printed.count("the same") == 4  # as recorded


def test_overfit_batches_are_not_deformed(tiny_mnist: Path) -> None:
    data = MNISTDataModule(root=str(tiny_mnist), deform=ELASTIC)
    data.setup()
    data.trainer = type("Overfitting", (), {"overfit_batches": 3, "world_size": 1, "global_rank": 0})()
    x, _ = next(iter(data.train_dataloader()))
    assert x.equal(data.sets["train"].rows[:64] / 255)


def test_digits_of_an_archive_are_deformed(run_script: RunScript) -> None:
    x, y = load_digits(return_X_y=True)
    np.savez("digits.npz", x=x.reshape(-1, 8, 8) / 16, y=y)
    data = ["data=arrays", "data.path=digits.npz"]
    milder = ["data.deform.sigma=2", "data.deform.elastic=0.3", "data.deform.shift=0.3"]
    options = [*data, "data/deform=elastic", *milder, "engine=autograd", "trainer.max_epochs=5"]
    ran(run_script, *options, "hydra.run.dir=run", "logger=none")
    assert record_of(Path("run"))["metrics"]["test/accuracy"] > 0.8
    ran(run_script, "run=run", script="evaluate.py")
    np.savez("vectors.npz", x=x, y=y)
    sentence = "data.deform is for grey pictures, and the rows of vectors.npz are not: leave out"
    refused(run_script, sentence, "data=arrays", "data.path=vectors.npz", "data/deform=affine", "hydra.run.dir=refused")


def composed(*overrides: str) -> dict[str, Any]:
    config = to_dict(compose("name=x", *overrides))
    check(config, RunConfig)
    return config


def test_a_run_recorded_before_there_were_deformations_is_one_without() -> None:
    config = composed("data/deform=none")
    older = config | {"data": {key: value for key, value in config["data"].items() if key != "deform"}}
    assert normalize(older) == normalize(config) == normalize(composed())
    assert normalize(older) != normalize(composed("data/deform=affine"))
    assert composed("data=fashion_mnist", "data/deform=elastic")["data"]["deform"] == ELASTIC
    check_part("data", config["data"], "a file")
    check_part("data", composed("data/deform=elastic")["data"], "a file")
    with pytest.raises(UserError, match=r"deform.shift=-1: must be >= 0"):
        check_part("data", config["data"] | {"deform": {"shift": -1}}, "a file")


def test_comparison_has_deformations_as_one_axis_and_older_runs_among_those_without(tmp_path: Path) -> None:
    config = {name: composed(f"data/deform={name}") for name in ("none", "affine", "elastic")}
    older = config["none"] | {"data": {key: value for key, value in config["none"]["data"].items() if key != "deform"}}
    choices = {"activation": "relu", "engine": "manual", "regularizer": "none"}
    for seed, accuracy in enumerate((0.95, 0.951, 0.949)):
        for name, better in (("none", 0), ("affine", 0.02), ("elastic", 0.02)):
            new: dict[str, Any] = {"config": config[name], "choices": choices | {"data/deform": name}}
            if (name, seed) == ("none", 0):
                new = {"config": older, "choices": choices}
            leave_run(tmp_path / f"{name}-{seed}", accuracy + better, seed, **new)
    comparison, cells, _, _ = everything(tmp_path)
    assert comparison.varying == ["deform"]
    assert set(cells.deform) == {"none", "affine", "elastic"}
    assert cells.completed.tolist() == [3, 3, 3]
    assert not comparison.follows
    assert {label.split()[-1] for label in cells.label} == {"deform=none", "deform=affine", "deform=elastic"}
