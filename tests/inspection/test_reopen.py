"""Oracle: the run's own metrics.json, its predictions, and the same network in plain torch.nn."""

import csv
import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from conftest import RunScript, record_of
from handgrad.errors import UserError
from handgrad.inspection import export
from handgrad.inspection.weights import for_notebook, layers_of
from handgrad.nn.mlp import MLP
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.training.mnist import MNISTDataModule

SHAPES = [(30, 784), (20, 30), (10, 20)]
Trained = Callable[..., dict[str, Any]]
LAST = Path("checkpoints", "last.ckpt")


@pytest.fixture
def trained(run_script: RunScript) -> Trained:
    """Train a small network for an epoch in the folder `run`; return its record."""

    def train(*options: str, folder: str = "run") -> dict[str, Any]:
        usual = ["network.hidden_sizes=[30,20]", "trainer.max_epochs=1", "logger=none", f"hydra.run.dir={folder}"]
        status, printed = run_script(*usual, *options)
        assert status == 0, printed
        return record_of(Path(folder))

    return train


def scored(run_script: RunScript, *arguments: str) -> dict[str, float]:
    """Run `src/evaluate.py`; return the metrics it prints."""
    status, printed = run_script(*arguments, script="evaluate.py")
    assert status == 0, printed
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


@pytest.mark.parametrize("kind", ["state_dict", "notebook", "ours", "foreign checkpoint", "older format", "float64"])
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


