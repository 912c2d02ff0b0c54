"""One lasting notification of Android, through ``termux-notification``: posted, brought up to date, removed.

The command takes seconds and may hang for ever, so a thread waits for it, at most one child lives at a time, and who
tells never waits. Knows nothing of runs: texts and button commands are given.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ondevice.device.command import ask_command, mortal

__all__ = ["Notification", "Post", "find_notification"]

COMMAND, REMOVE = "termux-notification", "termux-notification-remove"
SOON_S, PERIOD_S = 30.0, 60.0  # between two posts: where its state changed, and where only numbers did
TIMEOUT_S, REMOVE_S = 8.0, 3.0
GIVE_UP_AFTER, BACK_OFF_S = 3, 600.0


@dataclass(frozen=True, kw_only=True)
class Post:
    """What is to be seen. ``state`` is not shown: where it differs, the news is sent sooner. ``buttons``: up to three
    labels with what a shell is to run, in a bare environment."""

    title: str
    text: str
    state: str = ""
    buttons: Sequence[tuple[str, str]] = field(default=())


def find_notification(env: Mapping[str, str]) -> str | None:
    """The path of the command, or None where it is not installed."""
    return shutil.which(COMMAND, path=env.get("PATH", ""))


class Notification:
    """The notification ``identity``; ``tell`` costs the caller microseconds, ``close`` at most some seconds."""

    def __init__(self, command: str, identity: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._command, self._identity, self._clock = command, identity, clock
        self._shown: Post | None = None
        self._failures, self._tried_s = 0, float("-inf")
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def tell(self, post: Post) -> None:
        """Shows this if it is news and time for news; else nothing, the next call brings it."""
        if post == self._shown or self._stop.is_set() or not self._is_time(post):
            return
        if self._thread is not None and self._thread.is_alive():
            return
        self._tried_s = self._clock()
        self._thread = threading.Thread(target=self._send, args=(post,), name="notification", daemon=True)
        with suppress(RuntimeError):  # no more threads: training matters more
            self._thread.start()

    def _is_time(self, post: Post) -> bool:
        if self._failures >= GIVE_UP_AFTER:
            wait_s = BACK_OFF_S
        else:
            wait_s = PERIOD_S if self._shown is not None and post.state == self._shown.state else SOON_S
        return self._clock() - self._tried_s >= wait_s

    def _send(self, post: Post) -> None:
        try:
            self._ask(self._command, *_arguments(self._identity, post), timeout_s=TIMEOUT_S, stopped=self._stop.is_set)
        except Exception:  # the application is missing, frozen or of another make; nobody is hurt
            self._failures += 1
        else:
            self._shown, self._failures = post, 0

    def close(self) -> None:
        """Ends a post in flight and removes what is shown. A second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(REMOVE_S)
        if self._tried_s == float("-inf") or (self._shown is None and self._failures >= GIVE_UP_AFTER):
            return
        with suppress(Exception):  # it may not even be there
            self._ask(str(Path(self._command).with_name(REMOVE)), self._identity, timeout_s=REMOVE_S)

    def _ask(self, command: str, *words: str, timeout_s: float, stopped: Callable[[], bool] = lambda: False) -> None:
        argv = [*mortal(command, timeout_s), *words]
        ask_command(argv, name=Path(command).name, timeout_s=timeout_s, stopped=stopped)


def _arguments(identity: str, post: Post) -> list[str]:
    """A text is always given, else the command would read one from us; an identity, else it could not be removed."""
    words = ["--id", identity, "--ongoing", "--alert-once", "--priority", "low"]
    words += ["--title", post.title, "--content", post.text]
    for number, (label, action) in enumerate(post.buttons, start=1):
        words += [f"--button{number}", label, f"--button{number}-action", action]
    return words
