"""Short words for numbers, times and foreign text."""

from __future__ import annotations

import pytest

from tui.words import clock, clock_short, count, decimal, degrees, duration, fit, megabytes, percent, printable, short


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (count(None), "-"),
        (count(1234.4), "1,234"),
        (count(1e300), "1.0e+300"),
        (decimal(2.34567), "2.346"),
        (decimal(0.0), "0.000"),
        (decimal(3e-7, 5), "3.0e-07"),
        (percent(None), "-"),
        (percent(0.9999), "99.9%"),
        (percent(1.0), "100%"),
        (megabytes(412.3), "412 MB"),
        (megabytes(20480), "20 GB"),
        (duration(None), "-"),
        (duration(-3), "0s"),
        (duration(95), "1m35s"),
        (duration(7260), "2h01m"),
        (duration(2 * 86400 + 3600), "2d01h"),
        (duration(1e12), ">1000d"),
        (clock(None), "--:--:--"),
        (clock(1e18), "--:--:--"),
        (clock_short(None), "--:--"),
        (degrees(41.25, "°C"), "41.2°C"),
        (degrees(None, "°C"), "-"),
        (short(None), "-"),
        (short(950), "950"),
        (short(999.6), "1.0k"),
        (short(12_345), "12.3k"),
        (short(2_400_000), "2.4M"),
        (short(154_000_000), "154M"),
        (short(-1500), "-1.5k"),
        (short(1e18), "1e+18"),
        (printable("a\x1b[2Jb\tc\n\ud800"), "a\ufffd[2Jb c\n\ufffd"),
        (fit("a  long\nstory", 8), "a long …"),
        (fit("short", 8), "short"),
        (fit("none", 0), ""),
    ],
)
def test_words(said: str, expected: str) -> None:
    assert said == expected
