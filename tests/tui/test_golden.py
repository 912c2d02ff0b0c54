"""A handful of screens as they were looked at and found good: every character and its colours.

After a wanted change, ``RENEW_GOLDEN=1 python -m pytest tests/tui/test_golden.py`` writes the files anew; read their
diff before committing it. They hold the characters, then for each of them a letter, then what the letters mean.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from string import ascii_letters
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui import recorded
from tests.tui.driver import drive, sees
from tests.tui.recorded import RECORDED, diary
from tui.feed import Feed
from tui.look import ASCII, UNICODE

GOLDEN = Path(__file__).parent / "golden"
NOW_T = 1_760_000_000.0  # a night in the past: no file of today is taken for a sign of life
KINDS = ("asleep", "hot", "waiting", "finished", "killed", "empty", "corrupted")
PICTURES: dict[str, dict[str, Any]] = {
    "watch-45x28": {"screen": "watch"},
    "watch-120x36": {"screen": "watch"},
    "runs-45x28": {"screen": "runs"},
    "runs-80x24": {"screen": "runs", "theme": "light"},
    "watch-80x24-ascii": {"screen": "watch", "theme": "terminal", "glyphs": ASCII},
    "saves-80x24": {"screen": "checkpoints", "keys": ("space", "down", "down")},
    "stop-45x28": {"screen": "watch", "keys": ("x",)},
}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of runs of one moment of one time zone, whenever and wherever they are made."""
    runs = tmp_path_factory.mktemp("home") / "runs"
    runs.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TZ": "UTC", "TERM": "xterm-256color", "ONDEVICE_HOME": str(runs.parent)}.items():
            patch.setenv(name, value)
        for name in ("NO_COLOR", "COLORTERM", "COLORFGBG"):
            patch.delenv(name, raising=False)
        patch.setattr(recorded, "time", SimpleNamespace(time=lambda: NOW_T))
        time.tzset()
        made = [diary(runs / "diary"), *(RECORDED[kind](runs / kind) for kind in KINDS)]
        yield runs
        for trainer in made:
            trainer.leave()
    time.tzset()


@pytest.mark.parametrize("name", PICTURES)
def test_it_looks_as_it_did(name: str, settled: Path) -> None:
    wanted = {"theme": "dark", "glyphs": UNICODE, "keys": (), **PICTURES[name]}
    width, height = map(int, name.split("-")[1].split("x"))
    seen: list[str] = []

    async def play(pilot: Pilot[None]) -> None:
        pilot.app.theme = wanted["theme"]
        await sees(pilot, "diary")
        await pilot.press(*wanted["keys"])
        seen.append(await picture_at_rest(pilot))

    feed = Feed([settled], budget_s=60.0, clock=lambda: NOW_T)
    look = {"start_screen": wanted["screen"], "glyphs": wanted["glyphs"]}
    drive([settled], (width, height), play, feed=feed, opened=settled / "diary", **look)
    golden = GOLDEN / f"{name}.txt"
    if "RENEW_GOLDEN" in os.environ:
        golden.write_text(seen[0], "utf-8")
    assert seen[0].split("\n") == golden.read_text("utf-8").split("\n"), "see the top of this file"


async def picture_at_rest(pilot: Pilot[None]) -> str:
    """Once nothing moves any more."""
    pictures: list[str] = []
    for _ in range(100):
        await pilot.pause(0.1)
        pictures.append(picture(pilot.app))
        if len(pictures) >= 3 and len(set(pictures[-3:])) == 1:
            return pictures[-1]
    raise AssertionError("it never comes to rest")


def picture(app: Any) -> str:
    """Characters, a letter a character, and what the letters mean."""
    letters: dict[str, str] = {}
    texts, colours = [], []
    for strip in app.screen._compositor.render_strips():
        texts.append("".join(segment.text for segment in strip).rstrip())
        styles = [(str(segment.style or "none"), segment.cell_length) for segment in strip]
        told = [letters.setdefault(style, ascii_letters[len(letters)]) * length for style, length in styles]
        colours.append("".join(told))
    meanings = [f"{letter} {style}" for style, letter in letters.items()]
    return "\n".join([*texts, "", *colours, "", *meanings, ""])
