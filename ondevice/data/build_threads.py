"""Two helpers that let reading, encoding and writing overlap: read ahead in a thread, write behind in another.

Neither changes an order or a result; an error of the thread is raised in the caller.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["WriteBehind", "read_ahead"]

T = TypeVar("T")
_AHEAD = 2
_BEHIND = 4


def read_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, the next two of them made by a thread while the caller works. Close it to stop the thread."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(_AHEAD)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ready, stop), name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = ready.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        stop.set()
        while thread.is_alive():  # the thread may wait for room in the queue
            while not ready.empty():
                ready.get_nowait()
            thread.join(0.01)


def _produce(items: Iterator[T], ready: queue.Queue[tuple[bool, Any]], stop: threading.Event) -> None:
    end: BaseException | None = None
    try:
        for item in items:
            ready.put((True, item))
            if stop.is_set():
                return
    except BaseException as error:
        end = error
    ready.put((False, end))


class WriteBehind:
    """Runs pieces of work in order in one thread, at most four behind, and none after one that failed.

    >>> with WriteBehind() as writing:
    ...     writing.submit(lambda: write_chunk(path, ids, header))
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._pending: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, work: Callable[[], None]) -> None:
        """Raises what earlier work raised."""
        while len(self._pending) >= _BEHIND:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, work))

    def _run(self, work: Callable[[], None]) -> None:
        """After a failure nothing more is written, so that there is never a gap in what is."""
        if self._failed:
            return
        try:
            work()
        except BaseException:
            self._failed = True
            raise

    def wait(self) -> None:
        """Until all is done. Raises what the work raised."""
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
