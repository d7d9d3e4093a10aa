"""Oracle: the numbers that a run recorded, plain torch.nn, and the commands of docs/own-data.md, run as they stand."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from conftest import ROOT, RunScript, ended_at_scoring, ran, record_of, refused
from handgrad.errors import UserError
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.training.network import build_network

DOCS = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
LAST = Path("checkpoints", "last.ckpt")
SHORT = ["engine=autograd", "logger=none", "trainer.max_epochs=2", "data.batch_size=256", "+network.channels=2"]
CNN = [*SHORT, "network._target_=my_cnn.CNN"]
OTHERS = """
from torch import nn

class Wide(nn.Linear):
    def __init__(self, inputs):
        super().__init__(inputs, 3)

class Narrow(nn.Linear):
    def __init__(self):
        super().__init__(5, 10)

def number():
    return 1
"""


def written(section: str, folder: Path) -> list[str]:
    """Write the files of a section of the docs, each named before its block; return its commands."""
    text = DOCS.partition(f"## {section}\n")[2].partition("\n## ")[0]
    for name, content in re.findall(r"`([\w/]+\.(?:py|yaml))`[^`]*?:\n\n```\w+\n(.*?)```", text, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return re.findall(r"^python src/(.*)$", text, re.MULTILINE)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write the files of the docs to the working folder; forget the modules that are imported from there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for section in ("A class of your own", "Your own network"):
        written(section, tmp_path)
    cnn = (tmp_path / "my_cnn.py").read_text()
    (tmp_path / "my_cnn.py").write_text(
        cnn.replace("            nn.Linear(128", "            nn.Dropout(0.5),\n            nn.Linear(128")
    )
    (tmp_path / "my_other.py").write_text(OTHERS)
    yield
    for name in ("my_cnn", "my_other", "my_data"):
        sys.modules.pop(name, None)


def test_own_network_trains_resumes_bit_for_bit_and_opens_only_with_trust(run_script: RunScript) -> None:
    ran(run_script, *CNN, "hydra.run.dir=whole")
    with ended_at_scoring(2):
        assert run_script(*CNN, "hydra.run.dir=resumed")[0] == 143
    assert "resuming from" in ran(run_script, *CNN, "hydra.run.dir=resumed")
    whole, resumed = (read_checkpoint(folder / LAST)[0]["state_dict"] for folder in (Path("whole"), Path("resumed")))
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    record = record_of(Path("whole"))
    assert record["metrics"] == record_of(Path("resumed"))["metrics"]
    assert record["name"] == "CNN-autograd-none-s0"
    for file in ("run=whole", f"checkpoint={'whole' / LAST}"):
        refused(run_script, "network._target_=my_cnn.CNN: building it can run", file, script="evaluate.py")
        printed = ran(run_script, file, "trust=true", script="evaluate.py")
        assert all(repr(value) in printed for value in record["metrics"].values())


def test_what_looks_into_layers_says_that_it_cannot(run_script: RunScript, tiny_mnist: Path) -> None:
    assert run_script(*CNN, "trainer.max_epochs=1", "hydra.run.dir=run")[0] == 0
    opened = ["run=run", "trust=true"]
    for script, *words in (
        ("explain.py", *opened),
        ("check.py", *opened),
        ("export.py", *opened, "format=notebook"),
        ("check.py", "network._target_=my_cnn.CNN", f"data.root={tiny_mnist}"),
        ("train.py", *CNN, "diagnostics=layers", "hydra.run.dir=layers"),
        ("train.py", "network._target_=my_cnn.CNN", "hydra.run.dir=manual"),
    ):
        said = refused(run_script, "MLP", *words, script=script).strip().splitlines()[-1]
        assert "MLP" in said
        assert "CNN" in said
    for name, content in (("state_dict", "state_dict.pt"), ("onnx", "network.onnx")):
        ran(run_script, *opened, f"format={name}", script="export.py")
        assert Path("run", "exported", content).exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["network._target_=my_cnn.CNM"], "network._target_=my_cnn.CNM cannot be imported (AttributeError"),
        (["network._target_=nowhere.CNN"], "network._target_=nowhere.CNN cannot be imported (ModuleNotFoundError"),
        (["network._target_=my_cnn.CNN", "+network.width=1"], "network: CNN.__init__() got an unexpected keyword"),
        (["network._target_=my_other.Wide"], "must map x (2, 784) to logits (2, 10), not to (2, 3)"),
        (["network._target_=my_other.Narrow"], "fails on x (2, 784): RuntimeError"),
        (["network._target_=my_other.number"], "is not a torch.nn.Module but int"),
    ],
)
def test_unusable_network_is_refused_in_a_sentence(run_script: RunScript, typed: list[str], said: str) -> None:
    refusal = refused(run_script, said, "engine=autograd", *typed).strip().splitlines()[-1]
    assert said in refusal
    assert "image_shape" not in refusal


def test_network_of_pictures_is_refused_on_rows_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    node = OmegaConf.create({"_target_": "my_cnn.CNN"})
    with pytest.raises(UserError, match=r"\(image_shape is null: the rows of these data are not pictures\)$"):
        build_network(node, [13, 3], None)
    with pytest.raises(UserError, match=r"not enough values to unpack \(expected 2, got 1\)"):
        build_network(node, [13, 3], [13])


@pytest.mark.slow
@pytest.mark.parametrize("section", ["A class of your own", "Your own network"])
def test_commands_of_the_docs_run(run_script: RunScript, tmp_path: Path, section: str) -> None:
    for command in written(section, tmp_path):
        script, *words = command.split()
        if script == "train.py":
            words += ["trainer.max_epochs=1"] if "trainer.max_epochs=2" in words else []
            words = ["--config-dir=conf", *words] if "data=wine" in words else words
            words += ["report=true", "logger=none"] if "-m" in words else []
        ran(run_script, *words, script=script)
    (sweep,) = Path("outputs", "sweeps").iterdir()
    summary = (sweep / "comparison" / "summary.md").read_text(encoding="utf-8")
    assert "CNN" in summary if "network" in section else "manual" in summary
