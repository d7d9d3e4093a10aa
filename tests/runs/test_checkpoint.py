"""Oracle: torch.load of the saved file, and an uninterrupted run's numbers."""

import logging
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import RunScript, ran, record_of, refused
from forks import Harm
from handgrad.errors import UserError
from handgrad.runs.checkpoint import resumable
from handgrad.training.checkpoint_io import AtomicCheckpointIO

CONFIG = {"seed": 0, "optimizer": {"lr": 0.1}}
CONTENT = {"state_dict": {"weight": torch.arange(600.0).view(20, 30)}, "epoch": 3, "hyper_parameters": CONFIG}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def test_checkpoint_loads_with_torch_and_is_the_only_file(saved: Path) -> None:
    assert equal(torch.load(saved, weights_only=True), CONTENT)
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]
    assert resumable(saved, CONFIG)
    assert not resumable(saved.with_name("other"), CONFIG)


def test_every_flipped_bit_is_noticed_or_harmless(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    whole, draw = saved.read_bytes(), random.Random(0)
    noticed = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        saved.write_bytes(damaged)
        if resumable(saved, CONFIG):
            assert equal(torch.load(saved, weights_only=True), CONTENT)
        else:
            noticed += 1
    assert noticed > 300


@pytest.mark.parametrize("length", [0, 1, 100, 3000, -1])
def test_truncated_checkpoint_is_noticed(saved: Path, length: int, caplog: pytest.LogCaptureFixture) -> None:
    saved.write_bytes(saved.read_bytes()[:length])
    assert not resumable(saved, CONFIG)
    assert f"{saved} is damaged or from another project: training starts from scratch" in caplog.text


def test_code_in_a_checkpoint_is_not_run(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    torch.save({"x": Harm()}, saved)
    assert not resumable(saved, CONFIG)
    assert not Path("mark").exists()


def test_checkpoint_of_another_configuration_is_refused_with_the_difference(saved: Path) -> None:
    with pytest.raises(UserError, match=r"another configuration: delete .*; it has seed \(0, not 1\)"):
        resumable(saved, CONFIG | {"seed": 1})
    with pytest.raises(UserError, match=r"seed \(0, not false\)"):
        resumable(saved, CONFIG | {"seed": False})


def test_full_disk_keeps_the_previous_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: Path, content: Any) -> int:
        with path.open("wb") as file:
            file.write(bytes(content)[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 4}, saved)
    assert equal(torch.load(saved, weights_only=True), CONTENT)
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_run_with_a_damaged_checkpoint_restarts_with_the_same_result(run_script: RunScript) -> None:
    options = ["trainer.max_epochs=2", "engine=autograd"]
    assert run_script("hydra.run.dir=run", *options)[0] == 0
    whole = record_of(Path("run"))["metrics"]
    Path("run", "metrics.json").unlink()
    last = Path("run", "checkpoints", "last.ckpt")
    last.write_bytes(last.read_bytes()[:5000])
    said = "last.ckpt is damaged or from another project: training starts from scratch"
    assert said in ran(run_script, "hydra.run.dir=run", *options)
    assert record_of(Path("run"))["metrics"] == whole


def test_checkpoint_of_another_run_is_refused_by_the_command(run_script: RunScript) -> None:
    assert run_script("hydra.run.dir=one", "trainer.max_epochs=1")[0] == 0
    shutil.copytree(Path("one", "checkpoints"), Path("two", "checkpoints"))
    differ = "activation._target_ (handgrad.nn.activations.ReLU, not handgrad.nn.activations.Tanh)"
    printed = refused(run_script, differ, "hydra.run.dir=two", "trainer.max_epochs=1", "activation=tanh")
    assert "belongs to a run with another configuration" in printed
