"""The app driven by Pilot on run directories of paper: what a person sees after the keys they press."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.events import AppBlur, AppFocus, MouseScrollDown
from textual.pilot import Pilot
from textual.widgets import OptionList

from ondevice.run import control
from tests.tui.driver import SIZES, drive, screen_text, sees
from tui.look import ASCII
from tui.places import PLACES
from tui.screens.base import BaseScreen
from tui.screens.confirm import Confirm
from tui.screens.menu import Menu
from tui.screens.prompt import Prompt
from tui.screens.runs import RunsScreen
from tui.screens.watch import WatchScreen

Paper = Callable[..., Any]


@pytest.mark.parametrize("size", SIZES)
def test_runs_screen_shows_every_run(runs: Path, paper: Paper, size: tuple[int, int]) -> None:
    live = paper("alive").launch().steps(100).beat()
    paper("dead").launch().steps(20).die()
    paper("done").launch().steps(200).end()
    paper("untouched")

    async def play(pilot: Pilot[None]) -> None:
        text = await sees(pilot, "alive", "running", "50.0%", "killed", "finished", "100%", "new")
        assert any(spark in text for spark in "▁▂▃▄▅▆▇█")
        assert text.index("alive") < text.index("dead")

    drive([runs], size, play)
    live.die()


@pytest.mark.parametrize("size", [(45, 28), (120, 36)])
def test_pause_is_asked_until_the_trainer_answers(runs: Path, paper: Paper, size: tuple[int, int]) -> None:
    trainer = paper("notes").launch().steps(100).evaluate().beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "notes", "running")
        await pilot.press("enter")
        await sees(pilot, "step 100 of 200", "50.0%", "train")
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
        await sees(pilot, "1 alive")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive([runs], size, play)
    trainer.die()


@pytest.mark.parametrize(("key", "verb"), [("e", "eval"), ("r", "resume")])
def test_keys_become_letters(runs: Path, paper: Paper, key: str, verb: str) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        await pilot.press(key)
        await sees(pilot, f"{verb}: asked")
        assert [letter.verb for letter in control.pending(trainer.run)] == [verb]

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


@pytest.mark.parametrize("size", [(20, 5), (80, 24)])
def test_stop_asks_the_person_first(runs: Path, paper: Paper, size: tuple[int, int]) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "notes")
        await pilot.press("x", "enter")
        await pilot.pause(0.1)
        assert not isinstance(pilot.app.screen, Confirm) and control.pending(trainer.run) == []
        await pilot.press("x")
        await sees(pilot, "Stop notes?")
        await pilot.press("y")
        await pilot.pause(0.1)
        assert [letter.verb for letter in control.pending(trainer.run)] == ["stop"]
        trainer.answer().end("stopped")
        await sees(pilot, "stopped")
        await pilot.press("p")
        await sees(pilot, "No trainer holds" if size[0] > 20 else "No")
        assert control.pending(trainer.run) == []

    drive([trainer.run.path], size, play, opened=trainer.run.path)


def test_a_prompt_is_typed_and_asked(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        await pilot.press("w")
        await sees(pilot, "What shall notes go on from?")
        await pilot.press(*"Dear", "space", *"diary", "ctrl+n", *"we", "enter")
        await sees(pilot, "sample: asked")
        letter = control.pending(trainer.run)[0]
        assert (letter.verb, letter.args) == ("sample", {"prompt": "Dear diary\nwe"})
        trainer.write("sample", prompt="Dear diary", text=" of a phone", letter=letter.id).answer()
        await sees(pilot, "sample: accepted")
        await pilot.press("right")
        await sees(pilot, "Dear diary of a phone", "asked for")

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


@pytest.mark.parametrize(
    ("prompt", "seen"), [("a" * 10_000, "sample: asked"), ("\U0001f98a" * 20_000, "Could not ask")]
)
def test_a_prompt_of_ten_thousand_characters(runs: Path, paper: Paper, prompt: str, seen: str) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        await pilot.press("w")
        assert isinstance(pilot.app.screen, Prompt)
        pilot.app.screen.query_one("#text").text = prompt  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("enter")
        await sees(pilot, seen)
        await sees(pilot, "step 10 of 200")

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("size", [(40, 20), (120, 36)])
def test_a_run_deleted_while_watched_leaves_a_sentence(
    runs: Path, paper: Paper, size: tuple[int, int], named: bool
) -> None:
    trainer = paper("notes").launch().steps(10).die()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10")
        shutil.rmtree(trainer.run.path)
        await sees(pilot, "gone", "was deleted or renamed")
        await pilot.press("p", "r", "w", "x", "3", "5", "8", "escape")
        await pilot.pause()
        assert isinstance(pilot.app.screen, RunsScreen)

    drive([trainer.run.path if named else runs], size, play, opened=trainer.run.path)


def test_a_growing_run_is_followed_and_a_quiet_one_left_alone(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        screen = pilot.app.screen
        assert isinstance(screen, WatchScreen)
        shown: list[Any] = []
        screen.watch(pilot.app, "snapshot", lambda snapshot: shown.append(snapshot), init=False)
        await pilot.pause(0.3)
        assert shown == []
        trainer.steps(5).beat(step=15)
        await sees(pilot, "step 15 of 200")
        assert len(shown) >= 1

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


@pytest.mark.parametrize("size", [(20, 5), (80, 24)])
def test_every_screen_of_an_empty_home_is_a_sentence(runs: Path, size: tuple[int, int], monkeypatch: Any) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(runs.parent))

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "There are no runs" if size[0] > 20 else "There")
        await pilot.press("enter", "space", "down", "p", "r", "x", "w", "s")
        for key in "234589?":
            await pilot.press(key)
            await pilot.pause()
        await pilot.press("7")
        await pilot.pause(0.1)
        await pilot.press("escape")
        await sees(pilot, "There")

    drive([runs], size, play)


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


def test_a_storm_of_sizes_in_ascii(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(60).evaluate().save().sample().beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "notes")
        for name in PLACES:
            if name == "device":
                continue
            pilot.app.action_go(name)  # type: ignore[attr-defined]
            for width, height in ((120, 36), (20, 5), (40, 20), (1, 1), (76, 12)):
                await pilot.resize_terminal(width, height)
            text = screen_text(pilot.app)
            assert text.isascii(), (name, text)
        assert pilot.app.is_running

    drive([runs], (300, 80), play, glyphs=ASCII)
    trainer.die()


def test_a_phone_is_driven_by_touch_alone(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "notes")
        await pilot.click("#touch", offset=(3, 1))
        await sees(pilot, "step 10 of 200", "actions")
        await pilot.click("#touch", offset=(25, 0))
        await sees(pilot, "evaluate")
        assert isinstance(pilot.app.screen, Menu)
        await pilot.click(OptionList, offset=(5, 2))
        await sees(pilot, "pause: asked", but_not="evaluate")
        for _ in range(3):
            await pilot.click("#touch", offset=(38, 2))
        await sees(pilot, "pace")
        await pilot.click("#touch", offset=(14, 2))
        await sees(pilot, "Compare", "Schedule")
        await pilot.press("escape")
        await sees(pilot, "pace")

    drive([runs], (40, 20), play)
    trainer.die()


def test_a_swipe_turns_the_pane(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "now")
        await pilot.mouse_down("#panes", offset=(30, 4))
        await pilot.mouse_up("#panes", offset=(6, 4))
        await sees(pilot, "train", "loss")
        await pilot.mouse_down("#panes", offset=(6, 4))
        await pilot.mouse_up("#panes", offset=(30, 4))
        await sees(pilot, "progress", but_not="train")
        for words in (("train", "loss"), ("duty",)):
            await pilot._post_mouse_events([MouseScrollDown], "#panes", offset=(20, 4))
            await sees(pilot, *words)

    drive([runs], (40, 20), play, opened=trainer.run.path)
    trainer.die()


def test_plots_zoom_pan_and_change_their_axes(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(200).evaluate().beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "200")
        await pilot.press("plus")
        text = await sees(pilot, "50-100% of it", "120", "200")
        assert "0 fits" in text
        await pilot.press("left_square_bracket", "left_square_bracket")
        await sees(pilot, "25-75% of it")
        await pilot.press("0", "a")
        await sees(pilot, "by tokens", "150k")
        await pilot.press("a", "a", "l")
        await sees(pilot, "by elapsed log")
        await pilot.press("z")
        await sees(pilot, "by elapsed log", but_not="heat")

    drive([runs], (120, 36), play, opened=trainer.run.path)
    trainer.die()


def test_events_are_filtered_by_group(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(5).evaluate().die().launch(resumed_step=5).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "validation loss", "launch 2")
        await pilot.press("f", "f")
        text = await sees(pilot, "events: kills")
        assert "validation loss 2" not in text

    drive([runs], (120, 36), play, opened=trainer.run.path)
    trainer.die()


def test_q_quits(runs: Path) -> None:
    async def play(pilot: Pilot[None]) -> None:
        await pilot.press("q")
        await pilot.pause()
        assert not pilot.app.is_running

    drive([runs], (45, 28), play)


def test_no_color_paints_no_colour_and_keeps_the_marks(runs: Path, paper: Paper, monkeypatch: Any) -> None:
    trainer = paper("notes").launch().steps(10)
    trainer.beat(battery_c=44.0)
    monkeypatch.setenv("NO_COLOR", "1")

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200", "44.0°C", "!")
        assert pilot.app.no_color and pilot.app.theme == "terminal"
        for strip in pilot.app.screen._compositor.render_strips():
            for segment in strip:
                assert segment.style is None or segment.style.color is None or segment.style.color.is_default

    drive([runs], (120, 36), play, opened=trainer.run.path)
    trainer.die()


def test_colours_can_be_changed(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        seen = [pilot.app.theme]
        for _ in range(3):
            await pilot.press("T")
            await sees(pilot, "step 10 of 200")
            seen.append(pilot.app.theme)
        assert len(set(seen)) == 3 and seen[0] == seen[3]

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


def test_the_command_palette_knows_what_the_screen_can_do(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        await pilot.press("colon")
        await pilot.pause(0.2)
        await pilot.press(*"pause")
        await sees(pilot, "Pause")
        await pilot.press("enter")
        await sees(pilot, "pause: asked")

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


def test_hidden_it_reads_nothing(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "step 10 of 200")
        pilot.app.post_message(AppBlur())
        await pilot.pause(0.2)
        trainer.steps(5).beat(step=15)
        await pilot.pause(0.3)
        assert "step 15" not in screen_text(pilot.app)
        pilot.app.post_message(AppFocus())
        await sees(pilot, "step 15 of 200")

    drive([runs], (80, 24), play, opened=trainer.run.path)
    trainer.die()


def test_every_screen_shares_its_bars(runs: Path, paper: Paper, monkeypatch: Any) -> None:
    paper("notes").launch().steps(20).evaluate().save().sample().die()
    monkeypatch.setenv("ONDEVICE_HOME", str(runs.parent))

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "notes")
        for name in PLACES:
            pilot.app.action_go(name)  # type: ignore[attr-defined]
            await sees(pilot, "? help", "q quit", "2 Watch")
            assert isinstance(pilot.app.screen, BaseScreen) and name == pilot.app.screen.NAME

    drive([runs], (120, 36), play)
