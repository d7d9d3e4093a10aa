"""Oracle: the run's own metrics.json, its predictions, and the same network in plain torch.nn."""

import csv
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import RunScript, record_of
from handgrad.errors import UserError
from handgrad.inspection.weights import for_notebook, layers_of
from handgrad.nn.mlp import MLP
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.training.data import MNISTDataModule

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
        (notebook(w2=torch.zeros(20, 31)), "do not make a network from 784 inputs to 10 classes, each layer's inputs"),
        (notebook(w2=torch.zeros(20, 31)), "(30, 784) with bias (30,), (20, 31) with bias (20,), (10, 20)"),
        (notebook(b1=torch.zeros(29)), "(30, 784) with bias (29,)"),
        (notebook(w1=torch.zeros(30, 783)), "do not make a network from 784 inputs"),
        (notebook(w3=torch.zeros(9, 20), b3=torch.zeros(9)), "to 10 classes"),
        (notebook(w1=torch.zeros(30, 784, dtype=torch.int64)), "weights should be floating-point numbers"),
        (notebook(), "does not say which function follows its layers: add activation=relu"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_that_is_no_network_is_refused_in_one_sentence(run_script: RunScript, content: Any, words: str) -> None:
    torch.save(content, "weights.pt")
    status, printed = run_script("checkpoint=weights.pt", script="evaluate.py")
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
        assert "read back, on 400 test images: the same predictions" in printed
    data = MNISTDataModule(root=str(tiny_mnist))
    data.prepare_data()
    data.setup()
    x = data.sets["test"].images / 255
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
