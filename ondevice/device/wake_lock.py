"""Android's wake lock as Termux gives it: a phone that sleeps trains nothing.

One lock for all of Termux, not counted, and nobody can ask who holds it. So a mark beside the scripts for Termux says
that ondevice took it, and which process last; who leaves last gives it back. ``ONDEVICE_WAKE_LOCK=keep``: a person
holds it for other work.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ondevice.device.command import ask_command, mortal

__all__ = ["MARK", "SETTING", "awake"]

SETTING = "ONDEVICE_WAKE_LOCK"  # keep: take it, never give it back; off: leave it alone
MARK = Path(".termux/ondevice/holds-wake-lock")  # below the home; the watchdog and the boot script know it too
TIMEOUT_S = 8.0
_LAST_S = 3.0  # for giving it back, when a person waits for the prompt


@contextmanager
def awake(env: Mapping[str, str], *, others: Callable[[], bool]) -> Iterator[None]:
    """Holds the lock meanwhile, where there is one; never raises for want of it and never waits for it to be taken.

    ``others()``: whether somebody else still needs it when this one ends.
    """
    take = _find("termux-wake-lock", env)
    if take is None or env.get(SETTING) == "off":
        yield
        return
    mark = Path(env.get("HOME") or "/") / MARK
    _put_mark(mark)
    taking = threading.Thread(target=_run, args=(take, TIMEOUT_S), name="wake lock", daemon=True)
    taking.start()
    try:
        yield
    finally:
        taking.join(TIMEOUT_S)
        give = _find("termux-wake-unlock", env)
        if give is not None and env.get(SETTING) != "keep" and not _is_taken_over(mark) and not others():
            with suppress(OSError):
                mark.unlink()
            _run(give, _LAST_S)


def _find(command: str, env: Mapping[str, str]) -> str | None:
    return shutil.which(command, path=f"{env.get('PATH', '')}:{env.get('PREFIX', '')}/bin")


def _put_mark(mark: Path) -> None:
    """Before the lock is taken: whoever finds this process killed gives it back."""
    with suppress(OSError):
        os.makedirs(mark.parent, mode=0o700, exist_ok=True)
        mark.write_text(f"{os.getpid()}\n")


def _is_taken_over(mark: Path) -> bool:
    """Whether a later process took the lock too and still lives; it may be loading torch, and hold no run yet."""
    try:
        pid = int(mark.read_text())
        if pid != os.getpid():
            os.kill(pid, 0)
    except (OSError, ValueError):  # gone, or written by a script
        return False
    return pid != os.getpid()


def _run(command: str, timeout_s: float) -> None:
    with suppress(Exception):  # training goes on without; the system may stretch its pauses then
        ask_command(mortal(command, timeout_s), name=Path(command).name, timeout_s=timeout_s)
