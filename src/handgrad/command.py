"""How every command starts and ends: what its console can show, its signals, and errors that are one sentence."""

import codecs
import difflib
import functools
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from handgrad.config import unusable
from handgrad.settings import plain
from handgrad.sweep import Sweep

if TYPE_CHECKING:
    from rich.console import Console

ENDING = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # the signals that end a command
PLAIN_SIGNS = {"±": "+-", "…": "..."}
SIGNALLED = 128  # plus a signal's number: the exit status that shells know
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's variable: "1" gives every error with its traceback


def run(command: Callable[[], None]) -> None:
    """Run a Hydra command to an exit status; what the user can mend is answered by one sentence."""
    prepare()
    if any(word.startswith("--e") for word in sys.argv[1:]):  # argparse takes a flag's beginning for the flag
        print("--experimental-rerun reads a pickle, which can run any code: type its overrides again", file=sys.stderr)
        sys.exit(2)
    everything = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra hands its errors on instead of printing them
    try:
        command()
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code > SIGNALLED:
            say_interrupted(signal.Signals(stop.code - SIGNALLED).name)
        raise
    except BrokenPipeError:
        leave_output()
        sys.exit(1)
    except Exception as error:
        Sweep.report()  # at a job that failed Hydra ends a sweep without a word to its callbacks
        sentence = in_words(error)
        if everything or sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(1)
    finally:
        for number in ENDING:  # whatever ends the process from here on interrupts nothing
            if signal.getsignal(number) == end:
                signal.signal(number, signal.SIG_DFL)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            leave_output()


def prepare() -> None:
    """Let this process print whatever there is to print, and end on a signal as on Ctrl-C."""
    codecs.register_error("handgrad", in_plain_signs)
    threading.excepthook = leave_to_main
    sys.unraisablehook = bring_back
    logging.raiseExceptions = False  # a closed console is no reason for a traceback
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before we were started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="handgrad")
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, end)


def end(number: int, frame: FrameType | None = None) -> NoReturn:
    """Leave with the exit status that a shell expects after a signal."""
    raise SystemExit(SIGNALLED + number)


@functools.cache
def watched_parent() -> int:
    """Start a thread that ends this process, as if by SIGTERM, when its parent is gone; return the parent's number."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # the run in hand is recorded as interrupted
        time.sleep(5)
        os._exit(SIGNALLED + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return parent


def helps_another() -> bool:
    """Whether Lightning has started this process to train along with a first one, which alone writes and reports."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def help_quietly() -> None:
    """Let a process that trains along leave the talking, and what becomes of a signal, to the first one."""
    logging.disable(logging.WARNING)
    for number in ENDING:  # it ends when the first one does
        signal.signal(number, signal.SIG_IGN)
    watched_parent()


def left_alone(error: Exception) -> bool:
    """Tell whether an error says that another of the processes that train together has ended."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("by peer", "NCCL"))


def end_with_parent() -> None:
    """Let a worker of a parallel sweep end when the sweep's own process is killed, and begin no further run."""
    if os.getppid() != watched_parent():
        end(signal.SIGTERM)


def say_interrupted(name: str) -> None:
    """Say in one line what ended the command and how to go on."""
    from handgrad.results import mark_interrupted

    if Sweep.folder:
        mark_interrupted(Sweep.folder)
    with suppress(OSError):  # the terminal may be what has gone
        print(f"interrupted ({name}): the same command with its folder goes on from here", file=sys.stderr, flush=True)


def bring_back(lost: "sys.UnraisableHookArgs") -> None:
    """Send a signal again whose exception Python has lost.

    It loses what is raised while it clears an object away (a `__del__`, a weak reference's callback), and a signal's
    handler may run there: matplotlib's figures have hundreds of them.
    """
    if isinstance(lost.exc_value, SystemExit) and isinstance(lost.exc_value.code, int):
        if lost.exc_value.code > SIGNALLED:
            threading.Timer(0.05, os.kill, (os.getpid(), lost.exc_value.code - SIGNALLED)).start()
    else:
        sys.__unraisablehook__(lost)


def leave_to_main(failed: threading.ExceptHookArgs) -> None:
    """Say nothing of a file that a thread could not write: whoever waits for the thread raises the error again."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


def in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a console cannot show."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN_SIGNS.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def leave_output() -> None:
    """Send what is still printed nowhere: its reader is gone, which is no reason to lose work."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(**options: Any) -> "Console":
    """Rich's console, where brackets are text and a reader that has gone away is no error."""
    from rich.console import Console

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            leave_output()

    return Patient(markup=False, emoji=False, highlight=False, **options)


def table_console() -> "Console":
    """A console as wide as the terminal, or wide enough for a table where the output is a file."""
    return console(width=None if sys.stdout.isatty() else 160)


def in_words(error: Exception) -> str | None:
    """What is wrong and what to do, None where the user cannot mend it."""
    if isinstance(error, OverrideParseException):
        return (
            f"{error}\nWrite {error.override!r} as key=value (--help lists the keys); "
            """a value with signs in it goes in quotes of its own: 'key="value"'."""
        )
    if left_alone(error):
        return (
            "one of the processes that trained together has ended (what it had to say is above): "
            "the same command with its folder goes on from the last checkpoint"
        )
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return plain(f"{unusable(error)}: make room there, or choose another folder")
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return without_null(error) if raised_by_hydra(error) else None
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return "\n".join([str(error), str(cause), *known_keys(cause)])
    return str(error)


def raised_by_hydra(error: Exception) -> bool:
    """Tell whether an error is Hydra's own, about what was typed, and not out of a run."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").split(".")[0] in ("hydra", "hydra_plugins", "omegaconf")


def without_null(error: Exception) -> str:
    """Hydra's complaint; where something was set to null, that is the likeliest cause."""
    nulls = [word for word in sys.argv[1:] if word.endswith("=null")]
    if not nulls:
        return str(error)
    return f"{error}: leave out {', '.join(nulls)}, or choose an option, none where there is one (--help lists them)"


def known_keys(error: OmegaConfBaseException) -> list[str]:
    """For a key that is not there, a line with those that are, beginning with the likeliest."""
    if not isinstance(error.parent_node, DictConfig) or error.key in error.parent_node:
        return []
    known = [str(key) for key in error.parent_node if not str(key).startswith("_")]
    close = difflib.get_close_matches(str(error.key), known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return [f"{hint}Known here: {', '.join(sorted(known))}"]
