"""What a process notices of the time in which it did not run, on clocks that a test moves."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from ondevice.device.clock import Clocks, Gap, boottime_s


@dataclass
class Time:
    """The clocks of a machine. `sleep`: only the time since boot and the wall go on; `run`: all do."""

    boot: float = 1_000.0
    mono: float = 900.0
    wall: float = 1.7e9
    cpu: float = 5.0

    def run(self, seconds: float, *, cpu: float = 1.0) -> None:
        self.boot, self.mono, self.wall = self.boot + seconds, self.mono + seconds, self.wall + seconds
        self.cpu += cpu * seconds

    def sleep(self, seconds: float) -> None:
        self.boot, self.wall = self.boot + seconds, self.wall + seconds


@pytest.fixture
def machine() -> Time:
    return Time()


@pytest.fixture
def clocks(machine: Time) -> Clocks:
    return Clocks(
        boottime=lambda: machine.boot,
        monotonic=lambda: machine.mono,
        wall=lambda: machine.wall,
        cpu=lambda: machine.cpu,
    )


def test_nothing_happened(machine: Time, clocks: Clocks) -> None:
    for _ in range(100):
        machine.run(1.0)
        machine.sleep(0.01)
        assert clocks.look() is None
    assert clocks.slept_s == pytest.approx(1.0)
    assert clocks.frozen_s == 0.0


def test_sleep_is_told_and_is_no_freezing(machine: Time, clocks: Clocks) -> None:
    machine.run(1.0)
    machine.sleep(3600.0)
    gap = clocks.look()
    assert gap == Gap(slept_s=pytest.approx(3600.0))
    assert str(gap) == "The device slept 3,600 s."
    assert clocks.boottime_s() == 4601.0


def test_short_naps_are_summed_up_and_told_once_a_minute(machine: Time, clocks: Clocks) -> None:
    told = []
    for _ in range(130):
        machine.run(1.0)
        machine.sleep(1.5)
        if gap := clocks.look():
            told.append(gap.slept_s)
    assert told == pytest.approx([3.0, 90.0, 90.0])
    assert clocks.slept_s == pytest.approx(195.0)


def test_a_stopped_process_was_frozen(machine: Time, clocks: Clocks) -> None:
    machine.run(40.0, cpu=0.01)
    gap = clocks.look(usual_s=1.0)
    assert gap == Gap(frozen_s=pytest.approx(39.6))
    assert "frozen 40 s" in str(gap)
    assert clocks.frozen_s == pytest.approx(39.6)


@pytest.mark.parametrize(
    ("seconds", "cpu", "usual_s", "may_idle"),
    [(29.0, 0.0, 1.0, False), (40.0, 0.9, 1.0, False), (40.0, 0.0, 15.0, False), (400.0, 0.0, 1.0, True)],
    ids=["not late", "it worked", "a step takes that long", "it waited for a disk"],
)
def test_what_is_no_freezing(
    machine: Time, clocks: Clocks, seconds: float, cpu: float, usual_s: float, may_idle: bool
) -> None:
    machine.run(seconds, cpu=cpu)
    assert clocks.look(usual_s=usual_s, may_idle=may_idle) is None


@pytest.mark.parametrize(("jump", "words"), [(3600.0, "forward by 3,600 s"), (-7200.0, "back by 7,200 s")])
def test_a_wall_clock_that_was_set(machine: Time, clocks: Clocks, jump: float, words: str) -> None:
    machine.run(1.0)
    machine.wall += jump
    gap = clocks.look()
    assert gap == Gap(jumped_s=pytest.approx(jump)) and words in str(gap)
    machine.run(1.0)
    assert clocks.look() is None


def test_the_real_clock_counts_at_least_what_the_monotonic_one_does() -> None:
    assert boottime_s() >= time.monotonic() - 0.1


def test_a_system_without_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert boottime_s() == pytest.approx(time.monotonic(), abs=1.0)
