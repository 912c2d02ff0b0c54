"""A launch on a simulated phone: its own time, a governor that acts, and the same weights as anywhere."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from ondevice.device.simulate_wish import parse_device
from ondevice.run.liveness import read_status
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files, read_file, read_records
from ondevice.train.launch import launch
from ondevice.train.worlds import make_world
from tests.displays import Silent

SIM = "sim:galaxy-s25plus,threads=4,piece=2"


def live(run, words="", *, speed=1000.0):
    display = Silent()
    launch(run, display=display, device=parse_device(SIM + words, speed=speed))
    return display


def weights(run, step=24):
    folder = Store(run.checkpoints).open(step).path
    return [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def records(run, kind):
    return [record for record in read_records(run.telemetry) if record["kind"] == kind]


def test_it_learns_what_it_learns_anywhere_and_the_governor_acts(make):
    straight, phone = make(name="straight"), make(name="phone")
    launch(straight, display=Silent())
    began = time.time()
    display = live(phone, ",ambient=34,percent=90")
    assert weights(phone) == weights(straight)
    first, *_ = story = list(read_records(phone.telemetry))
    assert first["simulated"] == {"device": f"{SIM},ambient=34,percent=90", "speed": 1000.0}
    assert all(b["sim_t"] >= a["sim_t"] and b["t"] >= a["t"] for a, b in itertools.pairwise(story))
    assert began - 1 <= story[0]["sim_t"] <= story[0]["t"] + 1, "it begins when the launch does"
    steps = records(phone, "step")
    assert sum(step["step_s"] for step in steps) == pytest.approx(24 * 2 * 2.0, rel=0.05), "pieces take what was wished"
    assert story[-1]["sim_t"] - story[0]["sim_t"] > 96.0 > time.time() - began
    orders = records(phone, "order")
    assert any(order["duty"] < 0.9 for order in orders) and all(order["why"] in display.said for order in orders)
    status = read_status(phone)
    assert status["simulated"]["speed"] == 1000.0
    assert began <= status["heartbeat_t"] <= time.time(), "signs of life are on the clock on the wall"
    assert status["tok_s_sustained"] < status["tok_s"] == pytest.approx(6 * 32 / 4.0, rel=0.05)


def test_a_later_launch_is_on_this_machine(make):
    run = make("train.steps=6", name="both")
    with Stopped(run, at=3):
        live(run)
    launch(run, display=Silent())
    simulated, real = (list(read_file(path)) for path in launch_files(run.telemetry))
    assert all("sim_t" in record for record in simulated) and simulated[0]["simulated"]
    assert not any("sim_t" in record or "sim" in record for record in real) and real[0]["simulated"] is None
    assert "simulated" not in read_status(run) and read_status(run)["step"] == 6


class Stopped:
    """A run that is asked to stop at a step, by a letter that is there when the step ends."""

    def __init__(self, run, *, at):
        self.run, self.at = run, at

    def __enter__(self):
        from ondevice.train import loop

        self._step, stopped = loop.Loop._step, self

        def step(loop_):
            stopped._step(loop_)
            if loop_.state.step == stopped.at:
                loop_.orders.stop = "asked by a test"

        loop.Loop._step = step

    def __exit__(self, *_):
        from ondevice.train import loop

        loop.Loop._step = self._step


WARM = ",ambient=33,percent=90"


def test_a_launch_goes_on_with_the_phone_as_it_was_and_begins_gently(make):
    """The governor's memory is fresh and the phone is hot: it must not begin at full duty."""
    run = make("train.steps=400", "eval.count=0", "sample.count=0", name="hot")
    with Stopped(run, at=30):
        live(run, WARM)
    last = records(run, "reading")[-1]
    assert last["sim"]["battery_c"] > 36.5
    with Stopped(run, at=34):
        live(run, WARM)
    files = launch_files(run.telemetry)
    before, after = (list(read_file(path)) for path in files)
    assert after[0]["sim_t"] >= before[-1]["sim_t"], "its time never goes back"
    first = next(record for record in after if record["kind"] == "reading")
    assert first["sim"]["battery_c"] > last["sim"]["battery_c"] - 1.0, "a kill does not cool"
    order = next(record for record in after if record["kind"] == "order")
    assert order["duty"] < 0.7 and order["step"] == 30
    hottest = max(record["sim"]["hottest_battery_c"] for record in before + after if record["kind"] == "reading")
    assert hottest <= 39.5


def test_another_wish_is_another_phone(make):
    run = make("train.steps=40", name="other")
    with Stopped(run, at=20):
        live(run, WARM)
    with Stopped(run, at=22):
        live(run, ",ambient=20")
    first = next(r for r in read_file(launch_files(run.telemetry)[1]) if r["kind"] == "reading")
    assert first["sim"]["at_s"] < 10 and first["sim"]["battery_c"] < 25


def test_a_damaged_memory_is_no_memory(make):
    run = make(name="damaged")
    wish = parse_device(SIM)
    run.telemetry.mkdir(parents=True, exist_ok=True)
    lines = [
        {"v": 1, "t": 1.0, "kind": "launch", "step": 0, "simulated": {"device": SIM}},
        {"v": 1, "t": 2.0, "kind": "reading", "step": 0, "sim": {"began_t": "x", "at_s": 5}},
        {
            "v": 1,
            "t": 2.0,
            "kind": "reading",
            "step": 0,
            "sim": {"began_t": 1, "at_s": 5, "nodes_c": {"battery": "hot"}},
        },
        {"v": 1, "t": 2.0, "kind": "reading", "step": 0, "sim": [1]},
    ]
    (run.telemetry / "0001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    world = make_world(run, wish, None)
    assert world.memory()["sim"]["at_s"] == 0.0


def test_a_lost_sensor_is_told_and_told_again_when_it_is_back(make):
    run = make("train.steps=40", "eval.count=0", "sample.count=0", name="blind")
    display = live(run, ",lose=battery_c@40,find=battery_c@130")
    lost, back = (i for i, text in enumerate(display.said) if text.startswith("The temperature of the battery can"))
    assert "no longer be read (lost" in display.said[lost] and "again" in display.said[back]
    notes = [record for record in records(run, "note") if "temperature of the battery" in record["text"]]
    began = records(run, "launch")[0]["sim_t"]
    lost_s, back_s = (note["sim_t"] - began for note in notes)
    assert 40 + 30 <= lost_s < 130 <= back_s < 130 + 60


def test_hours_are_those_of_its_clock(make):
    run = make('limits.hours="08:00-23:00"', "train.steps=4", name="hours")
    live(run, ",start=07:30")
    waits = [record for record in records(run, "order") if record["order"] == "wait"]
    assert len(waits) == 1 and "opens" in waits[0]["why"]
    opened = next(record for record in records(run, "step"))
    assert time.strftime("%H:%M", time.localtime(opened["sim_t"])) == "08:00"
    assert time.time() - records(run, "launch")[0]["t"] < 30


def test_a_trainer_that_something_starts_again_stays_with_its_simulation(make, monkeypatch):
    monkeypatch.setenv("ONDEVICE_RELAUNCHED", "1")
    run = make('limits.hours="08:00-23:00"', "train.steps=2", name="stays")
    live(run, ",start=07:00")
    assert records(run, "end")[-1]["outcome"] == "finished", "whoever starts it again would not know of the simulation"
