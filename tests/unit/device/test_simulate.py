"""A simulated phone warms, throttles, charges, loses sensors and dies as a real one does, the same way for a seed."""

import dataclasses
import time
from itertools import pairwise

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate import Event, SimulatedPhone
from ondevice.device.simulate_profile import known_profiles, load_profile
from ondevice.device.simulate_sensors import SENSORS, SensorKind
from ondevice.errors import UsageError

S25 = "galaxy-s25plus"
EXACT = SensorKind(noise_c=0, battery_noise_c=0, battery_step_c=0, cpu_step_c=0, power_noise=0)


def phone(**keys) -> SimulatedPhone:
    return SimulatedPhone(keys.pop("profile", S25), **{"battery_percent": 100.0, **keys})


def never_throttled():
    return dataclasses.replace(
        load_profile(S25), throttle_cpu_c=900.0, throttle_battery_c=900.0, half_power_battery_c=901
    )


# --- heat -------------------------------------------------------------------------------------------------------------


def test_an_idle_phone_stays_where_it_is():
    idle = phone(ambient_c=21)
    before = idle.truth
    idle.advance(7200, duty=0.0)
    assert idle.truth.battery_c == pytest.approx(before.battery_c) and idle.truth.freq_share == 1.0
    assert 21 < before.battery_c < before.package_c < 25


def test_cores_warm_in_seconds_and_the_battery_in_minutes():
    busy = phone(ambient_c=10, profile=never_throttled())
    start = busy.truth
    busy.advance(5)
    after_5_s = busy.truth
    busy.advance(295)
    after_5_min = busy.truth
    busy.advance(7200)
    end = busy.truth

    def share(name: str, now) -> float:
        return (getattr(now, name) - getattr(start, name)) / (getattr(end, name) - getattr(start, name))

    assert share("cpu_big_c", after_5_s) > 0.4 and share("battery_c", after_5_s) < 0.05
    assert share("package_c", after_5_s) > share("chassis_c", after_5_s) > share("battery_c", after_5_s)
    assert 0.5 < share("battery_c", after_5_min) < 0.95


def test_more_duty_is_warmer_and_more_work():
    ends = []
    for duty in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        each = phone(ambient_c=30)
        each.advance(5400, duty=duty)
        ends.append((each.truth.battery_c, each.truth.chassis_c, each.truth.cpu_big_c, each.worked_s))
    assert all(x < y for before, after in pairwise(ends) for x, y in zip(before, after, strict=True))


