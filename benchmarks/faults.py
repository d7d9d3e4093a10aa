"""Does a run keep its promises when things go wrong? python benchmarks/faults.py [SECTION ...] [--quick] [--seed N].

Hundreds of tiny runs, each hurt in one way and then started again with the same command. The promises, and what the
last full pass found: docs/reliability.md. A run is a process forked from this one, which has imported everything
before; sweeps are processes of their own. Needs Linux; as root it also fills a small disk of its own.
"""

import argparse
import copy
import csv
import ctypes
import errno
import fcntl
import gzip
import itertools
import json
import os
import random
import resource
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import lightning.pytorch.loggers  # noqa: F401 - imported once, here, for all the runs
import matplotlib.backends.backend_agg  # noqa: F401
import torch
import torch.utils.tensorboard
from rich.console import Console
from rich.table import Table

from handgrad.errors import UserError
from handgrad.runs.folder import CHECKPOINTS, HISTORY, LAST, METRICS, TENSORBOARD, run_lock
from handgrad.runs.record import read_record

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "src" / "train.py")
TINY = ["trainer.max_epochs=3", "+trainer.limit_train_batches=10", "+trainer.log_every_n_steps=5", "threads=1"]
HYDRA_SAYS = "Error executing job with overrides: "  # Hydra's own line before a sentence
ENGINES = ("manual", "autograd")
LONGEST = 120  # seconds until a run counts as hanging
Prepare = Callable[[], None]


class Outcome(NamedTuple):
    """What one experiment showed."""

    kind: str
    what: str
    broken: str | None  # the promise that was, in words


class Ended(NamedTuple):
    """How a command ended; a negative status is the signal that ended it."""

    status: int
    out: str
    err: str


class Child:
    """A script of `src/` in a process forked from this one.

    Args:
        arguments: of the command line.
        home: its working directory.
        prepare: called in the process before anything else, to arrange for a fault.
        script: its path.
    """

    def __init__(self, arguments: list[str], home: Path, prepare: Prepare = lambda: None, script: str = TRAIN) -> None:
        sys.stdout.flush()
        pipes = [os.pipe(), os.pipe()]
        self.pid = os.fork()
        if not self.pid:
            for number, (_, writing) in enumerate(pipes, start=1):
                os.dup2(writing, number)
            os.closerange(3, 64)
            become(script, arguments, home, prepare)
        for _, writing in pipes:
            os.close(writing)
        self.reading = [reading for reading, _ in pipes]

    def end(self) -> Ended:
        """Wait for its end."""
        with ThreadPoolExecutor(2) as readers:  # at once: a pipe that nobody reads stops its writer
            said = list(readers.map(read_all, self.reading))
        _, status = os.waitpid(self.pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), *said)


def read_all(reading: int) -> str:
    """What comes out of a pipe until its last writer is gone."""
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def become(script: str, arguments: list[str], home: Path, prepare: Prepare) -> NoReturn:
    """Run the script as Python would, and end this process as Python would."""
    status = 0
    try:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - those of the parent expect its files
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        signal.alarm(LONGEST)
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
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


# Faults: what is done to a run right before its n-th file operation.

CAME = b"# the fault came\n"  # what a run is made to print then
ABOUT_TWO = ("os.rename", "os.link", "os.symlink")  # events with a source and a destination
ABOUT_ONE = ("os.remove", "os.mkdir", "os.rmdir")


def written_path(event: str, details: tuple[Any, ...]) -> str | None:
    """The absolute path that an audited event is about to change, None if it changes none."""
    if event == "open":
        writes = isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path, folder = (details[0] if writes else None), -1
    elif event in ABOUT_TWO:
        path, folder = details[1], -1
    elif event in ABOUT_ONE:
        path, folder = details[0], details[-1]
    else:
        return None
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    name = os.fsdecode(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name) if folder > 0 else os.path.abspath(name)  # noqa: PTH100, PTH115, PTH118


def before_operation(nth: int, below: Path, act: Callable[[bool], None]) -> Prepare:
    """Arrange that `act(first)` is called before the n-th operation below a folder and each one after it."""

    def watch() -> None:
        count = itertools.count(1)

        def hook(event: str, details: tuple[Any, ...]) -> None:
            path = written_path(event, details)
            if path and Path(path).is_relative_to(below):
                n = next(count)  # at once: TensorBoard writes in a thread of its own
                if n == nth:
                    os.write(1, CAME)
                if n >= nth:
                    act(n == nth)

        sys.addaudithook(hook)

    return watch


