"""What a model card may say: energy only where it was read, losses of the step that is exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ondevice.export.model_card import _hours_in_all, _spent_before
from ondevice.export.story import Ancestor, _ancestors, energy_wh
from ondevice.run.directory import LAYOUT, RunDir
from ondevice.run.files import write_sealed


def reading(t: float, power: float | None) -> dict[str, object]:
    return {"kind": "reading", "t": t, "power_w": power}


def test_energy_is_integrated_between_readings_of_one_launch() -> None:
    assert energy_wh([reading(0, 3.0), reading(30, 5.0), reading(60, 5.0)]) == pytest.approx((120 + 150) / 3600)
    assert energy_wh([reading(0, 3.0), {"kind": "launch", "t": 10}, reading(30, 5.0)]) is None
    assert energy_wh([reading(0, 3.0), reading(5000, 3.0)]) is None  # nobody knows what was in between
    assert energy_wh([reading(0, None), reading(30, None)]) is None
    assert energy_wh([]) is None
    assert energy_wh([reading(0, 3.0), reading(30, "x"), reading(60, 1.0), reading(90, 1.0)]) == pytest.approx(
        30 / 3600
    )


def make_run(folder: Path, name: str, parent: dict[str, object] | None, *, steps: range, step_s: float) -> RunDir:
    """A run of papers and steps alone."""
    run = RunDir(folder / name)
    run.telemetry.mkdir(parents=True)
    write_sealed(
        run.identity, {"v": LAYOUT, "layout": LAYOUT, "id": f"id of {name}", "parent": parent, "environment": {}}
    )
    lines = [{"v": 1, "t": 1.0, "kind": "step", "step": step, "step_s": step_s} for step in steps]
    (run.telemetry / "0001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return run


def spent(run: RunDir) -> list[tuple[str, int, float | None]]:
    found = _ancestors(run, run.read_identity())
    return [(each.run, each.step, each.hours and round(each.hours, 9)) for each in found]


def test_hours_of_the_runs_before_a_fork_are_counted_up_to_it(tmp_path: Path) -> None:
    def parent(name: str, step: int) -> dict[str, object]:
        return {"run": name, "id": f"id of {name}", "step": step}

    make_run(tmp_path, "first", None, steps=range(1, 11), step_s=360.0)
    make_run(tmp_path, "second", parent("first", 5), steps=range(6, 21), step_s=180.0)
    third = make_run(tmp_path, "third", parent("second", 7), steps=range(8, 9), step_s=60.0)
    assert spent(third) == [("second", 7, 0.1), ("first", 5, 0.5)]
    assert spent(make_run(tmp_path, "alone", None, steps=range(2), step_s=1.0)) == []
    make_run(tmp_path, "loop", parent("loop", 1), steps=range(2), step_s=1.0)
    assert spent(RunDir(tmp_path / "loop")) == [("loop", 1, None)]
    make_run(tmp_path, "far", {"run": "../first", "id": "id of first", "step": 3}, steps=range(2), step_s=1.0)
    assert spent(RunDir(tmp_path / "far")) == [("../first", 3, None)]
    shutil.rmtree(tmp_path / "first")
    assert spent(third) == [("second", 7, 0.1), ("first", 5, None)]
    shutil.rmtree(tmp_path / "second")
    make_run(tmp_path, "second", None, steps=range(9), step_s=1.0)
    write_sealed(RunDir(tmp_path / "second").identity, {"v": LAYOUT, "layout": LAYOUT, "id": "another of that name"})
    assert spent(third) == [("second", 7, None)]


def test_the_card_names_both_and_adds_up_what_is_known() -> None:
    known, gone = (
        Ancestor(run="trunk", step=1000, hours=1.25, energy_wh=3.0),
        Ancestor(run="old", step=10, hours=None, energy_wh=None),
    )
    assert _spent_before(known) == "1.25 hours and 3.00 Wh of run trunk to step 1,000"
    assert _spent_before(gone) == "run old to step 10, whose hours are not known here"
    assert _hours_in_all(SimpleNamespace(hours=0.5, ancestors=(known,))) == "1.75 hours"
    assert _hours_in_all(SimpleNamespace(hours=0.5, ancestors=(known, gone))) == ""
    assert _hours_in_all(SimpleNamespace(hours=0.5, ancestors=())) == ""
