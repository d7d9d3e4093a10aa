"""Oracle: the run's own metrics.json, its predictions, and the same network in plain torch.nn."""

import csv
import itertools
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from conftest import RunScript, Trained, mnist_in, mostly_slow, ran, refusal
from forks import Harm
from handgrad.errors import UserError
from handgrad.inspection import export
from handgrad.inspection.weights import for_notebook, layers_of
from handgrad.nn.mlp import MLP

SHAPES = [(30, 784), (20, 30), (10, 20)]
LAST = Path("checkpoints", "last.ckpt")


def scored(run_script: RunScript, *arguments: str) -> dict[str, float]:
    """Run `src/evaluate.py`; return the metrics it prints."""
    printed = ran(run_script, *arguments, script="evaluate.py")
    return {name: float(value) for name, value in re.findall(r"│ (\w+/\w+) +│ (\S+)", printed)}


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize(
    "options",
    [
        ["activation=tanh"],
        ["engine=autograd", "activation=leaky_relu", "+activation.negative_slope=0.2"],
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-mixed", "engine=autograd"],
        ["data.val_size=100", "+trainer.limit_test_batches=1", "+trainer.overfit_batches=3"],
        ["data.val_size=100", "data.score_test=false", "callbacks=best_checkpoint"],
    ],
    ids=lambda options: " ".join(options),
)
def test_reopened_run_scores_as_it_recorded(run_script: RunScript, trained: Trained, options: list[str]) -> None:
    recorded = trained(*options)["metrics"]
    assert scored(run_script, "run=run") == recorded


def test_newest_completed_run_is_opened_even_from_a_sweep(run_script: RunScript, trained: Trained) -> None:
    old = trained(folder="outputs/runs/old")
    new = trained("seed=1", folder="outputs/sweeps/new/0_x")
    for number, folder in enumerate(("runs/old", "sweeps/new/0_x")):
        os.utime(Path("outputs", folder, "metrics.json"), (number, number))
    shutil.copytree("outputs/runs/old", "outputs/runs/broken")
    Path("outputs/runs/broken/metrics.json").write_text("{")
    assert scored(run_script) == new["metrics"] != old["metrics"]


def test_other_data_sets_are_scored(run_script: RunScript, trained: Trained, tiny_mnist: Path) -> None:
    recorded = trained()["metrics"]
    raw = Path("fashion", "FashionMNIST", "raw")
    shutil.copytree(tiny_mnist / "MNIST" / "raw", raw)
    assert scored(run_script, "run=run", "data=fashion_mnist", "data.root=fashion") == recorded
    assert scored(run_script, "run=run", "data.root=fashion", "data.dataset=FashionMNIST") == recorded
    for kind in ("images-idx3", "labels-idx1"):
        (raw / f"train-{kind}-ubyte.gz").replace(raw / f"t10k-{kind}-ubyte.gz")
        shutil.copy(tiny_mnist / "MNIST" / "raw" / f"train-{kind}-ubyte.gz", raw)
    for path in raw.glob("*-ubyte"):
        path.unlink()
    found = scored(run_script, "run=run", "data=fashion_mnist", "data.root=fashion")
    assert found["test/accuracy"] == found["train/accuracy"] == recorded["train/accuracy"]


@pytest.mark.parametrize(
    "kind", mostly_slow(["ours", "foreign checkpoint", "older format", "state_dict", "notebook", "float64"], always=3)
)
def test_single_file_scores_as_its_run(run_script: RunScript, trained: Trained, tiny_mnist: Path, kind: str) -> None:
    metrics = trained("activation=silu")["metrics"]
    options = ["activation=silu", f"data.root={tiny_mnist}"]
    if kind in ("state_dict", "notebook"):
        assert run_script("run=run", f"format={kind}", "output=weights.pt", script="export.py")[0] == 0
    elif kind == "ours":
        shutil.copy(Path("run") / LAST, "weights.pt")
        options.remove("activation=silu")  # recorded in the file
    else:
        state = torch.load(Path("run") / LAST, weights_only=True)["state_dict"]
        renamed = {key.replace("network.layers", "model.fc"): value for key, value in state.items()}
        if kind == "float64":
            renamed = {key: value.double() for key, value in renamed.items()}
        torch.save(
            {"state_dict": renamed, "epoch": 3} if kind == "foreign checkpoint" else renamed,
            "weights.pt",
            _use_new_zipfile_serialization=kind != "older format",
        )
    found = scored(run_script, "checkpoint=weights.pt", *options)
    assert found == pytest.approx(metrics, rel=1e-6 if kind == "float64" else 1e-15)