def send(number: int) -> Callable[[bool], None]:
    """End the run by a signal, once."""
    return lambda first: os.kill(os.getpid(), number) if first else None


def cut_at(size: int) -> Callable[[bool], None]:
    """Let no file grow beyond a number of bytes from now on; what happens then is for SIGXFSZ's handler."""
    return lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def no_space(_: bool) -> None:
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed_in_a_write(nth: int, below: Path, size: int) -> Prepare:
    """Arrange that the system kills the run while it writes, from the n-th operation on, past a file's size."""

    def watch() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        before_operation(nth, below, cut_at(size))()

    return watch


def without_privileges() -> None:
    """Let permissions hold for root too: give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110
    assert libc.capset(header, sets) == 0


def with_tmpdir(folder: Path, then: Prepare = lambda: None) -> Prepare:
    """Arrange for another temporary folder."""

    def prepare() -> None:
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
        then()

    return prepare


# What became of a run.


def left_by(folder: Path) -> dict[str, Any]:
    """All of a run's folder that two equal runs have in common, down to the last digit."""
    record = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    rows = csv.DictReader((folder / HISTORY).read_text(encoding="utf-8").splitlines())
    left = {key: record[key] for key in ("status", "reason", "metrics", "config", "epochs")}
    left["history"] = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    left["weights"] = torch.load(folder / CHECKPOINTS / LAST, weights_only=True)["state_dict"]
    left["weights"] = {name: weight.numpy().tobytes() for name, weight in left["weights"].items()}
    left |= {path.name: path.read_bytes() for path in folder.glob("*.csv") if path.name != HISTORY}
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    left["files"] = {name for name in paths if not name.startswith(f"{TENSORBOARD}/")}
    return left


def not_whole(folder: Path, whole: dict[str, Any]) -> str | None:
    """How a run's folder differs from an uninterrupted run's."""
    try:
        left = left_by(folder)
    except (OSError, ValueError, KeyError) as error:
        return f"the folder is not a whole run's: {error!r}"
    if left["files"] != whole["files"]:
        return f"files: {sorted(left['files'] ^ whole['files'])} too many or missing"
    differ = [key for key in whole if left.get(key) != whole[key]]
    return f"other {', '.join(differ)} than an uninterrupted run" if differ else None


def not_in_a_sentence(ended: Ended) -> str | None:
    """What is wrong with how a run refused or gave up."""
    if "Traceback" in ended.out + ended.err or '  File "' in ended.err:
        return f"a traceback: ...{ended.err.strip()[-300:]}"
    if ended.status < 0:
        return f"ended by {signal.Signals(-ended.status).name}"
    if not ended.status:
        return "status 0"
    lines = [line for line in ended.err.strip().splitlines() if not line.startswith(HYDRA_SAYS)]
    return None if len(lines) == 1 else f"{len(lines)} lines instead of a sentence: {ended.err.strip()[:300]}"


def not_completed(ended: Ended, folder: Path, whole: dict[str, Any]) -> str | None:
    """What is wrong with a run that should have ended well."""
    if ended.status or "Traceback" in ended.err:
        return f"status {ended.status}: {ended.err.strip()[-300:]}"
    return not_whole(folder, whole)


