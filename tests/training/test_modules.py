"""Oracle: the autograd engine, plain torch.optim, and the notebook's update reimplemented here; float64."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LinearLR, OneCycleLR, ReduceLROnPlateau

from conftest import head_of, mostly_slow
from fitting import OPTIMIZERS, Engine, fit, make
from handgrad.errors import UserError
from handgrad.nn.activations import Activation, ReLU, Sigmoid, Tanh
from handgrad.nn.backprop import FactoredGradient
from handgrad.nn.mlp import MLP
from handgrad.nn.optimizers import FactoredSGD, grouped_sgd
from handgrad.nn.regularizers import Regularizer
from handgrad.training.data import Examples, make_loader
from handgrad.training.manual import ManualModule
from handgrad.training.modules import AutogradModule, Classifier, Scores
from handgrad.training.schedules import constant, warmup_cosine

NOTEBOOK_SGD = partial(FactoredSGD, lr=0.01, weight_reduction="sum")


def agree(modules: Sequence[Classifier], images: Examples, epochs: int, atol: float = 1e-10, **options: Any) -> None:
    """Train modules alike; assert that equally many steps lead them to the same weights and losses."""
    assert len({fit(module, images, epochs, **options).global_step for module in modules}) == 1
    for other in modules[1:]:
        torch.testing.assert_close(other.state_dict(), modules[0].state_dict(), rtol=0, atol=atol)
        torch.testing.assert_close(other.mean_train_loss(), modules[0].mean_train_loss(), rtol=0, atol=atol)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("regularizer", [Regularizer(), Regularizer(1e-3)], ids=["none", "l2"])
@pytest.mark.parametrize("phi", [Sigmoid(), ReLU(), Tanh()], ids=lambda phi: type(phi).__name__)
def test_engines_agree_for_100_steps(
    images_640: Examples, phi: Activation, regularizer: Regularizer, optimizer: str
) -> None:
    changes = {"regularizer": regularizer, "optimizer": OPTIMIZERS[optimizer]}
    manual, autograd = make(ManualModule, phi, **changes), make(AutogradModule, phi, **changes)
    start = [parameter.detach().double() for parameter in manual.network.parameters()]
    agree([manual, autograd], images_640, epochs=10)
    assert manual.trainer.global_step == 100
    moved = [(a - b).abs().max() for a, b in zip(manual.network.parameters(), start, strict=True)]
    assert min(moved) > 1e-6


PARTS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": [0.1, 0.2, 0.3, 0.4]},
    "smoothing": {"smoothing": 0.1},
    "adversarial": {"adversarial": 0.5},
    "skip": {},
}
PAIRS = [pair for pair in combinations(PARTS, 2) if "skip" not in pair or "dropout" in pair]
ALONE_OR_PAIRED = mostly_slow([*((part,) for part in PARTS), *PAIRS], always=len(PARTS))


@pytest.mark.parametrize("phi", [ReLU(), Tanh()], ids=lambda phi: type(phi).__name__)
@pytest.mark.parametrize("parts", ALONE_OR_PAIRED, ids="-".join)
@pytest.mark.parametrize("nesterov", mostly_slow([True, False], always=1), ids=["nesterov", "plain"])
def test_engines_agree_with_every_regularization(
    images_640: Examples, nesterov: bool, parts: Sequence[str], phi: Activation
) -> None:
    """Alone and in pairs, with the penalty; autograd moves the examples by its own gradient of the inputs."""
    given: Any = {"strength": 1e-3} | {key: value for part in parts for key, value in PARTS[part].items()}
    momentum: Any = {"momentum": 0.9, "nesterov": True} if nesterov else {}
    skip = 0.85 if "skip" in parts else 0.0  # of an untrained network this leaves about half of the examples out
    modules = [
        make(
            engine, phi, regularizer=Regularizer(**given), skip=skip, optimizer=partial(optimizer, lr=0.05, **momentum)
        )
        for engine, optimizer in ((ManualModule, FactoredSGD), (AutogradModule, SGD))
    ]
    plain = make(ManualModule, phi, regularizer=Regularizer(1e-3), optimizer=partial(FactoredSGD, lr=0.05, **momentum))
    for module in (*modules, plain):
        module.save_hyperparameters({"seed": 0}, logger=False)
    agree(modules, images_640, epochs=10)
    manual, autograd = modules
    assert fit(plain, images_640, epochs=10).global_step == manual.trainer.global_step == 100
    assert max((a - b).abs().max() for a, b in zip(manual.parameters(), plain.parameters(), strict=True)) > 1e-4
    assert manual.skipped_share() == autograd.skipped_share()
    if skip:
        assert 0 < manual.skipped_share()["train/skipped"] < 1


def test_dropout_masks_differ_from_step_to_step_and_follow_from_the_seed(
    images_640: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bytes] = []
    draw = Regularizer.masks

    def masks(*args: Any) -> list[Tensor | None]:
        found = draw(*args)
        drawn.append(b"".join(mask.numpy().tobytes() for mask in found if mask is not None))
        return found

    monkeypatch.setattr(Regularizer, "masks", masks)
    for seed in (0, 0, 1):
        module = make(ManualModule, regularizer=Regularizer(dropout=0.5))
        module.save_hyperparameters({"seed": seed}, logger=False)
        fit(module, images_640, epochs=2)
    assert len(drawn) == 60
    assert drawn[:20] == drawn[20:40]
    assert len({*drawn}) == 40


STEPPING: list[dict[str, Any]] = [
    {"gradient_clip_val": 0.05},
    {"accumulate_grad_batches": 4},  # ten batches: the last step has two
    {"accumulate_grad_batches": 3, "gradient_clip_val": 0.05},
    {"gradient_clip_val": 100.0},
    {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"},
]
MOMENTUM = {"plain": {}, "heavy ball": {"momentum": 0.9}, "nesterov": {"momentum": 0.9, "nesterov": True}}


@pytest.mark.parametrize("stepping", [{}, *STEPPING[:-1]], ids=str)
@pytest.mark.parametrize("momentum", MOMENTUM)
@pytest.mark.parametrize("strength", mostly_slow([1e-3, 0.0], always=1))
def test_factored_sgd_is_torchs(images_640: Examples, strength: float, momentum: str, stepping: dict[str, Any]) -> None:
    given: Any = {"lr": 0.05, **MOMENTUM[momentum]}
    factored, *others = (
        make(engine, regularizer=Regularizer(strength), optimizer=partial(optimizer, **given))
        for engine, optimizer in ((ManualModule, FactoredSGD), (ManualModule, SGD), (AutogradModule, SGD))
    )
    agree([factored, *others], images_640, epochs=4, atol=1e-12, **stepping)
    assert all(parameter.grad is None for parameter in factored.parameters())


def test_schedule_changes_momentum_as_torchs(images_640: Examples) -> None:
    """OneCycleLR cycles the momentum too."""
    cycle = partial(OneCycleLR, max_lr=0.1, total_steps=100)
    given: Any = {"lr": 0.05, "momentum": 0.9}
    manual = make(ManualModule, optimizer=partial(FactoredSGD, **given), schedule=cycle)
    autograd = make(AutogradModule, optimizer=partial(SGD, **given), schedule=cycle)
    agree([manual, autograd], images_640, epochs=10, atol=1e-12)


def test_sum_over_a_batch_counts_skipped_and_moved_examples_once(images_640: Examples) -> None:
    """The notebook's step, lr times the sum: the rows of the factors are not the examples of the step."""
    for regularizer, skip in ((Regularizer(adversarial=0.5), 0.0), (Regularizer(), 0.85)):
        parts: dict[str, Any] = {"regularizer": regularizer, "skip": skip, "schedule": constant}
        by_sum = make(ManualModule, optimizer=NOTEBOOK_SGD, **parts)
        by_mean = make(ManualModule, optimizer=partial(grouped_sgd, lr=0.01, weight_factor=64), **parts)
        agree([by_sum, by_mean], images_640, epochs=1, atol=1e-12)


