"""Rich consoles that survive a closed pipe."""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


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
    """A console as wide as the terminal, or wide enough for a table where the output is a file."""
    return make_console(width=None if sys.stdout.isatty() else 160)
