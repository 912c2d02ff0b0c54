"""The wake lock against made-up commands: who takes it, who gives it back, and that nobody waits for a hanging one."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ondevice.device import wake_lock
from ondevice.device.wake_lock import MARK, SETTING, awake


@pytest.fixture
def phone(commands: Any, tmp_path: Path) -> Any:
    """``phone.env`` and ``phone.said()``: which of the two commands were called, in order."""

    class Phone:
        def __init__(self) -> None:
            self.env = {"HOME": str(tmp_path / "home"), "PATH": f"{commands.folder}:{os.environ['PATH']}"}
            self.mark = tmp_path / "home" / MARK

        def make(self, name: str, script: str = "") -> None:
            commands.make(name, f"echo {name} >>{tmp_path}/said\n{script}")

        def said(self) -> list[str]:
            path = tmp_path / "said"
            return path.read_text().split() if path.exists() else []

        left = staticmethod(commands.left)

    made = Phone()
    made.make("termux-wake-lock")
    made.make("termux-wake-unlock")
    return made


def test_taken_and_given_back(phone: Any) -> None:
    with awake(phone.env, others=lambda: False):
        assert phone.mark.exists()
    assert phone.said() == ["termux-wake-lock", "termux-wake-unlock"]
    assert not phone.mark.exists()


def test_given_back_also_after_an_error(phone: Any) -> None:
    with pytest.raises(ZeroDivisionError), awake(phone.env, others=lambda: False):
        raise ZeroDivisionError
    assert phone.said()[-1] == "termux-wake-unlock"


def test_not_given_back_while_another_trainer_needs_it(phone: Any) -> None:
    with awake(phone.env, others=lambda: True):
        pass
    assert phone.said() == ["termux-wake-lock"]
    assert phone.mark.exists()  # for who leaves last


@pytest.mark.parametrize(("alive", "said"), [(True, 1), (False, 2)])
def test_left_to_a_trainer_that_took_it_later_and_still_loads(phone: Any, alive: bool, said: int) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        if not alive:
            other.kill()
            other.wait()
        with awake(phone.env, others=lambda: False):
            phone.mark.write_text(f"{other.pid}\n")
        other.kill()
    assert len(phone.said()) == said


@pytest.mark.parametrize("text", ["", "rubbish"])
def test_a_mark_that_a_script_wrote_is_ours(phone: Any, text: str) -> None:
    with awake(phone.env, others=lambda: False):
        phone.mark.write_text(text)
    assert phone.said()[-1] == "termux-wake-unlock"


@pytest.mark.parametrize(("setting", "said"), [("keep", ["termux-wake-lock"]), ("off", [])])
def test_a_person_may_have_other_wishes(phone: Any, setting: str, said: list[str]) -> None:
    with awake(phone.env | {SETTING: setting}, others=lambda: False):
        pass
    assert phone.said() == said
    assert phone.mark.exists() == (setting == "keep")


def test_nothing_happens_where_there_is_no_command(tmp_path: Path) -> None:
    with awake({"HOME": str(tmp_path), "PATH": "/usr/bin"}, others=lambda: False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_commands_are_found_in_a_bare_environment(phone: Any, commands: Any, tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/bin").symlink_to(commands.folder)
    with awake({"HOME": phone.env["HOME"], "PREFIX": str(tmp_path / "usr")}, others=lambda: False):
        pass
    assert len(phone.said()) == 2


def test_a_hanging_command_holds_nobody_up(phone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_lock, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(wake_lock, "_LAST_S", 0.2)
    for name in ("termux-wake-lock", "termux-wake-unlock"):
        phone.make(name, "sleep 60 & sleep 60")
    began = time.monotonic()
    with awake(phone.env, others=lambda: False):
        assert time.monotonic() - began < 1.5
    assert time.monotonic() - began < 20
    while phone.left() and time.monotonic() - began < 10:  # what was killed may still be on its way out
        time.sleep(0.05)
    assert phone.left() == []


def test_an_unwritable_home_is_no_reason_to_sleep(phone: Any) -> None:
    with awake(phone.env | {"HOME": "/proc"}, others=lambda: False):
        pass
    assert phone.said() == ["termux-wake-lock", "termux-wake-unlock"]
