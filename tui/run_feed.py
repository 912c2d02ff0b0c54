"""The feed of one run: telemetry, status, lock and letters become a `RunSnapshot`. Never raises."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ondevice.errors import DataError, OndeviceError
from ondevice.run import control
from ondevice.run.digest import Digest, Series
from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.telemetry import parse_line
from tui.events import asks, events
from tui.snapshot import Points, RunSnapshot, Sample, SourceLoss
from tui.tail import Line, Tail
from tui.values import flag, number, text
from tui.words import printable

__all__ = ["RunFeed"]

_GARBAGE = (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError)
_STATES = frozenset({"new", "running", "resting", "waiting", "asleep", "finished", "stopped", "failed", "killed"})


class RunFeed:
    """``poll(until)`` reads on until that monotonic time and gives the run as it is known then."""

    def __init__(self, run: RunDir, *, clock: Callable[[], float] = time.time) -> None:
        self._run, self._clock = run, clock
        self._last: RunSnapshot | None = None
        self._forget()

    def poll(self, until: float) -> RunSnapshot:
        """The run now; the same object as before where nothing changed."""
        try:
            now = self._poll(until)
        except FileNotFoundError:
            now = self._gone() if not self._run.identity.exists() else self._unreadable("a file of it is missing")
        except OSError as error:
            now = self._unreadable(f"it cannot be read ({error.strerror})")
        except OndeviceError as error:
            now = self._unreadable(str(error))
        except _GARBAGE as error:
            now = self._unreadable(f"its files are damaged ({type(error).__name__}: {error})")
        if now != self._last:
            self._last = now
        assert self._last is not None
        return self._last

    def _forget(self) -> None:
        """Begins again, as with a run never seen."""
        self._identity: Any = None
        self._tail = Tail(self._run.telemetry)
        self._fold = _Fold()
        self._status: dict[str, Any] = {}
        self._state_sign: Any = None
        self._state_told = ("unknown", "")
        self._seen: Any = None

    def _poll(self, until: float) -> RunSnapshot:
        self._check_identity()
        # Letters before telemetry: a letter that is gone by then was answered in a record that is read after it.
        letters = control.pending(self._run)
        if self._tail.look():
            self._fold = _Fold()
        for line in self._tail.lines():
            self._fold.take(line)
            if time.monotonic() > until:
                break
        state = self._state()
        seen = (self._tail.files, self._tail.share_read, letters, state, self._status)
        if seen == self._seen and self._last is not None:
            return self._last
        self._seen = seen
        return self._snapshot(state, letters)

    def _check_identity(self) -> None:
        """Raises what `RunDir.read_identity` does. A run made anew under the same name is another run."""
        stat = self._run.identity.stat()
        identity = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if identity != self._identity:
            self._forget()
            self._run.read_identity()
            self._identity = identity

    def _state(self) -> tuple[str, str]:
        """State and a sentence where it cannot be told. Sets `_status` on the way.

        A dead run's liveness means reading telemetry again, so it is asked only when something changed.
        """
        self._status = read_status(self._run)
        holder = lock_holder(self._run)
        sign = (holder, self._tail.files, self._status)
        if holder is None and sign == self._state_sign:
            return self._state_told
        try:
            state = read_liveness(self._run, now=self._clock()).state
            self._state_told = (state, "") if state in _STATES else ("unknown", f"Its state is '{printable(state)}'.")
        except (OndeviceError, *_GARBAGE) as error:
            self._state_told = ("unknown", f"Its state cannot be told: {printable(str(error))}")
        self._state_sign = sign
        return self._state_told

    def _snapshot(self, state: tuple[str, str], letters: list[control.Letter]) -> RunSnapshot:
        return RunSnapshot(
            name=printable(self._run.name),
            path=self._run.path,
            state=state[0],
            silent_since_t=number(self._status, "heartbeat_t") if state[0] == "asleep" else None,
            asks=asks(letters, list(self._fold.digest.events)),
            share_read=self._tail.share_read if not self._fold.refusal else 1.0,
            trouble=self._trouble(state[1]),
            **_story(self._fold.digest),
            **_present(self._status, self._fold.reading),
        )

    def _trouble(self, of_state: str) -> tuple[str, ...]:
        sentences = [self._fold.refusal or of_state, self._fold.damage]
        if not self._status and self._run.status.exists():
            sentences.append("status.json cannot be read.")
        return tuple(sentence for sentence in sentences if sentence)

    def _unreadable(self, why: str) -> RunSnapshot:
        sentence = printable(why if why.endswith(".") else f"{self._run.name}: {why}.")
        self._seen = None
        return RunSnapshot(name=printable(self._run.name), path=self._run.path, state="unknown", trouble=(sentence,))

    def _gone(self) -> RunSnapshot:
        self._forget()
        name = printable(self._run.name)
        sentence = f"{name} was deleted or renamed."
        return RunSnapshot(name=name, path=self._run.path, state="gone", trouble=(sentence,))


class _Fold:
    """Records folded so far, and what was wrong with the others."""

    def __init__(self) -> None:
        self.digest = Digest()
        self.reading: dict[str, Any] = {}
        self.refusal = ""
        self._bad, self._first_bad = 0, ""

    @property
    def damage(self) -> str:
        if not self._bad:
            return ""
        lines = "1 damaged line" if self._bad == 1 else f"{self._bad:,} damaged lines"
        return f"{lines} skipped, the first at {self._first_bad}."

    def take(self, line: Line) -> None:
        """Folds one line. After a record of a newer version nothing more is understood."""
        if self.refusal or (line.data is not None and not line.data.strip()):
            return
        try:
            record = None if line.data is None else parse_line(line.data, where=f"{line.file}:{line.number}")
        except DataError as error:
            self.refusal = str(error)
            return
        if record is None:
            self._note(line)
        else:
            self._take_whole(line, record)

    def _take_whole(self, line: Line, record: dict[str, Any]) -> None:
        if record["kind"] == "reading":
            self.reading = record
        try:
            self.digest.fold(record)
        except _GARBAGE as error:
            self._note(line, type(error).__name__)

    def _note(self, line: Line, why: str = "") -> None:
        self._bad += 1
        self._first_bad = self._first_bad or f"{line.file}:{line.number}" + (f" ({why})" if why else "")


def _story(digest: Digest) -> dict[str, Any]:
    """What telemetry tells."""
    return {
        "launches": digest.launches,
        "kills": digest.kills,
        "step": digest.step,
        "steps": digest.steps,
        "tokens": digest.tokens,
        "loss": digest.loss.last,
        "loss_curve": _points(digest.loss),
        "val": tuple(
            SourceLoss(name=printable(name), last=series.last, curve=_points(series))
            for name, series in digest.val_loss.items()
            if series.last is not None
        ),
        "best_step": digest.best_step,
        "best_loss": digest.best_loss,
        "lr": digest.lr.last,
        "grad_norm": digest.grad_norm.last,
        "checkpoints": tuple(digest.checkpoints),
        "samples": tuple(
            Sample(step=s.get("step", 0), prompt=printable(text(s, "prompt")), text=printable(text(s, "text")))
            for s in digest.samples
        ),
        "events": events(digest.events),
        "outcome": printable(text(digest.ended or {}, "why")),
        "last_t": digest.last_t,
    }


def _points(series: Series) -> Points:
    """Points that can be drawn: nobody's loss is a trillion, and beyond that differences overflow."""
    return tuple(point for point in series.points if abs(point[1]) < 1e12 and point[0] < 1e15)


def _present(status: dict[str, Any], reading: dict[str, Any]) -> dict[str, Any]:
    """What the status tells; sensors from the last reading where the status has none."""
    rates = {key: number(status, key) for key in ("step_s", "tok_s", "tok_s_sustained", "eta_s")}
    sensors = {
        key: number(status if key in status else reading, key)
        for key in ("rss_mb", "available_mb", "disk_free_mb", "cpu_c", "battery_percent")
    }
    return {
        **rates,
        **sensors,
        "plugged": flag(status if "plugged" in status else reading, "plugged"),
        "hold": printable(text(status, "hold")),
        "last_error": printable(text(status, "last_error")),
    }
