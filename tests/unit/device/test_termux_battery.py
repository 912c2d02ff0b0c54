"""``termux-battery-status`` in every shape it has printed, and as a command that hangs, crashes and comes too late."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ondevice.device.battery import NAMES
from ondevice.device.termux_battery import ask_termux, find_command, parse

SHAPES = Path(__file__).parents[2] / "fixtures/termux_api"


def values(percent: Any, plugged: Any, charging: Any, celsius: Any, watts: Any) -> dict[str, Any]:
    told = zip(NAMES, (percent, plugged, charging, celsius, watts), strict=True)
    return {name: value for name, value in told if value is not None}


EXPECTED: dict[str, dict[str, Any]] = {
    "discharging.json": values(71, False, "discharging", 33.4, 3.24),
    "after_linker_warning.txt": values(71, False, "discharging", 33.4, 3.24),
    "charging_positive.json": values(71, True, "charging", 33.4, -6.23),
    "charging_negative.json": values(71, True, "charging", 33.4, -6.23),
    "milliamperes.json": values(71, False, "discharging", 33.4, 6.1),
    "full.json": values(100, True, "full", 33.4, 0.0),
    "held_by_limiter.json": values(80, True, "not_charging", 33.4, None),
    "held_but_falling.json": values(71, True, "not_charging", 33.4, None),
    "dock.json": values(71, True, "charging", 33.4, -3.59),
    "unknown_plug.json": values(71, True, None, 33.4, None),
    "no_temperature.json": values(71, False, "discharging", None, 3.24),
    "null_keys_omitted.json": values(71, False, "discharging", 33.4, None),
    "no_voltage.json": values(71, False, "discharging", 33.4, None),
    "overheat.json": values(71, False, "discharging", 47.9, 3.24),
    "freezing.json": values(71, False, "discharging", -7.5, 3.24),
    "no_battery.json": values(None, True, None, None, None),
    "no_event.json": values(64, None, None, None, None),
    "six_keys.json": values(46, False, "discharging", 31.7, None),
    "six_keys_text.json": values(52, False, "not_charging", 31.0, None),
    "six_keys_text_comma.json": values(52, False, "discharging", 31.4, None),
    "five_keys_chromebook.json": values(71, True, "charging", None, None),
    "nonsense_values.json": values(None, None, None, None, None),
}
RUBBISH = {
    "garbage.txt": "no JSON object",
    "truncated.txt": "no JSON object",
    "array.txt": "no JSON object",
    "nothing.txt": "printed nothing",
}


def test_every_fixture_is_tested() -> None:
    assert {path.name for path in SHAPES.iterdir()} == EXPECTED.keys() | RUBBISH.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_shapes(name: str) -> None:
    answer = parse((SHAPES / name).read_text())
    assert answer.values == pytest.approx(EXPECTED[name], abs=0.01)
    assert set(answer.unknown) == set(NAMES) - set(answer.values)
    assert all(answer.unknown.values())


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish(name: str) -> None:
    with pytest.raises(ValueError, match=RUBBISH[name]):
        parse((SHAPES / name).read_text())


@pytest.mark.parametrize("text", ["[" * 60000, '{"a":' * 60000, '{"percentage": NaN, "temperature": 1e999}'])
def test_hostile_text(text: str) -> None:
    with suppress(ValueError):
        assert parse(text).values == {}


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("no_temperature.json", "battery_c", "says -214748364.8 C"),
        ("no_battery.json", "battery_percent", "no battery found"),
        ("null_keys_omitted.json", "power_w", "tells no current"),
        ("six_keys.json", "power_w", "tells no voltage"),
        ("held_but_falling.json", "power_w", "the battery is not charging"),
        ("nonsense_values.json", "plugged", "does not tell it"),
    ],
)
def test_reasons(name: str, key: str, words: str) -> None:
    assert words in parse((SHAPES / name).read_text()).unknown[key]


def test_found_on_the_path_only_if_it_can_be_run(commands: Any, tmp_path: Path) -> None:
    assert find_command({}) is None
    path = commands.make("termux-battery-status", "")
    assert find_command(commands.env) == path
    Path(path).chmod(0o644)
    assert find_command({"PATH": str(commands.folder)}) is None


def test_an_answer(commands: Any) -> None:
    command = commands.make("termux-battery-status", f"cat {SHAPES}/discharging.json; echo warning >&2")
    answer = ask_termux(command, timeout_s=6)
    assert answer.values["battery_percent"] == 71.0
    assert set(answer.sources.values()) == {"termux-battery-status"}


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("sleep 60", TimeoutError, "did not answer within 0.3 s"),
        ("trap '' TERM; sleep 60 & sleep 60; wait", TimeoutError, "did not answer"),
        (f"sleep 1; cat {SHAPES}/discharging.json", TimeoutError, "did not answer"),
        ("cat >/dev/null; kill -SEGV $$", ChildProcessError, "killed by SIGSEGV"),
        ("echo 'socket: not permitted' >&2; exit 1", ChildProcessError, "failed: socket: not permitted"),
        ("exit 3", ChildProcessError, "failed: exit code 3"),
        ("while :; do echo '{\"percentage\": 1}'; done", ValueError, "printed without end"),
        ("echo '<html>'", ValueError, "no JSON object"),
    ],
)
def test_commands_that_fail_leave_nothing_behind(
    commands: Any, script: str, error: type[Exception], words: str
) -> None:
    command = commands.make("termux-battery-status", script)
    began = time.monotonic()
    with pytest.raises(error, match=words):
        ask_termux(command, timeout_s=0.3 if error is TimeoutError else 5.0)
    assert time.monotonic() - began < 4
    wait_until(lambda: commands.left() == [])


def test_a_late_answer_is_not_taken_for_the_next(commands: Any) -> None:
    late = commands.make("late", f"sleep 0.4; cat {SHAPES}/overheat.json")
    quick = commands.make("quick", f"cat {SHAPES}/discharging.json")
    with pytest.raises(TimeoutError):
        ask_termux(late, timeout_s=0.2)
    assert ask_termux(quick, timeout_s=6).values["battery_c"] == 33.4


def test_a_helper_that_stays_and_holds_the_pipe_costs_no_time(commands: Any) -> None:
    command = commands.make("termux-battery-status", f"cat {SHAPES}/discharging.json; sleep 60 &")
    began = time.monotonic()
    assert ask_termux(command, timeout_s=6).values["battery_percent"] == 71.0
    assert time.monotonic() - began < 3
    wait_until(lambda: commands.left() == [])


def test_it_reads_nothing_and_leads_a_group_of_its_own(commands: Any) -> None:
    command = commands.make("termux-battery-status", 'cat; echo "{\\"percentage\\": $(($5 == $$))}"')
    assert ask_termux(command, timeout_s=6).values["battery_percent"] == 1.0


@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs coreutils")
def test_a_hanging_command_ends_by_itself_when_the_asker_was_killed(commands: Any) -> None:
    (commands.folder / "timeout").symlink_to(str(shutil.which("timeout")))
    command = commands.make("termux-battery-status", "sleep 60 & wait")
    code = "import sys\nfrom ondevice.device.termux_battery import ask_termux\nask_termux(sys.argv[1], timeout_s=1)\n"
    with subprocess.Popen([sys.executable, "-c", code, command], stderr=subprocess.DEVNULL) as asker:
        wait_until(lambda: bool(commands.started()))
        asker.kill()
    assert commands.left() != []
    wait_until(lambda: commands.left() == [])


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)
