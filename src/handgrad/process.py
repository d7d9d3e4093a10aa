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
SIGNALLED = 128  # plus a signal's number: the exit status by shell convention
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's environment variable: "1" prints every traceback


def run(command: Callable[[], None], on_error: Callable[[], None] = lambda: None) -> None:
    """Run a Hydra command and set the exit status; errors that the user can fix print one sentence.

    `on_error` is called before an error is printed.
    """
    install_handlers()
    if any(word.startswith("--e") for word in sys.argv[1:]):  # argparse accepts abbreviated flags
        print(
            "--experimental-rerun reads a pickle, which can run arbitrary code: type its overrides instead",
            file=sys.stderr,
        )
        sys.exit(2)
    everything = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # makes Hydra re-raise its errors instead of printing them
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
        for number in ENDING:  # from here on a signal interrupts no work
            if signal.getsignal(number) == exit_on_signal:
                signal.signal(number, signal.SIG_DFL)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            detach_stdout()


def install_handlers() -> None:
    """Make printing robust against closed streams and unencodable text; exit on signals as on Ctrl-C."""
    threading.excepthook = ignore_thread_oserror
    logging.raiseExceptions = False  # no traceback if the console is closed
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
    """Exit with the status that a shell expects after a signal."""
    raise SystemExit(SIGNALLED + number)


@functools.cache
def watched_parent() -> int:
    """Start a thread that ends this process by SIGTERM when its parent exits; return the parent's PID."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # the run counts as interrupted
        time.sleep(5)
        os._exit(SIGNALLED + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return parent


def import_from_here() -> None:
    """Make classes of the working directory importable, last; only for those that were typed or are trusted."""
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds texts
        sys.path.append(here)


def is_ddp_worker() -> bool:
    """Tell whether this is a DDP worker of rank 1 or above; only rank 0 writes and reports."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def silence_ddp_worker() -> None:
    """Silence a DDP worker's logging and ignore signals: rank 0 handles both."""
    logging.disable(logging.WARNING)
    for number in ENDING:  # it ends when rank 0 does
        signal.signal(number, signal.SIG_IGN)
    watched_parent()


def end_with_parent() -> None:
    """End a parallel sweep's worker, before it starts another run, if the sweep's own process was killed."""
    if os.getppid() != watched_parent():
        exit_on_signal(signal.SIGTERM)


def say_interrupted(name: str) -> None:
    """Print which signal ended the command and how to resume."""
    with suppress(OSError):  # the terminal may be closed
        resumes = ": the same command with its folder resumes from here" if sys.argv[0].endswith("train.py") else ""
        print(f"interrupted ({name}){resumes}", file=sys.stderr, flush=True)


def ignore_thread_oserror(failed: threading.ExceptHookArgs) -> None:
    """Ignore OSErrors in threads; joining the thread raises them again."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)
