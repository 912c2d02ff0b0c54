"""A simulated phone as a world: its time, its work, and what it is after a kill."""

from __future__ import annotations

import time

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate_live import LONGEST_GAP_S, SimClock, SimulatedWorld
from ondevice.device.simulate_wish import parse_device
from ondevice.device.world import LOOK_S

SIM = "sim:galaxy-s25plus"


class Hands:
    """A processor and a wall whose clocks are moved by hand."""

    def __init__(self) -> None:
        self.busy, self.wall = 7.0, 50.0

    def clock(self, speed: float, *, counted: bool = True) -> SimClock:
        return SimClock(speed, busy=lambda: self.busy if counted else 0.0, wall=lambda: self.wall, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.wall += seconds

    def work(self, seconds: float) -> None:
        self.busy += seconds
        self.wall += seconds


class Real:
    def __init__(self) -> None:
        self.reading = Reading(t=1.0, available_mb=3000.0, cpu_c=99.0)

    def read(self) -> Reading:
        return self.reading


def world_of(words: str = "", *, speed: float = 60.0, **keys) -> tuple[SimulatedWorld, Hands]:
    wish, hands = parse_device(SIM + words, speed=speed), Hands()
    return SimulatedWorld(wish, real=Real(), clock=hands.clock(speed, counted=wish.piece_s is None), **keys), hands


def work(world: SimulatedWorld, hands: Hands, wall_s: float, threads: int = 4) -> float:
    began = world.monotonic()
    hands.work(wall_s)
    return world.worked(world.monotonic() - began, piece=True, threads=threads)


def test_a_minute_passes_in_a_second_of_work_or_of_sleep_and_waiting_for_a_turn_is_none():
    world, hands = world_of()
    before = world.now()
    hands.work(2.0)
    assert world.monotonic() == 120.0
    world.sleep(30.0)
    assert hands.wall == 52.5 and world.now() - before == 150.0
    hands.wall += 10.0  # another program had the processor
    assert world.now() - before == 150.0
    assert world.read().t == pytest.approx(world.now(), abs=1.0)
    with pytest.raises(ValueError, match="speed"):
        SimClock(0)


def test_its_time_is_that_of_the_launch_unless_it_has_another():
    assert world_of()[0].now() == pytest.approx(time.time(), abs=5.0)
    assert time.strftime("%H:%M", time.localtime(world_of(",start=03:25")[0].now())) == "03:25"


def test_work_warms_and_rest_cools():
    world, hands = world_of(",ambient=25")
    for _ in range(20):
        work(world, hands, 0.5)
    warm = world.memory()["sim"]
    assert warm["battery_c"] > 35 and warm["hottest_battery_c"] >= warm["battery_c"]
    world.sleep(3600.0)
    world.read()
    cool = world.memory()["sim"]
    assert cool["battery_c"] < 29 < 35 < cool["hottest_battery_c"], "the maximum is of the time in between"
    assert world.memory()["sim"]["hottest_battery_c"] == cool["battery_c"]


def test_throttling_costs_time_there_and_here():
    world, hands = world_of(",ambient=38")
    for _ in range(60):
        wall, began = hands.wall, world.monotonic()
        took_s = work(world, hands, 0.5)
        assert world.monotonic() - began == pytest.approx(took_s)
        assert hands.wall - wall == pytest.approx(took_s / 60.0)
    assert took_s > 35.0


def test_fewer_threads_of_the_same_work_warm_it_less():
    warm = []
    for threads in (4, 1):
        world, hands = world_of()
        took = [work(world, hands, 0.5, threads=threads) for _ in range(10)]
        assert took[0] == pytest.approx(30.0, rel=0.02)
        warm.append(world.memory()["sim"]["battery_c"])
    assert warm[0] > warm[1] + 1.0
    told, hands = world_of(",threads=4")
    for _ in range(10):
        work(told, hands, 0.5, threads=1)
    assert told.memory()["sim"]["battery_c"] == pytest.approx(warm[0], abs=0.05)


def test_where_a_piece_has_a_length_the_speed_of_this_machine_does_not_matter():
    ends = []
    for here_s in (0.001, 0.02, 3.0):
        world, hands = world_of(",piece=2", speed=100.0)
        for _ in range(50):
            before = hands.wall
            assert work(world, hands, here_s) == pytest.approx(2.0, rel=0.01)
            assert hands.wall - before == pytest.approx(max(here_s, 0.02), rel=0.01)
            world.sleep(1.0)
        assert world.worked(5.0, piece=False, threads=4) == 0.0
        ends.append((world.monotonic(), world.memory()["sim"]["battery_c"]))
    assert ends[0][0] == pytest.approx(150.0, rel=0.01) and ends[0] == ends[1] == ends[2]


def test_one_who_stands_still_looks_often_enough_but_not_all_the_time():
    assert world_of(speed=1.0)[0].look_s == LOOK_S
    assert world_of(speed=600.0)[0].look_s == 6.0


def test_memory_is_this_machines():
    world, _ = world_of()
    reading = world.read()
    assert reading.available_mb == 3000.0 and reading.cpu_c != 99.0
    assert reading.sources["available_mb"] == "this machine" and "available_mb" not in reading.unknown
    assert "total_mb" in reading.unknown and world.read() is reading
    assert world.simulated == {"device": SIM, "speed": 60.0}


def test_it_goes_on_from_what_was_remembered():
    words = ",ambient=30..36@1000,percent=60,unplug@300,lose=battery_c@400"
    world, hands = world_of(words)
    while world.monotonic() < 420.0:
        work(world, hands, 0.2)
    before = world.memory()["sim"]
    assert not world.read().plugged
    later, _ = world_of(words, before=before, gap_s=5.0)
    reading, after = later.read(), later.memory()["sim"]
    assert after["at_s"] == pytest.approx(before["at_s"] + 5.0) and later.now() == pytest.approx(world.now() + 5.0)
    assert after["battery_c"] == pytest.approx(before["battery_c"], abs=0.3)
    assert after["ambient_c"] == pytest.approx(before["ambient_c"], abs=0.1)
    assert after["percent"] == pytest.approx(before["percent"], abs=0.1) and reading.plugged is False
    assert reading.battery_c is None and "lost" in reading.unknown["battery_c"]


def test_a_phone_that_was_left_alone_has_cooled_down():
    world, hands = world_of()
    for _ in range(20):
        work(world, hands, 0.5)
    before = world.memory()["sim"]
    later, _ = world_of(before=before, gap_s=1e9)
    assert later.memory()["sim"]["battery_c"] < 29 < before["battery_c"]
    assert later.now() == pytest.approx(world.now() + LONGEST_GAP_S)


def test_a_recording_is_a_world_too(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("t_s,cpu_big_c,battery_c\n0,30,25\n60,40,26\n120,50,27\n")
    hands = Hands()
    world = SimulatedWorld(parse_device(f"replay:{path}", speed=10), real=Real(), clock=hands.clock(10.0))
    assert world.read().battery_c == 25 and world.handheld
    assert work(world, hands, 6.0) == 60.0
    assert (world.read().battery_c, world.read().cpu_c) == (26, 40)
    before = world.memory()["sim"]
    again = SimulatedWorld(world.wish, real=Real(), before=before, gap_s=61.0, clock=Hands().clock(10.0))
    assert again.read().battery_c == 27 and before["hottest_battery_c"] == 26
