"""Start and end of every command: signal handlers, exit status, workers of parallel and distributed runs."""

import functools
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from handgrad.console import detach_stdout, without_hydras_line
from handgrad.errors import describe_error

ENDING = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # the signals that end a command
SIGNALLED = 128  # plus a signal's number: the exit status that shells know
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's variable: "1" gives every error with its traceback


def run(command: Callable[[], None], on_error: Callable[[], None] = lambda: None) -> None:
    """Run a Hydra command to an exit status; what the user can mend is answered by one sentence.

    Args:
        command: of a script.
        on_error: called before an error is printed.
    """
    install_handlers()
    if any(word.startswith("--e") for word in sys.argv[1:]):  # argparse takes a flag's beginning for the flag
        print("--experimental-rerun reads a pickle, which can run any code: type its overrides again", file=sys.stderr)
        sys.exit(2)
    everything = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra hands its errors on instead of printing them
    try:
        with without_hydras_line():
            command()
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code > SIGNALLED:
            say_interrupted(signal.Signals(stop.code - SIGNALLED).name)
        raise
    except BrokenPipeError:
        detach_stdout()
        sys.exit(1)
    except Exception as error:
        on_error()
        sentence = describe_error(error)
        if everything or sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(1)
    finally:
        for number in ENDING:  # whatever ends the process from here on interrupts nothing
            if signal.getsignal(number) == exit_on_signal:
                signal.signal(number, signal.SIG_DFL)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            detach_stdout()


def install_handlers() -> None:
    """Let this process print whatever there is to print, and end on a signal as on Ctrl-C."""
    threading.excepthook = ignore_thread_oserror
    logging.raiseExceptions = False  # a closed console is no reason for a traceback
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before we were started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, exit_on_signal)


def exit_on_signal(number: int, frame: FrameType | None = None) -> NoReturn:
    """Leave with the exit status that a shell expects after a signal."""
    raise SystemExit(SIGNALLED + number)


@functools.cache
def watched_parent() -> int:
    """Start a thread that ends this process, as if by SIGTERM, when its parent is gone; return the parent's number."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # the run counts as interrupted
        time.sleep(5)
        os._exit(SIGNALLED + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return parent


def is_ddp_worker() -> bool:
    """Whether Lightning has started this process to train along with a first one, which alone writes and reports."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def silence_ddp_worker() -> None:
    """Let a process that trains along leave the talking, and what becomes of a signal, to the first one."""
    logging.disable(logging.WARNING)
    for number in ENDING:  # it ends when the first one does
        signal.signal(number, signal.SIG_IGN)
    watched_parent()


def end_with_parent() -> None:
    """Let a worker of a parallel sweep end when the sweep's own process is killed, and begin no further run."""
    if os.getppid() != watched_parent():
        exit_on_signal(signal.SIGTERM)


def say_interrupted(name: str) -> None:
    """Say in one line what ended the command and how to go on."""
    with suppress(OSError):  # the terminal may be what has gone
        print(f"interrupted ({name}): the same command with its folder goes on from here", file=sys.stderr, flush=True)


def ignore_thread_oserror(failed: threading.ExceptHookArgs) -> None:
    """Ignore OSErrors in threads; joining the thread raises them again."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)
