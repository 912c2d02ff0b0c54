"""What a person sees while a command works."""

from __future__ import annotations

import io
import json
import sys

import pytest

from ondevice.cli import progress
from ondevice.cli.build_progress import BuildProgress
from ondevice.cli.common import duration
from ondevice.cli.progress import JsonDisplay, PlainDisplay, QuietDisplay, make_display, status_line

STATUS = {
    "step": 123_456,
    "steps": 1_000_000,
    "hold": "paused by a person",
    "loss": 3.14159,
    "best_loss": 3.25,
    "tok_s": 123_456.7,
    "eta_s": 86_399.0,
    "rss_mb": 1234.5,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("width", [20, 39, 79, 200])
def test_a_status_line_fits_its_width(width):
    line = status_line(STATUS, width)
    assert len(line) <= width
    assert line.startswith(" 12%")


def test_a_wide_status_line_says_everything():
    rates = "123,457 tok/s  left 23h59m  1,234 MB"
    assert status_line(STATUS, 200) == (
        f" 12%  step 123456/1000000  paused by a person  loss 3.142  best val 3.250  {rates}"
    )


def test_a_run_that_rests_shows_both_rates():
    assert "  10 tok/s (6 sustained)  " in status_line({**STATUS, "tok_s": 10.0, "tok_s_sustained": 6.0}, 200)
    assert "  10 tok/s  " in status_line({**STATUS, "tok_s": 10.0}, 200)
    assert "  10 tok/s  " in status_line({**STATUS, "tok_s": 10.0, "tok_s_sustained": 9.9}, 200)


def test_a_narrow_status_line_keeps_the_most_useful():
    small = {**STATUS, "step": 120, "steps": 1000, "hold": ""}
    assert status_line(small, 39) == " 12%  step 120/1000  loss 3.142"


@pytest.mark.parametrize("status", [{}, {"step": 0, "steps": None}, {"step": 5, "steps": 5, "eta_s": 0.0}])
def test_a_status_with_little_in_it_is_still_a_line(status):
    assert status_line(status, 39)
    assert "left" not in status_line(status, 39)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0.0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (95, "1m35s"), (3600, "1h00m"), (90_000, "25h00m")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_json_display_prints_one_object_a_line(capsys):
    display = make_display(quiet=True, as_json=True)
    display.say("two\nlines, naïve")
    display.status({"step": 3})
    display.close()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"kind": "say", "text": "two\nlines, naïve"}, {"kind": "status", "step": 3}]


def test_plain_display_is_not_a_flood(capsys):
    display = make_display(quiet=False, as_json=False)
    assert isinstance(display, PlainDisplay)
    for step in range(100):
        display.status({"step": step, "steps": 100})
    display.say("said")
    assert len(capsys.readouterr().out.splitlines()) <= 2


def test_quiet_display_says_nothing(capsys):
    display = make_display(quiet=True, as_json=False)
    assert type(display) is QuietDisplay
    display.status(STATUS)
    display.say("said")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", ["40", "80"])
def test_a_live_line_fits_the_terminal(monkeypatch, columns):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    display = make_display(quiet=False, as_json=False)
    assert isinstance(display, progress.LiveDisplay)
    display.status(STATUS)
    display.say("[bold] is not markup")
    display.close()
    printed = terminal.getvalue()
    assert status_line(STATUS, int(columns) - 1) in printed
    assert "[bold] is not markup" in printed


def test_what_a_live_display_says_keeps_its_columns_on_a_phone(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    display = make_display(quiet=False, as_json=False)
    display.say("         2 layers x 64, context 128, vocabulary 1,024")
    display.close()
    assert "\n         vocabulary 1,024\n" in terminal.getvalue()


def test_training_goes_on_where_nobody_can_read_any_more(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    muted = []
    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(progress, "mute", muted.append)
    for display in (JsonDisplay(), PlainDisplay()):
        display.say("said")
        display.status(STATUS)
    assert muted


def test_build_progress_is_for_terminals_only(monkeypatch, capsys):
    progress_of_pipe = BuildProgress(quiet=False)
    progress_of_pipe(5, 10, "scan")
    progress_of_pipe.close()
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    live = BuildProgress(quiet=False)
    live(5 << 20, 10 << 20, "scan")
    live.close()
    assert "scan  50% of 10.0 MB" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
