"""The feed of one run: telemetry, status, lock, letters and small papers become a `RunSnapshot`. Never raises."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, OndeviceError
from ondevice.run import control
from ondevice.run.digest import best_of
from ondevice.run.directory import RunDir
from ondevice.run.liveness import read_status
from tui.fold import GARBAGE, Fold
from tui.life import Life, Told
from tui.manners import DEFAULTS, Manners
from tui.present import present
from tui.saved import Marks, shelved
from tui.schedule import read_schedule
from tui.snapshot import ALIVE, Part, RunSnapshot, Saved
from tui.story import story
from tui.tail import Tail
from tui.values import number, text, whole
from tui.words import count, printable

__all__ = ["RunFeed"]


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
            now = (
                self._gone() if not os.path.lexists(self._run.identity) else self._unreadable("a file of it is missing")
            )
        except OSError as error:
            now = self._unreadable(f"it cannot be read ({error.strerror})")
        except CheckpointError as error:
            now = self._unreadable(str(error), state="newer")
        except OndeviceError as error:
            now = self._unreadable(str(error), state="damaged")
        except GARBAGE as error:
            now = self._unreadable(f"its files are damaged ({type(error).__name__}: {error})", state="damaged")
        if now != self._last:
            self._last = now
        assert self._last is not None
        return self._last

    def _forget(self) -> None:
        """Begins again, as with a run never seen."""
        self._identity: Any = None
        self._parent = ""
        self._tail, self._fold = Tail(self._run.telemetry), Fold()
        self._life = Life(self._run, clock=self._clock)
        self._status: dict[str, Any] = {}
        self._manners, self._marks = Manners(), Marks()
        self._schedule: tuple[Part, ...] = ()
        self._signs: dict[str, Any] = {}
        self._story: tuple[Any, dict[str, Any]] = (None, {})
        self._shelved: tuple[Any, tuple[Saved, ...]] = (None, ())
        self._seen: Any = None

    def _poll(self, until: float) -> RunSnapshot:
        self._check_identity()
        # Letters before telemetry: a letter that is gone by then was answered in a record that is read after it.
        letters = control.pending(self._run)
        if self._tail.look():
            self._fold, self._story, self._shelved = Fold(), (None, {}), (None, ())
        for block in self._tail.blocks():
            self._fold.take(block)
            if time.monotonic() > until:
                break
        self._read_papers()
        told = self._life.tell(self._tail, self._status)
        seen = (self._tail.files, self._tail.share_read, letters, told, self._status, dict(self._signs))
        if seen == self._seen and self._last is not None:
            return self._last
        self._seen = seen
        return self._snapshot(told, letters)

    def _check_identity(self) -> None:
        """Raises what `RunDir.read_identity` does. A run made anew under the same name is another run."""
        identity = _sign(self._run.identity.stat())
        if identity != self._identity:
            self._forget()
            parent = self._run.read_identity().get("parent")
            if isinstance(parent, dict):
                self._parent = printable(f"{text(parent, 'run')} at step {count(whole(parent, 'step'))}")
            self._identity = identity

    def _read_papers(self) -> None:
        """Small files, each read again only when it changed."""
        if self._changed(self._run.status):
            self._status = read_status(self._run)
        if self._changed(*Manners.files(self._run)):
            self._manners = Manners.read(self._run)
        if self._changed(*Marks.files(self._run)):
            self._marks = Marks.read(self._run)
        if self._changed(schedule := self._run.path / "schedule.json"):
            self._schedule = read_schedule(schedule)

    def _changed(self, *paths: Path) -> bool:
        """Whether any of some files is another than at the last call."""
        signs = tuple(_sign_of(path) for path in paths)
        key = paths[0].name
        if key in self._signs and self._signs[key] == signs:
            return False
        self._signs[key] = signs
        return True

    def _snapshot(self, told: Told, letters: list[control.Letter]) -> RunSnapshot:
        fold, status = self._fold, self._status
        share_read = self._tail.share_read if not fold.refusal else 1.0
        state = "newer" if fold.refusal and told.state not in ALIVE else told.state
        limits = self._limits()
        fields = {**self._told_story(), **present(status, fold.reading, limits, state=state)}
        if share_read < 1:
            fields |= _of_now(status)
        else:
            fields["best_step"], fields["best_loss"] = best_of(fold.digest, status)
        if told.left:
            fields["why"] = told.left
        return RunSnapshot(
            name=printable(self._run.name),
            path=self._run.path,
            state=state,
            silent_since_t=number(status, "heartbeat_t") if state == "asleep" else None,
            death=told.death,
            parent=self._parent,
            written=self._manners.written,
            limits=limits,
            saved=self._saved(),
            asks=fold.asked.asks(letters, alive=state in ALIVE),
            schedule=self._schedule,
            share_read=share_read,
            trouble=self._trouble(told.trouble),
            **fields,
        )

    def _told_story(self) -> dict[str, Any]:
        """Made anew only where there are new records."""
        sign = (self._tail.files, self._tail.share_read)
        if sign != self._story[0]:
            self._story = (sign, story(self._fold))
        return self._story[1]

    def _saved(self) -> tuple[Saved, ...]:
        """Made anew only where a checkpoint or a mark is new: there may be a thousand."""
        steps = tuple(self._fold.digest.checkpoints)
        sign = (steps, self._fold.shelf.changes, self._marks)
        if sign != self._shelved[0]:
            self._shelved = (sign, shelved(steps, self._fold.shelf, self._marks))
        return self._shelved[1]

    def _limits(self) -> dict[str, Any]:
        """Those that hold: what somebody wrote, over what the trainer told of its preset, over the usual."""
        policy = self._status.get("policy")
        return {**DEFAULTS, **(policy if isinstance(policy, dict) else {}), **self._manners.written}

    def _trouble(self, of_state: str) -> tuple[str, ...]:
        sentences = [self._fold.refusal or of_state, self._fold.damage, self._manners.trouble, *self._marks.trouble]
        if not self._status and os.path.exists(self._run.status):
            sentences.append("status.json cannot be read.")
        return tuple(printable(sentence) for sentence in sentences if sentence)

    def _unreadable(self, why: str, *, state: str = "unknown") -> RunSnapshot:
        sentence = printable(why if why.endswith(".") else f"{self._run.name}: {why}.")
        self._seen = None
        return RunSnapshot(name=printable(self._run.name), path=self._run.path, state=state, trouble=(sentence,))

    def _gone(self) -> RunSnapshot:
        self._forget()
        name = printable(self._run.name)
        sentence = f"{name} was deleted or renamed."
        return RunSnapshot(name=name, path=self._run.path, state="gone", trouble=(sentence,))


def _of_now(status: dict[str, Any]) -> dict[str, Any]:
    """What a status knows better than a story that is only half read."""
    found = {
        **{key: whole(status, key) for key in ("step", "steps", "tokens", "best_step")},
        **{key: number(status, key) for key in ("loss", "lr", "best_loss")},
    }
    return {key: value for key, value in found.items() if value is not None}


def _sign_of(path: Path) -> tuple[int, int, int] | None:
    try:
        return _sign(path.stat())
    except OSError:
        return None


def _sign(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
