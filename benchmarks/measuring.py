"""Timing of an epoch, relative to the matrix products just before and after it, on a machine that is idle."""

import contextlib
import io
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from lightning import Callback

from handgrad.training.matmul import cpu_capabilities

BUSY = 0.75  # load average of the last minute above which figures are noise; importing PyTorch alone takes it to 0.1

Epoch = Callable[[], float]  # trains one epoch, returns its seconds


def machine() -> str:
    """Describe the machine: CPU, number of cores, PyTorch's version."""
    cpu = cpu_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, PyTorch {torch.__version__.partition('+')[0]}"


def refuse_busy() -> None:
    """Refuse to measure on a machine that does other work.

    Raises:
        SystemExit: the load average of the last minute is too high.
    """
    if (load := os.getloadavg()[0]) > BUSY:
        raise SystemExit(
            f"the machine is busy (load {load:.2f}): figures would be noise. Wait until it is below {BUSY}, or measure "
            "nevertheless with --busy"
        )


class Measured(NamedTuple):
    """Seconds of an epoch, and of an epoch's matrix products (the bound) just before and after it."""

    seconds: float
    bound: float

    @property
    def ratio(self) -> float:
        """Seconds of the epoch over those of the matrix products."""
        return self.seconds / self.bound


def timed(epoch: Callable[[], object], device: torch.device) -> Epoch:
    """Wrap an epoch's loop to return its seconds, including the accelerator's work."""

    def run() -> float:
        started = time.perf_counter()
        epoch()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return run


class Terminal(io.StringIO):
    """Null output that the progress bar takes for a terminal."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


class Neighbours(Callback):
    """Callback that times the bound before and after the latest epoch, and the epoch's scoring."""

    def __init__(self, bound: Epoch) -> None:
        self.bound = bound
        self.before = self.after = self.started = self.scoring = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self.before = self.bound()

    def on_validation_start(self, *_: object) -> None:
        self.started = time.perf_counter()

    def on_validation_end(self, *_: object) -> None:
        self.scoring = time.perf_counter() - self.started
        self.after = self.bound()


def measure(contenders: Mapping[str, Callable[[], Any]], bound: Epoch, rounds: int) -> dict[str, list[Measured]]:
    """Return every contender's measurements by name, one per round."""
    rows: dict[str, list[Measured]] = {}
    for _ in range(rounds):
        for name, epoch in contenders.items():
            with contextlib.redirect_stdout(Terminal()), contextlib.redirect_stderr(Terminal()):
                before = bound()
                seconds = epoch()
            if isinstance(seconds, tuple):
                measured, scoring = seconds
                scored = Measured(measured.seconds + scoring, measured.bound)
                rows.setdefault(f"{name} + scoring", []).append(scored)
            else:
                measured = Measured(seconds, (before + bound()) / 2)
            rows.setdefault(name, []).append(measured)
    return rows
