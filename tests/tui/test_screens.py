"""Screens that do more than show: checkpoints, limits, comparison, a new run, the device. Commands are answered here
by a stand-in, so that no model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from ondevice.errors import DataError
from ondevice.run import control
from tests.tui.driver import drive, screen_text, sees
from tests.tui.recorded import chained_parts
from tui.screens import checkpoints, device, limits, new_run
from tui.screens.paths import complete
from tui.snapshot import FeedSnapshot, Part, RunSnapshot

Paper = Callable[..., Any]
PLAN = {
    "recipe": {
        "model": {"arch": "llama", "layers": 4, "width": 128, "context": 256},
        "train": {"tokens": 2_400_000, "steps": 1200, "batch": 8},
        "why": {"model.width": "the largest that fits 30 minutes"},
    },
    "estimate": {"parameters": 1_300_000, "epochs": 1.5, "train_s": 1750.0, "memory": {"total_mb": 410.0}},
    "fit": {"micro_batch": 4, "threads": 2},
    "saving": {"disk_mb": 120.0},
    "tok_s": 1371.0,
    "warnings": ["the text is read more than once"],
}


class Commands:
    """Takes the place of `tui.jobs.ask_json`: remembers what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.answers: dict[str, Any] = {"plan": PLAN, "limit": {"why": {"hours": "always"}}, "pin": {"ok": True}}
        for module in (checkpoints, device, limits, new_run):
            monkeypatch.setattr(module, "ask_json", self)

    async def __call__(self, *words: str, timeout_s: float = 0.0) -> dict[str, Any]:
        self.asked.append(words)
        answer = self.answers.get(words[0], {})
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


class FakeFeed:
    """Gives the same runs for ever."""

    def __init__(self, *runs: RunSnapshot) -> None:
        self._now = FeedSnapshot(runs=runs)

    def snapshot(self) -> FeedSnapshot:
        return self._now


def test_checkpoints_are_listed_pinned_and_compared(runs: Path, paper: Paper, commands: Commands) -> None:
    trainer = paper("notes").launch()
    for number in range(3):
        trainer.steps(20).evaluate(notes=3.0 - number, python=2.0).save().sample("Dear", f" number {number}")
    trainer.beat()
    commands.answers["generate"] = {"text": " generated\x1b[2J text"}

    async def play(pilot: Pilot[None]) -> None:
        text = await sees(pilot, "mixture", "notes", "python", "1.5000", "2.5000")
        assert text.index("1.5000") < text.index("2.5000"), "newest first"
        await sees(pilot, "Dear number 2")
        await pilot.press("space", "down", "down")
        await sees(pilot, "Dear number 0", "Dear number 2", "─ step 20 ─", "─ step 60 ─")
        await pilot.press("i")
        await sees(pilot, "Why keep step 20")
        await pilot.press("enter")
        await sees(pilot, "pin: asked")
        assert control.pending(trainer.run)[0].args == {"step": 20, "reason": "asked for"}
        await pilot.press("g", "enter")
        await sees(pilot, "generated\ufffd[2J text")
        steps = [words[words.index("--step") + 1] for words in commands.asked if words[0] == "generate"]
        assert steps == ["20", "60"] and commands.asked[-1][-2:] == ("--", "Dear")

    drive([runs], (120, 36), play, opened=trainer.run.path, start_screen="checkpoints")
    trainer.die()


def test_a_dead_run_is_pinned_and_exported_by_commands(
    runs: Path, paper: Paper, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = paper("notes").launch().steps(20).evaluate().save().die()
    started: list[list[str]] = []
    monkeypatch.setattr("tui.jobs.Jobs.start", lambda self, words, **_: started.append(list(words)))
    commands.answers["pin"] = DataError("checkpoints/pins.json: the system refuses access.")

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "mixture", "killed")
        await pilot.press("i", "enter")
        await sees(pilot, "the system refuses access")
        assert commands.asked[-1] == ("pin", str(trainer.run.path), "20", "--reason", "asked for")
        await pilot.press("o")
        await pilot.pause()
        assert started == [["export", str(trainer.run.path), "--step", "20"]]

    drive([runs], (80, 24), play, opened=trainer.run.path, start_screen="checkpoints")


