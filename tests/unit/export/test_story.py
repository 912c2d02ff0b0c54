"""What a model card may say: energy only where it was read, losses of the step that is exported."""

from __future__ import annotations

import pytest

from ondevice.export.story import energy_wh


def reading(t: float, power: float | None) -> dict[str, object]:
    return {"kind": "reading", "t": t, "power_w": power}


def test_energy_is_integrated_between_readings_of_one_launch() -> None:
    assert energy_wh([reading(0, 3.0), reading(30, 5.0), reading(60, 5.0)]) == pytest.approx((120 + 150) / 3600)
    assert energy_wh([reading(0, 3.0), {"kind": "launch", "t": 10}, reading(30, 5.0)]) is None
    assert energy_wh([reading(0, 3.0), reading(5000, 3.0)]) is None  # nobody knows what was in between
    assert energy_wh([reading(0, None), reading(30, None)]) is None
    assert energy_wh([]) is None
    assert energy_wh([reading(0, 3.0), reading(30, "x"), reading(60, 1.0), reading(90, 1.0)]) == pytest.approx(
        30 / 3600
    )
