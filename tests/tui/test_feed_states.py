"""What the feed says of recorded runs: one for each state that a person can meet."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.run import control
from ondevice.run.files import write_json, write_sealed
from ondevice.run.quality import write_quality
from ondevice.run.schedule import Part, Schedule, write_schedule
from tui.feed import Feed
from tui.snapshot import RunSnapshot

Recorded = Callable[[str], Any]


def seen(trainer: Any) -> RunSnapshot:
    (run,) = Feed([trainer.run.path]).snapshot().runs
    return run


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("healthy", "running"),
        ("hot", "running"),
        ("resting", "resting"),
        ("waiting", "waiting"),
        ("killed", "killed"),
        ("asleep", "asleep"),
        ("finished", "finished"),
        ("empty", "new"),
        ("corrupted", "killed"),
        ("newer", "newer"),
    ],
)
def test_every_state_is_told(recorded: Recorded, kind: str, state: str) -> None:
    assert seen(recorded(kind)).state == state


def test_a_healthy_run_in_full(recorded: Recorded) -> None:
    run = seen(recorded("healthy"))
    assert (run.step, run.steps, run.share, run.why, run.trouble) == (100, 200, 0.5, "", ())
    assert [saved.step for saved in run.saved] == [25, 50, 75, 100] == list(run.checkpoints)
    assert [saved.best for saved in run.saved].count(True) == 1
    assert all(saved.loss is not None and dict(saved.losses).keys() == {"", "notes", "python"} for saved in run.saved)
    assert run.saved[0].size_mb == pytest.approx(38.15, abs=0.01)
    assert {event.group for event in run.events} == {"launches", "evals", "saves"}
    assert run.samples[-1].prompt == "Once upon" and run.samples[-1].step == 100
    assert {"loss", "loss_smooth", "lr", "grad_norm", "step_s", "tok_s", "val:", "val:notes", "cpu_c", "duty"} <= set(
        run.plots.names
    )


def test_a_hot_run_names_the_thermometer_nearest_to_its_limit(recorded: Recorded) -> None:
    run = seen(recorded("hot"))
    assert run.hottest is not None and (run.hottest.name, run.hottest.now_c) == ("battery_c", 39.5)
    assert run.hottest.limit_c == 39.0 and run.hottest.over_c == 0.5, "a phone's balanced preset"
    assert (run.duty, run.plugged) == (0.35, False)
    assert run.events[-1].group == "orders" and "39.5 C" in run.events[-1].text
    duty = run.plots.series("duty", x="time")
    assert duty.ys[-1] == 0.35 and max(duty.ys) == 1.0
    heat = run.plots.series("battery_c", x="time")
    assert min(heat.xs) >= (run.began_t or 0) and list(heat.ys) == [34.0 + number / 2 for number in range(12)]


def test_why_it_stands_still_and_until_when(recorded: Recorded) -> None:
    resting = seen(recorded("resting"))
    assert resting.why == "The battery is at 41.2 C: resting until it is below 38 C." and resting.duty == 0.0
    waiting = seen(recorded("waiting"))
    assert "22:30" in waiting.why
    assert waiting.until_t is not None and 3500 < waiting.until_t - time.time() <= 3600


def test_a_killed_run_tells_its_kills_and_what_is_left(recorded: Recorded) -> None:
    run = seen(recorded("killed"))
    assert (run.kills, run.launches, run.step, run.duty) == (1, 2, 70, None)
    assert [(saved.step, saved.light) for saved in run.saved] == [(30, True), (70, False)]
    assert [event.kind for event in run.events if event.group == "kills"] == ["killed"]
    assert run.death != ""


def test_an_empty_run_has_nothing_to_show_and_says_so_without_trouble(recorded: Recorded) -> None:
    run = seen(recorded("empty"))
    assert (run.step, run.launches, run.trouble, run.plots.names) == (0, 0, (), ())
    assert not run.plots.series("loss") and run.plots.extent("loss") is None


def test_a_corrupted_tail_is_told_and_the_rest_kept(recorded: Recorded) -> None:
    run = seen(recorded("corrupted"))
    assert run.step == 100 and len(run.trouble) == 1 and run.trouble[0].startswith("3 damaged lines skipped")


def test_pins_quality_and_limits_are_read_and_read_again(recorded: Recorded) -> None:
    trainer = recorded("healthy")
    feed = Feed([trainer.run.path])
    (run,) = feed.snapshot().runs
    assert [saved.pinned for saved in run.saved] == ["", "", "", ""]
    trainer.run.checkpoints.mkdir(exist_ok=True)
    write_sealed(trainer.run.checkpoints / "pins.json", {"v": 1, "pins": {"50": "the good one"}})
    write_quality(trainer.run.evals, {75: 0.8, 100: 0.5})
    write_sealed(trainer.run.limits, {"v": 1, "max_battery_c": 33.0, "keep_last": 5, "preset": "gentle"})
    (run,) = feed.snapshot().runs
    assert [saved.pinned for saved in run.saved] == ["", "the good one", "", ""]
    assert [saved.quality for saved in run.saved] == [None, None, 0.8, 0.5]
    assert [saved.step for saved in run.saved if saved.best_quality] == [75]
    assert run.limits["max_battery_c"] == 33.0 and run.limits["max_cpu_c"] == 85.0, "written over what holds"
    assert run.written["keep_last"] == 5 and "duty_max" not in run.written
    (trainer.run.checkpoints / "pins.json").write_text("{")
    (run,) = feed.snapshot().runs
    assert len(run.trouble) == 1 and "pins.json" in run.trouble[0]


def test_letters_of_a_dead_run_expire_but_not_its_limits(recorded: Recorded) -> None:
    trainer = recorded("killed")
    control.send(trainer.run, "pause", sender="a test")
    control.send(trainer.run, "limit", {"keep_last": 4}, sender="a test")
    run = seen(trainer)
    assert {ask.verb: ask.state for ask in run.asks} == {"pause": "expired", "limit": "asked"}


def test_an_answer_that_a_letter_came_too_late_is_expired(recorded: Recorded) -> None:
    trainer = recorded("healthy").write("control", id="x", verb="stop", ok=False, why="written before this launch")
    ask = seen(trainer).asked("stop")
    assert ask is not None and ask.state == "expired"


def test_a_schedule_is_read_where_there_is_one(recorded: Recorded) -> None:
    trainer = recorded("healthy")
    assert seen(trainer).schedule == ()
    done = Part(
        index=0,
        name="001",
        stage="base",
        tokens=640,
        sources={"notes": 400, "talk": 240},
        first_step=0,
        last_step=10,
        state="done",
        results={"val_loss_mixed": 2.5, "chained": "0f"},
    )
    why = "a chunk is damaged"
    failed = dataclasses.replace(done, index=1, name="002", state="failed", tries=2, error=why, results={})
    write_schedule(trainer.run.path, Schedule(revision=1, parts=(done, failed)))
    one, two = seen(trainer).schedule
    assert (one.number, one.name, one.steps, one.state, one.loss) == (1, "001", 10, "done", 2.5)
    assert (one.source, one.tokens) == ("notes, talk", 640)
    assert (two.state, two.tries, two.error) == ("failed", 2, why)
    write_json(trainer.run.path / "schedule.json", {"parts": [{"name": 7}, 3]})
    (odd,) = seen(trainer).schedule
    assert (odd.name, odd.state, odd.source) == ("", "planned", "")


def test_what_is_neither_a_run_nor_a_folder_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    snapshot = Feed([file]).snapshot()
    assert snapshot.runs == () and snapshot.trouble == (f"{file}: neither a run directory nor a folder of runs.",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_permission_there_is_a_sentence(recorded: Recorded) -> None:
    trainer = recorded("finished")
    trainer.run.telemetry.chmod(0)
    try:
        run = seen(trainer)
    finally:
        trainer.run.telemetry.chmod(0o700)
    assert run.state == "unknown" and "cannot be read" in run.trouble[0]


def test_a_system_that_refuses_is_a_sentence(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = recorded("finished")

    def refuse(folder: Path) -> list[Any]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("tui.tail._telemetry_files", refuse)
    run = seen(trainer)
    assert (run.state, run.trouble) == ("unknown", ("finished: it cannot be read (Permission denied).",))


def test_the_status_speaks_while_the_story_is_still_read(recorded: Recorded) -> None:
    trainer = recorded("healthy").steps(5000).beat(step=5100, steps=6000, tokens=99, loss=1.25)
    feed = Feed([trainer.run.path], budget_s=0.0)
    (run,) = feed.snapshot().runs
    assert run.share_read < 1 and (run.step, run.steps, run.tokens, run.loss) == (5100, 6000, 99, 1.25)


def test_the_status_speaks_of_a_best_that_the_story_lost(recorded: Recorded) -> None:
    run = seen(recorded("healthy").beat(launch=1, best_step=90, best_loss=0.125))
    assert run.share_read == 1 and (run.best_step, run.best_loss) == (90, 0.125)


def test_a_clock_that_was_set_makes_no_gap_and_no_loop(recorded: Recorded) -> None:
    def line(t: float, kind: str, **fields: Any) -> bytes:
        return json.dumps({"v": 1, "t": t, "kind": kind, **fields}).encode() + b"\n"

    trainer = recorded("empty").launch()
    began = time.time()
    trainer.append(line(began + 10, "step", step=1, loss=2.0))
    trainer.append(line(began + 1e6, "note", step=1, text="The clock was set.", clock_jumped_s=1e6 - 20))
    trainer.append(line(began + 1e6 + 10, "step", step=2, loss=2.0))
    trainer.append(line(began - 5e5, "reading", step=2, cpu_c=50.0)).append(
        line(began - 5e5 + 30, "step", step=3, loss=2.0)
    )
    times = seen(trainer).plots.series("loss", x="elapsed").xs
    assert list(times) == sorted(times) and 0 < times[0] < times[2] < 120