def test_time_may_be_cut_anywhere():
    whole, cut = phone(ambient_c=33), phone(ambient_c=33)
    whole.advance(1800, duty=0.7)
    for _ in range(1800 * 4 // 3):
        cut.advance(0.75, duty=0.7)
    assert cut.truth.battery_c == pytest.approx(whole.truth.battery_c, abs=1e-6)
    assert cut.worked_s == pytest.approx(whole.worked_s, rel=1e-9)


def test_the_ambient_may_change():
    warm = phone(ambient_c=lambda now_s: 15 + 20 * min(1.0, now_s / 3600))
    warm.advance(3 * 3600, duty=0.0)
    assert warm.truth.battery_c == pytest.approx(phone(ambient_c=35).truth.battery_c, abs=0.01)


def test_a_screen_and_a_charger_warm():
    warm = phone(ambient_c=25, battery_percent=20)
    before = warm.truth
    warm.advance(600, duty=0.0)
    charged = warm.truth
    assert charged.battery_c > before.battery_c + 1 and charged.charging == "charging"
    lit = phone(ambient_c=25, events=[Event(10, "screen_on")])
    lit.advance(900, duty=0.0)
    assert lit.truth.chassis_c > phone(ambient_c=25).truth.chassis_c + 1 and lit.read().screen_on


# --- throttling -------------------------------------------------------------------------------------------------------


def test_the_vendor_limits_from_40_and_halves_the_power_at_42():
    profile = dataclasses.replace(load_profile(S25), throttle_cpu_c=900.0)
    for battery_c, power in ((39.0, 1.0), (41.0, 0.75), (42.0, 0.5), (60.0, 0.2)):
        hot = phone(profile=profile, ambient_c=battery_c, start_c=dict.fromkeys(profile.capacity_j_k, battery_c))
        hot.advance(30, duty=0.0)
        assert hot.truth.freq_share == pytest.approx(power ** (1 / profile.power_exponent), abs=0.03)
        assert hot.speed == hot.truth.freq_share


def test_a_hot_core_is_slowed_within_seconds_and_freed_again():
    busy = phone(ambient_c=30)
    busy.advance(600, threads=8)
    assert busy.truth.freq_share < 0.85
    busy.advance(15, duty=0.0)
    assert busy.truth.cpu_little_c < 70
    cool = phone(ambient_c=5)
    cool.advance(4, threads=8)
    assert cool.speed_of(4) > 0.9
    cool.advance(60, threads=8)
    assert cool.speed_of(4) < 0.92
    cool.advance(20, duty=0.0)
    assert cool.speed_of(4) > 0.99


def test_a_throttled_step_takes_longer():
    hot, cold = phone(ambient_c=38), phone(ambient_c=15)
    hot.advance(3600)
    assert cold.work(10.0) == pytest.approx(10.0)
    done_s = hot.worked_s
    assert hot.work(10.0) > 12.0
    assert hot.worked_s - done_s == pytest.approx(10.0)


def test_the_background_has_no_big_cores():
    behind = phone(ambient_c=25, events=[Event(1.0, "background"), Event(400.0, "foreground")])
    behind.advance(300)
    assert 0 < behind.speed < 0.9
    assert behind.truth.cpu_big_c == pytest.approx(behind.truth.package_c, abs=0.5)
    behind.advance(200)
    assert behind.truth.cpu_big_c > behind.truth.package_c + 10


@pytest.mark.parametrize("name", known_profiles())
def test_no_number_of_threads_is_faster_than_the_profiles(name):
    profile = load_profile(name)
    cores = profile.big_cores + profile.little_cores
    rates = [profile.rate(threads) for threads in range(1, cores + 5)]
    assert max(rates) == profile.rate(profile.threads) == 1.0
    assert all(profile.rate(n, background=True) <= profile.rate(n) for n in range(1, cores + 1))


# --- the battery ------------------------------------------------------------------------------------------------------


def test_the_charge_goes_where_the_power_goes():
    away = phone(plugged=False, battery_percent=80, ambient_c=20)
    away.advance(600, duty=0.5)
    wh = away.drawn_j / 3600
    assert 80 - away.battery_percent == pytest.approx(100 * wh / away.profile.battery_wh)
    assert away.truth.from_battery_w > 4 and away.truth.charging == "discharging"


def test_plugged_into_a_weak_charger_it_still_falls():
    weak = phone(charger_w=3.0, battery_percent=50)
    weak.advance(1200)
    assert weak.battery_percent < 50 and weak.truth.plugged and weak.truth.charging == "discharging"
    weak.advance(4000, duty=0.0)
    assert weak.truth.charging == "charging"


def test_it_is_full_in_the_end_and_falls_when_unplugged():
    night = phone(battery_percent=60, events=[Event(4 * 3600, "unplug")])
    night.advance(4 * 3600 - 1, duty=0.0)
    assert night.truth.charging == "full"
    night.advance(3600, duty=0.0)
    assert night.battery_percent < 100 and night.read().plugged is False


# --- sensors ----------------------------------------------------------------------------------------------------------


def test_the_battery_is_told_late_and_in_whole_degrees():
    told = phone(ambient_c=20, seed=3)
    ages = []
    for _ in range(400):
        told.advance(2.0)
        reading = told.read()
        assert reading.battery_c == round(reading.battery_c)
        ages.append(reading.ages_s["battery_c"])
    assert 13 < max(ages) <= 30
    assert abs(told.read().battery_c - told.truth.battery_c) < 2


def test_exact_sensors_tell_the_truth():
    exact = phone(sensors=dataclasses.replace(EXACT, battery_poll_s=(1, 1)), seed=1)
    exact.advance(100)
    reading, truth = exact.read(), exact.truth
    assert reading.battery_c == pytest.approx(truth.battery_c, abs=1e-3)
    assert reading.cpu_c == pytest.approx(max(truth.cpu_big_c, truth.cpu_little_c), abs=1e-3)
    assert reading.skin_c == pytest.approx(truth.chassis_c, abs=0.01)
    assert reading.sources["battery_c"] == "simulated"
    assert reading.t == exact.t == 1.7e9 + 100


@pytest.mark.parametrize("name", SENSORS)
def test_a_lost_sensor_says_nothing_and_why_and_comes_back(name):
    losing = phone(events=[Event(60, "lose", name), Event(120, "find", name)])
    told = []
    for _ in range(3):
        losing.advance(59)
        told.append(losing.read())
    assert [getattr(reading, name) is None for reading in told] == [False, True, False]
    assert name in told[1].unknown and name not in told[1].sources and name not in told[2].unknown


def test_what_is_not_simulated_is_unknown():
    reading = phone().read()
    assert isinstance(reading, Reading)
    assert reading.available_mb is None and reading.unknown["available_mb"] == "not simulated"


def test_an_unknown_sensor_cannot_be_lost():
    with pytest.raises(ValueError, match="battery_c"):
        phone().happen("lose", "nose_c")


def test_headroom_and_status_meet_at_severe():
    severe = load_profile(S25).severe_battery_c
    hot = phone(ambient_c=severe, start_c=dict.fromkeys(load_profile(S25).capacity_j_k, severe + 0.01), sensors=EXACT)
    assert hot.read().thermal_status == 3 and hot.read().headroom == pytest.approx(1.0, abs=0.01)
    assert phone(ambient_c=20).read().thermal_status == 0


# --- events and chance ------------------------------------------------------------------------------------------------


def test_a_kill_ends_the_work_until_it_is_revived():
    killed = phone(ambient_c=5, events=[Event(100.5, "kill")])
    assert killed.work(1000.0) == pytest.approx(100.5)
    assert killed.killed and killed.speed == 0 and killed.work(5.0) == 0.0
    killed.advance(50)
    assert killed.worked_s == pytest.approx(100.5)
    killed.revive()
    assert killed.work(5.0) == pytest.approx(5.0)


def story(seed: int) -> list[Reading]:
    each, told = phone(seed=seed, ambient_c=28), []
    for step in range(120):
        each.advance(7.3, duty=(step % 4) / 4)
        told.append(each.read())
    return told


def test_a_seed_tells_the_same_story_and_another_one_another():
    assert story(1) == story(1)
    assert story(1) != story(2)


def test_a_copy_goes_its_own_way():
    one = phone(ambient_c=30, events=[Event(500, "unplug")])
    one.advance(300)
    other = one.copy()
    other.advance(600)
    before = one.truth
    assert one.now_s == 300 and one.truth == before and one.truth.plugged and not other.truth.plugged
    one.advance(600)
    assert one.truth == other.truth and one.read() == other.read()


def test_wrong_parameters_are_wrong_by_no_more_than_asked():
    right = load_profile(S25)
    wrong = right.without_certainty(0.3, seed=7)
    ratios = [wrong.capacity_j_k[name] / value for name, value in right.capacity_j_k.items()]
    ratios += [wrong.conductance_w_k[name] / value for name, value in right.conductance_w_k.items()]
    assert all(0.7 <= ratio <= 1.3 for ratio in ratios) and max(abs(ratio - 1) for ratio in ratios) > 0.1
    assert wrong == right.without_certainty(0.3, seed=7) != right.without_certainty(0.3, seed=8)
    assert right.without_certainty(0.0, seed=1) == right


# --- profiles ---------------------------------------------------------------------------------------------------------


def test_the_midrange_phone_has_the_published_time_constants():
    profile = load_profile("midrange")

    def time_constant_s(node: str) -> float:
        out_w_k = sum(value for pair, value in profile.conductance_w_k.items() if node in pair.split("-"))
        return profile.capacity_j_k[node] / (out_w_k + profile.to_ambient_w_k.get(node, 0.0))

    assert [round(time_constant_s(node)) for node in ("battery", "chassis", "cpu_big", "cpu_little")] == [
        210,
        100,
        25,
        35,
    ]


def test_the_laptop_is_hot_inside_and_its_battery_is_not():
    laptop = phone(profile="laptop", ambient_c=25)
    laptop.advance(7200)
    assert 75 < laptop.truth.cpu_big_c < 95 and laptop.truth.battery_c < 35 and laptop.speed > 0.9


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(UsageError, match="galaxy-s25plus, laptop, midrange"):
        load_profile("nokia-3310")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("idle_w = 0.3\n", ""), "lacks 'idle_w'"),
        (("idle_w =", "idel_w = 1\nidle_w ="), "unknown key 'idel_w'"),
        (("idle_w = 0.3", 'idle_w = "much"'), "bad value for 'idle_w'"),
        (("battery = 94.5", ""), "bad value for 'capacity_j_k'"),
        (("cpu_big-package", "cpu_big-sink"), "bad value for 'conductance_w_k'"),
        (("idle_w = 0.3", "idle_w = "), "cannot be read"),
    ],
)
def test_a_bad_profile_is_refused_in_one_sentence(tmp_path, change, said):
    from ondevice.device import simulate_profile

    text = (simulate_profile.FOLDER / "midrange.toml").read_text(encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        load_profile(str(path))


def test_hours_pass_in_moments():
    fast = phone(ambient_c=25)
    began = time.process_time()
    fast.advance(20_000, duty=0.3)
    assert 20_000 / (time.process_time() - began) > 20_000  # simulated seconds in one of processor time
