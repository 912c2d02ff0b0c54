"""Fewer threads as a slow answer to heat: two cores at a lower duty's worth of watts often do more than four that rest.

Advice only; the caller decides, between steps, and a new fit is sticky.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Binding", "advice", "bound"]

LONG_S = 600.0
LOW_DUTY, FREE_DUTY = 0.5, 0.8


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Since when heat has kept the duty low; ``threads`` as the caller told them."""

    threads: int | None = None
    since_t: float | None = None


def bound(binding: Binding, duty: float, now: float, *, by_heat: bool) -> Binding:
    """The binding after an order with that duty."""
    if by_heat and duty < LOW_DUTY:
        start = binding.since_t
        return binding if start is not None and start <= now else replace(binding, since_t=now)
    return replace(binding, since_t=None) if duty > FREE_DUTY or not by_heat else binding


def advice(binding: Binding, now: float) -> int | None:
    """So many threads would serve the same heat better; None: no opinion."""
    if binding.threads is None or binding.threads < 2 or binding.since_t is None:
        return None
    return (binding.threads + 1) // 2 if now - binding.since_t >= LONG_S else None
