"""What a phone shows of a run, and what its buttons do: against made-up commands, with a real trainer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ondevice.cli import phone
from ondevice.cli.phone import PhoneDisplay, on_a_phone, post_of
from ondevice.cli.progress import QuietDisplay
from ondevice.device.wake_lock import MARK
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.telemetry import read_records

NOW = time.mktime((2026, 3, 1, 14, 5, 0, 0, 0, -1))
STATUS = {
    "state": "running",
    "hold": "",
    "step": 1200,
    "steps": 4800,
    "loss": 3.51234,
    "eta_s": 4200.0,
    "heartbeat_t": NOW,
    "battery_c": 34.14,
    "battery_percent": 71.0,
    "plugged": True,
}


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "my runs" / "notes")


@pytest.fixture
def termux(tmp_path, monkeypatch):
    """``termux()``: the calls of made-up commands of Termux so far, by name and words."""
    folder, log = tmp_path / "termux", tmp_path / "calls"
    folder.mkdir()
    for name in ("termux-notification", "termux-notification-remove", "termux-wake-lock", "termux-wake-unlock"):
        told = f"json.dumps([{name!r}, *sys.argv[1:]]) + '\\n'"
        (folder / name).write_text(f"#!{sys.executable} -S\nimport json, sys\nopen({str(log)!r}, 'a').write({told})\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "phone home"))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_what_is_shown(run):
    post = post_of(run, STATUS, {})
    assert post.title == "notes: running"
    assert post.text == ("14:05, step 1,200 of 4,800 (25 %), loss 3.512, 1h10m left\n34.1 C, battery 71 %, plugged in")
    assert [label for label, _ in post.buttons] == ["Pause", "Stop"]


@pytest.mark.parametrize(
    ("changes", "title", "last", "button"),
    [
        ({"hold": "paused by command line", "state": "waiting"}, "notes: paused", "paused by command line", "Resume"),
        (
            {"state": "waiting", "wait": "Waiting for the charger."},
            "notes: waiting",
            "Waiting for the charger.",
            "Pause",
        ),
        ({"state": "resting", "wait": "x" * 200}, "notes: resting", "x" * 79 + "…", "Pause"),
        ({"state": "resting", "duty": 0.54}, "notes: running", "works 54 % of the time", "Pause"),
        ({"plugged": False}, "notes: running", "34.1 C, battery 71 %, on battery", "Pause"),
    ],
)
def test_states(run, changes, title, last, button):
    post = post_of(run, STATUS | changes, {})
    assert (post.title, post.text.splitlines()[-1], post.buttons[0][0]) == (title, last, button)
    assert (post.state == post_of(run, STATUS, {}).state) == (title == "notes: running")


def test_a_phone_that_tells_nothing_and_a_run_that_just_began(run):
    text = post_of(run, {"heartbeat_t": NOW, "step": 0, "steps": 10, "loss": None, "battery_c": None}, {}).text
    assert text == "14:05, step 0 of 10 (0 %)"


def test_a_button_works_in_a_bare_environment(run, monkeypatch, tmp_path):
    """The shell of a notification has neither PATH nor HOME; names may hold what shells are fond of."""
    script = tmp_path / "it's a venv" / "bin"
    script.mkdir(parents=True)
    (script / "python").touch()
    (script / "ondevice").write_text('#!/bin/sh\nprintf "%s|" "$HOME" "$ONDEVICE_HOME" "$PATH" "$@" >"$HOME/said"\n')
    (script / "ondevice").chmod(0o755)
    monkeypatch.setattr(phone.sys, "executable", str(script / "python"))
    env = {"HOME": str(tmp_path), "ONDEVICE_HOME": "/sd'card/$(rm x)", "PATH": "/bin:/usr/bin", "SECRET": "x"}
    for (label, action), verb in zip(post_of(run, STATUS, env).buttons, ("pause", "stop"), strict=True):
        done = subprocess.run(["/bin/sh", "-c", action], env={}, capture_output=True, text=True, cwd="/")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), label
        said = (tmp_path / "said").read_text().split("|")[:-1]
        assert said == [env["HOME"], env["ONDEVICE_HOME"], env["PATH"], verb, str(run.path), "--wait", "1"]
        assert "SECRET" not in action


def test_without_an_installed_command_the_interpreter_is_named(run, monkeypatch, tmp_path):
    monkeypatch.setattr(phone.sys, "executable", str(tmp_path / "python3"))
    action = post_of(run, STATUS, {"HOME": "/h"}).buttons[1][1]
    assert f"exec {shlex.quote(str(tmp_path / 'python3'))} -m ondevice stop " in action


def test_elsewhere_the_display_stays_what_it_is(run, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    display = QuietDisplay()
    with on_a_phone(run, display) as told:
        assert told is display


def test_the_display_underneath_is_told_the_same(run):
    told = []

    class Recorder(QuietDisplay):
        def status(self, status):
            told.append(status)

        def say(self, text):
            told.append(text)

        def result(self, text):
            told.append(text)

        def close(self):
            told.append("closed")

    class Silent:
        def tell(self, post):
            told.append(post.title)

        def close(self):
            told.append("taken down")

    shown = PhoneDisplay(Recorder(), run, Silent())
    shown.status(STATUS)
    shown.say("a")
    shown.result("b")
    shown.close()
    shown.take_down()
    assert told == [STATUS, "notes: running", "a", "b", "closed", "taken down"]


def test_a_run_on_a_phone_is_kept_awake_and_shown(fresh, call, termux):
    assert call("train", "tiny", "--quiet").code == 0
    calls = termux()
    assert sorted(words[0] for words in calls) == [
        "termux-notification",
        "termux-notification-remove",
        "termux-wake-lock",
        "termux-wake-unlock",
    ]
    assert calls[-1] == ["termux-wake-unlock"]
    post = next(words for words in calls if words[0] == "termux-notification")
    assert post[post.index("--title") + 1].startswith("tiny: ")
    assert not (Path(os.environ["HOME"]) / MARK).exists()


def test_two_runs_share_the_lock_and_the_last_gives_it_back(fresh, call, termux):
    other = RunDir(fresh.with_name("other"))
    other.path.mkdir()
    (other.path / "run.json").write_text("{}")
    lock = RunLock(other)
    assert call("train", "tiny", "--quiet").code == 0
    lock.release()
    assert ["termux-wake-unlock"] not in termux()
    assert (Path(os.environ["HOME"]) / MARK).exists()


def test_commands_that_hang_change_nothing_for_the_run(fresh, call, tmp_path, monkeypatch):
    folder = tmp_path / "termux"
    folder.mkdir()
    for name in ("termux-notification", "termux-notification-remove"):
        (folder / name).write_text("#!/bin/sh\nsleep 60 & sleep 60\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("ondevice.device.notification.REMOVE_S", 0.2)
    result = call("train", "tiny", "--quiet")
    assert result.code == 0
    steps = [record["step"] for record in read_records(RunDir(fresh).telemetry) if record["kind"] == "step"]
    assert steps == list(range(1, 13))
