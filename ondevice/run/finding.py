"""One line of what a re-check of a run found; shared by all who look at damage, and by those who mend it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DAMAGE", "NOTE", "OK", "Finding", "damage", "note", "ok"]

DAMAGE, NOTE, OK = "damage", "note", "ok"


@dataclass(frozen=True)
class Finding:
    """``level``: damage is something promised that is gone or changed, a note is worth knowing, ok was re-checked.

    ``file`` is a path inside the run, absolute outside of it, or empty for the run as a whole; ``remedy`` a sentence.
    """

    level: str
    file: str
    text: str
    remedy: str = ""


def damage(file: str, text: str, remedy: str = "") -> Finding:
    return Finding(DAMAGE, file, text, remedy)


def note(file: str, text: str, remedy: str = "") -> Finding:
    return Finding(NOTE, file, text, remedy)


def ok(file: str, text: str) -> Finding:
    return Finding(OK, file, text)
