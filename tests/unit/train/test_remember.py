"""What the governor learned goes on in the next launch: on the same device alone, and never into what is learned."""

from __future__ import annotations

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate_wish import parse_device
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.run.directory import RunDir
from ondevice.run.parcel import run_files
from ondevice.run.remembered import read_remembered, write_remembered
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.run.verify import verify_folder
from ondevice.train.launch import launch, make_loop
from ondevice.train.remember import keep, take_up
from tests.displays import Silent

PHONE = parse_device("sim:galaxy-s25plus,threads=4,piece=2,ambient=30", speed=1000.0)
QUIET = ("eval.count=0", "sample.count=0", "train.steps=24", "limits.save_every_s=10000")


@pytest.fixture
def lived(make):
    """A run that was half done when its launch was asked to leave."""
    run = make(*QUIET, name="phone")
    loop = make_loop(run, display=Silent(), device=PHONE)
    step = loop._step

    def stopping():
        step()
        if loop.state.step == 12:
            loop.orders.stop = "asked by a test"

    loop._step = stopping
    loop.run_to_end()
    loop.telemetry.close()
    return run


def go_on(run, device=PHONE):
    """What the next launch knew when it began, and what it said of it."""
    loop = make_loop(run, display=Silent(), device=device)
    history = loop.desk._pacer.history
    loop.run_to_end()
    loop.telemetry.close()
    said = [r["text"] for r in read_records(run.telemetry) if r["kind"] == "note" and "remembered" in r["text"]]
    return history, said


def test_the_next_launch_knows_what_the_last_one_did(lived):
    kept = read_remembered(lived)["history"]
    history, said = go_on(lived)
    assert not said and history.order.duty == kept["order"]["duty"]
    assert history.heat.nodes["battery_c"][0].warming == kept["heat"]["nodes"]["battery_c"][0]["warming"]
    assert history.work.spans


def _flipped(run):
    data = run.governor.read_bytes()
    assert b'"warming": 0.' in data
    run.governor.write_bytes(data.replace(b'"warming": 0.', b'"warming": 1.', 1))


def _changed(**changes):
    def change(run):
        body = read_remembered(run)
        write_remembered(run, {**{key: value for key, value in body.items() if key != "v"}, **changes})

    return change


def test_nothing_that_is_learned_depends_on_it(lived, make):
    straight = make(*QUIET, name="straight")
    launch(straight, display=Silent())
    go_on(lived)
    folders = [Store(run.checkpoints).open(24).path for run in (straight, lived)]
    one, other = (
        [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")] for folder in folders
    )
    assert one == other


def test_it_is_listed_and_stays_at_home(lived):
    findings = {finding.file: finding for finding in verify_folder(lived)}
    assert findings["governor.json"].level == "ok"
    assert not any("governor" in name for name, _, _ in run_files(lived, []))
    _flipped(lived)
    findings = {finding.file: finding for finding in verify_folder(lived)}
    assert findings["governor.json"].level == "note", "the run is sound all the same"


class Here:
    """This machine, with clocks that can be set."""

    handheld, simulated = True, None
    wall_s, boot_s = 1.7e9, 5000.0

    def __init__(self, folder):
        self.folder = folder

    def now(self):
        return self.wall_s

    def boottime(self):
        return self.boot_s

    def read(self):
        return Reading(t=self.wall_s, battery_c=35.0, sources={"battery_c": "a battery"})

    def later(self, seconds, jump_s=0.0):
        self.wall_s, self.boot_s = self.wall_s + seconds + jump_s, self.boot_s + seconds


FRESH = begin(handheld=True, battery=True, threads=4)


@pytest.fixture
def here(tmp_path):
    return Here(tmp_path)


def known(here):
    """What a launch knew that just worked and was kept."""
    history = FRESH
    for _ in range(5):
        here.later(20.0)
        history = observe(decide(here.read(), Limits(), history, here.wall_s)[1], 2.0, here.wall_s)
    keep(RunDir(here.folder), history, here)
    return history


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_flipped, "damaged"),
        (_changed(v=99), "update ondevice"),
        (_changed(device={"machine": "z80"}), "another device"),
        (_changed(sources={"battery_c": "a thermometer"}), "battery_c is read from a battery, not from a thermometer"),
        (_changed(sources=None), "felt with"),
        (_changed(history={"heat": 7}), "another version"),
        (_changed(history=[]), "another version"),
        (_changed(t=None), "another version"),
    ],
)
def test_what_cannot_be_believed_is_left_aside(here, harm, words):
    run, before = RunDir(here.folder), known(here)
    assert take_up(run, FRESH, here, status={})[0].heat.nodes["battery_c"][0].warming == (
        before.heat.nodes["battery_c"][0].warming
    )
    harm(run)
    found, why = take_up(run, FRESH, here, status={})
    assert words in why and found is FRESH


def test_a_launch_tells_of_that_once_and_writes_its_own(lived):
    _flipped(lived)
    history, said = go_on(lived)
    assert len(said) == 1 and "damaged" in said[0]
    assert history.order is None and not history.heat.nodes
    assert Store(lived.checkpoints).steps()[-1] == 24
    assert read_remembered(lived)["history"]["heat"]["nodes"]


@pytest.mark.parametrize("jump_s", [0.0, -1e6, 1e6])
def test_time_is_counted_by_the_clock_that_cannot_be_set(here, jump_s):
    known(here)
    here.later(30.0, jump_s)
    found, why = take_up(RunDir(here.folder), FRESH, here, status={})
    assert not why and here.wall_s - found.work.end_t == pytest.approx(30.0)


def test_after_a_start_of_the_system_the_clock_on_the_wall_counts(here, monkeypatch):
    known(here)
    monkeypatch.setattr("ondevice.train.remember.boot_id", lambda: "another")
    here.wall_s, here.boot_s = here.wall_s + 3600, 60.0
    rested, _ = take_up(RunDir(here.folder), FRESH, here, status={})
    assert rested.order is None and not rested.work.spans and rested.heat.nodes
    here.wall_s -= 7200
    back, _ = take_up(RunDir(here.folder), FRESH, here, status={})
    assert back.order is None and here.wall_s - back.heat.nodes["battery_c"][0].t > 600


@pytest.mark.parametrize(
    ("status", "rested_s"),
    [({}, 130.0), ({"heartbeat_t": 100.0}, 30.0), ({"heartbeat_t": 100.0, "hold": "paused"}, 130.0)],
)
def test_a_launch_that_was_killed_worked_until_it_was_last_seen(here, status, rested_s):
    known(here)
    if "heartbeat_t" in status:
        status = {**status, "heartbeat_t": here.wall_s + status["heartbeat_t"]}
    here.later(130.0)
    found, _ = take_up(RunDir(here.folder), FRESH, here, status=status)
    assert here.wall_s - found.work.end_t == pytest.approx(rested_s)
