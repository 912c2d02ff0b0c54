"""Whether a run lives is derived from lock, heartbeat and story, never from one of them alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from ondevice.errors import DataError
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.files import write_sealed
from ondevice.run.liveness import read_liveness, read_status, write_status
from ondevice.run.telemetry import TelemetryWriter

NOW = 1_000_000.0


@pytest.fixture
def held(run: RunDir) -> Iterator[RunDir]:
    """A run whose lock was taken an hour ago."""
    lock = RunLock(run)
    os.utime(run.lock, (NOW - 3600, NOW - 3600))
    yield run
    lock.release()


def tell(run: RunDir, *kinds: tuple[str, dict[str, Any]], launch: int = 1) -> None:
    writer = TelemetryWriter(run.telemetry, launch)
    for kind, fields in kinds:
        writer.write(kind, 0, **fields)
    writer.close()


@pytest.mark.parametrize(
    ("status", "state", "age_s"),
    [
        ({"heartbeat_t": NOW - 1, "state": "running"}, "running", 1.0),
        ({"heartbeat_t": NOW - 1, "state": "resting"}, "resting", 1.0),
        ({"heartbeat_t": NOW - 59, "state": "waiting"}, "waiting", 59.0),
        ({"heartbeat_t": NOW - 61, "state": "running"}, "asleep", 61.0),
        ({"heartbeat_t": NOW - 100, "state": "running", "step_s": 50.0}, "running", 100.0),
        ({"heartbeat_t": NOW - 151, "state": "running", "step_s": 50.0}, "asleep", 151.0),
        # phases without safe points are given more time
        ({"heartbeat_t": NOW - 290, "state": "running", "phase": "save"}, "running", 290.0),
        ({"heartbeat_t": NOW - 301, "state": "running", "phase": "save"}, "asleep", 301.0),
        ({"heartbeat_t": NOW - 61, "state": "running", "phase": "evaluate"}, "asleep", 61.0),
        ({"heartbeat_t": NOW - 61, "state": "waiting", "phase": "save"}, "asleep", 61.0),
        ({"heartbeat_t": NOW - 61, "state": "running", "phase": ["save"]}, "asleep", 61.0),
        # the clock: a little ahead is now, far ahead is a sign from before it was set back
        ({"heartbeat_t": NOW + 5, "state": "running"}, "running", 0.0),
        ({"heartbeat_t": NOW + 86_400, "state": "running"}, "asleep", 3600.0),
        # words we do not know, values of other types
        ({"heartbeat_t": NOW - 1, "state": "finished"}, "running", 1.0),
        ({"heartbeat_t": NOW - 1, "state": ["running"]}, "running", 1.0),
        ({"heartbeat_t": NOW - 1}, "running", 1.0),
        ({"heartbeat_t": NOW - 1, "state": "resting", "step_s": "x"}, "resting", 1.0),
        ({"heartbeat_t": "now", "state": "running"}, "asleep", 3600.0),
        ({"heartbeat_t": True}, "asleep", 3600.0),
        ({"heartbeat_t": 10**400}, "asleep", 3600.0),
        ({}, "asleep", 3600.0),
        ([1, 2], "asleep", 3600.0),
    ],
)
def test_a_held_run(held: RunDir, status: Any, state: str, age_s: float) -> None:
    write_sealed(held.status, {"v": 1, **status} if isinstance(status, dict) else {"v": 1, "status": status})
    alive = read_liveness(held, now=NOW)
    assert (alive.state, alive.age_s) == (state, age_s)
    assert alive.holder and alive.holder.startswith("trainer pid")


def test_a_launch_that_has_not_told_its_status_is_running(held: RunDir) -> None:
    os.utime(held.lock, (NOW - 5, NOW - 5))
    assert read_liveness(held, now=NOW).state == "running"
    write_status(held, {"heartbeat_t": NOW - 9999, "state": "waiting"}, durable=False)  # of an earlier launch
    assert (read_liveness(held, now=NOW).state, read_liveness(held, now=NOW).age_s) == ("running", 5.0)


def test_signs_of_life_only_from_the_future(held: RunDir) -> None:
    os.utime(held.lock, (NOW + 9999, NOW + 9999))
    write_status(held, {"heartbeat_t": NOW + 9999, "state": "running"}, durable=False)
    assert (read_liveness(held, now=NOW).state, read_liveness(held, now=NOW).age_s) == ("asleep", None)
    write_status(held, {"heartbeat_t": NOW, "state": "resting"}, durable=False)
    assert read_liveness(held, now=NOW).state == "resting"


def test_a_run_nobody_holds(run: RunDir) -> None:
    write_status(run, {"heartbeat_t": NOW - 7, "state": "running"}, durable=False)
    assert (read_liveness(run, now=NOW).state, read_liveness(run, now=NOW).holder) == ("new", None)
    tell(run, ("launch", {}), ("step", {}))
    assert (read_liveness(run, now=NOW).state, read_liveness(run, now=NOW).age_s) == ("killed", 7.0)
    for number, outcome in enumerate(("finished", "stopped", "failed"), 2):
        tell(run, ("launch", {}), ("end", {"outcome": outcome}), launch=number)
        assert read_liveness(run, now=NOW).state == outcome
    tell(run, ("launch", {}), launch=5)
    assert read_liveness(run, now=NOW).state == "killed"
    for number, odd in enumerate((None, 5, "exploded", ["finished"]), 6):
        tell(run, ("end", {"outcome": odd}), launch=number)
        assert read_liveness(run, now=NOW).state == "stopped"
    (run.telemetry / "notes.jsonl").touch()
    assert read_liveness(run, now=0.0).state == "stopped"


def test_a_newer_story_is_one_sentence(run: RunDir) -> None:
    (run.telemetry / "0001.jsonl").write_text('{"v":2,"t":1,"kind":"end","step":1}\n')
    with pytest.raises(DataError, match="telemetry version 2"):
        read_liveness(run)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 9999, b'{"heartbeat_t": NaN}'])
def test_a_damaged_status_is_no_status(run: RunDir, data: bytes) -> None:
    run.status.write_bytes(data)
    assert read_status(run) == {}
    assert read_liveness(run).state == "new"


def test_a_status_that_is_a_folder_is_no_status(run: RunDir) -> None:
    run.status.mkdir()
    assert read_status(run) == {}
