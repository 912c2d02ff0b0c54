"""The app driven by Pilot on run directories of paper: what a person sees after the keys they press."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from ondevice.run import control
from tui.app import OndeviceTui
from tui.draw import ASCII
from tui.feed import Feed
from tui.screens.confirm import Confirm
from tui.screens.runs import RunsScreen
from tui.screens.watch import WatchScreen

Paper = Callable[..., Any]
SIZES = [(45, 28), (120, 36)]


def screen_text(app: OndeviceTui) -> str:
    """All characters on the screen."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def sees(pilot: Pilot[None], *words: str) -> str:
    """Waits until all words are on the screen."""
    text = ""
    for _ in range(200):
        await asyncio.sleep(0.02)
        text = screen_text(pilot.app)  # type: ignore[arg-type]
        if all(word in text for word in words):
            return text
    raise AssertionError(f"{words} not on the screen:\n{text}")


def drive(
    folders: list[Path],
    size: tuple[int, int],
    play: Callable[[Pilot[None]], Coroutine[Any, Any, None]] | Callable[[Pilot[None]], Awaitable[None]],
    **settings: Any,
) -> None:
    """Runs the app without a terminal and lets ``play`` press keys."""

    async def scenario() -> None:
        app = OndeviceTui(Feed(folders), poll_s=0.02, **settings)
        async with app.run_test(size=size, notifications=True) as pilot:
            await play(pilot)

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [*SIZES, (40, 20), (80, 24)])
def test_runs_screen_shows_every_run(runs: Path, paper: Paper, size: tuple[int, int]) -> None:
    live = paper("alive").launch().steps(100).beat()
    paper("dead").launch().steps(20).die()
    paper("done").launch().steps(200).end()
    paper("untouched")

    async def play(pilot: Pilot[None]) -> None:
        text = await sees(pilot, "alive", "running", "50.0%", "killed", "finished", "100%", "new", "left 6s")
        assert any(spark in text for spark in "▁▂▃▄▅▆▇█")
        assert text.index("alive") < text.index("dead")

    drive([runs], size, play)
    live.die()


@pytest.mark.parametrize("size", SIZES)
def test_pause_is_asked_until_the_trainer_answers(runs: Path, paper: Paper, size: tuple[int, int]) -> None:
    trainer = paper("notes").launch().steps(100).evaluate().beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "notes", "running")
        await pilot.press("enter")
        await sees(pilot, "step 100 of 200", "50.0%", "train", "val", "15,360", "mixture", "p pause")
        await pilot.press("p", "p")
        await sees(pilot, "pause: asked")
        await pilot.press("p")
        assert [letter.verb for letter in control.pending(trainer.run)] == ["pause"], "one letter is enough"
        trainer.answer()
        await sees(pilot, "pause: accepted", "waiting", "paused by ")
        await pilot.press("s")
        await sees(pilot, "save: asked")
        trainer.answer(ok=False, why="the disk is full")
        await sees(pilot, "save: refused: the disk is full")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive([runs], size, play)
    trainer.die()


@pytest.mark.parametrize("size", SIZES)
def test_stop_asks_the_person_first(runs: Path, paper: Paper, size: tuple[int, int]) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        await pilot.press("x", "enter")
        await sees(pilot, "step 10 of 200")
        assert not isinstance(pilot.app.screen, Confirm) and control.pending(trainer.run) == []
        await pilot.press("x")
        await sees(pilot, "Stop notes?")
        await pilot.press("y")
        await sees(pilot, "stop: asked")
        trainer.answer().end("stopped")
        await sees(pilot, "stopped", "`ondevice train notes` goes on")
        await pilot.press("p")
        await sees(pilot, "No trainer holds notes")
        assert control.pending(trainer.run) == []

    drive([trainer.run.path], size, play, opened=trainer.run.path)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_run_deleted_while_watched_leaves_a_sentence(
    runs: Path, paper: Paper, size: tuple[int, int], named: bool
) -> None:
    trainer = paper("notes").launch().steps(10).die()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10")
        shutil.rmtree(trainer.run.path)
        await sees(pilot, "gone", "notes was deleted or renamed")
        await pilot.press("p", "escape")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive([trainer.run.path if named else runs], size, play, opened=trainer.run.path)


def test_a_growing_run_is_followed_and_a_quiet_one_left_alone(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        screen = pilot.app.screen
        assert isinstance(screen, WatchScreen)
        shown: list[Any] = []

        def note(snapshot: Any) -> None:
            shown.append(snapshot)

        screen.watch(pilot.app, "snapshot", note, init=False)
        await pilot.pause(0.3)
        assert shown == []
        trainer.steps(5)
        await sees(pilot, "step 15 of 200")
        assert len(shown) >= 1

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


def test_an_empty_home_says_what_to_do(runs: Path) -> None:
    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "There are no runs yet")
        await pilot.press("enter", "down", "p")
        await sees(pilot, "There are no runs yet")

    drive([runs], (45, 28), play)


def test_the_cursor_stays_on_its_run_when_others_come(runs: Path, paper: Paper) -> None:
    trainers = [paper(name).launch().beat() for name in ("b", "d")]

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "2 alive")
        await pilot.press("down")
        trainers.append(paper("a").launch().beat())
        await sees(pilot, "3 alive")
        option = pilot.app.screen.query_one(OptionList).highlighted_option
        assert option is not None and str(option.id).endswith("/d")

    drive([runs], (80, 24), play)
    for trainer in trainers:
        trainer.die()


@pytest.mark.parametrize("size", [(20, 5), (45, 28), (120, 36)])
def test_resizing_and_ascii(runs: Path, paper: Paper, size: tuple[int, int]) -> None:
    trainer = paper("notes").launch().steps(60).evaluate().beat()

    async def play(pilot: Pilot[None]) -> None:
        await pilot.pause(0.1)
        await pilot.press("enter")
        for width, height in ((120, 36), (20, 5), (40, 20), (300, 80), size):
            await pilot.resize_terminal(width, height)
        await pilot.pause(0.1)
        text = screen_text(pilot.app)  # type: ignore[arg-type]
        assert not any("\u2800" <= character <= "\u28ff" for character in text)
        await pilot.press("escape")
        await sees(pilot, "> notes")

    drive([runs], size, play, glyphs=ASCII)
    trainer.die()


def test_touching_a_key_presses_it(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        keys = pilot.app.screen.query_one(".keys", Static)
        await pilot.click(keys, offset=(keys.styles.padding.left + 2, 0))
        await sees(pilot, "pause: asked")

    drive([runs], (45, 28), play, opened=trainer.run.path)
    trainer.die()


def test_q_quits(runs: Path) -> None:
    async def play(pilot: Pilot[None]) -> None:
        await pilot.press("q")
        await pilot.pause()
        assert not pilot.app.is_running

    drive([runs], (45, 28), play)


def test_no_color_paints_no_colour(runs: Path, paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = paper("notes").launch().steps(10).beat()
    monkeypatch.setenv("NO_COLOR", "1")

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        assert pilot.app.no_color

    drive([runs], (45, 28), play, opened=trainer.run.path)
    trainer.die()
