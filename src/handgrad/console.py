"""Rich consoles that survive a closed pipe."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from handgrad.text import escape_control

if TYPE_CHECKING:
    from rich.console import Console


HYDRAS_LINE = "Error executing job with overrides"


@contextmanager
def without_hydras_line() -> Iterator[None]:
    """Suppress the line of overrides that Hydra prints before an error; our own message says what is wrong."""
    stream, write = sys.stderr, sys.stderr.write
    stream.write = lambda text: len(text) if text.startswith(HYDRAS_LINE) else write(text)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del stream.write  # uncovers the class's own method


def detach_stdout() -> None:
    """Redirect stdout to the null device, so that a reader that closed the pipe does not end the command."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console(**options: Any) -> "Console":
    """Return a Rich console without markup that survives a closed pipe."""
    from rich.console import Console

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            detach_stdout()

    return Patient(markup=False, emoji=False, highlight=False, **options)


def is_interactive() -> bool:
    """Tell whether stdout is interactive: a terminal or a notebook."""
    return sys.stdout.isatty() or make_console().is_jupyter


def table_console() -> "Console":
    """Return a console as wide as the terminal, or 120 columns if stdout is a file or pipe."""
    return make_console(width=None if sys.stdout.isatty() else 120)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, without control characters."""
    from rich.table import Table

    table = Table(*headings)
    for row in rows:
        table.add_row(*map(escape_control, row))
    table_console().print(table)


def say(sentence: str) -> None:
    """Print a sentence in one line, without control characters."""
    table_console().print(escape_control(sentence), soft_wrap=True)
