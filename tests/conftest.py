"""Shared fixtures: real MNIST, the real command line, one torch thread per test process."""

import csv
import gc
import json
import os
import pickle
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer

from forks import ROOT as ROOT
from forks import TRAIN, Command, Ended, make_data
from handgrad.hydra_version import BASE
from handgrad.nn.activations import GELU, Activation, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from handgrad.training.callbacks import History
from handgrad.training.data import Examples
from handgrad.training.mnist import MNISTDataModule

RunCommand = Callable[..., Ended]
RunScript = Callable[..., tuple[int, str]]
Trained = Callable[..., dict[str, Any]]
SCRIPT = TRAIN
USUAL = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}  # variables of a command
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def mostly_slow(cases: Iterable[Any], always: int) -> list[Any]:
    """Mark a test's cases as slow except for the first ones."""
    return [
        case if number < always else pytest.param(case, marks=pytest.mark.slow) for number, case in enumerate(cases)
    ]


ACTIVATIONS: list[Activation] = [Sigmoid(), Tanh(), ReLU(), LeakyReLU(0.1), SiLU(), GELU(), Softplus()]


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection, which statsmodels triggers; collect rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


torch.set_num_threads(1)  # two test processes share two cores
# TensorBoard numbers a process's event files and reads them in order of name: use seven digits for all.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)


@pytest.fixture(scope="session", autouse=True)
def files_read_once() -> Iterator[None]:
    """Read each file of conf/ once: Hydra reads and copies them for every command, a third of a refusal's time."""
    original, cache = ConfigRepository.load_config, dict[str, bytes]()

    def load(repository: ConfigRepository, config_path: str) -> Any:
        if [source.path for source in repository.sources] != ["hydra.conf", str(ROOT / "conf"), ""]:
            return original(repository, config_path)  # a test's own files, which may change
        if config_path not in cache:
            cache[config_path] = pickle.dumps(original(repository, config_path))
        return pickle.loads(cache[config_path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load)
        patch.setattr(ConfigStore, "__deepcopy__", lambda store, _: store, raising=False)
        yield


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Restore denormals (below 1e-38), which a run flushes, for the other tests."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium; tests that need it are skipped if it is missing."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def mnist_in(root: Path) -> MNISTDataModule:
    """Return the data in a folder, as training reads them."""
    data = MNISTDataModule(root=str(root))
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="session")
def mnist() -> MNISTDataModule:
    """All of MNIST."""
    return mnist_in(ROOT / "data")


@pytest.fixture(scope="session")
def images_640(mnist: MNISTDataModule) -> Examples:
    """The first 640 training images."""
    train = mnist.sets["train"]
    return Examples(train.rows[:640], train.targets[:640])


def head_of(images: Examples, count: int) -> Examples:
    """Return the first images of a set."""
    return Examples(images.rows[:count], images.targets[:count])


@pytest.fixture(scope="session")
def tiny_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data folder with the first 1,280 training and 400 test images of MNIST: twenty batches of 64."""
    root = tmp_path_factory.mktemp("small")
    make_data(root)
    return root


@pytest.fixture
def drawn() -> None:
    """Marker for tests that need a run's figures, which are not drawn without it."""


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Disable a run's figures, which take half of a small run's time."""
    drawings = [f"handgrad.training.figures.{name}" for name in ("confusion", "curves", "deformations", "predictions")]
    drawings += [f"handgrad.training.{module}.write_figure" for module in ("artifacts", "layer_stats")]
    for drawing in (*drawings, "torch.utils.tensorboard.SummaryWriter.add_figure"):
        patch.setattr(drawing, lambda *_, **__: None)


@pytest.fixture
def run_script(
    tiny_mnist: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> RunScript:
    """Run `src/train.py` on the small data, or another script, in this process and an empty folder.

    Returns its exit status and output.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)  # it composes a second time
    if "drawn" not in request.fixturenames:
        draw_nothing(monkeypatch)

    def call(*arguments: str, script: str = SCRIPT) -> tuple[int, str]:
        script = str(ROOT / "src" / script)
        ours = [f"data.root={tiny_mnist}", "+trainer.log_every_n_steps=5"] if script == SCRIPT else []
        ours = ours[1:] if {"data=table", "data=arrays", "--config-dir=conf"} & set(arguments) else ours
        ours += without_report(arguments) if script == SCRIPT else []
        ours = [word for word in ours if not any(word.split("=")[0] in other for other in arguments)]
        monkeypatch.setattr(sys, "argv", [script, *arguments, *ours])
        handlers, variables = [signal.getsignal(number) for number in SIGNALS], dict(os.environ)
        folders = list(sys.path)
        torch.set_num_threads(1)
        status = 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        finally:
            sys.path[:] = folders  # Hydra appends the current one
            os.environ.clear()  # removes those that Lightning sets for its processes too
            os.environ.update(variables)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for number, handler in zip(SIGNALS, handlers, strict=True):
                signal.signal(number, handler)
        return status, "".join(capfd.readouterr())

    return call


