"""Drives the app without a terminal: presses keys, waits for words on the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from tui.app import OndeviceTui
from tui.feed import Feed

Play = Callable[[Pilot[None]], Coroutine[Any, Any, None]]

SIZES = [(40, 20), (120, 36)]


def screen_text(app: Any) -> str:
    """All characters on the screen."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def sees(pilot: Pilot[None], *words: str, but_not: str = "") -> str:
    """Waits until all words are on the screen."""
    text = ""
    for _ in range(250):
        await asyncio.sleep(0.02)
        text = screen_text(pilot.app)
        if all(word in text for word in words) and not (but_not and but_not in text):
            return text
    raise AssertionError(f"{words} not on the screen:\n{text}")


def drive(folders: list[Path], size: tuple[int, int], play: Play, *, feed: Any = None, **settings: Any) -> None:
    """Runs the app and lets ``play`` press keys. ``feed`` takes the place of one that reads the folders."""

    async def scenario() -> None:
        app = OndeviceTui(feed or Feed(folders), **{"poll_s": 0.1, **settings})
        async with app.run_test(size=size, notifications=True) as pilot:
            await play(pilot)

    asyncio.run(scenario())
