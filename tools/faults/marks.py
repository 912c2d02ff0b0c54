"""Inside a victim: wraps the product's functions so that the board tells what they do; only their timing changes.

Also what the world does to a process from inside: memory that runs out, clocks that jump.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from .board import BACKGROUND, MAIN, Board, Phase

__all__ = ["clock_of", "hog_memory", "hurry_sleep", "mark_phases"]

_DOZE = 5.0
_CHECKPOINT = re.compile(r"step-[0-9]+")


def mark_phases(board: Board) -> None:
    """From now on the board follows this process."""
    from ondevice.run.store import Draft, Store
    from ondevice.train.keeper import Keeper
    from ondevice.train.loop import Loop

    _wrap(board, Loop, "run_to_end", Phase.OTHER)
    _wrap(board, Loop, "_step", Phase.STEP)
    _wrap(board, Keeper, "save", Phase.SAVE)
    _wrap(board, Keeper, "_write", Phase.SAVE)  # what a background save does on its thread
    _wrap(board, Store, "prune", Phase.PRUNE)
    _wrap(board, Store, "lighten", Phase.PRUNE)
    _mark_promotion(board, Draft)


def _lane() -> int:
    return MAIN if threading.current_thread() is threading.main_thread() else BACKGROUND


def _wrap(board: Board, owner: type, name: str, phase: Phase) -> None:
    real = getattr(owner, name)

    @functools.wraps(real)
    def marked(*args: Any, **kwargs: Any) -> Any:
        lane = _lane()
        if board.phase(lane) == phase:
            return real(*args, **kwargs)
        with board.during(lane, phase):
            return real(*args, **kwargs)

    setattr(owner, name, marked)


def _mark_promotion(board: Board, draft: Any) -> None:
    """From the rename that gives a checkpoint its name until the commit returns."""
    began: dict[int, tuple[Phase, int]] = {}
    commit = draft.commit

    def renaming(real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any, **kwargs: Any) -> None:
            if _CHECKPOINT.fullmatch(PurePath(os.fsdecode(target)).name):
                began[_lane()] = board.enter(_lane(), Phase.PROMOTION)
            real(source, target, **kwargs)

        return rename

    def committed(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            checkpoint = commit(self, *args, **kwargs)
            board.committed = checkpoint.step
            return checkpoint
        finally:
            if _lane() in began:
                board.leave(_lane(), began.pop(_lane()))

    draft.commit = committed
    os.rename, os.replace = renaming(os.rename), renaming(os.replace)


def hog_memory(phase: Phase, occurrence: int, board: Board) -> None:
    """Takes memory without end when a phase is entered for that time, until the kernel ends this process."""
    enter = board.enter

    def greedy(lane: int, entered: Phase) -> tuple[Phase, int]:
        before = enter(lane, entered)
        held = []
        while entered == phase and board.entries(phase) == occurrence:
            held.append(bytearray(os.urandom(1 << 16) * 16))
        return before

    setattr(board, "enter", greedy)  # noqa: B010


@contextmanager
def clock_of(board: Board) -> Iterator[None]:
    """The time of day jumps as the board says; monotonic clocks do not, as on a real machine."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + board.clock_ns / 1e9
    time.time_ns = lambda: real_ns() + board.clock_ns
    try:
        yield
    finally:
        time.time, time.time_ns = real, real_ns


def hurry_sleep(board: Board, factor: float) -> None:
    """Sleeping takes so many times less, and every clock of the process believes it took longer, as in a doze."""
    sleep, monotonic, wall = time.sleep, time.monotonic, time.time

    def short(seconds: float, /) -> None:
        sleep(seconds / factor)
        board.slept_ns += int(_DOZE * seconds * 1e9)

    time.sleep = short  # type: ignore[assignment]
    time.monotonic = lambda: monotonic() + board.slept_ns / 1e9
    time.time = lambda: wall() + board.slept_ns / 1e9
