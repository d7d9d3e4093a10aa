"""Oracle: autograd's deltas and gradients, counts by plain loops, and the same run without diagnostics."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from conftest import ACTIVATIONS, RunScript, board_of, ended_at_scoring, mostly_slow, ran, record_of, rows_of
from handgrad.nn.activations import Activation, ReLU
from handgrad.nn.mlp import MLP
from handgrad.training import figures
from handgrad.training.callbacks import History
from handgrad.training.data import Examples
from handgrad.training.layer_stats import layer_stats, max_slope, pictured, run_layers

RUN = ["network.hidden_sizes=[30,20]", "diagnostics=layers", "trainer.max_epochs=3"]


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
def test_layer_statistics_match_autograd_and_plain_counts(images_640: Examples, phi: Activation) -> None:
    torch.manual_seed(0)
    network = MLP([784, 12, 9, 10]).double().requires_grad_()
    with torch.no_grad():
        network.biases[0][:3] = -50  # three units that are dead with relu
    x, y = images_640.rows[:32].double() / 255, images_640.targets[:32].double()
    decay = 0.02

    modules: list[nn.Module] = [network.linear[0], phi.reference(), network.linear[1], phi.reference()]
    zs: list[Tensor] = []
    a = x
    for module in (*modules, network.linear[2]):
        a = module(a)
        if isinstance(module, nn.Linear):
            zs.append(a)
            a.retain_grad()
    penalty = sum(weight.square().sum() for weight in network.weights)
    torch.autograd.backward(torch.nn.functional.cross_entropy(zs[-1], y) + decay / 2 * penalty)

    most = max_slope(phi)
    found = run_layers(network, phi, x, y)
    for number, (layer, weight) in enumerate(zip(found, network.weights, strict=True)):
        numbers = layer_stats(layer, weight, decay, most)
        last = number == 2
        z = zs[number].detach()
        handed_on = z if last else phi.reference()(z)
        assert numbers["activation_mean"] == pytest.approx(float(handed_on.mean()), rel=1e-9, abs=1e-12)
        assert numbers["activation_std"] == pytest.approx(float(handed_on.numpy().std()), rel=1e-9)
        delta = zs[number].grad
        assert delta is not None
        assert weight.grad is not None
        assert numbers["delta_norm"] == pytest.approx(float(delta.norm()), rel=1e-9)
        assert numbers["gradient_norm"] == pytest.approx(float(weight.grad.norm()), rel=1e-9)
        if last:
            assert numbers["saturated"] is numbers["dead"] is None
            continue
        slopes = [[slope_at(phi, float(value)) for value in row] for row in z]
        flat = [abs(slope) < 0.01 * most for row in slopes for slope in row]
        assert numbers["saturated"] == pytest.approx(sum(flat) / len(flat), abs=1e-6)
        dead = [all(row[unit] == 0 for row in slopes) for unit in range(len(slopes[0]))]
        assert numbers["dead"] == pytest.approx(sum(dead) / len(dead), abs=1e-6)
        if number == 0 and isinstance(phi, ReLU):
            assert sum(dead) >= 3


def slope_at(phi: Activation, z: float) -> float:
    """Return phi'(z) by autograd."""
    point = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(phi.reference()(point), point)
    return float(slope)


def test_largest_slopes_match_known_values() -> None:
    by_name = {type(phi).__name__: max_slope(phi) for phi in ACTIVATIONS}
    assert by_name["Sigmoid"] == 0.25
    assert by_name["Tanh"] == by_name["ReLU"] == by_name["LeakyReLU"] == 1
    assert by_name["Softplus"] == pytest.approx(1, abs=1e-4)
    assert by_name["GELU"] == pytest.approx(1.1289, abs=1e-4)  # at z = sqrt(2)
    assert by_name["SiLU"] == pytest.approx(1.0998, abs=1e-4)


