"""Themes: dark, light, or the terminal's own sixteen colours; and which of them fits a terminal. Colours of texts
follow: `palette_of`."""

from __future__ import annotations

from collections.abc import Mapping

from textual.theme import Theme

from tui.look import ANSI, DARK, LIGHT, Palette

__all__ = ["THEMES", "choose_theme", "palette_of"]


def _cursor(background: str, foreground: str) -> dict[str, str]:
    """The line one is on: quiet enough for every colour that may stand on it."""
    return {
        f"block-cursor-{state}{name}": value
        for state in ("", "blurred-")
        for name, value in (("background", background), ("foreground", foreground), ("text-style", "none"))
    }


THEMES = (
    Theme(
        name="dark",
        primary="#8caaee",
        secondary="#81c8be",
        warning="#e5c890",
        error="#e78284",
        success="#a6d189",
        accent="#8caaee",
        foreground="#c6d0f5",
        background="#1b1d2b",
        surface="#1b1d2b",
        panel="#262a3d",
        dark=True,
        variables={"pane": "#3b4059", "footer": "#232634", **_cursor("#363b54", "#c6d0f5")},
    ),
    Theme(
        name="light",
        primary="#1e66f5",
        secondary="#0b7f86",
        warning="#b36b00",
        error="#d20f39",
        success="#2f8a1f",
        accent="#1e66f5",
        foreground="#303446",
        background="#f6f7fb",
        surface="#f6f7fb",
        panel="#e6e9f2",
        dark=False,
        variables={"pane": "#bcc0d0", "footer": "#e6e9f2", **_cursor("#d5dbf2", "#303446")},
    ),
    Theme(
        name="terminal",
        ansi=True,
        primary="ansi_blue",
        secondary="ansi_cyan",
        warning="ansi_yellow",
        error="ansi_red",
        success="ansi_green",
        accent="ansi_blue",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        boost="ansi_default",
        dark=True,
        variables={
            "pane": "ansi_bright_black",
            "footer": "ansi_default",
            "border": "ansi_blue",
            "border-blurred": "ansi_bright_black",
            "block-cursor-foreground": "ansi_default",
            "block-cursor-background": "ansi_default",
            "block-cursor-text-style": "bold reverse",
            "block-cursor-blurred-foreground": "ansi_default",
            "block-cursor-blurred-background": "ansi_default",
            "block-cursor-blurred-text-style": "reverse",
            "input-cursor-background": "ansi_default",
            "input-cursor-foreground": "ansi_default",
            "input-cursor-text-style": "reverse",
            "input-selection-background": "ansi_bright_blue",
            "input-selection-foreground": "ansi_black",
            "ansi-background": "ansi_black",
            "ansi-foreground": "ansi_white",
            "screen-selection-background": "ansi_bright_blue",
            "screen-selection-foreground": "ansi_black",
        },
    ),
)
_PALETTES = {"dark": DARK, "light": LIGHT, "terminal": ANSI}


def palette_of(theme: str) -> Palette:
    """The colours of texts under a theme."""
    return _PALETTES.get(theme, ANSI)


def choose_theme(environ: Mapping[str, str]) -> str:
    """The theme that a terminal bears: its own colours where it has but sixteen or none are wanted."""
    many = "256" in environ.get("TERM", "") or environ.get("COLORTERM", "") in ("truecolor", "24bit")
    if not many or "NO_COLOR" in environ:
        return "terminal"
    background = environ.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background in ("7", "15") else "dark"
