"""The event log of a run and what became of what was asked, folded from telemetry records as they come.

What happened stays in the log whatever a restart lost. Knows no files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import merge
from typing import Any

from ondevice.run.control import EXPIRING, Letter
from tui.snapshot import EVENT_GROUPS, Ask, Event
from tui.values import number, text, when, whole
from tui.words import count, decimal, duration, printable

__all__ = ["Asked", "EventLog"]

KEPT = 200  # of each group, so that a hot night's orders do not push out its evaluations
_SILENT = frozenset({"step", "reading", "sample"})
_GROUPS = {
    "launch": "launches",
    "end": "launches",
    "killed": "kills",
    "order": "orders",
    "eval": "evals",
    "checkpoint": "saves",
    "control": "letters",
}
_EXPIRED = "before this launch"  # how a trainer answers a letter that it found and did not obey


class EventLog:
    """``fold`` takes records; ``events()`` gives the log, oldest first, the very same while nothing was added."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[int, Event]]] = {group: deque(maxlen=KEPT) for group in EVENT_GROUPS}
        self._count = 0
        self._open = False
        self._given: tuple[Event, ...] | None = ()

    def fold(self, record: dict[str, Any]) -> None:
        """One record. A launch that follows one without an ``end`` tells first that it was killed."""
        for event in self._events_of(record):
            self._kept[event.group].append((self._count, event))
            self._count += 1
            self._given = None

    def events(self) -> tuple[Event, ...]:
        if self._given is None:
            self._given = tuple(event for _, event in merge(*self._kept.values(), key=lambda kept: kept[0]))
        return self._given

    def _events_of(self, record: dict[str, Any]) -> Iterator[Event]:
        kind, t, step = text(record, "kind"), when(record), whole(record, "step")
        if kind == "launch" and self._open:
            yield Event(t=t, kind="killed", step=None, text=_death(record), group="kills")
        self._open = kind != "end" and (self._open or kind == "launch")
        if kind not in _SILENT:
            sentence = printable(_sentence(kind, record))
            yield Event(t=t, kind=printable(kind), step=step, text=sentence, group=_GROUPS.get(kind, "notes"))


def _death(record: dict[str, Any]) -> str:
    """What the launch after a death says of it."""
    previous = record.get("previous")
    why = text(previous, "why") if isinstance(previous, dict) else ""
    return printable(f"the last launch ended without a word: {why}" if why else "the last launch ended without a word")


def _sentence(kind: str, record: dict[str, Any]) -> str:
    say = {
        "launch": _launch,
        "eval": _eval,
        "checkpoint": _checkpoint,
        "control": _control,
        "order": _order,
        "end": _end,
    }.get(kind)
    return say(record) if say else text(record, "text") or text(record, "why") or kind


def _launch(record: dict[str, Any]) -> str:
    resumed = whole(record, "resumed_step")
    where = "from the beginning" if resumed is None else f"from step {count(resumed)}"
    return f"launch {count(whole(record, 'launch'))} {where}"


def _eval(record: dict[str, Any]) -> str:
    best = whole(record, "best_step") == whole(record, "step")
    return f"validation loss {decimal(number(record, 'val_loss_mixed'), 4)}{', the best' if best else ''}"


def _checkpoint(record: dict[str, Any]) -> str:
    save_s = number(record, "save_s")
    return "saved" if save_s is None else f"saved in {save_s:.2f} s"


def _control(record: dict[str, Any]) -> str:
    sender, why = text(record, "from"), text(record, "why")
    verdict = f"refused: {why}" if record.get("ok") is False else "accepted"
    return f"{text(record, 'verb') or 'letter'} {verdict}" + (f" ({sender})" if sender else "")


def _order(record: dict[str, Any]) -> str:
    order, why, waited_s = text(record, "order"), text(record, "why"), number(record, "waited_s")
    if why:
        return why
    return f"goes on after {duration(waited_s)}" if waited_s is not None else order or "order"


def _end(record: dict[str, Any]) -> str:
    outcome, why = text(record, "outcome") or "ended", text(record, "why")
    return f"{outcome}: {why}" if why else outcome


class Asked:
    """The last request of each verb since the last launch; an answer outweighs its letter."""

    def __init__(self) -> None:
        self._answers: dict[str, Ask] = {}
        self._answered: deque[str] = deque(maxlen=1000)

    def fold(self, record: dict[str, Any]) -> None:
        kind, verb = text(record, "kind"), text(record, "verb")
        if kind == "launch":
            self._answers.clear()
        elif kind == "control" and verb:
            self._answered.append(text(record, "id"))
            ask = Ask(verb=printable(verb), state="accepted", t=number(record, "t"), id=text(record, "id"))
            if record.get("ok") is False:
                why = text(record, "why")
                ask = replace(ask, state="expired" if _EXPIRED in why else "refused", why=printable(why))
            self._answers[verb] = ask

    def asks(self, letters: Sequence[Letter], *, alive: bool) -> tuple[Ask, ...]:
        """Newest first. ``alive``: whether a trainer is there to read what lies in the inbox."""
        latest = dict(self._answers)
        for letter in letters:
            if letter.id not in self._answered and not letter.fault:
                expired = not alive and letter.verb in EXPIRING
                why = "no trainer was there to read it" if expired else ""
                state = "expired" if expired else "asked"
                latest[letter.verb] = Ask(verb=letter.verb, state=state, t=letter.t, why=why, id=letter.id)
        return tuple(sorted(latest.values(), key=lambda ask: ask.t or 0.0, reverse=True))
