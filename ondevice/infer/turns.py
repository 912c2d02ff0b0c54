"""Who writes next: one at a time, first come first served; and how often one may ask."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Closed", "Full", "Rates", "TooLate", "Turns"]

_LOOK_S = 0.25


class Full(Exception):
    """As many wait as may."""


class TooLate(Exception):
    """The turn did not come in time."""


class Closed(Exception):
    """No more turns are given."""


class Turns:
    """A queue for one place, shared by threads.

    >>> turns = Turns(most_waiting=8)
    >>> with turns.take(timeout_s=60.0):
    ...     write()
    """

    def __init__(self, *, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._line: deque[object] = deque()  # the first has the turn
        self._closed = False

    @property
    def taken(self) -> int:
        """Those who have the turn or wait for it."""
        return len(self._line)

    @property
    def closed(self) -> bool:
        return self._closed

    @contextmanager
    def take(self, *, timeout_s: float, look: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Waits for the turn and holds it. ``look`` is called while waiting; what it raises ends the wait.

        Raises Full at once, TooLate after ``timeout_s`` seconds, Closed after `close`.
        """
        ticket = object()
        with self._changed:
            if len(self._line) > self._most_waiting:
                raise Full
            self._line.append(ticket)
        try:
            self._wait(ticket, time.monotonic() + timeout_s, look)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _wait(self, ticket: object, until_s: float, look: Callable[[], None]) -> None:
        while True:
            with self._changed:
                if self._closed:
                    raise Closed
                if self._line[0] is ticket:
                    return
                self._changed.wait(_LOOK_S)
                if self._line[0] is ticket and not self._closed:
                    return
            look()
            if time.monotonic() >= until_s:
                raise TooLate

    def close(self) -> None:
        """Whoever waits is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Rates:
    """Requests a minute of each caller, as a bucket that refills evenly; callers not seen for long are forgotten."""

    def __init__(self, per_minute: int, *, most_callers: int = 1024) -> None:
        self._per_minute, self._most_callers = per_minute, most_callers
        self._buckets: dict[str, tuple[float, float]] = {}  # caller -> (requests left, when)
        self._lock = threading.Lock()

    def wait_s(self, caller: str, now_s: float) -> float:
        """0 where the caller may ask now, which then counts; else the seconds until it may."""
        with self._lock:
            left, before_s = self._buckets.pop(caller, (float(self._per_minute), now_s))
            left = min(float(self._per_minute), left + (now_s - before_s) * self._per_minute / 60)
            allowed = left >= 1.0
            self._buckets[caller] = (left - 1.0 if allowed else left, now_s)  # last in the row
            while len(self._buckets) > self._most_callers:
                del self._buckets[next(iter(self._buckets))]
            return 0.0 if allowed else (1.0 - left) * 60 / self._per_minute
