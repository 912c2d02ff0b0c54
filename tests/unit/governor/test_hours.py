"""Hours: what people write, nights over midnight, days, and clock changes."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.errors import UsageError
from ondevice.governor.hours import civil, is_open, next_close, next_open, parse_hours

ROME = ZoneInfo("Europe/Rome")
NIGHT = parse_hours("22:30-06:45")
WEEK = parse_hours("mon-fri 22:30-06:45, sat 00:00-24:00")


def at(text: str, zone: ZoneInfo = ROME) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def open_at(windows: tuple, text: str) -> bool:  # type: ignore[type-arg]
    return is_open(windows, civil(at(text), ROME))


def test_a_night_goes_over_midnight() -> None:
    assert open_at(NIGHT, "2026-03-03 22:30")
    assert open_at(NIGHT, "2026-03-04 00:00")
    assert open_at(NIGHT, "2026-03-04 06:44")
    assert not open_at(NIGHT, "2026-03-04 06:45")
    assert not open_at(NIGHT, "2026-03-04 22:29")


def test_a_night_belongs_to_the_day_it_begins_on() -> None:
    assert open_at(WEEK, "2026-03-07 03:00")  # Saturday, and Friday's night
    assert not open_at(WEEK, "2026-03-08 03:00")  # Sunday: Saturday's window ended at 24:00
    assert not open_at(WEEK, "2026-03-09 03:00")  # Monday: nobody began on Sunday
    assert open_at(WEEK, "2026-03-07 23:59")


def test_days_may_wrap_around_the_week() -> None:
    windows = parse_hours("fri-mon 10:00-12:00")
    assert [day.weekday() for day in days() if is_open(windows, day.replace(hour=11))] == [0, 4, 5, 6]


def days() -> list[datetime]:
    return [datetime(2026, 3, 2) + timedelta(days=ahead) for ahead in range(7)]


@pytest.mark.parametrize("text", ["", "always", " Always "])
def test_no_hours_are_all_hours(text: str) -> None:
    assert parse_hours(text) == ()
    assert is_open((), datetime(2026, 1, 1, 12))
    assert next_open((), 5.0, ROME) == 5.0
    assert next_close((), 5.0, ROME) is None


@pytest.mark.parametrize(
    "text", ["22:30", "25:00-06:00", "22:60-06:00", "mon-xyz 22:00-06:00", "06:00-06:00", "24:00-06:00", "22-6", "a,b"]
)
def test_bad_hours_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError) as found:
        parse_hours(text)
    assert text in str(found.value) and "\n" not in str(found.value)


def test_next_open_and_close() -> None:
    assert next_open(NIGHT, at("2026-03-03 12:00"), ROME) == at("2026-03-03 22:30")
    assert next_close(NIGHT, at("2026-03-03 23:00"), ROME) == at("2026-03-04 06:45")
    assert next_open(WEEK, at("2026-03-08 12:00"), ROME) == at("2026-03-09 22:30")
    assert next_close(parse_hours("00:00-24:00"), at("2026-03-08 12:00"), ROME) is None


def test_windows_that_touch_do_not_close_in_between() -> None:
    assert next_close(parse_hours("mon 20:00-24:00, tue 00:00-03:00"), at("2026-03-02 21:00"), ROME) == at(
        "2026-03-03 03:00"
    )


def test_a_clock_change_shortens_or_lengthens_a_night() -> None:
    spring = next_close(NIGHT, at("2026-03-28 23:00"), ROME)
    autumn = next_close(NIGHT, at("2026-10-24 23:00"), ROME)
    assert spring is not None and spring - at("2026-03-28 23:00") == pytest.approx(6.75 * 3600)
    assert autumn is not None and autumn - at("2026-10-24 23:00") == pytest.approx(8.75 * 3600)


def test_a_window_that_begins_in_the_missing_hour_opens_after_it() -> None:
    windows = parse_hours("02:30-04:00")
    opens = next_open(windows, at("2026-03-29 01:00"), ROME)
    assert civil(opens, ROME).strftime("%d %H:%M") in ("29 03:00", "29 03:30")
    assert is_open(windows, civil(opens, ROME))


@settings(deadline=None)
@given(
    start=st.integers(0, 1439),
    length=st.integers(1, 1439),
    t=st.integers(1_760_000_000, 1_800_000_000),
    zone=st.sampled_from(["Europe/Rome", "America/New_York", "UTC", "Australia/Lord_Howe", "Asia/Kolkata"]),
)
def test_next_open_is_open_and_nothing_before_it_is(start: int, length: int, t: int, zone: str) -> None:
    end = (start + length) % 1440
    windows = parse_hours(f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    where = ZoneInfo(zone)
    opens = next_open(windows, t, where)
    assert opens >= t and is_open(windows, civil(opens, where))
    if opens > t:
        assert not is_open(windows, civil(opens - 60.5, where)) or opens - 60.5 < t
        assert not is_open(windows, civil(t, where))