def notebook(**changed: Any) -> dict[str, Any]:
    """Return a small network in the notebook's dictionary format."""
    return {
        **{f"w{number}": torch.zeros(shape) for number, shape in enumerate(SHAPES, start=1)},
        **{f"b{number}": torch.zeros(shape[0], 1) for number, shape in enumerate(SHAPES, start=1)},
    } | changed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Harm(), "is not a readable file of weights (it holds objects or code): nothing in it was run"),
        (nn.Linear(784, 10), "is not a readable file of weights (it holds objects or code)"),
        ({"w1": torch.zeros(10, 784)}, "does not hold a weight and a bias for every layer"),
        ([1, 2], "does not hold a weight and a bias for every layer"),
        ({}, "does not hold a weight and a bias for every layer"),
        (notebook(w2=torch.zeros(20, 31)), "do not form a network, each layer's inputs"),
        (notebook(w2=torch.zeros(20, 31)), "(30, 784) with bias (30,), (20, 31) with bias (20,), (10, 20)"),
        (notebook(b1=torch.zeros(29)), "(30, 784) with bias (29,)"),
        (notebook(w1=torch.zeros(30, 783)), "has 783 inputs and 10 classes, its data 784 and 10: name the data that"),
        (notebook(w3=torch.zeros(9, 20), b3=torch.zeros(9)), "has 784 inputs and 9 classes, its data 784 and 10"),
        (notebook(w1=torch.zeros(30, 784, dtype=torch.int64)), "weights should be floating-point numbers"),
        (notebook(), "does not record its activation function: add activation=relu"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_that_is_no_network_is_refused_in_one_sentence(run_script: RunScript, content: Any, words: str) -> None:
    torch.save(content, "weights.pt")
    activation = [] if "activation" in words else ["activation=relu"]
    assert words in refusal(run_script, "checkpoint=weights.pt", *activation, script="evaluate.py")
    assert not Path("mark").exists()


def test_run_that_cannot_be_opened_is_refused_in_one_sentence(run_script: RunScript, trained: Trained) -> None:
    trained(folder="sweep/0_a")
    for words, typed in (
        ("holds no completed run: make one with python src/train.py", []),
        ("nowhere is not a run's folder: it has no metrics.json", ["run=nowhere"]),
        ("nowhere is missing: there is no such file", ["checkpoint=nowhere"]),
        ("it holds 1: name one, e.g. run=", ["run=sweep"]),
        ("run=... and checkpoint=... are two networks", ["run=sweep/0_a", "checkpoint=x"]),
        ("is not the one that", ["run=sweep/0_a", "activation=tanh"]),
    ):
        assert words in refusal(run_script, *typed, script="evaluate.py")
    last = Path("sweep", "0_a") / LAST
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    printed = refusal(run_script, "run=sweep/0_a", script="evaluate.py")
    assert "last.ckpt is not a readable file of weights (checksum mismatch in" in printed
    last.unlink()
    printed = refusal(run_script, "run=sweep/0_a", script="evaluate.py")
    assert "last.ckpt is missing: the run was completed" in printed


def test_notebooks_dictionary_is_read_in_the_layers_order() -> None:
    content = notebook(b2=torch.ones(20, 1))
    (_, first), (_, second), _ = layers_of(dict(reversed(content.items())), "x")
    assert first.shape == (30,)
    assert second.equal(torch.ones(20))
    eleven = {f"w{n}": torch.full((10, 784 if n == 1 else 10), float(n)) for n in range(1, 12)}
    eleven |= {f"b{n}": torch.zeros(10) for n in range(1, 12)}
    assert [float(weight[0, 0]) for weight, _ in layers_of(eleven, "x")] == list(range(1, 12))


def test_exported_networks_match_the_trained_one(run_script: RunScript, trained: Trained, tiny_mnist: Path) -> None:
    trained("activation=tanh")
    for kind in ("state_dict", "notebook"):
        printed = ran(run_script, "run=run", f"format={kind}", script="export.py")
        assert "read back, on 1,000 random images: the same predictions" in printed
    x = mnist_in(tiny_mnist).sets["test"].rows / 255
    with Path("run", "predictions.csv").open() as file:
        predicted = torch.tensor([int(row["predicted"]) for row in csv.DictReader(file)])
    plain = nn.Sequential(nn.Linear(784, 30), nn.Tanh(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 10))
    plain.load_state_dict(torch.load("run/exported/state_dict.pt", weights_only=True))
    assert plain(x).argmax(dim=1).equal(predicted)

    theirs = torch.load("run/exported/notebook.pt", weights_only=True)
    assert [tuple(theirs[f"w{n}"].shape) for n in (1, 2, 3)] == SHAPES
    a: Tensor = x.T  # one column per image, as in the notebook
    for number in (1, 2, 3):
        z = theirs[f"w{number}"] @ a + theirs[f"b{number}"]
        a = torch.tanh(z)
    assert z.argmax(dim=0).equal(predicted)


@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_same_logits(run_script: RunScript, trained: Trained) -> None:
    pytest.importorskip("onnxruntime")
    trained("activation=gelu", "trainer.precision=64-true")
    printed = ran(run_script, "run=run", "format=onnx", script="export.py")
    assert float(re.findall(r"apart by (\S+) of the largest", printed)[0]) < 1e-5
    assert Path("run/exported/network.onnx").stat().st_size > 90_000


def test_failed_export_leaves_no_file(run_script: RunScript, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    trained()

    def rescaled(network: MLP) -> dict[str, Tensor]:
        """Return weights that give the same predictions but other logits."""
        return {name: tensor * (1.001 if name.endswith("3") else 1) for name, tensor in for_notebook(network).items()}

    for written in (lambda network: notebook(), rescaled):
        with monkeypatch.context() as patch:
            patch.setattr("handgrad.inspection.export.for_notebook", written)
            printed = refusal(run_script, "run=run", "format=notebook", script="export.py")
        assert "was not written: read back, its logits are" in printed
        assert not list(Path("run", "exported").iterdir())


def layers_named(names: list[str]) -> tuple[dict[str, Tensor], list[str]]:
    """A network with hidden layers of 12 units, its layers named and stored in the order of their names."""
    torch.manual_seed(0)
    widths = [784, *[12] * (len(names) - 1), 10]
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)]
    named = nn.ModuleDict(dict(zip(names, layers, strict=True))).state_dict()
    return {key: named[key] for key in sorted(named, key=lambda key: (key.split(".")[0], key[::-1]))}, names


