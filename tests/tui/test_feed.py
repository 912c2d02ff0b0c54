"""The feed against run directories written by a trainer of paper, and by worse authors."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.run import control, telemetry
from ondevice.run.digest import digest
from ondevice.run.files import write_json
from tui.feed import Feed
from tui.plots import AXES
from tui.run_feed import RunFeed
from tui.snapshot import FeedSnapshot, RunSnapshot

Paper = Callable[..., Any]


def only(snapshot: FeedSnapshot) -> RunSnapshot:
    assert len(snapshot.runs) == 1, snapshot
    return snapshot.runs[0]


def line(step: int, **fields: Any) -> bytes:
    return json.dumps({"v": 1, "t": 1.0, "kind": "step", "step": step, **fields}).encode() + b"\n"


def test_a_running_run_is_told_whole(runs: Path, paper: Paper) -> None:
    trainer = paper("notes", steps=200).launch().steps(40).evaluate(notes=2.5, python=2.0).beat()
    trainer.write("sample", prompt="def ", text="main\x1b[2J():\ud800").write("checkpoint", save_s=0.4)
    run = only(Feed([runs]).snapshot())
    assert (run.name, run.state, run.step, run.steps, run.launches) == ("notes", "running", 40, 200, 1)
    assert run.share == 0.2
    assert len(run.loss_curve) == 40 and run.loss == run.loss_curve[-1][1]
    assert {source.name: source.last for source in run.val} == {"": 2.25, "notes": 2.5, "python": 2.0}
    assert (run.best_step, run.best_loss, run.checkpoints) == (40, 2.25, (40,))
    assert (run.tok_s, run.rss_mb, run.cpu_c, run.battery_percent, run.plugged) == (15360.0, 412.3, 61.2, 83.0, True)
    assert run.samples[0].text.isprintable()
    assert [event.kind for event in run.events] == ["launch", "eval", "checkpoint"]
    assert run.trouble == () and run.share_read == 1
    trainer.die()


def test_nothing_new_gives_the_same_object(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(5).beat()
    feed = Feed([runs])
    first = feed.snapshot()
    assert feed.snapshot() is first
    trainer.steps(1).beat()
    second = feed.snapshot()
    assert second is not first and only(second).step == 6
    trainer.beat(heartbeat_t=time.time() + 1)
    assert feed.snapshot() is second, "a heartbeat alone is no news"
    trainer.die()


def test_a_torn_tail_waits_for_its_rest(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(3)
    feed = Feed([runs])
    whole = line(4, loss=1.25)
    trainer.append(whole[:17])
    assert only(feed.snapshot()).step == 3
    assert only(feed.snapshot()).share_read == 1
    trainer.append(whole[17:])
    run = only(feed.snapshot())
    assert (run.step, run.loss, run.trouble) == (4, 1.25, ())
    trainer.die()


def test_killed_then_resumed_forgets_what_was_lost(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(30)
    feed = Feed([runs])
    assert only(feed.snapshot()).state == "running"
    trainer.append(line(31, loss=1.0)[:20]).die()
    assert only(feed.snapshot()).state == "killed"
    trainer.launch(resumed_step=20).steps(2)
    run = only(feed.snapshot())
    assert (run.state, run.step, run.launches, run.kills) == ("running", 22, 2, 1)
    assert [x for x, _ in run.loss_curve] == list(range(1, 23))
    assert [event.kind for event in run.events] == ["launch", "killed", "launch"]
    trainer.end()
    run = only(feed.snapshot())
    assert (run.state, run.outcome) == ("finished", "every planned step is done")


@pytest.mark.parametrize("state", ["waiting", "asleep"])
def test_states_of_a_held_run(runs: Path, paper: Paper, state: str) -> None:
    trainer = paper("notes").launch().steps(1)
    trainer.hold = "paused by a friend"
    then = time.time() - (0 if state == "waiting" else 7200)
    os.utime(trainer.run.lock, (then, then))
    trainer.beat(heartbeat_t=then)
    run = only(Feed([runs]).snapshot())
    assert (run.state, run.hold) == (state, "paused by a friend")
    assert (run.silent_since_t is not None) == (state == "asleep")
    trainer.die()


def test_garbage_is_skipped_and_told(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(2)
    trainer.append(b"\x00\xff\xfe{\n[1,2]\n" + b"[" * 100_000 + b"\n\n" + line(3, loss="high", lr=None, tokens=[1]))
    trainer.append(line(4, loss=1e308)).append(line(5, loss=float("nan"))).steps(4)
    run = only(Feed([runs]).snapshot())
    assert run.step == 6
    assert run.trouble == ("3 damaged lines skipped, the first at 0001.jsonl:4.",)
    trainer.die()


def test_an_endless_line_does_not_stop_the_reading(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().append(b"x" * (9 << 20))
    feed = Feed([runs], budget_s=30)
    assert only(feed.snapshot()).step == 0
    trainer.append(b"\n").steps(7)
    run = only(feed.snapshot())
    assert run.step == 7 and "1 damaged line" in run.trouble[0]
    trainer.die()


def test_a_newer_telemetry_version_is_refused_in_one_sentence(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(1).append(b'{"v":9,"t":1,"kind":"step","step":2}\n')
    feed = Feed([runs])
    for alive in (True, False):
        run = only(feed.snapshot())
        assert run.step == 1
        assert len(run.trouble) == 1 and "version 9" in run.trouble[0] and "update ondevice" in run.trouble[0]
        if alive:
            trainer.die()


def test_a_newer_layout_is_refused(runs: Path, paper: Paper) -> None:
    trainer = paper("notes")
    write_json(trainer.run.identity, {"layout": 99})
    run = only(Feed([runs]).snapshot())
    assert run.state == "newer" and "layout 99" in run.trouble[0]


def test_damaged_status_is_told_and_survived(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(2)
    for content in (b"{", b"[]", b'{"heartbeat_t": "noon", "state": 7, "eta_s": [], "hold": {}}', b"\xff"):
        trainer.run.status.write_bytes(content)
        run = only(Feed([runs]).snapshot())
        assert run.step == 2 and run.eta_s is None and run.hold == ""
    assert "status.json" in run.trouble[0]
    trainer.die()


def test_truncated_and_replaced_telemetry_is_read_again(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(50)
    feed = Feed([runs])
    assert only(feed.snapshot()).step == 50
    file = trainer.run.telemetry / "0001.jsonl"
    file.write_bytes(line(7, loss=2.0))
    assert [x for x, _ in only(feed.snapshot()).loss_curve] == [7]
    (trainer.run.telemetry / "new").write_bytes(line(8, loss=2.0) * 3 + line(9, loss=2.0))
    (trainer.run.telemetry / "new").rename(file)
    assert only(feed.snapshot()).step == 9
    file.unlink()
    assert only(feed.snapshot()).loss_curve == ()
    trainer.die()


def test_runs_appear_and_vanish(runs: Path, paper: Paper) -> None:
    feed = Feed([runs])
    assert feed.snapshot().runs == ()
    paper("one").launch().die()
    paper("two").launch().die()
    assert {run.name for run in feed.snapshot().runs} == {"one", "two"}
    shutil.rmtree(runs / "one")
    assert only(feed.snapshot()).name == "two"
    shutil.rmtree(runs)
    assert feed.snapshot().runs == ()


def test_a_named_run_that_was_deleted_leaves_a_sentence(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch().steps(9).die()
    feed = Feed([trainer.run.path])
    assert only(feed.snapshot()).step == 9
    shutil.rmtree(trainer.run.path)
    run = only(feed.snapshot())
    assert (run.state, run.trouble) == ("gone", ("notes was deleted or renamed.",))
    paper("notes").launch().steps(2).die()
    assert only(feed.snapshot()).step == 2, "another run of that name is another run"


def test_a_long_story_is_read_in_pieces(runs: Path, paper: Paper) -> None:
    trainer = paper("notes", steps=3000).launch().steps(3000)
    feed = Feed([runs], budget_s=0.0)
    first = feed.snapshot()
    assert first.catching_up and 0 < only(first).share_read < 1
    for _ in range(5000):
        if not (last := feed.snapshot()).catching_up:
            break
    assert only(last).step == 3000 and len(only(last).plots.series("loss", max_points=5000)) == 3000
    trainer.die()


def test_asks_follow_the_files(runs: Path, paper: Paper) -> None:
    trainer = paper("notes").launch()
    feed = Feed([runs])
    control.send(trainer.run, "pause", sender="a test")
    control.send(trainer.run, "save", sender="a test")
    run = only(feed.snapshot())
    assert {ask.verb: ask.state for ask in run.asks} == {"pause": "asked", "save": "asked"}
    trainer.answer()
    run = only(feed.snapshot())
    assert {ask.verb: ask.state for ask in run.asks} == {"pause": "accepted", "save": "accepted"}
    assert run.state == "waiting"
    control.send(trainer.run, "stop", sender="a test")
    trainer.answer(ok=False, why="not today")
    ask = only(feed.snapshot()).asked("stop")
    assert ask is not None and (ask.state, ask.why) == ("refused", "not today")
    trainer.die().launch(0)
    assert only(feed.snapshot()).asks == (), "answers of an earlier launch are history"
    trainer.die()


def test_dead_runs_are_not_read_again(runs: Path, paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = paper("notes").launch().steps(5).die()
    feed = RunFeed(trainer.run)
    feed.poll(time.monotonic() + 5)
    monkeypatch.setattr("tui.life.read_liveness", lambda *a, **k: pytest.fail("read again"))
    feed.poll(time.monotonic() + 5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
NUMBERS = [
    "loss",
    "lr",
    "tokens",
    "steps",
    "resumed_step",
    "val_loss",
    "val_loss_mixed",
    "best_step",
    "save_s",
    "t",
    "v",
]
WORDS = ["removed", "text", "prompt", "why", "verb", "id", "ok", "outcome", "launch", "from", "rss_mb", "hold", "step"]
KEYS = st.sampled_from(NUMBERS + WORDS)
KINDS = st.sampled_from([*telemetry.KINDS, "other"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(KINDS, st.dictionaries(KEYS, JSON, max_size=6)), max_size=8), st.dictionaries(KEYS, JSON))
def test_no_record_and_no_status_raises(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], status: dict[str, Any]
) -> None:
    run = tmp_path_factory.mktemp("any") / "run"
    (run / "telemetry").mkdir(parents=True)
    write_json(run / "run.json", {"layout": 1})
    lines = [json.dumps({"v": 1, "t": 1.0, "step": n, "kind": kind, **keys}) for n, (kind, keys) in enumerate(records)]
    (run / "telemetry" / "0001.jsonl").write_text("".join(text + "\n" for text in lines), "utf-8")
    (run / "status.json").write_text(json.dumps(status), "utf-8")
    snapshot = only(Feed([run]).snapshot())
    for name in (*snapshot.plots.names, "nothing"):
        for axis in AXES:
            assert snapshot.plots.series(name, x=axis, start=-1e9, max_points=5).xs is not None


def test_a_number_that_no_counter_reaches_counts_as_missing():
    story = digest([{"v": 1, "t": 1.0, "kind": "launch", "step": 0, "steps": 10**400}])
    assert story.steps is None
