"""Memory: when to save and become smaller. A pure threshold with hysteresis."""

from __future__ import annotations

from ondevice.device.readings import Reading

__all__ = ["memory_is_low"]

MEMORY_BACK = 1.25  # of the threshold, before memory counts as enough again


def memory_is_low(before: bool, reading: Reading, min_available_share: float) -> bool:
    """Whether less than that share of the memory is free; unknown leaves things as they were."""
    if reading.available_mb is None or not reading.total_mb:
        return before
    needed = min_available_share * (MEMORY_BACK if before else 1.0)
    return reading.available_mb / reading.total_mb < needed
