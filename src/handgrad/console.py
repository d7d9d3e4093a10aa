"""Rich consoles that survive a closed pipe."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


HYDRAS_LINE = "Error executing job with overrides"


@contextmanager
def without_hydras_line() -> Iterator[None]:
    """Leave out the line with all that was typed that Hydra prints before an error; our sentence says what is wrong."""
    stream, write = sys.stderr, sys.stderr.write
    stream.write = lambda text: len(text) if text.startswith(HYDRAS_LINE) else write(text)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del stream.write  # the class's own is there again


def detach_stdout() -> None:
    """Send what is still printed nowhere: its reader is gone, which is no reason to lose work."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console(**options: Any) -> "Console":
    """Rich's console, where brackets are text and a reader that has gone away is no error."""
    from rich.console import Console

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            detach_stdout()

    return Patient(markup=False, emoji=False, highlight=False, **options)


def table_console() -> "Console":
    """A console as wide as the terminal, or 120 columns where the output is a file."""
    return make_console(width=None if sys.stdout.isatty() else 120)
