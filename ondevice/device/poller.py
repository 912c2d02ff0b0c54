"""One daemon thread that asks slow sources in turn, and a cache with ages that its owner reads without ever waiting.

It knows nothing of batteries or Android: a source is a question that takes seconds, may fail and may hang. What follows
from an answer or a failure are pure functions of the state before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ondevice.device.answer import Answer, nothing
from ondevice.device.clock import boottime_s
from ondevice.device.unknown import why

__all__ = ["Poller", "SlowSource", "State", "after_answer", "after_failure", "told"]

GIVE_UP_AFTER = 3  # failures in a row
BACK_OFF_S = 600.0
STALE_S = 120.0  # an answer from before a sleep is no answer
_JOIN_S = 1.0


@dataclass(frozen=True)
class SlowSource:
    """``ask(stopped)`` answers, raises for any reason, and comes back soon after ``stopped()`` turned true."""

    names: tuple[str, ...]
    ask: Callable[[Callable[[], bool]], Answer]
    period_s: float


@dataclass(frozen=True)
class State:
    """What is known of one source. Times in seconds of the poller's clock."""

    answer: Answer | None = None
    at_s: float = 0.0
    failures: int = 0
    reason: str = "not asked yet"
    due_s: float = float("-inf")

    @property
    def asked(self) -> bool:
        """Whether it answered or failed at least once."""
        return self.answer is not None or self.failures > 0


def after_answer(answer: Answer, *, now: float, period_s: float) -> State:
    """It answered."""
    return State(answer=answer, at_s=now, reason="", due_s=now + period_s)


def after_failure(state: State, reason: str, *, now: float, period_s: float) -> State:
    """It did not; the last answer stands until it failed too often or the answer is stale."""
    failures = state.failures + 1
    if failures < GIVE_UP_AFTER:
        return replace(state, failures=failures, reason=reason, due_s=now + period_s)
    reason = f"{reason} ({failures} times in a row; asked again every {BACK_OFF_S / 60:.0f} minutes)"
    return State(failures=failures, reason=reason, due_s=now + BACK_OFF_S)


def told(state: State, names: Sequence[str], *, now: float) -> tuple[Answer, float]:
    """What may be believed now, and its age in seconds."""
    if state.answer is None:
        return nothing(names, state.reason), 0.0
    age_s = now - state.at_s
    if age_s <= STALE_S:
        return state.answer, age_s
    reason = f"the last answer is {age_s:.0f} s old"
    return nothing(names, f"{reason}: {state.reason}" if state.reason else reason), 0.0


class Poller:
    """Sources and the thread that asks them. `poke` starts the thread, also in a child after a fork."""

    def __init__(self, sources: Sequence[SlowSource], *, clock: Callable[[], float] = boottime_s) -> None:
        self._sources, self._clock = tuple(sources), clock
        self._states = [State() for _ in sources]  # written by the thread, one whole state at a time
        self._closed = False
        self._thread: threading.Thread | None = None
        self._stop, self._pid = threading.Event(), os.getpid()

    def poke(self) -> None:
        """Makes sure that the thread lives; costs a microsecond. Nothing happens after `close`."""
        if self._closed or not self._sources or (self._thread is not None and self._thread.is_alive()):
            return
        if self._pid != os.getpid():  # the parent's thread may have held the lock of its event when it was forked
            self._stop, self._pid = threading.Event(), os.getpid()
        self._thread = threading.Thread(target=self._work, args=(self._stop,), name="slow sensors", daemon=True)
        self._thread.start()

    def latest(self) -> list[tuple[Answer, float]]:
        """What each source told last and its age in seconds; never waits."""
        now = self._clock()
        return [told(state, source.names, now=now) for source, state in zip(self._sources, self._states, strict=True)]

    @property
    def settled(self) -> bool:
        """Whether every source answered or failed at least once."""
        return all(state.asked for state in self._states)

    def close(self) -> None:
        """Stops the thread; what it waits for is killed. The answers stay and grow old."""
        self._closed = True
        if self._thread is None or self._pid != os.getpid():
            return
        self._stop.set()
        if self._thread is not threading.current_thread():  # which may be the one that collects the garbage
            self._thread.join(_JOIN_S)

    def _work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for i, (source, state) in enumerate(zip(self._sources, self._states, strict=True)):
                if state.due_s <= self._clock() and not stop.is_set():
                    self._states[i] = self._ask(source, state, stop)
            stop.wait(max(0.05, min(state.due_s for state in self._states) - self._clock()))

    def _ask(self, source: SlowSource, state: State, stop: threading.Event) -> State:
        try:
            answer = source.ask(stop.is_set)
        except Exception as error:  # whatever a vendor's program does, the next question comes
            if stop.is_set():
                return state
            return after_failure(state, why(error), now=self._clock(), period_s=source.period_s)
        return after_answer(answer, now=self._clock(), period_s=source.period_s)