@pytest.mark.parametrize("last", ["out", "fc13"])
def test_numbered_layers_go_by_their_numbers(last: str) -> None:
    content, names = layers_named([*(f"fc{number}" for number in range(1, 13)), last])
    assert [key for key in content if key.endswith("weight")][1] == "fc10.weight"
    found = layers_of(content, "x")
    assert all(weight.equal(content[f"{name}.weight"]) for (weight, _), name in zip(found, names, strict=True))


def test_layers_that_fit_in_two_orders_are_refused() -> None:
    content, _ = layers_named(["first", "second", "third", "out"])
    with pytest.raises(UserError, match=r"more than one order.*\(first, out, second, third\).*fc1, fc2"):
        layers_of(content, "x")
    there_and_back = [(100, 784), (50, 100), (100, 50), (20, 100), (100, 20), (10, 100)]  # no two of one shape
    layers = nn.ModuleDict({letter: nn.Linear(i, o) for letter, (o, i) in zip("abcdef", there_and_back, strict=True)})
    with pytest.raises(UserError, match="more than one order"):
        layers_of(layers.state_dict(), "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("script", ["evaluate.py", "predict.py", "export.py"])
def test_weight_that_is_not_finite_is_refused(run_script: RunScript, value: float, script: str) -> None:
    content = notebook()
    content["w2"][3, 4] = value
    torch.save(content, "weights.pt")
    Image.new("L", (28, 28)).save("x.png")
    pictures = ["images=x.png"] if script == "predict.py" else []
    printed = refusal(run_script, "checkpoint=weights.pt", "activation=relu", *pictures, script=script)
    assert "weights.pt: 1 of its weights and biases are NaN or infinite" in printed
    assert not Path("state_dict.pt").exists()


def test_model_state_dict_and_normalized_inputs_score_as_the_run(
    run_script: RunScript, trained: Trained, tiny_mnist: Path
) -> None:
    """The run's network, rewritten for inputs (x - mean) / deviation, in the dictionary of PyTorch's tutorial."""
    metrics = trained("trainer.precision=64-true")["metrics"]
    layers = layers_of(torch.load(Path("run") / LAST, weights_only=True), "run")
    for inputs, (mean, deviation) in (("normalized", (0.1307, 0.3081)), ("[0.5,0.25]", (0.5, 0.25))):
        weight, bias = layers[0]
        theirs = [(weight * deviation, bias + weight.sum(dim=1) * mean), *layers[1:]]
        state = {
            f"fc{n}.{key}": tensor
            for n, layer in enumerate(theirs)
            for key, tensor in zip(("weight", "bias"), layer, strict=True)
        }
        torch.save({"epoch": 5, "model_state_dict": state}, "theirs.pt")
        typed = ["checkpoint=theirs.pt", "activation=relu", f"data.root={tiny_mnist}"]
        assert scored(run_script, *typed, f"inputs={inputs}") == pytest.approx(metrics, rel=1e-9)
        assert scored(run_script, *typed)["test/loss"] > 1.05 * metrics["test/loss"]
    printed = refusal(run_script, "run=run", "inputs=normalized", script="evaluate.py")
    assert "takes pixels from 0 to 1: leave it out" in printed
    printed = refusal(run_script, *typed, "inputs=[0,0]", script="evaluate.py")
    assert "must be normalized, or [mean,deviation] with a deviation above 0" in printed


def test_hint_where_a_file_scores_badly(run_script: RunScript, tiny_mnist: Path) -> None:
    torch.save(notebook(), "weights.pt")
    typed = ["checkpoint=weights.pt", "activation=relu", f"data.root={tiny_mnist}"]
    assert "Below 50 %: was it trained on normalized inputs?" in ran(run_script, *typed, script="evaluate.py")


def test_predict_and_export_need_no_data(
    run_script: RunScript, trained: Trained, tmp_path: Path, tiny_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_mnist, tmp_path / "images")
    trained("data.root=images")
    shutil.rmtree("images")
    Image.fromarray(np.uint8(np.pad(np.full((14, 3), 255), ((7, 7), (12, 13))))).save("one.png")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for script, options in (("predict.py", [f"images={tmp_path / 'one.png'}"]), ("export.py", [])):
        ran(run_script, f"run={tmp_path / 'run'}", *options, script=script)
    assert "is not a folder here: add data.root=" in run_script(f"run={tmp_path / 'run'}", script="evaluate.py")[1]


def test_exported_network_is_compared_with_the_module_itself(
    run_script: RunScript, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activation after the last layer is written, read back and exactly alike; only the module has none."""
    trained()
    sound = export.sequential
    monkeypatch.setattr(export, "sequential", lambda layers, phi: nn.Sequential(*sound(layers, phi), phi.reference()))
    for kind in ("state_dict", "notebook", "onnx"):
        printed = refusal(run_script, "run=run", f"format={kind}", script="export.py")
        assert "was not written: read back, its logits are off" in printed
