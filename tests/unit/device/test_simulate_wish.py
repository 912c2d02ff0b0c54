"""The words of --device: what they mean, and what is refused in one sentence."""

from __future__ import annotations

import pytest

from ondevice.device.simulate import Event
from ondevice.device.simulate_wish import FASTEST, parse_device
from ondevice.errors import UsageError


def test_every_word_means_something():
    wish = parse_device(
        "sim:galaxy-s25plus,ambient=25..36@600,plugged=no,percent=55.5,seed=3,start=22:30,threads=4,piece=2,"
        "unplug@900,lose=battery_c@600,screen_on@50",
        speed=60,
    )
    assert wish.profile is not None and wish.name == wish.profile.name == "galaxy-s25plus" and wish.handheld
    assert wish.ambient == (25.0, 36.0, 600.0) and not wish.plugged and wish.percent == 55.5 and wish.seed == 3
    assert (wish.start_minute, wish.threads, wish.piece_s, wish.speed) == (22 * 60 + 30, 4, 2.0, 60)
    assert wish.events == (Event(50.0, "screen_on"), Event(600.0, "lose", "battery_c"), Event(900.0, "unplug"))
    assert not parse_device("sim:laptop").handheld


def test_the_phone_is_as_it_was_wished_at_any_time():
    wish = parse_device("sim:galaxy-s25plus,ambient=20..30@100,unplug@50,lose=skin_c@10,find=skin_c@40,plug@200")
    for at_s, ambient_c, plugged in ((0.0, 20.0, True), (50.0, 25.0, False), (150.0, 30.0, False), (250.0, 30.0, True)):
        phone = wish.phone(start_t=1000.0, at_s=at_s)
        assert (phone.truth.ambient_c, phone.truth.plugged, phone.t) == (ambient_c, plugged, 1000.0 + at_s)
        assert phone.read().skin_c is not None
    assert wish.phone(start_t=0.0, at_s=20.0).read().skin_c is None
    phone = wish.phone(start_t=0.0, at_s=150.0)
    phone.advance(60.0)
    assert phone.truth.plugged, "what is still to come comes"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither sim:NAME nor replay:FILE"),
        ("galaxy-s25plus", "sim:galaxy-s25plus"),
        ("sim:", "laptop, midrange"),
        ("sim:galaxy-s25", "did you mean 'galaxy-s25plus'"),
        ("sim:galaxy-s25plus,", "known are ambient"),
        ("sim:galaxy-s25plus,ambiant=33", "did you mean 'ambient'"),
        ("sim:galaxy-s25plus,ambient", "unknown"),
        ("sim:galaxy-s25plus,ambient=hot", "from -30 to 60"),
        ("sim:galaxy-s25plus,ambient=nan", "from -30 to 60"),
        ("sim:galaxy-s25plus,ambient=25..36", "within 600 s"),
        ("sim:galaxy-s25plus,ambient=25..99@600", "from -30 to 60"),
        ("sim:galaxy-s25plus,ambient=1.2.3..30@600", "from -30 to 60"),
        ("sim:galaxy-s25plus,ambient=33,ambient=34", "twice"),
        ("sim:galaxy-s25plus,plugged=maybe", "yes or no"),
        ("sim:galaxy-s25plus,percent=101", "from 0 to 100"),
        ("sim:galaxy-s25plus,seed=-1", "whole number"),
        ("sim:galaxy-s25plus,threads=0", "from 1 to 64"),
        ("sim:galaxy-s25plus,piece=0", "from 0.001"),
        ("sim:galaxy-s25plus,start=25:00", "22:30"),
        ("sim:galaxy-s25plus,unplug", "unplug@600"),
        ("sim:galaxy-s25plus,unplug@", "from 0"),
        ("sim:galaxy-s25plus,unplug@-5", "from 0"),
        ("sim:galaxy-s25plus,unplugg@5", "did you mean 'unplug'"),
        ("sim:galaxy-s25plus,lose@600", "lose=battery_c@600"),
        ("sim:galaxy-s25plus,lose=batery_c@600", "did you mean 'battery_c'"),
        ("sim:galaxy-s25plus,unplug=battery_c@600", "unplug@600"),
        ("sim:galaxy-s25plus,kill@600", "unknown"),
        ("sim:/nowhere/phone.toml", "no device profile"),
        ("replay:", "replay:trace.csv"),
        ("replay:/nowhere/trace.csv", "cannot be read"),
    ],
)
def test_what_means_nothing_is_refused_in_one_sentence(text, words):
    with pytest.raises(UsageError) as refused:
        parse_device(text)
    said = str(refused.value)
    assert words in said and "\n" not in said and len(said) < 300


@pytest.mark.parametrize("speed", [0.0, -1.0, FASTEST + 1, float("nan"), float("inf")])
def test_speeds_that_no_clock_goes_are_refused(speed):
    with pytest.raises(UsageError, match="--speed"):
        parse_device("sim:galaxy-s25plus", speed=speed)


def test_a_recording_takes_no_weather(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("t_s,battery_c\n0,25\n1,26\n")
    assert parse_device(f"replay:{path},start=08:00,piece=2").piece_s == 2.0
    for word in ("ambient=33", "unplug@5"):
        with pytest.raises(UsageError, match="known are start, piece"):
            parse_device(f"replay:{path},{word}")
