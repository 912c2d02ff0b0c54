"""What the story tells of a part: its own steps, heat and energy, each record read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ondevice.errors import DataError
from ondevice.run.part_story import PartStory, Tail
from ondevice.run.telemetry import TelemetryWriter


def step(number: int, loss: float, seconds: float = 0.5) -> dict:
    return {"kind": "step", "step": number, "loss": loss, "step_s": seconds, "tok_s": 100.0, "t": float(number)}


def test_facts_are_of_the_part_alone_and_of_what_was_not_taken_back() -> None:
    story = PartStory()
    story.see({"kind": "launch", "step": 0, "t": 0.0})
    for record in (
        step(1, 3.0),
        step(2, 2.0),
        {"kind": "reading", "step": 2, "t": 2.0, "battery_c": 31.0, "cpu_c": 60},
    ):
        story.see(record)
    story.see({"kind": "launch", "step": 1, "t": 3.0})
    for record in (step(2, 2.5), {"kind": "reading", "step": 2, "t": 4.0, "battery_c": 30.0}, step(3, 2.0)):
        story.see(record)
    story.see({"kind": "eval", "step": 3, "t": 5.0, "val_loss": {"a": 2.0}, "val_loss_mixed": 2.0})
    facts = story.facts(0, 3)
    assert (facts["train_s"], facts["loss_first"], facts["loss"]) == (1.5, 3.0, 2.0)
    assert (facts["max_battery_c"], facts["max_cpu_c"], facts["val_loss"]) == (31.0, 60, {"a": 2.0})
    assert "wh" not in facts, "nobody read the battery"
    story.see({"kind": "part", "step": 3, "outcome": "done", "t": 6.0})
    assert story.facts(3, 5) == {"train_s": 0.0}


def test_energy_is_that_of_the_part() -> None:
    story = PartStory()
    story.see({"kind": "launch", "step": 0, "t": 0.0})
    for number in range(4):
        t = 60.0 * number
        story.see({"kind": "reading", "step": number, "t": t, "power_w": 6.0, "plugged": False, "battery_percent": 50})
        story.see({**step(number + 1, 2.0, 50.0), "t": t + 55.0})
        if number == 1:
            assert story.facts(0, 2)["wh"] == pytest.approx(0.1)
            story.see({"kind": "part", "step": 2, "outcome": "done", "t": t + 56.0})
    assert story.facts(2, 4)["wh"] == pytest.approx(0.2)


def test_a_tail_gives_each_record_once_and_of_old_parts_only_what_matters(tmp_path: Path) -> None:
    first = TelemetryWriter(tmp_path, 1)
    first.write("launch", 0)
    first.write("step", 1, loss=1.0)
    first.write("part", 1, name="001", outcome="failed")
    first.write("step", 1, loss=1.0)
    first.write("part", 1, name="001", outcome="done")
    first.write("step", 2, loss=1.0)
    tail = Tail(tmp_path)
    assert [record["kind"] for record in tail.news()] == ["launch", "part", "part", "step"]
    assert list(tail.news()) == []
    first.write("step", 3)
    second = TelemetryWriter(tmp_path, 2)
    second.write("launch", 2)
    assert [(record["kind"], record["step"]) for record in tail.news()] == [("step", 3), ("launch", 2)]
    with open(second.path, "ab") as file:
        file.write(b'{"v":1,"t":1,"kind":"st')
    assert list(tail.news()) == []
    with open(second.path, "ab") as file:
        file.write(b'ep","step":4}\n')
    assert [record["step"] for record in tail.news()] == [4]
    first.close()
    second.close()


def test_a_newer_story_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0001.jsonl").write_text(json.dumps({"v": 9, "t": 1.0, "kind": "launch", "step": 0}) + "\n")
    with pytest.raises(DataError, match="update ondevice"):
        list(Tail(tmp_path).news())