def ran(run_script: RunScript, *arguments: str, **script: str) -> str:
    """Run a script that must succeed; return its output."""
    status, printed = run_script(*arguments, **script)
    assert status == 0, printed
    return printed


def refused(run_script: RunScript, sentence: str, *arguments: str, script: str = SCRIPT) -> str:
    """Run a command; assert status 1 and a sentence in its output, which is returned, without a traceback."""
    printed = refusal(run_script, *arguments, script=script)
    assert sentence in printed, printed
    return printed


def refusal(run_script: RunScript, *arguments: str, **script: str) -> str:
    """Run a script that must end with status 1 and without a traceback; return its output."""
    status, printed = run_script(*arguments, **script)
    assert status == 1, printed
    assert "Traceback" not in printed
    return printed


@pytest.fixture
def trained(run_script: RunScript) -> Trained:
    """Train a small network for an epoch in the folder `run`; return its record."""

    def train(*options: str, sizes: str = "30,20", folder: str = "run") -> dict[str, Any]:
        usual = [f"network.hidden_sizes=[{sizes}]", "trainer.max_epochs=1", "logger=none", f"hydra.run.dir={folder}"]
        ran(run_script, *usual, *options)
        return record_of(Path(folder))

    return train


def without_report(arguments: tuple[str, ...]) -> list[str]:
    """Return the option that skips a sweep's report, which takes longer than the runs, unless a test asks for it."""
    return ["report=false"] if "-m" in arguments and not any("report=" in word for word in arguments) else []


def start(folder: Path, tiny_mnist: Path, *arguments: str, script: str = SCRIPT) -> Command:
    """Start a script of `src/` in the background."""
    ours = [f"data.root={tiny_mnist}", *without_report(arguments)] if script == SCRIPT else []
    return Command(str(ROOT / "src" / script), [*arguments, *ours], folder, USUAL)


def start_fresh(folder: Path, tiny_mnist: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `src/train.py` in a new interpreter: standard streams are set up at its start."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments, f"data.root={tiny_mnist}"],
        cwd=folder,
        env=os.environ | USUAL | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@contextmanager
def ended_at_scoring(number: int) -> Iterator[None]:
    """End the process, as SIGTERM does, after the n-th validation."""
    sound, calls = History.on_validation_end, []

    def end(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == number:
            raise SystemExit(143)
        sound(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "on_validation_end", end)
        yield


def wait_for(folder: Path, pattern: str, count: int = 1) -> None:
    """Wait until a folder holds `count` files that match a pattern."""
    deadline = time.monotonic() + 90
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def words(options: str) -> list[str]:
    """Split options as a shell does, except that spaces inside braces do not split."""
    return re.findall(r"(?:\{[^}]*\}|[^\s{])+", options)


def compose(*overrides: str, whole: bool = False) -> DictConfig:
    """Compose the configuration of a run; the `whole` has Hydra's own node."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), **BASE):
        return hydra.compose("train", list(overrides), return_hydra_config=whole)


def record_of(folder: Path | str) -> dict[str, Any]:
    """Read a run's `metrics.json`."""
    loaded: dict[str, Any] = json.loads(Path(folder, "metrics.json").read_text(encoding="utf-8"))
    return loaded


def rows_of(folder: Path | str, name: str = "history.csv") -> list[dict[str, str]]:
    """Read a run's table."""
    with Path(folder, name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(folder: Path | str) -> list[dict[str, str]]:
    """Read the history of a run but for its seconds, as two equal runs have it."""
    return [{key: row[key] for key in row if key != "seconds"} for row in rows_of(folder)]


def session_of(board: EventAccumulator) -> Any:
    """Return a run's row of TensorBoard's table: its `hparams`, and the `group_name` of its trial."""
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return HParamsPluginData.FromString(content).session_start_info


def board_of(folder: Path | str) -> EventAccumulator:
    """Read all that a run logged to TensorBoard."""
    board = EventAccumulator(str(Path(folder, "tensorboard")), {"scalars": 0, "images": 0, "histograms": 0})
    board.Reload()
    return board


@pytest.fixture
def command(tmp_path: Path) -> RunCommand:
    """Run a script of `src/` in an empty folder with a link to the project's data; return status and output."""
    (tmp_path / "data").symlink_to(ROOT / "data")

    def call(script: str, *arguments: str) -> Ended:
        words = [*arguments, *without_report(arguments)]
        return Command(str(ROOT / "src" / script), words, tmp_path, USUAL).end()

    return call
