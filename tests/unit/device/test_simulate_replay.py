"""Recorded traces and fast time, with the face of the real sensors."""

import os
from pathlib import Path

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_live import LivePhone, SimClock
from ondevice.device.simulate_replay import ReplayPhone
from ondevice.errors import UsageError

DATA = Path(os.environ.get("ONDEVICE_TEST_DATA", Path(__file__).parents[3] / "../shared/data"))


@pytest.fixture
def trace(tmp_path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("t_s,cpu_big_c,cpu_little_c,battery_c,modem_c\n100,30,33,25,1\n101,41,39,,1\n103.5,50,52,26,1\n")
    return path


def test_a_recording_says_what_it_said(trace):
    replay = ReplayPhone(trace)
    assert replay.read().cpu_c == 33 and replay.read().battery_c == 25 and not replay.finished
    replay.advance(2.0, duty=0.5)
    reading = replay.read()
    assert (reading.t, reading.cpu_c, reading.battery_c, reading.ages_s) == (1.7e9 + 2, 41, None, {"cpu_c": 1.0})
    assert reading.unknown["skin_c"] == "not in the recording" and replay.speed == 1.0
    assert replay.work(10.0) == 10.0 and replay.worked_s == 11.0
    assert replay.finished and replay.read().battery_c == 26


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t_s,cpu_c\n",
        "time,cpu_c\n1,2\n",
        "t_s,cpu_c\n2,30\n1,30\n",
        "t_s,cpu_c\n1,hot\n",
        "t_s,modem_c\n1,2\n",
        "t_s,cpu_c\n1\n",
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match="other"):
        ReplayPhone(path)
    with pytest.raises(UsageError, match="absent"):
        ReplayPhone(tmp_path / "absent.csv")


@pytest.mark.skipif(not (DATA / "thermal_galaxy_s25plus").is_dir(), reason="the recordings are not on this machine")
@pytest.mark.parametrize("name", ["20251126_112051", "20251126_142908", "20251128_030816"])
def test_the_real_recordings_replay(name):
    replay = ReplayPhone(DATA / "thermal_galaxy_s25plus" / f"{name}.csv")
    while not replay.finished:
        replay.advance(5.0)
        reading = replay.read()
        assert reading.cpu_c is not None and reading.battery_c is not None and reading.skin_c is not None


# --- fast time --------------------------------------------------------------------------------------------------------


class Wall:
    def __init__(self) -> None:
        self.now = 50.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def live(**keys) -> tuple[LivePhone, SimClock, Wall]:
    wall = Wall()
    clock = SimClock(60, monotonic=lambda: wall.now, sleep=wall.sleep)
    return LivePhone(SimulatedPhone("galaxy-s25plus", **keys), clock), clock, wall


def test_a_minute_passes_in_a_second():
    phone, clock, wall = live()
    wall.now += 2.0
    assert clock.now_s() == 120.0
    clock.sleep(30.0)
    assert wall.now == 52.5 and phone.read().t == 1.7e9 + 150
    with pytest.raises(ValueError, match="speed"):
        SimClock(0)


def test_work_warms_and_rest_cools():
    phone, clock, wall = live(ambient_c=25)
    for _ in range(20):
        wall.now += 0.5
        clock.sleep(phone.worked(30.0))
    warm_c = phone.phone.truth.battery_c
    assert warm_c > 35 and phone.phone.worked_s == pytest.approx(600.0)
    wall.now += 60
    phone.read()
    assert phone.phone.truth.battery_c < 29
    assert phone.phone.now_s == pytest.approx(clock.now_s())


def test_throttling_costs_time():
    phone, clock, wall = live(ambient_c=38)
    extra_s = 0.0
    for _ in range(60):
        wall.now += 0.5
        extra_s = phone.worked(30.0)
        clock.sleep(extra_s)
    assert extra_s > 5.0
    assert phone.phone.now_s == pytest.approx(clock.now_s())


class Real:
    def read(self) -> Reading:
        return Reading(t=1.0, available_mb=3000.0, cpu_c=99.0)


def test_memory_is_this_machines():
    phone, clock, _ = live()
    reading = LivePhone(phone.phone, clock, real=Real()).read()
    assert reading.available_mb == 3000.0 and reading.cpu_c != 99.0
    assert reading.sources["available_mb"] == "this machine" and "available_mb" not in reading.unknown
    assert "total_mb" in reading.unknown