def test_limits_are_checked_before_they_are_asked(runs: Path, paper: Paper, commands: Commands) -> None:
    trainer = paper("notes").launch().steps(10).beat()

    async def change(pilot: Pilot[None], value: str) -> None:
        await pilot.press("enter")
        await sees(pilot, "max_battery_c in C")
        await pilot.press("end", *["backspace"] * 6, *value, "enter")

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "max_battery_c", "always", "never change the fit")
        await pilot.press(*["down"] * 12)
        await sees(pilot, "warmest battery", "from 20 to 60 C")
        await change(pilot, "400")
        await sees(pilot, "limits.max_battery_c")
        assert control.pending(trainer.run) == [], "a wish out of bounds is not asked"
        await change(pilot, "38.5")
        await sees(pilot, "limit: asked")
        assert control.pending(trainer.run)[0].args == {"max_battery_c": 38.5}
        trainer.die()
        await sees(pilot, "killed")
        await change(pilot, "37")
        await pilot.pause(0.2)
        assert commands.asked[-1] == ("limit", str(trainer.run.path), "max_battery_c=37")

    drive([runs], (100, 40), play, opened=trainer.run.path, start_screen="limits")


def test_a_new_run_shows_its_plan_and_starts(
    runs: Path, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "notes"
    text.mkdir()
    started: list[list[str]] = []
    monkeypatch.setattr("tui.jobs.Jobs.start", lambda self, words, **_: started.append(list(words)))
    monkeypatch.setattr(new_run, "_SETTLE_S", 0.05)
    monkeypatch.setenv("ONDEVICE_HOME", str(runs.parent))

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "Name a file or folder")
        box = pilot.app.screen.query_one("#text", Input)
        box.value = str(text) + "x"
        await sees(pilot, "or folder.")
        await pilot.press("ctrl+s")
        box.value = str(text)
        await sees(pilot, "llama, 1.3M parameters", "410 MB", "29m10s", "the largest that fits", "more than once")
        assert commands.asked[-1] == ("plan", "--data", str(text), "--minutes", "30")
        commands.answers["plan"] = DataError("notes: there is no text in it.")
        await pilot.press("f5")
        await sees(pilot, "there is no text in it")
        await pilot.press("ctrl+s")
        await sees(pilot, "There are no runs yet")
        assert started[-1] == ["train", "--data", str(text), "--minutes", "30", "--quiet"]

    drive([runs], (100, 40), play, start_screen="new")


def test_paths_are_completed(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden").mkdir()
    assert complete(f"{tmp_path}/no") == f"{tmp_path}/notes"
    assert complete(f"/a; {tmp_path}/n") == f"/a; {tmp_path}/notes"
    assert complete(f"{tmp_path}/") == f"{tmp_path}/notes"
    assert complete(f"{tmp_path}/x") is None and complete("") is None and complete("/no/such/x") is None


def test_the_device_tells_what_the_doctor_found(runs: Path, recorded: Any, commands: Commands) -> None:
    recorded("hot")
    finding = {"topic": "packages", "level": "problem", "text": "numpy is missing.", "remedy": "", "command": "pkg x"}
    reading = {"t": 1.0, "cpu_c": 61.5, "battery_c": None, "plugged": True, "unknown": {"battery_c": "not there"}}
    commands.answers["doctor"] = {"possible": False, "findings": [finding, "odd", 3], "reading": reading}

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "Training is not possible here yet", "!! numpy is missing.", "pkg x", "61.5", "not there")
        await sees(pilot, "sensors now, by hot", "limit 39")
        commands.answers["doctor"] = DataError("`ondevice doctor` ended without an answer.")
        await pilot.press("d")
        await sees(pilot, "ended without an answer")
        commands.answers["doctor"] = {"possible": "perhaps", "findings": {"no": "list"}, "reading": 5}
        await pilot.press("d")
        await sees(pilot, "Training is not possible here yet")

    drive([runs], (120, 36), play, start_screen="device")


