"""How things look: the characters and the colours a screen may use. Pure values; knows no Textual.

Colours have roles, not names: what is good, near its limit or beyond it looks alike on every screen, and each of the
last two also has a mark, for terminals without colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "ANSI",
    "ASCII",
    "DARK",
    "LIGHT",
    "NARROW",
    "UNICODE",
    "Glyphs",
    "Look",
    "Palette",
    "level",
    "speaks_unicode",
]

NARROW = 76  # columns below which panes stand in one column, above a bar to touch
_ARROWS = str.maketrans({"←": "<", "→": ">", "◀": "<", "▶": ">", "°": " "})
_STATES = ("running", "resting", "waiting", "asleep", "finished", "stopped", "failed", "killed", "new")


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """The characters a screen may use. ``dots`` maps the bits of a cell to its character; bit = x + y * dots_x."""

    dots_x: int
    dots_y: int
    dots: str
    mark: str
    spark: str
    full: str
    half: str
    empty: str
    level: str
    axis: str
    tick: str
    corner: str
    floor: str
    dot: str
    ellipsis: str
    degree: str
    best: str
    pin: str
    left: str
    right: str
    states: Mapping[str, str] = field(repr=False)

    @property
    def unicode(self) -> bool:
        return self.dots_y > 2

    def plain(self, text: str) -> str:
        """Arrows and degrees of a fixed text, as these glyphs can show them."""
        return text if self.unicode else text.translate(_ARROWS)

    def state(self, name: str) -> str:
        """One character for a run's state."""
        return self.states.get(name, "?")


def _braille() -> str:
    """Braille characters ordered by our bits; the standard numbers its dots down the columns."""
    order = (0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80)
    return "".join(chr(0x2800 + sum(order[i] for i in range(8) if bits >> i & 1)) for bits in range(256))


UNICODE = Glyphs(
    dots_x=2,
    dots_y=4,
    dots=_braille(),
    mark="◆",
    spark="▁▂▃▄▅▆▇█",
    full="━",
    half="╸",
    empty="─",
    level="╌",
    axis="│",
    tick="┤",
    corner="└",
    floor="─",
    dot="·",
    ellipsis="…",
    degree="°C",
    best="★",
    pin="◉",
    left="◀",
    right="▶",
    states=dict(zip(_STATES, "●◐‖◌✓■✗✗○", strict=True)),
)
ASCII = Glyphs(
    dots_x=1,
    dots_y=2,
    dots=" '.:",
    mark="o",
    spark="_.-=*#",
    full="#",
    half="#",
    empty="-",
    level="-",
    axis="|",
    tick="+",
    corner="+",
    floor="-",
    dot="|",
    ellipsis="..",
    degree=" C",
    best="*",
    pin="P",
    left="<",
    right=">",
    states=dict(zip(_STATES, ">~=z+#!!.", strict=True)),
)


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Rich styles by role. ``curves`` tell runs and sources apart, brightest first."""

    dim: str
    accent: str
    good: str
    warn: str
    bad: str
    cold: str
    train: str
    raw: str
    val: str
    curves: tuple[str, ...]

    def state(self, name: str) -> str:
        """The style of a run's state."""
        return {
            "running": f"bold {self.good}",
            "resting": self.warn,
            "waiting": self.warn,
            "asleep": self.cold,
            "finished": self.good,
            "stopped": self.dim,
            "new": self.dim,
        }.get(name, f"bold {self.bad}")


DARK = Palette(
    dim="#737994",
    accent="#8caaee",
    good="#a6d189",
    warn="#e5c890",
    bad="#e78284",
    cold="#85c1dc",
    train="#81c8be",
    raw="#3f5f66",
    val="#ef9f76",
    curves=("#81c8be", "#ef9f76", "#ca9ee6", "#a6d189", "#e5c890", "#8caaee", "#f4b8e4", "#e78284"),
)
LIGHT = Palette(
    dim="#7c7f93",
    accent="#1e66f5",
    good="#2f8a1f",
    warn="#b36b00",
    bad="#d20f39",
    cold="#04789f",
    train="#0b7f86",
    raw="#a9cfd3",
    val="#d9480f",
    curves=("#0b7f86", "#d9480f", "#8839ef", "#2f8a1f", "#b36b00", "#1e66f5", "#c2479a", "#d20f39"),
)
ANSI = Palette(
    dim="dim",
    accent="blue",
    good="green",
    warn="yellow",
    bad="red",
    cold="blue",
    train="cyan",
    raw="dim cyan",
    val="magenta",
    curves=("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta"),
)


@dataclass(frozen=True)
class Look:
    """What every text is drawn with."""

    glyphs: Glyphs = UNICODE
    palette: Palette = DARK


def level(now: float | None, limit: float | None, *, near: float, palette: Palette, below: bool = False) -> str:
    """The colour of a value by its limit: good, ``near`` it, or beyond it; no colour where nobody knows.

    ``below``: the limit is a floor.
    """
    if now is None or limit is None:
        return ""
    over = limit - now if below else now - limit
    if over > 0:
        return f"bold {palette.bad}"
    return palette.warn if over > -near else palette.good


def speaks_unicode(environ: Mapping[str, str]) -> bool:
    """Whether the locale and the terminal can show braille; silence means yes."""
    if environ.get("TERM") in ("linux", "dumb", "vt100", "vt220"):
        return False
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "UTF-8"
    return "utf" in locale.lower()
