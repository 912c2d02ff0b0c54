"""Recorded traces with the face of the real sensors."""

import os
from pathlib import Path

import pytest

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