def test_compare_takes_the_marked_runs(runs: Path, paper: Paper) -> None:
    for name in ("one", "two", "three"):
        paper(name).launch().steps(100).evaluate().die()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "3 runs")
        await pilot.press("home", "space", "down", "space")
        await sees(pilot, "2 marked")
        await pilot.press("c")
        await sees(pilot, "loss of 2 runs", "sustained")
        await pilot.press("v")
        await sees(pilot, "validation loss of 2 runs")
        await pilot.press("a", "a")
        await sees(pilot, "by elapsed")
        await pilot.press("c")
        await sees(pilot, "space marks, enter takes")
        await pilot.press("end", "space", "enter")
        await sees(pilot, "of 3 runs")

    drive([runs], (120, 36), play)


def test_a_schedule_is_a_table(tmp_path: Path) -> None:
    parts = (
        Part(number=1, name="web-1", stage="broad", source="web", steps=1200, tokens=2_400_000, state="done"),
        Part(number=2, name="wiki-1", stage="broad", source="wiki", steps=600, tokens=1_200_000, state="active"),
        Part(number=3, name="diary", stage="own", source="diary", steps=None, tokens=None, state="planned"),
        Part(
            number=4, name="odd", stage="own", source="diary", steps=6, tokens=9, state="failed", tries=1, error="torn"
        ),
    )
    run = RunSnapshot(name="notes", path=tmp_path / "notes", state="running", step=1300, steps=2000)

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "broad", "✓   1 web-1", "1,200   2.4M", "●   2 wiki-1", "own", "○   3 diary")
        await sees(pilot, "4 odd", "x2", "torn")

    feed = FakeFeed(dataclasses.replace(run, schedule=parts))
    drive([], (80, 24), play, feed=feed, start_screen="schedule")

    async def none(pilot: Pilot[None]) -> None:
        await sees(pilot, "notes has no schedule")

    drive([], (80, 24), none, feed=FakeFeed(run), start_screen="schedule")


@pytest.mark.parametrize(
    "kind", ["healthy", "hot", "resting", "waiting", "killed", "asleep", "finished", "empty", "corrupted", "newer"]
)
def test_every_state_can_be_watched(runs: Path, recorded: Any, kind: str) -> None:
    """The head, the list and the panes of a run in that state."""
    from tui.feed import Feed
    from tui.look import ANSI, ASCII, Look
    from tui.screens.watch import ALL
    from tui.views.head import head_text
    from tui.views.runs import run_row

    recorded(kind)
    run = Feed([runs]).snapshot().runs[0]
    words = {"healthy": "running", "hot": "running", "empty": "new", "corrupted": "killed"}.get(kind, kind)
    for width in (20, 40, 80, 120):
        for look in (Look(ASCII, ANSI), Look()):
            row = run_row(run, width, look)
            assert all(len(line) <= width for line in row.plain.split("\n")), row.plain
            head = head_text(run, width, 5, look)
            assert words in head.plain and all(len(line) <= max(width, 24) for line in head.plain.split("\n"))
            assert look.glyphs is not ASCII or (row.plain + head.plain).isascii()
    assert {name for row in ALL for name, _ in row} | {"now"} == {
        "now", "loss", "pace", "heat", "machine", "validation", "samples", "saves", "events",
    }  # fmt: skip


def test_long_texts_are_wrapped_and_scrolled(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(10)
    trainer.sample("Once", " upon a time" * 60 + " the end").beat()

    async def play(pilot: Pilot[None]) -> None:
        await sees(pilot, "Once upon a time", "of ")
        await pilot.press(*["pagedown"] * 12)
        await sees(pilot, "the end", but_not="Once")
        await pilot.press(*["pageup"] * 12)
        await sees(pilot, "Once upon a time", but_not="the end")

    drive([runs], (120, 36), play, opened=trainer.run.path)
    trainer.die()


def test_a_schedule_begins_at_the_part_that_is_learned_now(runs: Path) -> None:
    trainer = chained_parts(runs / "chain", parts=60, done=40)

    async def play(pilot: Pilot[None]) -> None:
        text = await sees(pilot, "dialogue 41")
        assert "general 1 " not in text
        await pilot.press(*["pageup"] * 5)
        await sees(pilot, "40 of 60 parts done", "general 1 ", "x3")
        rows = [row for row in screen_text(pilot.app).split("\n") if "general" in row and " 50 " in row]
        assert len(rows) > 5 and len({row.index(" 50 ") for row in rows}) == 1, "columns"

    drive([runs], (45, 28), play, opened=trainer.run.path, start_screen="schedule")
    trainer.leave()