@pytest.mark.parametrize("engine", mostly_slow(["manual", "autograd"], always=1))
@pytest.mark.usefixtures("drawn")
def test_diagnostics_change_nothing_and_leave_a_row_per_epoch_and_layer(
    run_script: RunScript, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    options = [*RUN, f"engine={engine}", "activation=tanh", "regularizer=l2"]
    sound, looks = History.paused, []

    @contextmanager
    def counted(history: History) -> Iterator[None]:
        with sound(history):
            yield
        looks.append(history)

    with monkeypatch.context() as patch:
        patch.setattr(History, "paused", counted)
        assert "diagnostics=layers took" in ran(run_script, *options, "hydra.run.dir=run")
    assert len(looks) >= 3  # the clock is paused after every epoch
    assert run_script(*options, "diagnostics=none", "hydra.run.dir=plain")[0] == 0
    assert record_of("run")["metrics"] == record_of("plain")["metrics"]
    rows = rows_of("run", "layers.csv")
    assert [(int(row["epoch"]), int(row["layer"])) for row in rows] == [(e, n) for e in range(4) for n in (1, 2, 3)]
    for row in rows:
        assert float(row["gradient_check"]) < 1e-5
        assert (row["saturated"] == "") == (row["layer"] == "3")
        assert (row["log10_update"] == "") == (row["epoch"] == "0")
    with Image.open("run/layers.png") as figure:
        assert min(figure.size) > 500

    board = board_of("run")
    for number in (1, 2, 3):
        events = board.Scalars(f"layer_{number}/gradient_norm")
        written = [float(row["gradient_norm"]) for row in rows if row["layer"] == str(number)]
        assert [event.value for event in events] == pytest.approx(written, rel=1e-6)
        assert [event.step for event in events] == [0, 19, 39, 59]
        assert all(len(board.Histograms(f"layer_{number}/{what}")) == 4 for what in ("delta", "activation"))
    assert len(board.Images("layer_1/weights")) == 4
    assert [event.step for event in board.Images("confusion_by_epoch/test")] == [19, 39, 59]


def test_update_is_that_of_the_epochs_last_step(run_script: RunScript) -> None:
    """Plain SGD on the training set as one batch: the step is lr times the initial gradient."""
    options = ["data.batch_size=1280", "optimizer=sgd", "optimizer.lr=0.1", "schedule=constant", "trainer.max_epochs=1"]
    ran(run_script, *RUN, *options, "diagnostics.examples=1280", "hydra.run.dir=run", "logger=none")
    rows = rows_of("run", "layers.csv")
    torch.manual_seed(0)
    weights = MLP([784, 30, 20, 10]).weights
    for before, after, weight in zip(rows[:3], rows[3:], weights, strict=True):
        expected = math.log10(0.1 * float(before["gradient_norm"]) / float(weight.detach().norm()))
        assert float(after["log10_update"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-true", "optimizer=sgd"],
        ["trainer.precision=bf16-mixed", "logger=csv"],
        ["logger=none", "data.val_size=100", "callbacks=best_checkpoint"],
        ["+trainer.max_steps=25", "+trainer.check_val_every_n_epoch=2"],
        ["+trainer.accumulate_grad_batches=3", "+trainer.limit_val_batches=0"],
        ["engine=autograd", "trainer.num_sanity_val_steps=2", "network.hidden_sizes=[]"],
    ],
    ids=lambda options: " ".join(options),
)
def test_diagnostics_work_with_the_usual_options(run_script: RunScript, options: list[str]) -> None:
    ran(run_script, *RUN, *options, "hydra.run.dir=run")
    rows = rows_of("run", "layers.csv")
    assert float(rows[-1]["gradient_check"]) < 1e-5
    if "+trainer.max_steps=25" in options:  # the second epoch had no last batch
        assert [row["log10_update"] == "" for row in rows] == [True] * 3 + [False] * 3 + [True] * 3


def test_resumed_run_has_every_row_and_step_once(run_script: RunScript) -> None:
    options = [*RUN, "activation=tanh"]
    ran(run_script, *options, "hydra.run.dir=whole")
    with ended_at_scoring(3):
        assert run_script(*options, "hydra.run.dir=run")[0] == 143
    assert len(rows_of("run", "layers.csv")) == 9
    ran(run_script, *options, "hydra.run.dir=run")
    assert rows_of("run", "layers.csv") == rows_of("whole", "layers.csv")
    board = board_of("run")
    assert [event.step for event in board.Scalars("layer_1/delta_norm")] == [0, 19, 39, 59]
    assert [event.step for event in board.Images("confusion_by_epoch/test")] == [19, 39, 59]


def test_confusion_picture_has_true_classes_as_rows() -> None:
    counts = torch.zeros(10, 10)
    counts[2, 7] = 5
    picture = pictured(counts).float().mean(dim=0)
    means = torch.stack([torch.stack([cell.mean() for cell in row.chunk(10, 1)]) for row in picture.chunk(10, 0)])
    assert int(means.argmin()) == 2 * 10 + 7


def test_every_line_of_the_figure_is_its_layers() -> None:
    """Each layer, panel and epoch has another number."""
    rows = [
        {"layer": layer, "epoch": epoch} | {name: 10 * layer + epoch + n / 10 for n, name in enumerate(figures.PANELS)}
        for epoch in (0, 1, 2)
        for layer in (1, 2, 3)
    ]
    figure = figures.layers(rows)
    for n, axes in enumerate(figure.axes):
        assert axes.get_title() == list(figures.PANELS.values())[n][0]
        drawn = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
        assert drawn == {
            f"layer {layer}" + (" (logits)" if layer == 3 else ""): [
                [epoch, 10 * layer + epoch + n / 10] for epoch in (0, 1, 2)
            ]
            for layer in (1, 2, 3)
        }
