"""What the governor says: run at a duty, rest, wait or leave, with a sentence for a person.

Plain data. How an order came about and how it is carried out are not its business.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Order", "is_change"]

NOTICEABLE = 0.1  # of duty: less is the controller's own fine work and nobody's news


@dataclass(frozen=True, kw_only=True)
class Order:
    """``run``: work a ``duty`` share of the time. ``rest``: none until heat allows. ``wait``: none until something else
    changes, at ``until_t`` (unix seconds) where that is known. ``leave``: save and end; something starts the run again.

    ``rest_s``: rests are no shorter than that, and work runs together between them. ``left_s``: seconds still to rest
    before a long piece, more exact than the duty. Nothing but `Debt` obeys either.
    ``threads`` is advice: so many would do more for the same heat; None: no opinion. ``save`` and ``shrink`` ask for a
    checkpoint and a smaller fit at the next step boundary, since memory runs out.
    """

    kind: str = "run"
    duty: float = 1.0
    rest_s: float = 0.0
    left_s: float | None = None
    threads: int | None = None
    reason: str = ""
    until_t: float | None = None
    save: bool = False
    shrink: bool = False


def is_change(before: Order | None, after: Order) -> bool:
    """Whether it is news: another kind, another advice, or a duty more than ten points away."""
    if before is None:
        return True
    advice = (before.kind, before.threads, before.save, before.shrink) != (
        after.kind,
        after.threads,
        after.save,
        after.shrink,
    )
    return advice or abs(before.duty - after.duty) > NOTICEABLE
