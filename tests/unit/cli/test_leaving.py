"""A run that would have to wait for long leaves, and whoever looks after it starts it again when its time has come."""

from __future__ import annotations

import sys
import time

import pytest

from ondevice.cli import revive
from ondevice.cli.revive import Reviver, judge
from ondevice.device.host import RELAUNCHED
from ondevice.device.readings import Reading
from ondevice.run.config import read_limits, write_limits
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.liveness import read_liveness, write_status
from ondevice.run.schema import Limits
from ondevice.run.telemetry import TelemetryWriter, read_records


def hours_away():
    """A window of working hours that opens in more than an hour."""
    opens, closes = (time.strftime("%H:%M", time.localtime(time.time() + 3600 * later)) for later in (2, 3))
    return f"{opens}-{closes}"


def leave(run, *, launch=1, **more):
    writer = TelemetryWriter(run.telemetry, launch)
    writer.write("launch", 0, launch=launch)
    writer.write("end", 3, outcome="stopped", why="Leaving, to be started again later", leave=True, **more)
    writer.close()


def limit(run, **changes):
    write_limits(run.limits, Limits(min_free_disk_mb=0, **changes))


@pytest.fixture
def away(fresh):
    """A run that left for a while."""
    run = RunDir(fresh)
    leave(run)
    write_status(run, {"launch": 1, "step": 3, "steps": 12, "heartbeat_t": time.time() - 1000}, durable=False)
    return run


@pytest.fixture
def reads(monkeypatch):
    """``reads(battery_percent=50)``: what the sensors say from now on; counts how often they were asked."""
    asked = []

    def say(**values):
        def ask(_):
            asked.append(1)
            return Reading(t=time.time(), **values)

        monkeypatch.setattr(revive, "settled_reading", ask)
        return asked

    return say


def test_a_whole_life(fresh, call, monkeypatch, tmp_path):
    run, trainer = RunDir(fresh), tmp_path / "trainer"
    limit(run, hours=hours_away())
    monkeypatch.setenv(RELAUNCHED, "1")
    result = call("train", "tiny", "--quiet")
    assert result.code == 0
    assert "stopped at step 0" in result.out and "`ondevice watch tiny --restart` brings it back" in result.out
    end = [record for record in read_records(run.telemetry) if record["kind"] == "end"][-1]
    assert (end["outcome"], end["leave"], end["empty"]) == ("stopped", True, False)
    assert 3600 < end["until_t"] - time.time() < 7300
    trainer.write_text(f"#!{sys.executable}\nimport os, sys\nprint(os.environ[{RELAUNCHED!r}], *sys.argv[3:])\n")
    trainer.chmod(0o755)
    monkeypatch.delenv(RELAUNCHED)
    once = ("watch", "--all", "--once", "--restart")
    waits = call(*once)
    assert "waits 1h" in waits.out and "opens" in waits.out
    limit(run, hours="always")
    monkeypatch.setattr(revive.sys, "executable", str(trainer))
    assert "away for a while; started again." in call(*once).out
    assert (run.logs / "trainer.log").read_text() == f"1 train {run.path} --keep-hold --quiet\n"


def test_without_anyone_to_start_it_again_it_waits_inside(fresh, monkeypatch):
    from ondevice.cli.progress import QuietDisplay
    from ondevice.train.launch import make_loop

    run = RunDir(fresh)
    limit(run, hours=hours_away())
    monkeypatch.delenv(RELAUNCHED, raising=False)
    loop = make_loop(run, display=QuietDisplay())
    loop.desk._ask_governor(0)
    loop.telemetry.close()
    assert loop.desk._pacer.order.kind == "wait" and not loop.orders.stop


def test_a_person_who_stops_it_meanwhile_is_obeyed():
    from ondevice.train.orders import Orders

    assert Orders(stop="too hot", leave="too hot").returns
    assert not Orders(stop="stopped by me", leave="too hot").returns
    assert not Orders(stop="stopped by me").returns


def test_only_who_restarts_treats_it_as_alive(away, call):
    assert read_liveness(away).left["leave"] is True
    result = call("watch", "tiny")
    assert result.code == 0 and "stopped at step 3: Leaving, to be started again later." in result.out
    assert call("status", "tiny", "--json").json["state"] == "stopped"


def test_a_plain_stop_is_none_of_it(fresh):
    run = RunDir(fresh)
    leave(run)
    leave(run, launch=2)
    writer = TelemetryWriter(run.telemetry, 3)
    writer.write("launch", 0, launch=3)
    writer.write("end", 3, outcome="stopped", why="stopped by command line")
    writer.close()
    assert read_liveness(run).left is None and judge(run).do == "leave"


def test_charging_is_awaited_up_to_the_target(away, reads):
    limit(away, preset="desk", battery_floor_percent=30.0, charge_target_percent=80.0)
    reads(battery_percent=50.0, plugged=True)
    assert judge(away).do == "start"  # it left for another reason
    leave(away, launch=2, empty=True)
    verdict = judge(away)
    assert verdict.do == "wait" and "goes on at 80" in verdict.why and verdict.wait_s == revive.LOOK_EVERY_S
    reads(battery_percent=81.0, plugged=True)
    assert judge(away).do == "start"


def test_the_sensors_are_asked_once_a_minute(away, reads, monkeypatch):
    limit(away, plugged_only=True)
    asked = reads(battery_percent=50.0, plugged=False)
    reviver = Reviver(away)
    assert [reviver.look().do for _ in range(20)] == ["wait"] * 20
    assert len(asked) == 1
    reads(battery_percent=50.0, plugged=True)
    monkeypatch.setattr(revive, "LOOK_EVERY_S", 0.0)
    reviver._look_s = 0.0
    started = []
    monkeypatch.setattr(reviver, "_start", lambda: started.append(1))
    assert reviver.look().do == "start" and started == [1]
    reviver.close()


def test_one_that_was_paused_stays_so(away, reads):
    reads()
    write_status(away, {"launch": 1, "step": 3, "steps": 12, "hold": "paused by me"}, durable=False)
    verdict = judge(away)
    assert verdict.do == "held" and verdict.why.startswith("left while it was paused by me")


def test_a_phone_has_room_for_one(away, reads, monkeypatch):
    reads()
    monkeypatch.setattr(revive, "on_android", lambda _: True)
    other = RunDir(away.path.with_name("other"))
    other.path.mkdir()
    (other.path / "run.json").write_text("{}")
    lock = RunLock(other)
    assert judge(away).why.startswith("other is training")
    lock.release()


def test_its_limits_are_those_of_now(away, call, reads):
    reads(battery_percent=50.0, plugged=True)
    limit(away, hours=hours_away())
    assert judge(away).do == "wait"
    assert call("limit", "tiny", "hours=always").code == 0
    assert read_limits(away.limits).hours == "always"
    assert judge(away).do == "start"
