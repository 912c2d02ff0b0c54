"""Pictures of every screen of the terminal UI, as text and SVG: ``python tools/capture_tui.py [FOLDER]``.

They show runs of paper (`tests.tui.recorded`) and answers of a phone that is none, so that they need no training and
look alike on every machine. SVG is made of the first screens only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from textual.widgets import Input  # noqa: E402

from tests.tui.recorded import RECORDED, chained_parts, diary  # noqa: E402
from tui.app import OndeviceTui  # noqa: E402
from tui.feed import Feed  # noqa: E402
from tui.look import ASCII, UNICODE  # noqa: E402
from tui.places import PLACES  # noqa: E402
from tui.screens import device, limits, new_run  # noqa: E402

SIZES = ((45, 28), (80, 24), (120, 36))
KINDS = ("hot", "waiting", "killed", "asleep", "finished", "empty", "corrupted", "newer")
DRAWN = ("runs", "watch")


def finding(topic: str, level: str, text: str, command: str = "") -> dict[str, str]:
    return {"topic": topic, "level": level, "text": text, "command": command}


ANSWERS: dict[str, dict[str, Any]] = {
    "doctor": {
        "possible": True,
        "findings": [
            finding("device", "ok", "Android 16, Termux 0.118, Python 3.14"),
            finding("device", "ok", "Snapdragon: 8 cores, asimddp, i8mm"),
            finding("memory", "ok", "5,120 of 11,264 MiB available"),
            finding("disk", "ok", "9,100 MiB free"),
            finding("battery", "warning", "Battery optimisation may end long runs.", "termux-wake-lock"),
            finding("packages", "ok", "torch 2.11.0"),
            finding("packages", "note", "onnxruntime is not installed: exports are not verified.",
                    "pkg install python-onnxruntime"),
        ],
        "reading": {"battery_c": 36.5, "cpu_c": 61.2, "battery_percent": 83.0, "plugged": True, "headroom": None,
                    "available_mb": 5120.0, "unknown": {"headroom": "asked too often"}},
    },
    "limit": {"why": {
        "preset": "balanced: a phone that somebody wants to use meanwhile", "max_battery_c": "39: batteries age above",
        "max_cpu_c": "85", "battery_floor_percent": "30", "hours": "always",
    }},
    "plan": {
        "recipe": {"model": {"arch": "llama", "layers": 6, "width": 192, "context": 256},
                   "train": {"tokens": 4_200_000, "steps": 2051, "batch": 8},
                   "why": {"model.width": "the largest that learns its fill in 30 minutes",
                           "train.lr": "derived from the width"}},
        "estimate": {"parameters": 3_400_000, "epochs": 1.4, "train_s": 1784.0, "memory": {"total_mb": 512.0}},
        "fit": {"micro_batch": 4, "threads": 4}, "saving": {"disk_mb": 260.0}, "tok_s": 2354.0,
        "warnings": ["The text is read 1.4 times: more text would teach more."],
    },
}  # fmt: skip


async def answer(*words: str, timeout_s: float = 0.0) -> dict[str, Any]:
    """Takes the place of `tui.jobs.ask_json`."""
    return ANSWERS[words[0]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "tui")
    parser.add_argument("--only", default="", help="screens, with commas between")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", TZ="UTC")
    os.environ.pop("NO_COLOR", None)
    for module in (device, limits, new_run):
        module.ask_json = answer  # type: ignore[attr-defined]
    time.tzset()
    names = [name for name in PLACES if name in args.only.split(",")] or list(PLACES)
    for size in SIZES:
        capture_all(size, names, args.folder)
    capture_all((80, 24), names[:2], args.folder, ascii_only=True)
    return 0


def capture_all(size: tuple[int, int], names: list[str], folder: Path, *, ascii_only: bool = False) -> None:
    """Runs made a moment ago: a minute later their hearts would have stopped."""
    with recorded_home() as home:
        os.environ["ONDEVICE_HOME"] = str(home)
        asyncio.run(capture(home / "runs", size, names, folder, ascii_only=ascii_only))


@contextlib.contextmanager
def recorded_home() -> Iterator[Path]:
    """A home with a long hot run and one run of each other kind."""
    with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
        runs = Path(folder) / "home" / "runs"
        runs.mkdir(parents=True)
        made = [diary(runs / "diary"), chained_parts(runs / "chain"), *(RECORDED[kind](runs / kind) for kind in KINDS)]
        try:
            yield Path(folder) / "home"
        finally:
            for trainer in made:
                trainer.leave()


async def capture(
    runs: Path, size: tuple[int, int], names: list[str], folder: Path, *, ascii_only: bool = False
) -> None:
    """Every screen at one size."""
    app = OndeviceTui(Feed([runs]), opened=runs / "diary", glyphs=ASCII if ascii_only else UNICODE, start_screen="runs")
    app.animation_level = "none"
    async with app.run_test(size=size, notifications=True) as pilot:
        await pilot.pause(1.5)
        app.marked = {runs / "diary", runs / "finished", runs / "killed"}
        for name in names:
            app.select(runs / ("chain" if name == "schedule" else "diary"))
            app.action_go(name)
            await pilot.pause(1.5)
            await act_on(pilot, name)
            stem = f"{name}-{size[0]}x{size[1]}" + ("-ascii" if ascii_only else "")
            write(app, folder / stem)
            if name == "watch" and not ascii_only:
                await other_pages(pilot, folder, size)


async def other_pages(pilot: Any, folder: Path, size: tuple[int, int]) -> None:
    """The panes that a smaller screen shows only after a swipe."""
    for number in range(2, len(pilot.app.screen.pages) + 1):
        await pilot.press("right")
        await pilot.pause(0.5)
        write(pilot.app, folder / f"watch-{size[0]}x{size[1]}-page{number}")


async def act_on(pilot: Any, name: str) -> None:
    """What makes a screen worth a look."""
    if name == "checkpoints":
        await pilot.press("space", "down", "down")
    if name == "new":
        pilot.app.screen.query_one("#text", Input).value = "~"
        await pilot.pause(2.0)
    if name == "limits":
        await pilot.press(*["down"] * 12)
    await pilot.pause(0.5)


def write(app: OndeviceTui, stem: Path) -> None:
    strips = app.screen._compositor.render_strips()
    rows = ("".join(segment.text for segment in strip).rstrip() for strip in strips)
    stem.with_name(f"{stem.name}.txt").write_text("\n".join(rows) + "\n", "utf-8")
    if stem.name.split("-")[0] in DRAWN and not stem.name.endswith(("ascii", "page2", "page3", "page4", "page5")):
        picture = app.export_screenshot(title=f"ondevice-tui {stem.name}")
        stem.with_name(f"{stem.name}.svg").write_text(picture, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
