"""What the tests share: real MNIST, the real command line, and every core for one test at a time."""

import gc
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.summary.writer import event_file_writer

from forks import ROOT as ROOT
from forks import TRAIN, Command, Ended, make_data
from handgrad.nn.activations import GELU, Activation, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from handgrad.training.callbacks import History
from handgrad.training.data import Images, MNISTDataModule

RunCommand = Callable[..., Ended]
RunScript = Callable[..., tuple[int, str]]
SCRIPT = TRAIN
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ACTIVATIONS: list[Activation] = [Sigmoid(), Tanh(), ReLU(), LeakyReLU(0.1), SiLU(), GELU(), Softplus()]


def pytest_collection_finish() -> None:
    """Keep what was imported out of every garbage collection; statsmodels asks for one at each correction."""
    gc.collect()
    gc.freeze()


torch.set_num_threads(1)  # two test processes share two cores
# TensorBoard counts a process's event files and reads them in the order of their names: all get seven digits.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Leaves the other tests the numbers below 1e-38 that a run flushes."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser without a window; a test that needs one is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def mnist() -> MNISTDataModule:
    """The whole of MNIST, as training sees it."""
    data = MNISTDataModule(root=str(ROOT / "data"))
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="session")
def images_640(mnist: MNISTDataModule) -> Images:
    """The first 640 training images."""
    train = mnist.sets["train"]
    return Images(train.images[:640], train.targets[:640])


def head_of(images: Images, count: int) -> Images:
    """The first images of a set."""
    return Images(images.images[:count], images.targets[:count])


@pytest.fixture(scope="session")
def tiny_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the first 1,280 training and 400 test images of MNIST: twenty batches of 64."""
    root = tmp_path_factory.mktemp("small")
    make_data(root)
    return root


@pytest.fixture
def drawn() -> None:
    """Asked for by a test of the figures that every run leaves: without it they are not drawn."""


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave out the figures of a run: they take half of a small run's time."""
    drawings = [f"handgrad.training.figures.{name}" for name in ("confusion", "curves", "predictions")]
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
    """Runs `src/train.py` on the small data, or another script, in this process and an empty folder.

    Returns its status and what it printed.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)  # it composes a second time
    if "drawn" not in request.fixturenames:
        draw_nothing(monkeypatch)

    def call(*arguments: str, script: str = SCRIPT) -> tuple[int, str]:
        ours = [f"data.root={tiny_mnist}", "+trainer.log_every_n_steps=5"] if script == SCRIPT else []
        ours += without_report(arguments) if script == SCRIPT else []
        ours = [word for word in ours if not any(word.split("=")[0] in other for other in arguments)]
        script = str(ROOT / "src" / script)
        monkeypatch.setattr(sys, "argv", [script, *arguments, *ours])
        handlers, variables = [signal.getsignal(number) for number in SIGNALS], dict(os.environ)
        torch.set_num_threads(1)
        status = 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        finally:
            os.environ.clear()  # Lightning's account of its processes among them
            os.environ.update(variables)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for number, handler in zip(SIGNALS, handlers, strict=True):
                signal.signal(number, handler)
        return status, "".join(capfd.readouterr())

    return call


def without_report(arguments: tuple[str, ...]) -> list[str]:
    """Of a sweep, what leaves out its report, unless a test asks for it: it takes longer than the runs."""
    return ["report=false"] if "-m" in arguments and not any("report=" in word for word in arguments) else []


def start(folder: Path, tiny_mnist: Path, *arguments: str, script: str = SCRIPT) -> Command:
    """Start a script of `src/` in the background."""
    ours = [f"data.root={tiny_mnist}", *without_report(arguments)] if script == SCRIPT else []
    return Command(str(ROOT / "src" / script), [*arguments, *ours], folder, {"OMP_NUM_THREADS": "1", "COLUMNS": "200"})


def start_fresh(folder: Path, tiny_mnist: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `src/train.py` in a new interpreter: what it does with its streams is the interpreter's business too."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments, f"data.root={tiny_mnist}"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
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
    """Wait until a folder holds so many files of a pattern."""
    deadline = time.monotonic() + 90
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def words(options: str) -> list[str]:
    """What is typed, as a shell hands it on; spaces in braces belong to a word."""
    return re.findall(r"(?:\{[^}]*\}|[^\s{])+", options)


def record_of(folder: Path) -> dict[str, Any]:
    """What a run has left in its `metrics.json`."""
    loaded: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def command(tmp_path: Path) -> RunCommand:
    """Runs a script of `src/` in an empty folder that sees the project's data; returns what it printed."""
    (tmp_path / "data").symlink_to(ROOT / "data")

    def call(script: str, *arguments: str) -> Ended:
        words = [*arguments, *without_report(arguments)]
        started = Command(str(ROOT / "src" / script), words, tmp_path, {"OMP_NUM_THREADS": "1", "COLUMNS": "200"})
        out, err = started.communicate()
        assert started.returncode is not None
        return Ended(started.returncode, out, err)

    return call
