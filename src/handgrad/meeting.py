"""Where runs in the threads of one process meet, to do together what each would do alone."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_elsewhere = ContextVar("_elsewhere", default=0.0)


def clock() -> float:
    """Seconds as `time.perf_counter` counts them, without those that this run has waited for others."""
    return time.perf_counter() - _elsewhere.get()


class Meeting:
    """Lets one run at a time go on, until all that are left have something to be done together.

    So what is global in a process, torch's random numbers among it, is one run's at a time, up to where it asks.

    Args:
        runs: how many come.
        work: does what the runs have asked for together; returns an answer for each, in their order.
    """

    def __init__(self, runs: int, work: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self.work = work
        self.present = runs
        self.ended = False
        self.turn = threading.Condition()  # whoever holds its lock goes on
        self.waiting: list[tuple[Any, Future[Any]]] = []

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Take part with this thread's run: begin when the others wait, and let them go on without it in the end."""
        with self.turn:
            token = here.set(self)
            try:
                yield
            finally:
                here.reset(token)
                self.present -= 1
                self._proceed()

    def ask(self, question: Any) -> Any:
        """Have something done together with what the other runs ask for, and return this run's answer.

        Raises:
            SystemExit: the meeting was ended.
        """
        if self.ended:
            raise SystemExit(1)
        asked = time.perf_counter()
        answer = Future[Any]()
        self.waiting.append((question, answer))
        self._proceed()
        self.turn.wait_for(answer.done)
        found, seconds = answer.result()
        _elsewhere.set(_elsewhere.get() + time.perf_counter() - asked - seconds)
        return found

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let the others go on without this thread's run, while it waits for what is not theirs.

        Raises:
            SystemExit: the meeting was ended meanwhile.
        """
        self.present -= 1
        self._proceed()
        self.turn.release()
        try:
            yield
        finally:
            self.turn.acquire()
            self.present += 1
            if self.ended:
                raise SystemExit(1)

    def end(self) -> None:
        """Send every run home, as a signal would."""
        self.ended = True  # before the runs let anyone else have a turn
        with self.turn:
            for _, answer in self.waiting:
                answer.set_exception(SystemExit(1))
            self.waiting.clear()
            self.turn.notify_all()

    def _proceed(self) -> None:
        """Do the work, if there is any and all have asked."""
        if not self.waiting or len(self.waiting) < self.present:
            return
        (questions, answers), self.waiting = zip(*self.waiting, strict=True), []
        began = time.perf_counter()
        try:
            found = self.work(questions)
        except Exception as error:
            for answer in answers:
                answer.set_exception(error)
        else:
            share = (time.perf_counter() - began) / len(answers)
            for answer, its in zip(answers, found, strict=True):
                answer.set_result((its, share))
        self.turn.notify_all()


here: ContextVar[Meeting | None] = ContextVar("here", default=None)  # the meeting that this thread's run takes part in
