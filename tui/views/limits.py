"""Limits as rows, and what one of them means."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from tui.draw import begun
from tui.look import Look
from tui.words import fit, printable

__all__ = ["help_text", "limit_row"]


def limit_row(key: str, value: Any, why: str, width: int, look: Look) -> Text:
    """``max_battery_c   40   balanced``: what was written stands out from what follows from the preset."""
    text = begun(f"{key:<22} ", "bold" if value is not None else "")
    said = _said(value) if value not in (None, "") else why or "not set"
    text.append(
        fit(said, max(4, width - 24), look.glyphs.ellipsis),
        look.palette.train if value is not None else look.palette.dim,
    )
    room, why = width - text.cell_len - 2, _reason(value, why)
    if value not in (None, "") and why and room >= 12:
        text.append("  " + fit(why, room, look.glyphs.ellipsis), look.palette.dim)
    return text


def _reason(value: Any, why: str) -> str:
    """The reason without the value it begins with; another value is what would hold on this machine."""
    head, _, reason = why.partition(": ")
    try:
        same = float(head) == float(value)
    except (TypeError, ValueError):
        same = head == _said(value)
    return reason if same else why


def _said(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else printable(str(value))


def help_text(key: str, meta: dict[str, Any], look: Look) -> Text:
    """Meaning, unit and bounds of a key."""
    text = begun(key, f"bold {look.palette.accent}").append(f": {meta.get('doc', '')}")
    bounds = [
        f"{word} {meta[name]:g}"
        for name, word in (("low", "from"), ("above", "above"), ("high", "to"))
        if meta.get(name) is not None
    ]
    if meta.get("choices"):
        bounds = ["one of " + ", ".join(meta["choices"])]
    unit = f" {meta['unit']}" if meta.get("unit") else ""
    return text.append(f" ({' '.join(bounds)}{unit})" if bounds else "", look.palette.dim)
