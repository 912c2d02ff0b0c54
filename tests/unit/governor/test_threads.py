"""Other fits for heat's or other programs' sake: only after long, one at a time, and never back and forth."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.device.readings import Reading
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.governor.threads import AGAIN_S, COOL_S, DWELL_S, LONG_S, TIGHT_S, Binding, Wish, bound, changed, wanted
from ondevice.run.schema import Limits
from tools.bench.governor import run
from tools.bench.governor_policies import Caps, Governed
from tools.bench.governor_scenarios import Scenario

STEP_S = 20.0


class Device:
    """Time that passes, wishes carried out at once; ``changes`` are (seconds, kind, threads)."""

    def __init__(self, threads: int = 4) -> None:
        self.binding = Binding(threads=threads)
        self.t = 0.0
        self.changes: list[tuple[float, str, int]] = []

    def live(
        self, seconds: float, *, duty: float = 1.0, by_heat: bool | None = False, slow: float | None = 1.0
    ) -> None:
        until = self.t + seconds
        while self.t < until:
            self.t += STEP_S
            self.binding = bound(self.binding, duty, self.t, by_heat=by_heat, slow=slow)
            self.carry_out(wanted(self.binding))

    def carry_out(self, wish: Wish | None, *, found: int | None = None) -> None:
        if wish is None:
            return
        before = self.binding.threads
        threads = wish.threads or found or before or 1
        self.binding = changed(self.binding, wish, threads=threads)
        if threads != before:
            self.changes.append((self.t, wish.kind, threads))

    @property
    def kinds(self) -> list[tuple[str, int]]:
        return [(kind, threads) for _, kind, threads in self.changes]


def test_threads_halve_only_after_long_heat() -> None:
    device = Device()
    device.live(LONG_S - 60, duty=0.4, by_heat=True)
    device.live(60, duty=0.9, by_heat=True)
    device.live(LONG_S - 60, duty=0.4, by_heat=True)
    assert device.kinds == []
    device.live(120, duty=0.4, by_heat=True)
    assert device.kinds == [("fewer", 2)]
    device.live(DWELL_S - 120, duty=0.2, by_heat=True)
    assert device.kinds == [("fewer", 2)]
    device.live(180, duty=0.2, by_heat=True)
    assert device.kinds == [("fewer", 2), ("fewer", 1)]
    device.live(2 * DWELL_S, duty=0.2, by_heat=True)
    assert len(device.changes) == 2


def test_other_reasons_to_rest_say_nothing_of_threads() -> None:
    device = Device()
    device.live(5 * LONG_S, duty=0.2, by_heat=False)
    device.live(5 * LONG_S, duty=0.2, by_heat=None)
    assert device.changes == []


def test_threads_come_back_after_a_lasting_cool_time_and_no_more_than_there_were() -> None:
    device = Device(6)
    device.live(LONG_S + 60, duty=0.3, by_heat=True)
    assert device.kinds == [("fewer", 3)]
    device.live(COOL_S - 60, duty=1.0, by_heat=True)
    assert len(device.changes) == 1
    device.live(120, duty=1.0)
    assert device.kinds == [("fewer", 3), ("more", 6)]
    device.live(10 * COOL_S)
    assert len(device.changes) == 2


def test_unknown_heat_gives_nothing_back() -> None:
    device = Device()
    device.live(LONG_S + 60, duty=0.3, by_heat=True)
    device.live(10 * COOL_S, by_heat=None)
    assert device.kinds == [("fewer", 2)]


def test_what_came_back_too_early_comes_back_later_each_time() -> None:
    device, waits = Device(), []
    for _ in range(4):
        device.live(LONG_S + DWELL_S, duty=0.3, by_heat=True)
        if device.binding.threads != 2:  # one more halving
            device.binding = replace(device.binding, threads=2)
        began = device.t
        while device.binding.threads == 2:
            device.live(STEP_S)
        waits.append(device.t - began)
    assert all(later > 1.8 * sooner for sooner, later in pairwise(waits))


def test_after_a_long_good_time_it_was_not_too_early() -> None:
    device = Device()
    device.live(LONG_S + 60, duty=0.3, by_heat=True)
    device.live(COOL_S + DWELL_S)
    device.live(AGAIN_S)
    device.live(LONG_S + 60, duty=0.3, by_heat=True)
    assert device.kinds == [("fewer", 2), ("more", 4), ("fewer", 2)]
    assert device.binding.too_early == 0


def test_slow_steps_without_heat_ask_for_timing_ever_more_seldom() -> None:
    device = Device()
    asked = []
    for _ in range(int(12 * 3600 / STEP_S)):
        device.t += STEP_S
        device.binding = bound(device.binding, 1.0, device.t, by_heat=False, slow=1.5)
        if (wish := wanted(device.binding)) is not None:
            assert wish.kind == "retune" and "slow" in wish.why
            asked.append(device.t)
            device.carry_out(wish)
    gaps = [later - sooner for sooner, later in pairwise(asked)]
    assert asked[0] == pytest.approx(LONG_S, abs=2 * STEP_S)
    assert len(asked) < 8 and gaps == sorted(gaps) and gaps[-1] > 2 * 3600


def test_slow_steps_in_heat_ask_for_nothing() -> None:
    device = Device()
    device.live(5 * LONG_S, duty=0.7, by_heat=True, slow=None)
    assert device.changes == [] and wanted(device.binding) is None


def test_threads_that_others_took_are_timed_again_when_it_is_quiet() -> None:
    device = Device()
    device.binding = changed(device.binding, Wish(kind="retune", why="slow"), threads=2)
    assert (device.binding.full, device.binding.taken_by) == (4, "others")
    wish = None
    while wish is None:
        device.t += STEP_S
        device.binding = bound(device.binding, 1.0, device.t, by_heat=False, slow=1.0)
        wish = wanted(device.binding)
    assert wish.kind == "retune" and device.t == pytest.approx(COOL_S, abs=2 * STEP_S)
    device.carry_out(wish, found=4)
    assert device.binding.full is None


def test_sleep_counts_for_nothing() -> None:
    binding = bound(Binding(threads=4), 0.3, 0.0, by_heat=True)
    binding = bound(binding, 0.3, 8 * 3600.0, by_heat=True)
    assert binding.hot_s <= 60.0 and wanted(binding) is None
    back = bound(binding, 0.3, 0.0, by_heat=True)
    assert back.hot_s == binding.hot_s


def test_want_of_memory_comes_at_once_and_then_step_by_step() -> None:
    device = Device()
    asked = []
    for _ in range(30):
        device.t += STEP_S
        device.binding = bound(device.binding, 1.0, device.t, by_heat=False)
        if (wish := wanted(device.binding, memory_low=True)) is not None and wish.kind == "smaller":
            asked.append(device.t)
            device.carry_out(wish)
    assert asked[0] == STEP_S and [b - a for a, b in pairwise(asked)] == [180.0] * 3
    assert wanted(device.binding) is None and device.binding.threads == 4


weather = st.lists(
    st.tuples(
        st.floats(60, 4 * 3600),
        st.floats(0.02, 1.0),
        st.sampled_from([True, False, None]),
        st.sampled_from([None, 1.0, 1.2, 1.6]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(weather=weather, threads=st.integers(1, 8), finds=st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_whatever_happens_changes_are_rare_and_never_undone_at_once(weather, threads, finds) -> None:
    device = Device(threads)
    for turn, (seconds, duty, by_heat, slow) in enumerate(weather):
        until = device.t + seconds
        while device.t < until:
            device.t += STEP_S
            device.binding = bound(device.binding, duty, device.t, by_heat=by_heat, slow=slow)
            device.carry_out(wanted(device.binding), found=min(threads, finds[turn % len(finds)]))
    for (sooner, _, before), (later, kind, after) in pairwise(device.changes):
        assert later - sooner >= DWELL_S
        if kind == "more":
            assert later - sooner >= COOL_S and after > before
    assert all(1 <= count <= threads for _, _, count in device.changes)


@settings(max_examples=15, deadline=None)
@given(
    cold_duty=st.floats(0.05, 0.49),
    fewer_duty=st.floats(0.5, 1.0),
    threads=st.integers(2, 8),
)
def test_a_device_too_hot_for_all_cores_settles(cold_duty, fewer_duty, threads) -> None:
    """All cores get too hot, fewer do not: a loop that a naive rule would go through for ever."""
    device = Device(threads)
    while device.t < 24 * 3600.0:
        all_at_work = device.binding.threads == threads
        device.live(60, duty=cold_duty if all_at_work else fewer_duty, by_heat=all_at_work or fewer_duty < 1.0)
    assert len(device.changes) <= 14
    assert sum(t > 12 * 3600.0 for t, *_ in device.changes) <= 3


def lived(reading: dict[str, Any], *, battery: bool, seconds: int = 1500) -> Wish | None:
    """What is wished for after steps that take 0.4 s at first and 0.7 s for the rest of the time."""
    history, now = begin(handheld=battery, battery=battery, threads=4), 1.7e9
    limits = Limits(preset="balanced" if battery else "desk")
    for second in range(0, seconds, 2):
        now += 2.0
        history = observe(history, 0.4 if second < 60 else 0.7, now - 1.0)
        history = observe(history, 0.4 if second < 60 else 0.7, now)
        _, history = decide(Reading(t=now, **reading), limits, history, now)
    return wanted(history.binding, memory_low=history.memory_low)


COOL: dict[str, Any] = {"battery_c": 24.0, "battery_percent": 90.0, "plugged": True, "charging": "full"}


def test_a_slow_cool_phone_times_its_threads_again() -> None:
    wish = lived(COOL, battery=True)
    assert wish is not None and wish.kind == "retune"


def test_a_desktop_without_sensors_does_so_too() -> None:
    wish = lived({}, battery=False)
    assert wish is not None and wish.kind == "retune"


@pytest.mark.parametrize(
    "reading", [{"battery_percent": 90.0, "plugged": True}, {**COOL, "freq_share": 0.6}], ids=["unknown", "throttled"]
)
def test_where_heat_may_be_why_steps_are_slow_it_does_not(reading: dict[str, Any]) -> None:
    wish = lived(reading, battery=True)
    assert wish is None or wish.kind == "fewer"


def tight(binding: Binding, seconds: float, *, parts: int, start: float = 0.0) -> Binding:
    for k in range(int(seconds / STEP_S) + 1):
        binding = bound(binding, 0.3, start + STEP_S * k, by_heat=True, parts=parts)
    return binding


def test_pieces_too_long_for_the_room_are_cut_before_threads_are_given_up() -> None:
    binding = Binding(threads=4, micro_batch=8)
    assert wanted(tight(binding, TIGHT_S - 2 * STEP_S, parts=3)) is None
    wish = wanted(tight(binding, LONG_S + STEP_S, parts=3))
    assert wish is not None and (wish.kind, wish.parts, wish.threads) == ("shorter", 3, None)
    after = replace(changed(binding, wish, threads=4), micro_batch=2)
    assert wanted(tight(after, LONG_S, parts=3)) is None, "it keeps its distance"
    assert wanted(tight(after, DWELL_S + TIGHT_S, parts=3)) is not None


def test_a_single_sequence_cannot_be_cut() -> None:
    for rows in (1, None):
        wish = wanted(tight(Binding(threads=4, micro_batch=rows), LONG_S + STEP_S, parts=3))
        assert wish is not None and wish.kind == "fewer"
    assert wanted(tight(Binding(micro_batch=1), LONG_S + STEP_S, parts=3)) is None


@pytest.mark.parametrize(("ambient_c", "parts"), [(15, None), (35, 6)])
def test_the_governor_asks_for_shorter_pieces_where_room_is_little(ambient_c: float, parts: int | None) -> None:
    scenario = Scenario(name="", ambient_c=ambient_c, micro_batch_s=25.0, hours=0.3)
    policy = Governed(Caps(), 4, 25.0)
    policy.history = begin(handheld=True, battery=True, threads=4, micro_batch=16, piece_s=25.0)
    run(policy, scenario, Caps())
    wish, order = wanted(policy.history.binding), policy.history.order
    assert order is not None and ("Smaller pieces" in order.reason) is (parts is not None)
    assert (wish is not None and wish.kind == "shorter") is (parts is not None)
    if wish is not None and parts is not None:
        assert wish.parts == pytest.approx(parts, abs=2)
