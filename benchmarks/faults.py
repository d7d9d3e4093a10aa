"""Fault injection into runs: python benchmarks/faults.py [SECTION ...] [--quick] [--seed N].

Hundreds of tiny runs, each with one fault and then restarted by the same command: killed before and in the middle of
every file operation, disk full, files damaged. The promises, and the results of the last full pass, are in
docs/reliability.md. Every run is forked from this process, which has imported everything already. Needs Linux.
"""

import argparse
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch.loggers  # noqa: F401 - imported once, here, for all the runs
import matplotlib.backends.backend_agg  # noqa: F401
import torch
import torch.utils.tensorboard
from rich.console import Console
from rich.table import Table

from handgrad.errors import UserError
from handgrad.runs.folder import CHECKPOINTS, HISTORY, LAST, METRICS, TENSORBOARD
from handgrad.runs.record import read_record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from forking import CAME, Child, before_operation, read_all, written_path

from forks import TRAIN, Ended, Prepare, make_data, results_of

TINY = ["trainer.max_epochs=3", "+trainer.limit_train_batches=10", "+trainer.log_every_n_steps=5", "threads=1"]
ENGINES = ("manual", "autograd")


class Outcome(NamedTuple):
    """Result of one experiment."""

    kind: str
    what: str
    broken: str | None  # the broken promise in words, None if all were kept


def send(number: int) -> Callable[[bool], None]:
    """Return an action that sends the run a signal, once."""
    return lambda first: os.kill(os.getpid(), number) if first else None


def cut_at(size: int) -> Callable[[bool], None]:
    """Return an action that limits file sizes to some bytes from now on; beyond, SIGXFSZ's handler decides."""
    return lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def no_space(_: bool) -> None:
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed_in_a_write(nth: int, below: Path, size: int) -> Prepare:
    """Return a hook by which, from the n-th operation on, a write beyond a file size kills the run."""

    def watch() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        before_operation(nth, below, cut_at(size))()

    return watch


# Checks of how a run ended.


def left_by(folder: Path) -> dict[str, Any]:
    """Return everything in a run's folder that two equal runs share, down to the last digit."""
    record = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    left = {key: record[key] for key in ("status", "reason", "metrics", "config", "epochs")} | results_of(folder)
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    left["files"] = {name for name in paths if not name.startswith(f"{TENSORBOARD}/")}
    return left


def not_whole(folder: Path, whole: dict[str, Any]) -> str | None:
    """Return how a run's folder differs from an uninterrupted run's, None if it does not."""
    try:
        left = left_by(folder)
    except (OSError, ValueError, KeyError) as error:
        return f"the folder is not a whole run's: {error!r}"
    if left["files"] != whole["files"]:
        return f"files: {sorted(left['files'] ^ whole['files'])} too many or missing"
    differ = [key for key in whole if left.get(key) != whole[key]]
    return f"other {', '.join(differ)} than an uninterrupted run" if differ else None


def not_in_a_sentence(ended: Ended) -> str | None:
    """Return what is wrong with a run's refusal: it needs a positive status and one sentence."""
    if "Traceback" in ended.out + ended.err or '  File "' in ended.err:
        return f"a traceback: ...{ended.err.strip()[-300:]}"
    if ended.status < 0:
        return f"ended by {signal.Signals(-ended.status).name}"
    if not ended.status:
        return "status 0"
    lines = ended.err.strip().splitlines()
    return None if len(lines) == 1 else f"{len(lines)} lines instead of a sentence: {ended.err.strip()[:300]}"


def not_completed(ended: Ended, folder: Path, whole: dict[str, Any]) -> str | None:
    """Return what is wrong with a run that should have completed."""
    if ended.status or "Traceback" in ended.err:
        return f"status {ended.status}: {ended.err.strip()[-300:]}"
    return not_whole(folder, whole)


