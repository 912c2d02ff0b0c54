"""Whether the screen is lit, from the backlights that the kernel shows; phones mostly hide them from applications."""

from __future__ import annotations

from pathlib import Path

from ondevice.device.answer import Answer

__all__ = ["NAMES", "read_screen"]

NAMES = ("screen_on",)
_POWERED = 0  # of bl_power, the kernel's FB_BLANK_UNBLANK


def read_screen(sysfs: Path = Path("/sys")) -> Answer:
    """On when any backlight is. Raises OSError or LookupError where none is readable."""
    lights = [lit for light in (sysfs / "class/backlight").iterdir() for lit in (_lit(light),) if lit is not None]
    if not lights:
        raise LookupError("no readable backlight")
    return Answer.of("backlight", {"screen_on": any(lights)}, {})


def _lit(light: Path) -> bool | None:
    brightness = _number(light / "actual_brightness")
    if brightness is None:
        brightness = _number(light / "brightness")
    return None if brightness is None else brightness > 0 and _number(light / "bl_power") in (None, _POWERED)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
