"""Forked processes that run scripts of `src/` without importing torch again, and small data for them."""

import atexit
import csv
import gc
import gzip
import multiprocessing
import os
import resource
import runpy
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "src" / "train.py")
LONGEST = 120  # seconds until a process counts as hanging
Prepare = Callable[[], None]


class Harm:
    """Payload that creates the file `mark` when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("mark"),)


class Ended(NamedTuple):
    """Result of a command; a negative status is the signal that ended it."""

    status: int
    out: str
    err: str


# Imported by the fork server, once for all the commands that it forks.
PRELOADED = [
    "handgrad.training.run",
    "handgrad.training.layer_stats",
    "handgrad.comparison.report",
    "handgrad.sweep",
    "lightning.pytorch.loggers",
    "matplotlib.backends.backend_agg",
    "torch.utils.tensorboard",
    "hydra._internal.hydra",
    "hydra._internal.core_plugins.basic_launcher",
    "hydra._internal.core_plugins.basic_sweeper",
]
FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(PRELOADED)


class Command:
    """Command forked from a server that has imported everything, in its own process group, as from a shell.

    Offers the part of `subprocess.Popen` that the tests use; output goes to files.

    Args:
        script: path of a script of `src/`.
        arguments: command-line arguments.
        home: working directory.
        environment: changed variables; those that Python reads at start, PYTHONIOENCODING, have no effect.
    """

    def __init__(self, script: str, arguments: list[str], home: Path, environment: dict[str, str]) -> None:
        self.files = [Path(tempfile.mkstemp()[1]) for _ in range(2)]
        self.process = FORK_SERVER.Process(
            target=become_command, args=(script, arguments, home, self.files, os.environ | environment)
        )
        self.process.start()
        self.terminate, self.kill = self.process.terminate, self.process.kill

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, not to its group."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process.pid
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status; the negative signal number if a signal ended it; None while it runs."""
        return self.process.exitcode

    def ended_within(self, seconds: float) -> bool:
        """Wait for the end; return whether it came in time."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def communicate(self, timeout: float = 200) -> tuple[str, str]:
        """Wait for the end; return stdout and stderr."""
        if not self.ended_within(timeout):
            os.killpg(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(self.process.name, timeout)
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self.files)
        return out, err

    def end(self) -> Ended:
        """Wait for the end; return status and output."""
        said = self.communicate()
        return Ended(int(self.process.exitcode or 0), *said)


def become_command(
    script: str, arguments: list[str], home: Path, files: list[Path], environment: dict[str, str]
) -> NoReturn:
    """Run the script in this fork-server process, with default signal handlers and its output in files."""
    import torch

    os.setsid()
    # Background jobs of a shell ignore SIGINT, those of nohup SIGHUP; their children, this test too, inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    become(script, arguments, home, lambda: None, longest=0)


def become(script: str, arguments: list[str], home: Path, prepare: Prepare, longest: int = LONGEST) -> NoReturn:
    """Run the script and end this process as the Python interpreter would."""
    gc.freeze()  # what the server imported: statsmodels collects garbage at every correction
    status = 0
    try:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - the parent's stream objects expect its files
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        signal.alarm(longest)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(home)
        sys.argv = [script, *arguments]
        prepare()
        runpy.run_path(script, run_name="__main__")
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()  # joblib's ends its workers
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def results_of(folder: Path) -> dict[str, Any]:
    """Return a run's history without seconds, its other tables and its weights, down to the last digit."""
    import torch

    rows = csv.DictReader((folder / "history.csv").read_text(encoding="utf-8").splitlines())
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    found = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    return found | {
        "history.csv": history,
        "weights": {name: weight.view(torch.uint8).numpy().tobytes() for name, weight in weights.items()},
    }


def make_data(root: Path) -> None:
    """Write the first 1,280 training and 400 test images of MNIST, unpacked and as archives."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (ROOT / "data" / "MNIST" / "raw").glob("*.gz"):
        content = gzip.decompress(archive.read_bytes())
        count = 1280 if "train" in archive.name else 400
        header, size = (16, 784) if "idx3" in archive.name else (8, 1)
        cut = content[:4] + struct.pack(">I", count) + content[8:header] + content[header : header + size * count]
        (raw / archive.name).write_bytes(gzip.compress(cut, mtime=0))
        (raw / archive.stem).write_bytes(cut)