class Harm:
    """Payload that runs code when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Harm(), "is no sound file of weights (it holds objects or code): nothing in it was run"),
        (nn.Linear(784, 10), "is no sound file of weights (it holds objects or code)"),
        ({"w1": torch.zeros(10, 784)}, "does not hold a weight and a bias for every layer"),
        ([1, 2], "does not hold a weight and a bias for every layer"),
        ({}, "does not hold a weight and a bias for every layer"),
        (notebook(w2=torch.zeros(20, 31)), "do not make a network, each layer's inputs"),
        (notebook(w2=torch.zeros(20, 31)), "(30, 784) with bias (30,), (20, 31) with bias (20,), (10, 20)"),
        (notebook(b1=torch.zeros(29)), "(30, 784) with bias (29,)"),
        (notebook(w1=torch.zeros(30, 783)), "has 783 inputs and 10 classes, its data 784 and 10: name the data that"),
        (notebook(w3=torch.zeros(9, 20), b3=torch.zeros(9)), "has 784 inputs and 9 classes, its data 784 and 10"),
        (notebook(w1=torch.zeros(30, 784, dtype=torch.int64)), "weights should be floating-point numbers"),
        (notebook(), "does not say which function follows its layers: add activation=relu"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_that_is_no_network_is_refused_in_one_sentence(run_script: RunScript, content: Any, words: str) -> None:
    torch.save(content, "weights.pt")
    activation = [] if "activation" in words else ["activation=relu"]
    status, printed = run_script("checkpoint=weights.pt", *activation, script="evaluate.py")
    assert status == 1
    assert words in printed
    assert "Traceback" not in printed
    assert not Path("harmed").exists()


def test_run_that_cannot_be_opened_is_refused_in_one_sentence(run_script: RunScript, trained: Trained) -> None:
    def refused(*arguments: str) -> str:
        status, printed = run_script(*arguments, script="evaluate.py")
        assert status == 1
        assert "Traceback" not in printed
        return printed

    assert "holds no completed run: make one by python src/train.py" in refused()
    assert "nowhere is not a run's folder: it has no metrics.json" in refused("run=nowhere")
    assert "nowhere is missing: there is no such file" in refused("checkpoint=nowhere")
    trained(folder="sweep/0_a")
    assert "it holds 1: name one, e.g. run=" in refused("run=sweep")
    assert "run=... and checkpoint=... are two networks" in refused("run=sweep/0_a", "checkpoint=x")
    assert "is not the one that" in refused("run=sweep/0_a", "activation=tanh")
    last = Path("sweep", "0_a") / LAST
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    assert "last.ckpt is no sound file of weights (the checksum of" in refused("run=sweep/0_a")
    last.unlink()
    assert "last.ckpt is missing: the run was completed" in refused("run=sweep/0_a")


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
        status, printed = run_script("run=run", f"format={kind}", script="export.py")
        assert status == 0
        assert "read back, on 1,000 random images: the same predictions" in printed
    data = MNISTDataModule(root=str(tiny_mnist))
    data.prepare_data()
    data.setup()
    x = data.sets["test"].rows / 255
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
    status, printed = run_script("run=run", "format=onnx", script="export.py")
    assert status == 0, printed
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
            status, printed = run_script("run=run", "format=notebook", script="export.py")
        assert status == 1
        assert "was not written: read back, its logits are" in printed
        assert not list(Path("run", "exported").iterdir())


def test_missing_and_damaged_checkpoints_raise(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="is no sound file of weights"):
        read_checkpoint(tmp_path / "empty")


def twelve_layers(names: list[str]) -> tuple[dict[str, Tensor], list[str]]:
    """A network of eleven hidden layers of 12 units, its layers named and stored in the order of their names."""
    torch.manual_seed(0)
    widths = [784, *[12] * (len(names) - 1), 10]
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)]
    named = {
        f"{name}.{key}": value
        for name, layer in zip(names, layers, strict=True)
        for key, value in layer.state_dict().items()
    }
    return {key: named[key] for key in sorted(named, key=lambda key: (key.split(".")[0], key[::-1]))}, names


@pytest.mark.parametrize("last", ["out", "fc13"])
def test_numbered_layers_go_by_their_numbers(last: str) -> None:
    content, names = twelve_layers([*(f"fc{number}" for number in range(1, 13)), last])
    assert [key for key in content if key.endswith("weight")][1] == "fc10.weight"
    found = layers_of(content, "x")
    assert all(weight.equal(content[f"{name}.weight"]) for (weight, _), name in zip(found, names, strict=True))


def test_layers_that_fit_in_two_orders_are_refused() -> None:
    content, _ = twelve_layers(["first", "second", "third", "out"])
    with pytest.raises(UserError, match=r"more than one order.*\(first, out, second, third\).*fc1, fc2"):
        layers_of(content, "x")
    there_and_back = [(100, 784), (50, 100), (100, 50), (20, 100), (100, 20), (10, 100)]  # no two of one shape
    layers = {f"{letter}.{key}": value for letter, (o, i) in zip("abcdef", there_and_back, strict=True)
              for key, value in nn.Linear(i, o).state_dict().items()}  # fmt: skip
    with pytest.raises(UserError, match="more than one order"):
        layers_of(layers, "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("script", ["evaluate.py", "predict.py", "export.py"])
def test_weight_that_is_not_finite_is_refused(run_script: RunScript, value: float, script: str) -> None:
    content = notebook()
    content["w2"][3, 4] = value
    torch.save(content, "weights.pt")
    Image.new("L", (28, 28)).save("x.png")
    pictures = ["images=x.png"] if script == "predict.py" else []
    status, printed = run_script("checkpoint=weights.pt", "activation=relu", *pictures, script=script)
    assert status == 1
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
    status, printed = run_script("run=run", "inputs=normalized", script="evaluate.py")
    assert (status, "takes pixels from 0 to 1: leave it out" in printed) == (1, True)
    status, printed = run_script(*typed, "inputs=[0,0]", script="evaluate.py")
    assert (status, "must be normalized, or [mean,deviation] with a deviation above 0" in printed) == (1, True)


def test_hint_where_a_file_scores_badly(run_script: RunScript, tiny_mnist: Path) -> None:
    torch.save(notebook(), "weights.pt")
    status, printed = run_script(
        "checkpoint=weights.pt", "activation=relu", f"data.root={tiny_mnist}", script="evaluate.py"
    )
    assert (status, "Below 50 %: was it trained on normalized inputs?" in printed) == (0, True)


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
        status, printed = run_script(f"run={tmp_path / 'run'}", *options, script=script)
        assert status == 0, printed
    assert "is no folder here: add data.root=" in run_script(f"run={tmp_path / 'run'}", script="evaluate.py")[1]


def test_exported_network_is_compared_with_the_module_itself(
    run_script: RunScript, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activation after the last layer is written, read back and exactly alike; only the module has none."""
    trained()
    sound = export.sequential
    monkeypatch.setattr(export, "sequential", lambda layers, phi: nn.Sequential(*sound(layers, phi), phi.reference()))
    for kind in ("state_dict", "notebook", "onnx"):
        status, printed = run_script("run=run", f"format={kind}", script="export.py")
        assert (status, "was not written: read back, its logits are off" in printed) == (1, True)
