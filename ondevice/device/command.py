"""One question to another program that may hang, crash or print rubbish: its output, or an exception with the reason.

The program gets a process group of its own, nothing to read, and a deadline after which the whole group is killed: the
phone's commands are scripts whose helpers would otherwise stay for ever.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Stopped", "ask_command", "mortal"]

_MOST_BYTES = 1 << 16
_LOOK_UP_S = 0.1  # between two looks whether to stop
_REAP_S = 1.0


class Stopped(Exception):
    """The asker was told to stop while it waited for an answer."""


def ask_command(
    argv: Sequence[str], *, name: str, timeout_s: float, stopped: Callable[[], bool] = lambda: False
) -> str:
    """What the program printed. ``name`` is what a person calls it.

    Raises TimeoutError, ChildProcessError (it failed), ValueError (it printed without end), OSError (it could not be
    started) or Stopped; the program and its helpers are gone by then.
    """
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            out, err = _listen(child, deadline, stopped)
            code = child.wait(max(deadline - time.monotonic(), 0.01))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TimeoutError(f"{name} did not answer within {timeout_s:g} s") from None
        except ValueError:
            raise ValueError(f"{name} printed without end") from None
        finally:
            _end(child)
    if code:
        raise ChildProcessError(f"{name} failed: {_last_words(code, err)}")
    return out.decode(errors="replace")


def mortal(command: str, timeout_s: float) -> list[str]:
    """A command of Termux with an end of its own, a little after ``timeout_s``.

    A trainer is mostly ended by SIGKILL, and a child of it that hangs would hang for ever.
    """
    timeout = Path(command).with_name("timeout")  # of Termux's coreutils, which is always there
    if not os.access(timeout, os.X_OK):
        return [command]
    return [str(timeout), "-k", "1", f"{timeout_s + 2:g}", command]


def _listen(child: subprocess.Popen[bytes], deadline: float, stopped: Callable[[], bool]) -> tuple[bytes, bytes]:
    """Output and errors until both end. Raises TimeoutError, Stopped, or ValueError where it is too much."""
    assert child.stdout and child.stderr
    said = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for fd in said:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            if stopped():
                raise Stopped
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            ready = selector.select(min(left_s, _LOOK_UP_S))
            for key, _ in ready:
                _take(key.fd, said, selector)
            if not ready and child.poll() is not None:
                break  # it ended, and a helper that it left behind holds the pipe
    out, err = said.values()
    return bytes(out), bytes(err)


def _take(fd: int, said: dict[int, bytearray], selector: selectors.BaseSelector) -> None:
    block = os.read(fd, _MOST_BYTES)
    if not block:
        selector.unregister(fd)
    said[fd] += block
    if len(said[fd]) > _MOST_BYTES:
        raise ValueError


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills what is left of the group. A group outlives its leader, so it may be there when the child is not."""
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS says so of zombies
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # a process in the kernel's hands dies when it is let go
        child.wait(_REAP_S)


def _last_words(code: int, err: bytes) -> str:
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    lines = err.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else f"exit code {code}"
