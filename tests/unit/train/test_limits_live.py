"""Every limit can be changed while a run goes on: by letter, with an answer, and with the effect that it promises."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate_wish import parse_device
from ondevice.run import control
from ondevice.run.config import read_limits
from ondevice.run.schema import Limits
from ondevice.run.telemetry import launch_files, read_file
from ondevice.train.launch import launch
from tests.displays import Silent

# What a letter brings about: (changes, what happens, words of the order or note that says so).
EFFECTS = [
    ({"duty_max": 0.3}, "order", "duty_max is 0.3"),
    ({"preset": "gentle"}, "order", "Waiting while the screen is on"),
    ({"max_battery_c": 25}, "order", "battery"),
    ({"max_skin_c": 22}, "order", "body"),
    ({"max_cpu_c": 40}, "order", "processor"),
    ({"max_headroom": 0.3}, "order", "Android's heat"),
    ({"hours": "03:00-03:05"}, "order", "Waiting for its hours: 03:00-03:05"),
    ({"plugged_only": True}, "order", "Waiting for the charger"),
    ({"battery_floor_percent": 90, "charge_target_percent": 95}, "order", "floor 90, goes on at 95"),
    ({"pause_when_screen_on": True}, "order", "Waiting while the screen is on"),
    ({"min_available_share": 0.9}, "order", "Memory runs out"),
    ({"save_every_s": 1.0}, "checkpoint", ""),
    ({"save_every_steps": 1}, "checkpoint", ""),
    ({"min_free_disk_mb": 1e7}, "note", "lower limits.min_free_disk_mb"),
]
# These say something only about what happens later; other tests see that. Here they must be taken and kept.
ANSWERED = {
    "fixed_fit": True,
    "save_in_background": True,
    "keep_last": 5,
    "keep_every_steps": 1000,
    "keep_best": 2,
    "keep_best_quality": 2,
    "drop_old_optimizer": False,
    "max_slowdown": 1.5,
    "price_per_kwh": 0.3,
}


class Sensors:
    """This machine as it might be: its memory is neither full nor empty."""

    def __init__(self, folder):
        self.unknown = {}

    def read(self):
        return Reading(t=time.time(), rss_mb=300.0, available_mb=2000.0, total_mb=4000.0, disk_free_mb=9000.0)


class Live:
    """A run that goes on in a thread, and what it has told since the last letter."""

    def __init__(self, run, device):
        self.run, self.heard, self._at = run, [], 0
        self.thread = threading.Thread(target=launch, args=(run,), kwargs={"display": Silent(), "device": device})
        self.thread.start()
        self.until(lambda record: record["kind"] == "step")

    def listen(self):
        """Everything told so far is heard."""
        files = launch_files(self.run.telemetry)
        self.heard = list(read_file(files[0])) if files else []
        return len(self.heard)

    def until(self, wanted, seconds=120):
        """The first record that is wanted, after the one that was the last time."""
        until = time.monotonic() + seconds
        while True:
            self.listen()
            while self._at < len(self.heard):
                self._at += 1
                if wanted(self.heard[self._at - 1]):
                    return self.heard[self._at - 1]
            assert time.monotonic() < until and self.thread.is_alive(), self.last_words()
            time.sleep(0.02)

    def last_words(self):
        told = [r for r in self.heard if r["kind"] not in ("step", "reading", "launch", "checkpoint")]
        return [(r["kind"], r.get("duty"), r.get("why") or r.get("text"), r.get("args")) for r in told[-6:]]

    def change(self, **changes):
        """Sends the letter and waits for its answer."""
        self._at = self.listen()
        letter = control.send(self.run, "limit", changes, sender="test")
        answer = self.until(lambda record: record["kind"] == "control" and record["id"] == letter)
        assert answer["ok"], (changes, answer["why"])


@pytest.fixture
def live(make, monkeypatch):
    monkeypatch.setattr("ondevice.train.launch.Sensors", Sensors)
    run = make("train.steps=1000000", "eval.count=0", "sample.count=0", 'limits.preset="balanced"', name="live")
    device = parse_device(
        "sim:galaxy-s25plus,plugged=no,percent=89,threads=1,piece=1,ambient=22,screen_on@0", speed=200
    )
    live = Live(run, device)
    yield live
    control.send(run, "stop", sender="test")
    live.thread.join(60)
    assert not live.thread.is_alive()


def test_every_limit_can_be_changed_while_it_runs(live):
    began_with = read_limits(live.run.limits) if live.run.limits.exists() else Limits(preset="balanced")
    for changes, kind, words in EFFECTS:
        live.change(**changes)
        told = live.until(lambda r, k=kind, w=words: r["kind"] == k and w in str(r.get("why") or r.get("text") or ""))
        if kind == "order":
            assert told["order"] != "run" or told["duty"] <= 0.55 or "Memory" in told["why"], told
        assert all(getattr(read_limits(live.run.limits), key) == value for key, value in changes.items())
        if "max_battery_c" in changes:
            _what_follows_a_stop(live)
        live.change(**{key: getattr(Limits(preset="balanced", min_free_disk_mb=0), key) for key in changes})
        live.until(lambda r: r["kind"] == "step")
    for key, value in ANSWERED.items():
        live.change(**{key: value})
        assert getattr(read_limits(live.run.limits), key) == value != getattr(began_with, key)
    tried = {key for changes, *_ in EFFECTS for key in changes} | ANSWERED.keys()
    tried |= {"resume_battery_c", "back_off_s", "max_rss_mb"}
    assert tried == {field.name for field in dataclasses.fields(Limits)}
    live.change(max_rss_mb=100.0)
    end = live.until(lambda r: r["kind"] == "end")
    assert end["outcome"] == "stopped" and "limits.max_rss_mb" in end["why"]


def _what_follows_a_stop(live):
    """The back-off and the temperature at which work begins again."""
    live.change(max_battery_c=39, back_off_s=86_400)
    _stands_still(live, "it backs off for a day")
    live.change(back_off_s=0, resume_battery_c=10)
    _stands_still(live, "it never becomes so cool")
    live.change(resume_battery_c=None, back_off_s=None)


def _stands_still(live, why):
    began = live.listen()
    time.sleep(0.5)
    live.listen()
    assert not any(record["kind"] == "step" for record in live.heard[began + 1 :]), why
