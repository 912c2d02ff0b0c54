"""One line of doctor's report. Plain data, for those who find and for the one who prints."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """``level`` is ok, note or problem; ``remedy`` is a sentence, ``command`` one to paste."""

    level: str
    topic: str
    text: str
    remedy: str | None = None
    command: str | None = None
