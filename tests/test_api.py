"""Oracle: the command line's numbers for the same words; the examples of docs/api.md, run as they stand."""

import doctest
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

import handgrad
from conftest import ROOT, RunScript, record_of
from handgrad.errors import UserError
from handgrad.hydra_version import BASE
from handgrad.inspection.reopen import open_network
from handgrad.nn.activations import ReLU, Tanh
from handgrad.training.build import assemble

PAIR = (torch.eye(2), torch.eye(2))
LINEAR: Any = torch.nn.Linear(2, 2)
RELU: Any = torch.relu
SMALL = ("network.hidden_sizes=[12]", "trainer.max_epochs=2", "logger=none")


@pytest.fixture
def data(tiny_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory with the small data in data/."""
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(tiny_mnist)
    variables, handler = dict(os.environ), signal.getsignal(signal.SIGINT)
    yield
    os.environ.clear()
    os.environ.update(variables)
    assert signal.getsignal(signal.SIGINT) == handler


def test_importing_handgrad_imports_nothing_heavy() -> None:
    code = "import sys, handgrad; print(sorted({'torch', 'pandas', 'hydra', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_documented() -> None:
    table = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in handgrad.__all__:
        assert getattr(handgrad, name).__doc__
        assert f"`{name}" in table
    with pytest.raises(AttributeError, match="no attribute 'nothing': it has MLP, Run, UserError, activations"):
        _ = handgrad.nothing


@pytest.mark.slow
def test_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    Path("data").symlink_to(ROOT / "data")
    failed, tried = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert (failed, tried > 20) == (0, True)


def test_train_gives_the_numbers_of_the_command_line(run_script: RunScript, data: None) -> None:
    assert run_script("activation=tanh", *SMALL, "hydra.run.dir=typed")[0] == 0
    run = handgrad.train("activation=tanh", *SMALL, "diagnostics=layers")
    typed = record_of(Path("typed"))
    assert run.metrics == typed["metrics"]
    assert run.record["choices"] == typed["choices"] | {"diagnostics": "layers"}
    assert list(run.history["epoch"]) == [0, 1]
    assert list(run.layers["epoch"]) == [0, 0, 1, 1, 2, 2]
    module = handgrad.load(run)
    for found in (run.network, handgrad.load(str(run.folder)).network, module.network):
        torch.testing.assert_close(found.state_dict(), module.network.state_dict(), rtol=0, atol=0)
        assert not any(parameter.requires_grad for parameter in found.parameters())
    assert type(module.activation).__name__ == "Tanh"
    weights = {
        f"{n}.{kind}": getattr(layer, kind) for n, layer in enumerate(run.network.linear) for kind in ("weight", "bias")
    }
    torch.save(weights, "weights.pt")
    x = torch.rand(3, 784)
    assert torch.equal(handgrad.load("weights.pt", "tanh")(x), module(x))
    with pytest.raises(UserError, match=r"layers\.csv is missing: train with .diagnostics=layers."):
        _ = handgrad.Run(Path("typed")).layers


def test_finished_run_is_found_again(data: None) -> None:
    first, second = (handgrad.train(*SMALL, "hydra.run.dir=mine") for _ in range(2))
    assert (first, first.record) == (second, second.record)
    assert first.folder == Path("mine").absolute()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: handgrad.train("activation=tahn"), "activation=tahn: did you mean tanh? there are gelu"),
        (lambda: handgrad.train("seed=0,1"), "train takes one value per key: call it once for each"),
        (lambda: handgrad.train("activation = tanh"), "as key=value"),
        (lambda: handgrad.train("hydra.run.dir=file.txt", *SMALL), "file.txt is a file"),
        (lambda: handgrad.load("folder"), "is not a run's folder: it has no metrics.json"),
        (lambda: handgrad.Run(Path("nowhere")).history, "nowhere is not a run's folder"),
        (lambda: handgrad.check(LINEAR, ReLU(), *PAIR), "must be a handgrad.MLP, not Linear"),
        (lambda: handgrad.check(handgrad.MLP([2, 2]), RELU, *PAIR), "phi must be an activation"),
        (lambda: handgrad.judge(output_delta, RELU), "phi must be an activation"),
        (lambda: handgrad.judge(ReLU), "ReLU is none of the exercise's functions: phi, derivative"),
        (lambda: handgrad.compare(["nowhere", "folder"]), "nowhere does not exist"),
        (lambda: handgrad.compare([{"a": 1}]), "runs or their folders, not dict"),
        (lambda: handgrad.train("seed=-1"), "invalid value seed=-1: must be >= 0"),
        (lambda: handgrad.train("optimizer.rl=1"), "unknown key optimizer.rl: there are lr, weight_reduction"),
        (lambda: handgrad.train("-m", "seed=0,1"), "not '-m'; sweeps: src/train.py -m"),
        (lambda: handgrad.train("+trainer.fast_dev_run=1", *SMALL), "leaves no run: leave it out"),
        (lambda: handgrad.load("nowhere"), "nowhere is missing: there is no such file"),
        (lambda: handgrad.check(handgrad.MLP([2, 2]), ReLU(), *PAIR, inject_bug="BP9"), "BP1, BP2"),
        (lambda: handgrad.compare("nowhere.csv"), "nowhere.csv"),
    ],
)
def test_mistake_is_one_sentence(data: None, call: Callable[[], object], said: str) -> None:
    Path("folder").mkdir()
    Path("file.txt").write_text("mine")
    with pytest.raises(UserError) as raised:
        call()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value._render_traceback_() == [str(raised.value)]  # what a notebook shows


def test_stop_button_leaves_a_run_that_goes_on(data: None) -> None:
    words = ("trainer.max_epochs=300", "network.hidden_sizes=[12]", "logger=none")

    def press() -> None:
        while not Path("mine/checkpoints/last.ckpt").exists():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match=r"train\('trainer.max_epochs=300', .*'hydra.run.dir=.*mine'\) resumes"):
        handgrad.train(*words, "hydra.run.dir=mine")
    epochs = len(pd.read_csv("mine/history.csv"))
    assert 0 < epochs < 300
    assert handgrad.Run(Path("mine")).record["status"] == "running"
    run = handgrad.train(f"trainer.max_epochs={epochs + 1}", *words[1:], "hydra.run.dir=other")
    assert len(run.history) == epochs + 1


def test_configuration_composed_by_hand_trains(data: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # Hydra 1.4 keeps that of the last command
    with hydra.initialize_config_dir(str(ROOT / "conf"), **BASE):
        with pytest.raises(UserError, match=r"HydraConfig was not set \(handgrad"):
            assemble(hydra.compose("train", list(SMALL)), Path("mine"))
        parts = assemble(hydra.compose("train", [*SMALL, "name=mine"]), Path("there/mine"))
        parts.trainer.fit(parts.module, parts.data)
        opened = open_network({"checkpoint": "there/mine/checkpoints/last.ckpt"}, images=False).assembly.module
    torch.testing.assert_close(opened.network.state_dict(), parts.module.network.state_dict(), rtol=0, atol=0)


def test_compare_takes_runs_and_folders(data: None) -> None:
    runs = [handgrad.train(f"seed={seed}", *SMALL, f"hydra.run.dir=sweep/{seed}") for seed in (0, 1)]
    for given in (runs, [str(run.folder) for run in runs], "sweep", Path("sweep")):
        assert list(handgrad.compare(given).cells.completed) == [2]
    assert list(handgrad.compare(runs[0]).cells.completed) == [1]


def output_delta(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A student's mistake."""
    return p - y


def weight_gradient(delta: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """A student's error."""
    return delta @ a.mean(7)


def derivative(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Right, although in float32."""
    return (z > 0).float()


if True:  # as in a cell that defines a function under a condition

    @torch.no_grad()
    def update(parameter: torch.Tensor, gradient: torch.Tensor, lr: float) -> torch.Tensor:
        """Indented, decorated, and with a learning rate of its own."""
        return parameter - 0.1 * gradient


def test_functions_of_a_notebook_are_judged(data: None) -> None:
    assert repr(handgrad.judge(derivative)) == "derivative: right"
    assert repr(handgrad.judge(derivative, Tanh())).startswith(
        "derivative: wrong: returns float32 for arguments of float64"
    )
    assert "It looks like this mistake: not divided by B." in repr(handgrad.judge(output_delta))
    assert "line 3, `return delta @ a.mean(7)`: IndexError" in repr(handgrad.judge(weight_gradient))
    assert "It looks like this mistake: 0.1 in place of the learning rate." in repr(handgrad.judge(update))


def test_state_of_the_process_is_left_as_it_was(data: None) -> None:
    with hydra.initialize_config_dir(str(ROOT / "conf"), **BASE):
        torch.manual_seed(1)
        expected = torch.rand(1)
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(1)
        first = torch.get_num_threads()
        handgrad.load(handgrad.train(*SMALL, "threads=1", "seed=7"))
        assert torch.get_num_threads() == first
        assert torch.equal(torch.rand(1), expected)
        state = random.random(), np.random.rand()  # noqa: NPY002
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        assert state == (random.random(), np.random.rand())  # noqa: NPY002
        assert hydra.compose("train", ["name=mine"]).name == "mine"  # Hydra is still the user's


def test_other_default_precision_is_refused(data: None) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UserError, match="set_default_dtype changes a run's numbers"):
            handgrad.train(*SMALL)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_runs_of_two_threads_do_not_disturb_each_other(data: None) -> None:
    alone = [handgrad.train(*SMALL, f"seed={seed}", show=False).metrics for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: handgrad.train(*SMALL, f"seed={seed}", show=False).metrics, (1, 2)))
    assert alone == together
