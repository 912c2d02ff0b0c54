"""The present tense of a run: phases, signs of life, and time away from the processor."""

from __future__ import annotations

import pytest

from ondevice.device.clock import Clocks
from ondevice.run.liveness import read_status
from ondevice.run.telemetry import TelemetryWriter, read_records
from ondevice.train.launch import launch
from ondevice.train.pulse import Pulse


class Watching:
    def __init__(self):
        self.seen = []

    def status(self, status):
        self.seen.append(status)

    def say(self, text):
        pass


@pytest.fixture
def machine():
    return {"boot": 1_000.0, "mono": 900.0, "wall": 1.7e9, "cpu": 0.0}


@pytest.fixture
def pulse(make, machine):
    run = make(name="pulse")
    story = TelemetryWriter(run.telemetry, 1)
    clocks = Clocks(
        boottime=lambda: machine["boot"],
        monotonic=lambda: machine["mono"],
        wall=lambda: machine["wall"],
        cpu=lambda: machine["cpu"],
    )
    yield Pulse(run, run.read_recipe(), launch=1, step=0, story=story, clocks=clocks), run
    story.close()


def go_on(machine, seconds, *clocks):
    for clock in clocks:
        machine[clock] += seconds


def test_sleep_is_noted_and_counts_in_the_sustained_rate_but_not_in_the_steps(pulse, machine):
    beat, run = pulse
    beat.begin()
    for _ in range(10):
        go_on(machine, 1.0, "boot", "mono", "wall", "cpu")
        beat.after_step(1.0)
        beat.beat(state="running", step=5, tokens=0, force=True)
    before = beat.rates(10)
    assert before["tok_s"] == before["tok_s_sustained"] == 6 * 32
    assert before["eta_s"] == pytest.approx(14.0)
    go_on(machine, 90.0, "boot", "wall")  # the device sleeps
    beat.beat(state="running", step=10, tokens=0, force=True)
    rates = beat.rates(10)
    assert rates["slept_s"] == 90.0 and rates["frozen_s"] == 0.0
    assert (rates["step_s"], rates["tok_s"]) == (1.0, 192.0)
    assert rates["tok_s_sustained"] == pytest.approx(19.2)
    assert rates["eta_s"] == pytest.approx(140.0)
    (note,) = (r for r in read_records(run.telemetry) if r["kind"] == "note")
    assert (note["text"], note["slept_s"], note["step"]) == ("The device slept 90 s.", 90.0, 10)
    assert read_status(run)["slept_s"] == 90.0
    assert read_status(run)["boottime_s"] == machine["boot"]


def test_a_frozen_process_is_noted_but_not_a_save_that_took_long(pulse, machine):
    beat, run = pulse
    beat.after_step(1.0)
    beat.enter("save", step=1, tokens=0)
    go_on(machine, 100.0, "boot", "mono", "wall")  # a slow disk
    beat.beat(state="running", step=1, tokens=0)
    beat.phase = "step"
    go_on(machine, 100.0, "boot", "mono", "wall")
    beat.beat(state="running", step=1, tokens=0)
    (note,) = (r for r in read_records(run.telemetry) if r["kind"] == "note")
    assert note["frozen_s"] == 100.0 and "frozen" in note["text"]
    assert beat.rates(1)["frozen_s"] == 100.0


def test_a_wall_clock_set_back_is_noted(pulse, machine):
    beat, run = pulse
    machine["wall"] -= 86_400.0
    beat.beat(state="running", step=1, tokens=0)
    (note,) = (r for r in read_records(run.telemetry) if r["kind"] == "note")
    assert note["clock_jumped_s"] == pytest.approx(-86_400.0)


def test_phases_are_on_disk_before_they_begin_and_leave_when_they_end(pulse):
    beat, run = pulse
    beat.beat(state="waiting", step=1, tokens=0, hold="paused by somebody")
    assert read_status(run)["phase"] == "start"
    beat.enter("save", step=1, tokens=0)
    now = read_status(run)
    assert (now["phase"], now["state"], now["hold"]) == ("save", "waiting", "paused by somebody")
    beat.phase = "step"
    assert beat.beat(state="running", step=1, tokens=0, hold="paused by somebody") is not None
    assert read_status(run)["phase"] == "step"
    assert beat.beat(state="running", step=1, tokens=0, hold="paused by somebody") is None


def test_a_whole_run_tells_its_phases_and_signs_of_life(make, monkeypatch):
    run, phases = make(name="phases"), []
    real = Pulse.enter
    monkeypatch.setattr(Pulse, "enter", lambda self, phase, **k: (phases.append(phase), real(self, phase, **k))[1])
    watching = Watching()
    launch(run, display=watching)
    assert phases.count("evaluate") == 4 and phases.count("sample") == 2 and phases.count("save") >= 1
    status = read_status(run)
    assert {"rss_mb", "mem_available_mb", "mem_total_mb", "boottime_s", "boot_id", "slept_s"} <= set(status)
    assert 20.0 < status["rss_mb"] < status["mem_total_mb"]
    assert "step" in {seen["phase"] for seen in watching.seen}
