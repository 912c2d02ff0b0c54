"""The doctor's findings and the reading of the moment."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.text import Text

from tui.draw import begun
from tui.look import Look
from tui.values import table
from tui.words import megabytes, printable

__all__ = ["device_text"]

_UNITS = {"c": "°C", "mb": "MB", "percent": "%", "w": "W"}


def device_text(answer: dict[str, Any] | str, look: Look) -> Text:
    """A verdict, the findings by topic with the command that mends each, then the sensors; or the sentence."""
    if isinstance(answer, str):
        return Text(printable(answer), look.palette.warn)
    good = answer.get("possible") is True
    verdict = "This machine can train." if good else "Training is not possible here yet."
    text = begun(verdict, f"bold {look.palette.good if good else look.palette.bad}")
    findings = [finding for finding in _list(answer.get("findings")) if isinstance(finding, dict)]
    for topic, group in groupby(findings, key=lambda finding: _word(finding, "topic")):
        text.append(f"\n\n{topic.capitalize()}", f"bold {look.palette.accent}")
        for finding in group:
            text.append("\n").append_text(_finding(finding, look))
    reading = answer.get("reading")
    return text.append_text(_reading(reading, look)) if isinstance(reading, dict) else text


def _finding(finding: dict[str, Any], look: Look) -> Text:
    level = _word(finding, "level")
    colours = {"problem": look.palette.bad, "warning": look.palette.warn, "note": look.palette.accent}
    signs = {"problem": "!! ", "warning": "!  ", "ok": f"{look.glyphs.state('finished')}  "}
    text = begun(signs.get(level, f"{look.glyphs.dot}  "), colours.get(level, look.palette.good))
    text.append(_word(finding, "text"))
    for key, style in (("remedy", look.palette.dim), ("command", look.palette.accent)):
        if word := _word(finding, key):
            text.append(f"\n     {word}", style)
    return text


def _reading(reading: dict[str, Any], look: Look) -> Text:
    values = {key: value for key, value in reading.items() if key not in ("t", "sources", "ages_s", "unknown")}
    unknown = table(reading, "unknown")
    text = begun("\n\nReading", f"bold {look.palette.accent}")
    for key, value in values.items():
        name, _, unit = key.rpartition("_")
        label = (name if unit in _UNITS else key).replace("_", " ")
        text.append(f"\n   {label:<16}", look.palette.dim)
        if value is None:
            why = unknown.get(key)
            text.append(f"unknown{f': {printable(str(why))}' if why else ''}", look.palette.dim)
        elif unit == "mb" and isinstance(value, int | float):
            text.append(megabytes(value))
        elif isinstance(value, bool):
            text.append("yes" if value else "no")
        else:
            text.append(f"{printable(str(value))} {look.glyphs.plain(_UNITS.get(unit, ''))}".rstrip())
    return text


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _word(finding: dict[str, Any], key: str) -> str:
    value = finding.get(key)
    return printable(value) if isinstance(value, str) else ""