class Lab:
    """Where the experiments take place.

    Args:
        folder: for all that they write.
        quick: a few of each kind.
        seed: draws what is drawn.
    """

    def __init__(self, folder: Path, quick: bool, seed: int) -> None:
        self.folder, self.quick, self.random = folder, quick, random.Random(seed)
        self.data, self.count = folder / "data", 0
        make_data(self.data)
        self.references: dict[str, dict[str, Any]] = {}

    def fresh(self, template: Path | None = None) -> Path:
        """A run's folder that is not there yet, or a copy of another, in an empty working directory."""
        self.count += 1
        home = self.folder / str(self.count)
        home.mkdir()
        if template:
            shutil.copytree(template, home / "run")
        return home / "run"

    def command(self, folder: Path, *arguments: str, data: Path | None = None) -> list[str]:
        """The command line of a tiny run in a folder."""
        return [*TINY, f"data.root={data or self.data}", f"hydra.run.dir={folder}", *arguments]

    def begin(self, folder: Path, *arguments: str, prepare: Prepare = lambda: None, data: Path | None = None) -> Child:
        """Start a run in a folder."""
        return Child(self.command(folder, *arguments, data=data), folder.parent, prepare)

    def run(self, folder: Path, *arguments: str, prepare: Prepare = lambda: None, data: Path | None = None) -> Ended:
        """Have a run in a folder."""
        return self.begin(folder, *arguments, prepare=prepare, data=data).end()

    def whole(self, *arguments: str) -> tuple[Path, dict[str, Any]]:
        """An uninterrupted run: its folder and what it left."""
        key = " ".join(arguments)
        if key not in self.references:
            folder = self.fresh()
            ended = self.run(folder, *arguments)
            assert not ended.status, ended.err
            self.references[key] = {"folder": folder} | left_by(folder)
        left = dict(self.references[key])
        return left.pop("folder"), left

    def operations(self, below: Path, folder: Path, *arguments: str, data: Path | None = None) -> list[str]:
        """What a whole run changes below a folder, in order."""
        told = os.memfd_create("operations")
        os.set_inheritable(told, True)
        high = os.dup2(told, 100)

        def hook(event: str, details: tuple[Any, ...]) -> None:
            path = written_path(event, details)
            if path and Path(path).is_relative_to(below):
                os.write(high, f"{event} {path}\n".encode())

        ended = self.run(folder, *arguments, prepare=lambda: sys.addaudithook(hook), data=data)
        assert not ended.status, ended.err
        os.lseek(told, 0, os.SEEK_SET)
        os.close(high)
        return read_all(told).splitlines()

    def moments(self, operations: int, most: int, stride: int = 1) -> list[int]:
        """Every operation's number, or each stride-th; with --quick about so many of them, evenly spread."""
        return list(range(1, operations + 1, -(-operations // most) if self.quick else stride))


def make_data(root: Path) -> None:
    """Cut the first 1,280 training and 400 test images out of MNIST, unpacked and packed."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (ROOT / "data" / "MNIST" / "raw").glob("*.gz"):
        content = gzip.decompress(archive.read_bytes())
        count = 1280 if "train" in archive.name else 400
        header, size = (16, 784) if "idx3" in archive.name else (8, 1)
        cut = content[:4] + struct.pack(">I", count) + content[8:header] + content[header : header + size * count]
        (raw / archive.name).write_bytes(gzip.compress(cut, mtime=0))
        (raw / archive.stem).write_bytes(cut)


# Section 1: a kill at every file operation.


def went_wrong_when_stopped(first: Ended, folder: Path, expected: int) -> str | None:
    """What is wrong with how a run was stopped; one that was done before its fault came may have ended well."""
    if first.status not in (expected, 0):
        return f"status {first.status}, not {expected}: {first.err.strip()[-300:]}"
    if not first.status and expected != -signal.SIGXFSZ and CAME.decode() in first.out:
        return "the signal was lost: status 0"
    if expected < 0 or not first.status:
        return None
    record = read_record(folder)
    if record and (record["status"], record["reason"]) not in (("failed", "interrupted"), ("completed", None)):
        return f"metrics.json says {record['status']} ({record['reason']}) after a signal"
    return not_in_a_sentence(first)


def stopped_and_resumed(lab: Lab, engine: str, expected: int, prepare: Callable[[Path], Prepare]) -> str | None:
    """Stop a run and start it again."""
    folder, argument = lab.fresh(), f"engine={engine}"
    first = lab.run(folder, argument, prepare=prepare(folder))
    wrong = went_wrong_when_stopped(first, folder, expected)
    wrong = wrong or not_completed(lab.run(folder, argument), folder, lab.whole(argument)[1])
    shutil.rmtree(folder.parent)
    return wrong


def kill(lab: Lab) -> Iterator[Outcome]:
    """Kill a run before, and in the middle of, everything it does to a file."""
    for engine in ENGINES:
        folder = lab.fresh()
        subprocess.run(
            [sys.executable, TRAIN, *lab.command(folder, f"engine={engine}")], check=True, capture_output=True
        )
        yield Outcome("a run that is not forked", engine, not_whole(folder, lab.whole(f"engine={engine}")[1]))
        folder = lab.fresh()
        names = lab.operations(folder, folder, f"engine={engine}")
        for n in lab.moments(len(names), 6):
            what = f"{engine}, operation {n} of {len(names)} ({names[n - 1].replace(str(folder), '')})"
            signals = ((signal.SIGKILL, -9), (signal.SIGTERM, 128 + 15))
            for number, expected in signals if engine == "manual" or n % 3 == 0 else signals[:1]:
                wrong = stopped_and_resumed(
                    lab, engine, expected, lambda to, n=n, number=number: before_operation(n, to, send(number))
                )
                yield Outcome(f"{number.name} before an operation", what, wrong)
            if not names[n - 1].startswith("open"):
                continue
            size = lab.random.choice((0, 1, 100, 100_000 if LAST in names[n - 1] else 200))
            wrong = stopped_and_resumed(
                lab, engine, -signal.SIGXFSZ, lambda to, n=n, size=size: killed_in_a_write(n, to, size)
            )
            yield Outcome("killed in the middle of a write", f"{what}, at byte {size}", wrong)


def unpack(lab: Lab) -> Iterator[Outcome]:
    """Stop a run that unpacks its data, at everything it does to a file there."""

    def packed() -> Path:
        root = lab.fresh().with_name("data")
        shutil.copytree(lab.data, root, ignore=lambda _, names: [name for name in names if name.endswith("ubyte")])
        return root

    wanted = {path.relative_to(lab.data): path.read_bytes() for path in lab.data.rglob("*ubyte*")}
    root = packed()
    names = lab.operations(root, root.with_name("run"), data=root)
    for n in lab.moments(len(names), 5):
        for number, expected in ((signal.SIGKILL, -9), (signal.SIGTERM, 128 + 15), (signal.SIGXFSZ, -25)):
            root = packed()
            folder = root.with_name("run")
            cut = number == signal.SIGXFSZ
            prepare = killed_in_a_write(n, root, 100) if cut else before_operation(n, root, send(number))
            wrong = went_wrong_when_stopped(lab.run(folder, prepare=prepare, data=root), folder, expected)
            left = {k: v for k, v in lab.whole("engine=manual")[1].items() if k != "config"}
            wrong = wrong or not_completed(lab.run(folder, data=root), folder, left)
            there = {path.relative_to(root) for path in root.rglob("*") if path.name != "raw"} - {Path("MNIST")}
            if not wrong and there != set(wanted):
                wrong = f"left in the data folder: {', '.join(map(str, there ^ set(wanted)))}"
            if not wrong and any((root / path).read_bytes() != content for path, content in wanted.items()):
                wrong = "an unpacked file is not its archive's content"
            what = f"operation {n} of {len(names)} ({names[n - 1].split('/raw')[-1]})"
            yield Outcome(f"{'a kill in a write' if cut else number.name} while unpacking", what, wrong)


# Section 2: disks.


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def refused_and_resumed(lab: Lab, first: Ended, folder: Path, engine: str) -> str | None:
    """What is wrong with a run that found no room and was started again when there was some."""
    wrong = not_in_a_sentence(first) if first.status else not_whole(folder, lab.whole(f"engine={engine}")[1])
    return wrong or not_completed(lab.run(folder, f"engine={engine}"), folder, lab.whole(f"engine={engine}")[1])


def disk(lab: Lab) -> Iterator[Outcome]:
    """Temporary folders that are elsewhere, unusable or full; output disks that are full; nothing written elsewhere."""
    yield from temporary_folders(lab)
    for engine in ENGINES:
        folder = lab.fresh()
        names = lab.operations(Path("/"), folder, f"engine={engine}")
        outside = [name for name in names if str(folder) not in name and "/dev/" not in name and "/proc/" not in name]
        parents = {f"os.mkdir {parent}" for parent in folder.parents}
        strange = sorted(set(outside) - parents)
        yield Outcome("writes outside the run's folder", engine, f"it wrote {strange}" if strange else None)
        inside = [name for name in names if str(folder) in name]
        for n in lab.moments(len(inside), 8, stride=1 if engine == "manual" else 4):
            folder = lab.fresh()
            first = lab.run(folder, f"engine={engine}", prepare=before_operation(n, folder, no_space))
            what = f"{engine}, from operation {n} on ({inside[n - 1].split('/run')[-1]})"
            yield Outcome("no space from an operation on", what, refused_and_resumed(lab, first, folder, engine))
            if not inside[n - 1].startswith("open"):
                continue
            size = lab.random.choice((0, 1, 100, 4096, 100_000))
            folder = lab.fresh()
            first = lab.run(folder, f"engine={engine}", prepare=before_operation(n, folder, cut_at(size)))
            yield Outcome(
                "no space within a file", f"{what}, {size} B", refused_and_resumed(lab, first, folder, engine)
            )
        if os.geteuid() == 0:
            yield from full_disks(lab, engine)


def full_disks(lab: Lab, engine: str) -> Iterator[Outcome]:
    """A real file system that fills at some point of the run."""
    whole, _ = lab.whole(f"engine={engine}")
    need = sum(path.stat().st_blocks * 512 for path in whole.rglob("*"))
    for _ in range(4 if lab.quick else 25):
        size = lab.random.randrange(1, 2 * need // 4096) * 4096
        with small_disk(lab.fresh().with_name("disk"), size) as mounted:
            folder = mounted / "run"
            first = lab.run(folder, f"engine={engine}")
            subprocess.run(["mount", "-o", "remount,size=100m", mounted], check=True)
            yield Outcome("a full disk", f"{engine}, {size} B", refused_and_resumed(lab, first, folder, engine))


def temporary_folders(lab: Lab) -> Iterator[Outcome]:
    """A temporary folder on another file system, where a run is killed, and some that cannot be used."""
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    folder = lab.fresh()
    names = lab.operations(folder, folder, "engine=manual")
    of_checkpoints = [n for n, name in enumerate(names, start=1) if LAST in name]
    for n in of_checkpoints[:: 3 if lab.quick else 1]:
        wrong = stopped_and_resumed(
            lab, "manual", -9, lambda to, n=n: with_tmpdir(elsewhere, before_operation(n, to, send(9)))
        )
        left = list(elsewhere.iterdir())
        wrong = wrong or (f"left in TMPDIR: {left}" if left else None)
        yield Outcome("TMPDIR on another disk, killed", f"operation {n} ({names[n - 1]})", wrong)
    shut = elsewhere / "shut"
    shut.mkdir(mode=0o555)
    for name, place in (("read-only", shut), ("missing", elsewhere / "none"), ("a file", Path(TRAIN))):
        folder = lab.fresh()
        ended = lab.run(folder, "engine=manual", prepare=with_tmpdir(place, without_privileges))
        yield Outcome("TMPDIR unusable", name, not_completed(ended, folder, lab.whole("engine=manual")[1]))
    shutil.rmtree(elsewhere)


# Section 3: damaged files.

CHECKPOINT = f"{CHECKPOINTS}/{LAST}"
OURS = (METRICS, HISTORY, CHECKPOINT)
OTHERS = ("seed=1", "activation=tanh", "trainer.precision=64-true", "engine=autograd", "trainer.max_epochs=2")
Damage = Callable[[Path], None]


def remade(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Save a changed checkpoint again."""

    def damage(path: Path) -> None:
        saved = copy.deepcopy(torch.load(path, weights_only=True))
        change(saved)
        torch.save(saved, path)

    return damage


def spoil(saved: dict[str, Any]) -> None:
    """Make every weight NaN."""
    for weight in saved["state_dict"].values():
        weight.fill_(float("nan"))


def rows_of(saved: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of those callbacks that keep a checkpoint's history."""
    return [state for state in saved["callbacks"].values() if "rows" in state]


def instead(make: Callable[[Path], Any]) -> Damage:
    """Put something else in a file's place."""

    def damage(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


def known_damages(lab: Lab) -> Iterator[tuple[str, str, Damage]]:
    """Kind, path and damage of what can be listed."""
    places: dict[str, Callable[[Path], Any]] = {
        "missing": lambda _: None,
        "empty": Path.touch,
        "a directory": Path.mkdir,
        "a full directory": lambda path: (path / "in" / "it").mkdir(parents=True),
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "unreadable": lambda path: (path.touch(), path.chmod(0)),
        "text": lambda path: path.write_text("hello\n"),
        "zeros": lambda path: path.write_bytes(bytes(5000)),
    }
    for name in (*OURS, CHECKPOINTS, TENSORBOARD, ".hydra", ".hydra/config.yaml", ".lock"):
        for what, make in places.items():
            yield f"{what} in a file's place", name, instead(make)
    for other in OTHERS:
        whole, _ = lab.whole(other)
        for name in OURS:
            copied = instead(lambda path, name=name, whole=whole: shutil.copy(whole / name, path))
            yield "another run's file", f"{name} of {other}", copied
    for text in ("null", "[]", "{}", '{"status": "running"}', "NaN", "[" * 10**5, '"' + "x" * 10**6, "\ud800"):
        written = instead(lambda path, text=text: path.write_bytes(text.encode("utf-8", "surrogatepass")))
        yield "JSON of another kind", f"{METRICS} {text[:20]!a}", written
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {"NaN weights": spoil, "nothing changed": lambda _: None}
    keys = ("callbacks", "state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
    changes |= {f"no {key}": lambda saved, key=key: saved.pop(key) for key in keys}
    changes["no rows"] = lambda saved: [state.pop("rows") for state in rows_of(saved)]
    changes["fewer rows"] = lambda saved: [state["rows"].pop() for state in rows_of(saved)]
    for change, do in changes.items():
        yield "saved again by torch", f"{CHECKPOINT} {change}", remade(do)


def random_damage(lab: Lab, path: Path) -> str:
    """Damage a file somewhere; say how."""
    content, how = bytearray(path.read_bytes()), lab.random.choice(("cut", "bits", "zeros", "garbage", "twice", "gap"))
    at, length = lab.random.randrange(len(content)), lab.random.choice((1, 16, 512, 4096))
    if how == "cut":
        del content[at:]
    elif how == "bits":
        for _ in range(lab.random.choice((1, 1, 2, 8))):
            content[lab.random.randrange(len(content))] ^= 1 << lab.random.randrange(8)
    elif how == "gap":
        del content[at : at + length]
    else:
        part = content[at : at + length]
        new = {"zeros": bytes(len(part)), "garbage": lab.random.randbytes(len(part)), "twice": bytes(part) * 2}[how]
        content[at : at + length] = new
    path.write_bytes(content)
    return f"{how} at byte {at}"


def not_as_promised(lab: Lab, folder: Path, engine: str, prepare: Prepare = lambda: None) -> str | None:
    """Start a damaged run again: what is wrong with how that ends; the right result and a sentence are both right."""
    whole = lab.whole(f"engine={engine}")[1]
    ended = lab.run(folder, f"engine={engine}", prepare=prepare)
    if not ended.status:
        wrong = not_whole(folder, whole)
        return wrong if not wrong or not wrong.startswith("files") else None
    with suppress(UserError):
        record = read_record(folder)
        ours = record and record["status"] == "completed" and record["config"] == whole["config"]
        if ours and record and record["metrics"] != whole["metrics"]:
            return "another number in metrics.json"
    return not_in_a_sentence(ended)


def interrupted_run(lab: Lab, engine: str) -> Path:
    """The folder of a run that was killed when it had two of its three epochs."""
    folder = lab.fresh()
    names = lab.operations(folder, folder, f"engine={engine}")
    third = [n for n, name in enumerate(names, start=1) if name.startswith("os.rename") and LAST in name][2]
    folder = lab.fresh()
    assert lab.run(folder, f"engine={engine}", prepare=before_operation(third, folder, send(9))).status == -9
    return folder


def damage(lab: Lab) -> Iterator[Outcome]:
    """Damage the files of an interrupted run, and the record of a completed one, in every way."""
    for engine in ENGINES[:1] if lab.quick else ENGINES:
        killed, completed = interrupted_run(lab, engine), lab.whole(f"engine={engine}")[0]
        listed = list(known_damages(lab))
        for kind, name, do in listed[:: 5 if lab.quick else 1 if engine == "manual" else 3]:
            folder = lab.fresh(killed)
            (folder / ".lock").touch()
            do(folder / name.split(" ")[0])
            yield Outcome(kind, f"{engine}, {name}", not_as_promised(lab, folder, engine, without_privileges))
            shutil.rmtree(folder.parent)
        for template, names in ((killed, OURS), (completed, (METRICS,))):
            state = "a completed" if template == completed else "an interrupted"
            for name in names:
                for _ in range(6 if lab.quick else 30):
                    folder = lab.fresh(template)
                    how = random_damage(lab, folder / name)
                    wrong = not_as_promised(lab, folder, engine)
                    yield Outcome(f"random damage to {state} run's {Path(name).name}", f"{engine}, {how}", wrong)
                    shutil.rmtree(folder.parent)


# Section 4: the lock.


def enter_in_a_loop(folder: Path, inside: Path, times: int, seed: int) -> NoReturn:
    """Enter a folder again and again; end with status 1 if ever another process is inside at the same time."""
    draw, status = random.Random(seed), 0
    while times:
        try:
            with run_lock(folder), inside.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    status = 1
                if draw.random() < 0.02:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(draw.random() * 0.002)
                times -= 1
        except UserError:
            pass
    os._exit(status)


def lock(lab: Lab) -> Iterator[Outcome]:
    """Many processes that want one folder, some of them killed inside; two whole commands at the same time."""
    folder, inside = lab.fresh(), lab.folder / "inside"
    inside.touch()
    for turn in range(3 if lab.quick else 12):
        processes = []
        for number in range(8):
            pid = os.fork()
            if not pid:
                signal.alarm(LONGEST)
                try:
                    enter_in_a_loop(folder, inside, 25, lab.count * 1000 + turn * 10 + number)
                finally:
                    os._exit(2)
            processes.append(pid)
        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes]
        strange = [end for end in ends if end not in (0, -signal.SIGKILL)]
        yield Outcome("8 processes, 25 entries each", f"turn {turn}", f"ended with {strange}" if strange else None)
    for _ in range(5 if lab.quick else 30):
        yield two_at_once(lab)


def two_at_once(lab: Lab) -> Outcome:
    """Start a command twice, the second time a little later."""
    folder, wait = lab.fresh(), lab.random.uniform(0, 2)
    whole = lab.whole("engine=manual")[1]
    one = lab.begin(folder, "engine=manual")
    time.sleep(wait)
    other = lab.begin(folder, "engine=manual")
    ends = [one.end(), other.end()]
    trained = sum("epoch 1/3" in end.out for end in ends)
    wrong = None if trained == 1 else f"trained {trained} times"
    for end in ends:
        if end.status:
            wrong = wrong or not_in_a_sentence(end)
        elif "epoch 1/3" not in end.out and "completed before, skipped" not in end.out:
            wrong = wrong or "one neither trained nor said why"
    return Outcome("two commands at once", f"{wait:.2f} s apart", wrong or not_whole(folder, whole))


# Section 5: signals to sweeps.


def start_sweep(lab: Lab, folder: Path, launcher: str) -> subprocess.Popen[bytes]:
    """Start a sweep of four cells as a process group and session of its own."""
    chosen = ["hydra/launcher=parallel"] if launcher == "parallel" else []
    arguments = [*TINY, f"data.root={lab.data}", f"hydra.sweep.dir={folder}", "seed=0,1", "engine=manual,autograd"]
    return subprocess.Popen(
        [sys.executable, TRAIN, "-m", *chosen, *arguments],
        cwd=folder.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],  # type: ignore[arg-type,return-value]
    )


def alive_in(session: int) -> list[int]:
    """The processes of a session that are not zombies."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                alive.append(int(path.parent.name))
    return alive


def outlived(session: int) -> list[int]:
    """The processes of a session that are still there after ten seconds; they are ended."""
    deadline = time.monotonic() + 10
    while (alive := alive_in(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    return alive


def cells_of(sweep: Path) -> dict[str, dict[str, Any]]:
    """What each run of a sweep has left, by its name."""
    return {path.parent.name.split("_")[1]: left_by(path.parent) for path in sweep.glob(f"*/{METRICS}")}


def signalled_sweep(lab: Lab, launcher: str, number: int, seconds: float, whole: dict[str, Any]) -> str | None:
    """End a sweep by a signal after some seconds and start it again."""
    folder = lab.fresh()
    process = start_sweep(lab, folder, launcher)
    time.sleep(seconds)
    late = process.poll() is not None
    if not late:
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    sent = time.perf_counter()
    said = process.communicate(timeout=LONGEST)[0].decode(errors="replace")
    lasted = time.perf_counter() - sent
    left = outlived(process.pid)
    records = [json.loads(path.read_text()) for path in folder.glob(f"*/{METRICS}")]
    if not process.returncode and not late and lasted > 1:
        return f"the signal was lost: status 0, {lasted:.1f} s later: {said[:1500]}"
    if left or lasted > 10:
        return f"{len(left)} processes outlived it by ten seconds, it the signal by {lasted:.1f} s"
    if "Traceback" in said:
        return f"a traceback: {said[said.index('Traceback') :][-700:]}"
    if any(record["status"] == "running" for record in records):
        return "a run is left 'running'"
    again = start_sweep(lab, folder, launcher)
    said = again.communicate(timeout=LONGEST)[0].decode(errors="replace")
    if again.returncode or "Traceback" in said:
        return f"again: status {again.returncode}: {said[-300:]}"
    cells = cells_of(folder)
    differ = [name for name in whole if cells.get(name) != whole[name]]
    return f"other results, or files, of {', '.join(differ)}" if differ or set(cells) != set(whole) else None


def sweep(lab: Lab) -> Iterator[Outcome]:
    """End sweeps by signals at random moments."""
    for launcher, times in (("serial", 2 if lab.quick else 8), ("parallel", 1 if lab.quick else 6)):
        folder, started = lab.fresh(), time.perf_counter()
        process = start_sweep(lab, folder, launcher)
        said = process.communicate()[0].decode(errors="replace")
        assert not process.returncode, said
        whole, seconds = cells_of(folder), time.perf_counter() - started
        for turn in range(times):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                moment = lab.random.uniform(0.5 if turn % 2 else seconds / 3, seconds)
                wrong = signalled_sweep(lab, launcher, number, moment, whole)
                yield Outcome(f"{launcher} sweep, {number.name}", f"after {moment:.2f} of {seconds:.1f} s", wrong)


SECTIONS = {section.__name__: section for section in (kill, unpack, disk, damage, lock, sweep)}


def shown(outcomes: list[Outcome], seconds: dict[str, float], console: Console) -> None:
    """Print a row per kind of fault, and what was broken."""
    table = Table("fault", "experiments", "broken promises", title="Faults", title_justify="left")
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind]
        table.add_row(kind, str(len(of_kind)), str(sum(outcome.broken is not None for outcome in of_kind)))
    broken = [outcome for outcome in outcomes if outcome.broken]
    table.add_row("all", str(len(outcomes)), str(len(broken)), style="bold")
    console.print(table)
    console.print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))


def main() -> None:
    """Run the sections, print the table, end with status 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Hurt runs in every way and see whether they keep their promises.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="a few of each kind: about five minutes")
    parser.add_argument("--seed", type=int, default=0, help="draws the random damages and moments")
    chosen = parser.parse_args()
    if unknown := set(chosen.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(unknown)} (there are {', '.join(SECTIONS)})")
    torch.set_num_threads(1)
    os.environ["COLUMNS"] = "200"
    console, folder = Console(markup=False, highlight=False, soft_wrap=True), Path(tempfile.mkdtemp(prefix="faults-"))
    outcomes, seconds = [], {}
    for name in chosen.sections or SECTIONS:
        started = time.perf_counter()
        for outcome in SECTIONS[name](Lab(folder / name, chosen.quick, chosen.seed)):
            outcomes.append(outcome)
            if outcome.broken:
                console.print(f"{name}: {outcome.kind}, {outcome.what}: {outcome.broken}")
        seconds[name] = time.perf_counter() - started
        shutil.rmtree(folder / name)
    shutil.rmtree(folder)
    shown(outcomes, seconds, console)
    sys.exit(any(outcome.broken for outcome in outcomes))


if __name__ == "__main__":
    main()