def test_parts_that_do_not_fit_are_refused() -> None:
    for parts, sentence in (
        ({"regularizer": Regularizer(smoothing=0.1), "skip": 0.02}, "skip=0.02: with regularizer.smoothing no example"),
        ({"regularizer": Regularizer(adversarial=1), "skip": 0.02}, "skip=0.02: with regularizer.adversarial"),
        ({"regularizer": Regularizer(dropout=[0.1])}, "regularizer: dropout has 1 rates, it needs 4"),
        (
            {"regularizer": Regularizer(dropout=0.1), "network": torch.nn.Linear(784, 10)},
            "dropout needs an MLP: give Linear torch.nn.Dropout layers",
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            make(AutogradModule, **parts)
    with pytest.raises(ValueError, match="nesterov=true needs momentum"):
        FactoredSGD([], 0.1, nesterov=True)


def test_one_step_is_the_notebooks(images_640: Examples) -> None:
    """Notebook update in its own layout: examples are columns, weight gradients are sums, bias gradients means."""
    module = make(ManualModule, Sigmoid(), regularizer=Regularizer(), optimizer=NOTEBOOK_SGD, schedule=constant)
    weights = [weight.detach().clone().double() for weight in module.network.weights]
    biases = [bias.detach().clone().double()[:, None] for bias in module.network.biases]
    fit(module, images_640, epochs=1, limit_train_batches=1)

    x, y = next(iter(make_loader(images_640, 64, seed=0)))
    columns, truth, eta = x.double().T, y.double().T, 0.01
    outputs = [columns]
    for weight, bias in zip(weights, biases, strict=True):
        outputs.append(1 / (1 + torch.exp(-(weight @ outputs[-1] + bias))))
    logits = weights[-1] @ outputs[-2] + biases[-1]
    delta = torch.exp(logits) / torch.exp(logits).sum(dim=0) - truth
    for layer in (3, 2, 1, 0):
        new_weight = weights[layer] - eta * sum(delta[:, [i]] @ outputs[layer][:, [i]].T for i in range(64))
        new_bias = biases[layer] - eta * delta.mean(dim=1, keepdim=True)
        delta = (weights[layer].T @ delta) * outputs[layer] * (1 - outputs[layer])
        torch.testing.assert_close(module.network.weights[layer].detach(), new_weight, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(module.network.biases[layer].detach()[:, None], new_bias, rtol=1e-12, atol=1e-15)


def test_loss_is_the_mean_over_images_for_any_batch_sizes() -> None:
    logits, y = torch.randn(50, 10), torch.eye(10).repeat(5, 1)
    scores = Scores(10)
    for part in (slice(0, 20), slice(20, 40), slice(40, 47), slice(47, 47), slice(47, 50)):
        scores.update(logits[part], y[part])
    expected = torch.nn.functional.cross_entropy(logits.double(), y.double())
    assert math.isclose(scores.compute()["loss"], expected, rel_tol=1e-6)
    scores.update(torch.full((1, 10), math.nan), y[:1])
    assert math.isnan(scores.compute()["loss"])


def test_manual_module_records_no_graph(images_640: Examples) -> None:
    def refuse(tensor: Tensor) -> None:
        raise AssertionError("autograd saved a tensor")

    with torch.autograd.graph.saved_tensors_hooks(refuse, lambda packed: packed):
        fit(make(ManualModule), images_640, epochs=1)
        with pytest.raises(AssertionError, match="autograd saved"):
            fit(make(AutogradModule), images_640, epochs=1)


def saving(folder: Path) -> dict[str, Any]:
    """Return Trainer options that save `last.ckpt` in a folder."""
    return {"callbacks": [ModelCheckpoint(folder, save_last=True, save_top_k=0)], "enable_checkpointing": True}


@pytest.mark.parametrize(("first", "second"), [(ManualModule, AutogradModule), (AutogradModule, ManualModule)])
def test_checkpoint_of_one_engine_loads_into_the_other(
    images_640: Examples, first: Engine, second: Engine, tmp_path: Path
) -> None:
    trained, loaded = make(first), make(second)
    fit(trained, images_640, epochs=1, **saving(tmp_path))
    fit(loaded, images_640, epochs=1, ckpt=tmp_path / "last.ckpt", **saving(tmp_path))
    x, _ = next(iter(make_loader(images_640, 64, seed=0)))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x.double()), trained(x.double()), rtol=0, atol=1e-12)


def test_sum_over_a_short_batch_counts_its_own_examples(images_640: Examples) -> None:
    """The weight step is lr times the sum over the 40 examples present, not over a full batch."""
    short = head_of(images_640, 40)
    by_sum = make(ManualModule, optimizer=NOTEBOOK_SGD, schedule=constant)
    by_mean = make(ManualModule, optimizer=partial(SGD, lr=0.01 * 40), schedule=constant)
    for module in (by_sum, by_mean):
        fit(module, short, epochs=1)
    for summed, mean in zip(by_sum.network.weights, by_mean.network.weights, strict=True):
        torch.testing.assert_close(summed, mean, rtol=0, atol=1e-14)


def test_grouped_sgd_takes_the_notebooks_step_with_either_engine(images_640: Examples) -> None:
    grouped: dict[str, Any] = {"optimizer": partial(grouped_sgd, lr=0.01, weight_factor=64)}
    notebook = make(ManualModule, optimizer=NOTEBOOK_SGD)
    agree([notebook, make(ManualModule, **grouped), make(AutogradModule, **grouped)], images_640, epochs=2, atol=1e-12)


def test_factored_sgd_calls_the_closure_and_gives_each_group_its_own_rate() -> None:
    weight, bias = (torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in ((3, 2), (3,)))
    optimizer = FactoredSGD([("weight", weight), ("bias", bias)], lr=0.1)
    optimizer.param_groups[1]["lr"] = 0.01
    gradient = FactoredGradient(torch.ones(4, 3, dtype=torch.float64), torch.ones(4, 2, dtype=torch.float64))
    called: list[None] = []
    optimizer.step(lambda: called.append(None), gradients=[gradient])
    assert called == [None]
    torch.testing.assert_close(weight.detach(), torch.full_like(weight, 1 - 0.1 * 4))
    torch.testing.assert_close(bias.detach(), torch.full_like(bias, 1 - 0.01 * 4))


@pytest.mark.parametrize("engine", [ManualModule, AutogradModule])
def test_soft_targets_are_supported(images_640: Examples, engine: Engine) -> None:
    """Targets equal to the network's own probabilities give a zero gradient."""
    module = make(engine, regularizer=Regularizer(), schedule=constant).double()
    with torch.no_grad():
        y = torch.softmax(module((images_640.rows / 255).double()), dim=1)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    fit(module, Examples(images_640.rows, y), epochs=1)
    torch.testing.assert_close(list(module.parameters()), before, rtol=0, atol=1e-12)


def test_warmup_cosine_rises_linearly_and_falls_along_a_half_cosine() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = warmup_cosine(optimizer, start_factor=0.01, warmup_steps=10, total_steps=110)
    rates = []
    for _ in range(111):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    rise = [2 * (0.01 + 0.99 * step / 10) for step in range(10)]
    fall = [1 + math.cos(math.pi * step / 100) for step in range(101)]  # half of 2 (1 + cos)
    assert rates == pytest.approx(rise + fall, abs=1e-9)
    with pytest.raises(ValueError, match="must be at least 1 and below the run's 10 steps"):
        warmup_cosine(optimizer, 0.01, warmup_steps=10, total_steps=10)


def test_unsupported_optimizer_is_refused_before_the_first_step(images_640: Examples) -> None:
    unlike: Any = partial  # the arguments are wrong on purpose
    for optimizer, sentence in (
        (partial(torch.optim.SparseAdam, lr=0.1), "optimizer: SparseAdam does not support dense gradients"),
        (partial(torch.optim.LBFGS, lr=0.1), "optimizer: LBFGS evaluates the closure 2 times within a step"),
        (partial(SGD, lr=0.1, nesterov=True), "optimizer: Nesterov momentum requires a momentum"),
        (unlike(SGD, learning=0.1), "optimizer: .*unexpected keyword argument 'learning'"),
    ):
        for engine in (ManualModule, AutogradModule):
            with pytest.raises(UserError, match=sentence):
                fit(make(engine, optimizer=optimizer), images_640, epochs=1)
    with pytest.raises(UserError, match="schedule: "):
        fit(make(ManualModule, schedule=unlike(LinearLR, total_iters="abc")), images_640, epochs=1)


@pytest.mark.parametrize("engine", [ManualModule, AutogradModule])
def test_dry_step_leaves_the_random_state_unchanged(images_640: Examples, engine: Engine) -> None:
    module = make(engine)
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    before = torch.get_rng_state()
    module.configure_optimizers()
    assert torch.equal(torch.get_rng_state(), before)


class Saver(Checkpoint):
    """Callback that saves after all other end-of-epoch hooks, as the history does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("engine", [ManualModule, AutogradModule])
def test_resumed_plateau_schedule_matches_an_uninterrupted_one(
    images_640: Examples, engine: Engine, tmp_path: Path
) -> None:
    plateau = partial(ReduceLROnPlateau, patience=0, threshold=0.5)
    whole, half, rest = (make(engine, schedule=plateau) for _ in range(3))
    options: dict[str, Any] = {"callbacks": [Saver(tmp_path / "x.ckpt")], "enable_checkpointing": True}
    fit(whole, images_640, epochs=4)
    fit(half, images_640, epochs=2, **options)
    trainer = fit(rest, images_640, epochs=4, ckpt=tmp_path / "x.ckpt", **options)
    torch.testing.assert_close(rest.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert trainer.optimizers[0].param_groups[0]["lr"] < 0.05


@pytest.mark.parametrize("engine", [ManualModule, AutogradModule])
def test_plateau_schedule_watches_the_validation_loss(
    images_640: Examples, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(ReduceLROnPlateau, "step", lambda _, number: seen.append(number))
    module = make(engine, schedule=ReduceLROnPlateau)
    fit(module, images_640, epochs=3, watched="val")
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            module(images_640.rows[:64].double() / 255), images_640.targets[:64].double()
        )
    assert len(seen) == 1 + 3  # once in the dry step of configure_optimizers
    assert seen[-1] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("regularizer", mostly_slow([Regularizer(1e-3), Regularizer()], always=1), ids=["l2", "none"])
@pytest.mark.parametrize("stepping", STEPPING, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_manual_clipping_and_accumulation_match_lightning(
    images_640: Examples, optimizer: str, stepping: dict[str, Any], regularizer: Regularizer
) -> None:
    parts: dict[str, Any] = {"regularizer": regularizer, "optimizer": OPTIMIZERS[optimizer]}
    agree([make(ManualModule, **parts), make(AutogradModule, **parts)], images_640, epochs=3, **stepping)


def low_precision(
    engine: Engine, images_640: Examples, optimizer: Callable[..., Optimizer], **options: Any
) -> Classifier:
    module = make(engine, optimizer=optimizer, network=MLP([784, 50, 20, 10]))
    fit(module, images_640, 3, **({"precision": None} | options))
    return module


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed with a scaler"])
@pytest.mark.parametrize("optimizer", ["sgd", "factored"])
def test_engines_agree_in_low_precision_and_report_in_float32(
    images_640: Examples, precision: str, optimizer: str
) -> None:
    options: dict[str, Any] = {"precision": precision}
    if "scaler" in precision:  # as Lightning makes it on a GPU
        options = {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}
        if optimizer == "factored":
            with pytest.raises(UserError, match="16-mixed scales the whole gradient: use optimizer=sgd or bf16-mixed"):
                low_precision(ManualModule, images_640, partial(FactoredSGD, lr=0.1), **options)
            return
    by_manual = partial(FactoredSGD, lr=0.1) if optimizer == "factored" else partial(SGD, lr=0.1)
    manual = low_precision(ManualModule, images_640, by_manual, **options)
    autograd = low_precision(AutogradModule, images_640, partial(SGD, lr=0.1), **options)
    assert manual.step_losses[-1].dtype == torch.float32
    exact = low_precision(ManualModule, images_640, by_manual)
    for module in (manual, autograd):
        assert float(module.mean_train_loss()) == pytest.approx(float(exact.mean_train_loss()), rel=0.05)
