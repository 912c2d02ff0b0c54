"""What a phone gets beside the training: it is kept awake, and a notification shows the run with buttons to steer it.

Does nothing where Termux's commands are not installed. Decides nothing: the display that it wraps is told the same.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ondevice.cli.common import duration
from ondevice.cli.progress import QuietDisplay
from ondevice.device.notification import Notification, Post, find_notification
from ondevice.device.wake_lock import awake
from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, list_runs, lock_holder

__all__ = ["PhoneDisplay", "on_a_phone", "post_of"]

_KEPT = ("HOME", "PREFIX", "PATH", "TMPDIR", "LANG", "ONDEVICE_HOME", "LD_LIBRARY_PATH")
_LONGEST = 80  # letters of a reason


@contextmanager
def on_a_phone(run_dir: RunDir, display: QuietDisplay) -> Iterator[QuietDisplay]:
    """The display to train with: the given one, or one that also keeps a notification up to date."""
    with awake(os.environ, others=lambda: _is_one_held(run_dir)):
        command = find_notification(os.environ)
        if command is None:
            yield display
            return
        shown = PhoneDisplay(display, run_dir, Notification(command, _identity(run_dir)))
        try:
            yield shown
        finally:
            shown.take_down()


def _is_one_held(run_dir: RunDir) -> bool:
    """Whether a trainer lives, of this run or another: it needs the lock as well."""
    try:
        runs = list_runs()
    except OndeviceError:
        runs = []
    return any(lock_holder(run) is not None for run in (run_dir, *runs))


def _identity(run_dir: RunDir) -> str:
    """The same for every launch of a run, so that a new one takes over what a killed one left on the screen."""
    return f"ondevice-{hashlib.sha256(os.fsencode(run_dir.path)).hexdigest()[:8]}"


class PhoneDisplay(QuietDisplay):
    """Hands everything on, and the status also to the notification."""

    def __init__(self, display: QuietDisplay, run_dir: RunDir, notification: Notification) -> None:
        self._display, self._run, self._notification = display, run_dir, notification

    def status(self, status: dict[str, Any]) -> None:
        self._display.status(status)
        self._notification.tell(post_of(self._run, status, os.environ))

    def say(self, text: str) -> None:
        self._display.say(text)

    def result(self, text: str) -> None:
        self._display.result(text)

    def close(self) -> None:
        self._display.close()

    def take_down(self) -> None:
        """Removes the notification; the display stays."""
        self._notification.close()


def post_of(run_dir: RunDir, status: Mapping[str, Any], env: Mapping[str, str]) -> Post:
    """The notification for a status: how far, how warm, how charged, and Pause or Resume, and Stop."""
    held, state = bool(status.get("hold")), _state(status)
    toggle = ("Resume", "resume") if held else ("Pause", "pause")
    return Post(
        title=f"{run_dir.name}: {'paused' if held else state}",
        text="\n".join(line for line in (_progress(status), _health(status), _reason(status)) if line),
        state=f"{held} {state}",
        buttons=[(label, _action(verb, run_dir, env)) for label, verb in (toggle, ("Stop", "stop"))],
    )


def _state(status: Mapping[str, Any]) -> str:
    """A run that rests for a moment after each piece of work is a running one; else its title would flicker."""
    state = str(status.get("state") or "running")
    return "running" if state == "resting" and not status.get("wait") else state


def _progress(status: Mapping[str, Any]) -> str:
    """Begins with the time: what a killed trainer leaves on the screen must not look like news."""
    step, steps = status.get("step") or 0, status.get("steps") or 1
    parts = [time.strftime("%H:%M", time.localtime(status.get("heartbeat_t")))]
    parts += [f"step {step:,} of {steps:,} ({100 * step // steps} %)"]
    if status.get("loss") is not None:
        parts.append(f"loss {status['loss']:.3f}")
    if status.get("eta_s") is not None and step < steps:
        parts.append(f"{duration(status['eta_s'])} left")
    return ", ".join(parts)


def _health(status: Mapping[str, Any]) -> str:
    parts = []
    if status.get("battery_c") is not None:
        parts.append(f"{status['battery_c']:.1f} C")
    if status.get("battery_percent") is not None:
        parts.append(f"battery {status['battery_percent']:.0f} %")
    if status.get("plugged") is not None:
        parts.append("plugged in" if status["plugged"] else "on battery")
    return ", ".join(parts)


def _reason(status: Mapping[str, Any]) -> str:
    """Why it does not work now, or how much it works."""
    duty = status.get("duty")
    spread = f"works {100 * duty:.0f} % of the time" if duty is not None and 0.0 < duty < 1.0 else ""
    why = str(status.get("hold") or status.get("wait") or spread)
    return why if len(why) <= _LONGEST else f"{why[: _LONGEST - 1]}…"


def _action(verb: str, run_dir: RunDir, env: Mapping[str, str]) -> str:
    """One line for a shell that starts with next to nothing around it, and whose output nobody sees."""
    around = [f"{name}={shlex.quote(env[name])}" for name in _KEPT if env.get(name)]
    words = [*_installed_command(), verb, str(run_dir.path), "--wait", "1"]
    return f"export {' '.join(around)}; exec {shlex.join(words)} >/dev/null 2>&1"


def _installed_command() -> list[str]:
    """``ondevice`` with its whole path, or the interpreter that runs now with the module."""
    script = Path(sys.executable).with_name("ondevice")
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "ondevice"]
