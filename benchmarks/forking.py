"""Runs forked from this process with a hook on their file operations, to disturb them."""

import itertools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from forks import TRAIN, Ended, Prepare, become


class Child:
    """Process forked from this one that runs a script of `src/`.

    Args:
        arguments: command-line arguments.
        home: working directory.
        prepare: called first in the new process, to arrange for a fault.
        script: path of the script.
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
        """Wait for the end; return status and output."""
        with ThreadPoolExecutor(2) as readers:  # in parallel: a full pipe blocks its writer
            said = list(readers.map(read_all, self.reading))
        _, status = os.waitpid(self.pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), *said)


def read_all(reading: int) -> str:
    """Read a pipe until its last writer closes it."""
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode(errors="replace")


CAME = b"# the fault came\n"  # printed by a run when its fault occurs
ABOUT_TWO = ("os.rename", "os.link", "os.symlink")  # events with a source and a destination
ABOUT_ONE = ("os.remove", "os.mkdir", "os.rmdir")


def written_path(event: str, details: tuple[Any, ...]) -> str | None:
    """Return the absolute path that an audited event is about to change, None if it changes none."""
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
    """Return a hook that calls `act(first)` before the n-th file operation below a folder and every later one."""

    def watch() -> None:
        count = itertools.count(1)

        def hook(event: str, details: tuple[Any, ...]) -> None:
            path = written_path(event, details)
            if path and Path(path).is_relative_to(below):
                n = next(count)  # atomic: TensorBoard writes in its own thread
                if n == nth:
                    os.write(1, CAME)
                if n >= nth:
                    act(n == nth)

        sys.addaudithook(hook)

    return watch
