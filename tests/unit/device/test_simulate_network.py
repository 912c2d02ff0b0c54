"""The thermal network against what can be worked out on paper."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.device.simulate_network import ThermalNetwork
from ondevice.device.simulate_profile import known_profiles, load_profile


def chain() -> ThermalNetwork:
    return ThermalNetwork({"a": 2.0, "b": 30.0, "c": 50.0}, {"a-b": 0.4, "b-c": 0.2, "a-c": 0.1}, {"b": 0.1, "c": 0.3})


def temperatures(network: ThermalNetwork) -> list[float]:
    return [network.temperature(name) for name in network.nodes]


def test_one_node_follows_the_exponential():
    network = ThermalNetwork({"a": 50.0}, {}, {"a": 0.25})  # 200 s
    network.start({"a": 20.0})
    drive = network.drive({"a": 5.0}, ambient_c=20.0)
    for after_s in (1.0, 199.0, 600.0):
        network.advance(after_s, drive)
    assert network.temperature("a") == pytest.approx(20 + 5 / 0.25 * (1 - exp(-800 / 200)), abs=1e-9)


def test_two_nodes_settle_where_the_heat_must_flow():
    network = ThermalNetwork({"core": 1.0, "case": 40.0}, {"core-case": 0.5}, {"case": 0.2})
    drive = network.drive({"core": 4.0}, ambient_c=25.0)
    network.settle(drive)
    assert temperatures(network) == pytest.approx([25 + 4 / 0.2 + 4 / 0.5, 25 + 4 / 0.2])
    before = temperatures(network)
    network.advance(1000.0, drive)
    assert temperatures(network) == pytest.approx(before)


@pytest.mark.parametrize("name", known_profiles())
def test_in_the_end_all_heat_leaves_to_the_ambient(name):
    profile = load_profile(name)
    network = ThermalNetwork(profile.capacity_j_k, profile.conductance_w_k, profile.to_ambient_w_k)
    network.settle(network.drive({"cpu_big": 3.0, "cpu_little": 1.5, "battery": 0.5}, ambient_c=18.0))
    lost_w = sum(watts * (network.temperature(node) - 18.0) for node, watts in profile.to_ambient_w_k.items())
    assert lost_w == pytest.approx(5.0)


def test_no_energy_is_made_or_lost():
    network, capacity = chain(), {"a": 2.0, "b": 30.0, "c": 50.0}
    network.start({"a": 60.0, "b": 20.0, "c": 25.0})
    drive, dt_s, steps = network.drive({"a": 3.0, "c": 0.5}, ambient_c=15.0), 0.05, 4000
    held_j = sum(capacity[name] * network.temperature(name) for name in capacity)
    lost_j = 0.0
    for _ in range(steps):
        before = temperatures(network)
        network.advance(dt_s, drive)
        middle = [(x + y) / 2 for x, y in zip(before, temperatures(network), strict=True)]
        lost_j += dt_s * (0.1 * (middle[1] - 15) + 0.3 * (middle[2] - 15))
    gained_j = sum(capacity[name] * network.temperature(name) for name in capacity) - held_j
    assert gained_j == pytest.approx(3.5 * dt_s * steps - lost_j, rel=1e-6)


@given(st.lists(st.floats(0.001, 500.0), min_size=1, max_size=8))
def test_it_does_not_matter_into_how_many_steps_a_time_is_cut(steps):
    whole, cut = chain(), chain()
    for network in (whole, cut):
        network.start({"a": 10.0, "b": 50.0, "c": 30.0})
    drive = whole.drive({"a": 2.0}, ambient_c=22.0)
    whole.advance(sum(steps), drive)
    for dt_s in steps:
        cut.advance(dt_s, drive)
    assert temperatures(cut) == pytest.approx(temperatures(whole), abs=1e-8)


@given(st.lists(st.tuples(st.floats(0.1, 100.0), st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=12))
def test_more_heat_is_never_cooler_anywhere(pieces):
    less, more = chain(), chain()
    for dt_s, heat_w, extra_w in pieces:
        less.advance(dt_s, less.drive({"a": heat_w}))
        more.advance(dt_s, more.drive({"a": heat_w + extra_w}))
        assert all(x >= y - 1e-9 for x, y in zip(temperatures(more), temperatures(less), strict=True))


def test_starting_somewhere_means_being_there():
    network = chain()
    network.start({"a": 1.0, "b": 2.0, "c": 3.0})
    assert temperatures(network) == pytest.approx([1.0, 2.0, 3.0])