class Lab:
    """Environment of the experiments.

    Args:
        folder: for all files that they write.
        quick: run only a few experiments of each kind.
        seed: seed of the random faults.
    """

    def __init__(self, folder: Path, quick: bool, seed: int) -> None:
        self.folder, self.quick, self.random = folder, quick, random.Random(seed)
        self.data, self.count = folder / "data", 0
        make_data(self.data)
        self.references: dict[str, dict[str, Any]] = {}

    def fresh(self, template: Path | None = None) -> Path:
        """Return a run's folder in an empty working directory: not yet created, or a copy of a template."""
        self.count += 1
        home = self.folder / str(self.count)
        home.mkdir()
        if template:
            shutil.copytree(template, home / "run")
        return home / "run"

    def command(self, folder: Path, *arguments: str, data: Path | None = None) -> list[str]:
        """Return the command line of a tiny run in a folder."""
        return [*TINY, f"data.root={data or self.data}", f"hydra.run.dir={folder}", *arguments]

    def begin(self, folder: Path, *arguments: str, prepare: Prepare = lambda: None, data: Path | None = None) -> Child:
        """Start a run in a folder."""
        return Child(self.command(folder, *arguments, data=data), folder.parent, prepare)

    def run(self, folder: Path, *arguments: str, prepare: Prepare = lambda: None, data: Path | None = None) -> Ended:
        """Start a run in a folder and wait for its end."""
        return self.begin(folder, *arguments, prepare=prepare, data=data).end()

    def whole(self, *arguments: str) -> tuple[Path, dict[str, Any]]:
        """Return the folder and the content of an uninterrupted run."""
        key = " ".join(arguments)
        if key not in self.references:
            folder = self.fresh()
            ended = self.run(folder, *arguments)
            assert not ended.status, ended.err
            self.references[key] = {"folder": folder} | left_by(folder)
        left = dict(self.references[key])
        return left.pop("folder"), left

    def operations(self, below: Path, folder: Path, *arguments: str, data: Path | None = None) -> list[str]:
        """Return the file operations of a whole run below a folder, in order."""
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
        """Return every stride-th operation's number, or with --quick about `most` of all, evenly spread."""
        return list(range(1, operations + 1, -(-operations // most) if self.quick else stride))


# Section 1: a kill at every file operation.


def went_wrong_when_stopped(first: Ended, folder: Path, expected: int) -> str | None:
    """Return what is wrong with how a run was stopped; a run that finished before its fault may have status 0."""
    if first.status not in (expected, 0):
        return f"status {first.status}, not {expected}: {first.err.strip()[-300:]}"
    if not first.status and expected != -signal.SIGXFSZ and CAME.decode() in first.out:
        return "the signal was lost: status 0"
    if expected < 0 or not first.status:
        return None
    record = read_record(folder)
    if record and record["status"] not in ("running", "completed"):
        return f"metrics.json says {record['status']} ({record['reason']}) after a signal"
    return not_in_a_sentence(first)


def stopped_and_resumed(lab: Lab, engine: str, expected: int, prepare: Callable[[Path], Prepare]) -> str | None:
    """Stop a run, restart it, and return what is wrong."""
    folder, argument = lab.fresh(), f"engine={engine}"
    first = lab.run(folder, argument, prepare=prepare(folder))
    wrong = went_wrong_when_stopped(first, folder, expected)
    wrong = wrong or not_completed(lab.run(folder, argument), folder, lab.whole(argument)[1])
    shutil.rmtree(folder.parent)
    return wrong


def kill(lab: Lab) -> Iterator[Outcome]:
    """Kill a run before and in the middle of every file operation."""
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


# Section 2: full disks.


def refused_and_resumed(lab: Lab, first: Ended, folder: Path, engine: str) -> str | None:
    """Return what is wrong with a run that met a full disk and was restarted with space."""
    wrong = not_in_a_sentence(first) if first.status else not_whole(folder, lab.whole(f"engine={engine}")[1])
    return wrong or not_completed(lab.run(folder, f"engine={engine}"), folder, lab.whole(f"engine={engine}")[1])


def disk(lab: Lab) -> Iterator[Outcome]:
    """Fill the disk at every file operation; check that nothing is written outside the run's folder."""
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


# Section 3: damaged files.

CHECKPOINT = f"{CHECKPOINTS}/{LAST}"
OURS = (METRICS, HISTORY, CHECKPOINT)


def random_damage(lab: Lab, path: Path) -> str:
    """Damage a file at a random place; return how."""
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


def not_as_promised(lab: Lab, folder: Path, engine: str) -> str | None:
    """Restart a damaged run and return what is wrong; both the right result and a one-sentence refusal are correct."""
    whole = lab.whole(f"engine={engine}")[1]
    ended = lab.run(folder, f"engine={engine}")
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
    """Return the folder of a run killed after two of its three epochs."""
    folder = lab.fresh()
    names = lab.operations(folder, folder, f"engine={engine}")
    third = [n for n, name in enumerate(names, start=1) if name.startswith("os.rename") and LAST in name][2]
    folder = lab.fresh()
    assert lab.run(folder, f"engine={engine}", prepare=before_operation(third, folder, send(9))).status == -9
    return folder


def damage(lab: Lab) -> Iterator[Outcome]:
    """Damage the files of an interrupted run, and the record of a completed one, at random."""
    for engine in ENGINES[:1] if lab.quick else ENGINES:
        killed, completed = interrupted_run(lab, engine), lab.whole(f"engine={engine}")[0]
        for template, names in ((killed, OURS), (completed, (METRICS,))):
            state = "a completed" if template == completed else "an interrupted"
            for name in names:
                for _ in range(6 if lab.quick else 30):
                    folder = lab.fresh(template)
                    how = random_damage(lab, folder / name)
                    wrong = not_as_promised(lab, folder, engine)
                    yield Outcome(f"random damage to {state} run's {Path(name).name}", f"{engine}, {how}", wrong)
                    shutil.rmtree(folder.parent)


SECTIONS = {section.__name__: section for section in (kill, disk, damage)}


def shown(outcomes: list[Outcome], seconds: dict[str, float], console: Console) -> None:
    """Print a row per kind of fault with the number of broken promises, and the seconds."""
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
    parser.add_argument("--quick", action="store_true", help="a few of each kind: some minutes")
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
