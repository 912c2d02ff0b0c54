"""Telemetry records as sentences of an event log, and what became of what was asked. Pure functions over records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ondevice.run.control import Letter
from tui.snapshot import Ask, Event
from tui.values import number, text, whole
from tui.words import count, decimal, printable

__all__ = ["asks", "events"]


def events(records: Iterable[dict[str, Any]]) -> tuple[Event, ...]:
    """The log, oldest first. A launch that follows one without an ``end`` tells first that it was killed."""
    return tuple(_events(records))


def _events(records: Iterable[dict[str, Any]]) -> Iterator[Event]:
    is_open = False
    for record in records:
        kind, t, step = text(record, "kind"), number(record, "t"), whole(record, "step")
        if kind == "launch" and is_open:
            yield Event(t=t, kind="killed", step=None, text="the last launch ended without a word")
        is_open = kind != "end" and (is_open or kind == "launch")
        yield Event(t=t, kind=printable(kind), step=step, text=printable(_sentence(kind, record)))


def _sentence(kind: str, record: dict[str, Any]) -> str:
    say = {"launch": _launch, "eval": _eval, "checkpoint": _checkpoint, "control": _control, "end": _end}.get(kind)
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


def _end(record: dict[str, Any]) -> str:
    outcome, why = text(record, "outcome") or "ended", text(record, "why")
    return f"{outcome}: {why}" if why else outcome


def asks(letters: Sequence[Letter], records: Sequence[dict[str, Any]]) -> tuple[Ask, ...]:
    """The last request of each verb since the last launch, newest first; an answer outweighs its letter."""
    latest: dict[str, Ask] = {}
    answered = set()
    for record in records:
        if record.get("kind") == "launch":
            latest.clear()
        elif record.get("kind") == "control" and (verb := text(record, "verb")):
            answered.add(text(record, "id"))
            state = "refused" if record.get("ok") is False else "accepted"
            latest[verb] = Ask(verb=verb, state=state, t=number(record, "t"), why=printable(text(record, "why")))
    for letter in letters:
        if letter.id not in answered and not letter.fault:
            latest[letter.verb] = Ask(verb=letter.verb, state="asked", t=letter.t)
    return tuple(sorted(latest.values(), key=lambda ask: ask.t or 0.0, reverse=True))
