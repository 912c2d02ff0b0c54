"""The notification against made-up commands that work, hang, fail and leave helpers behind."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.device import notification
from ondevice.device.notification import BACK_OFF_S, PERIOD_S, SOON_S, Notification, Post, find_notification

RUNNING = Post(
    title="notes: running", text="step 1\n34.1 C", state="running", buttons=[("Pause", "a b"), ("Stop", "c")]
)
PAUSED = Post(title="notes: paused", text="step 2", state="paused")


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said(commands: Any, tmp_path: Path) -> Callable[[], list[list[str]]]:
    """Words of each call of the two commands, which work."""
    log = tmp_path / "said"
    for name in ("termux-notification", "termux-notification-remove"):
        path = commands.folder / name
        told = f"json.dumps([{name!r}, *sys.argv[1:]]) + '\\n'"
        path.write_text(f"#!{sys.executable} -S\nimport json, sys\nopen({str(log)!r}, 'a').write({told})\n")
        path.chmod(0o755)
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def settle(shown: Notification) -> None:
    if shown._thread is not None:
        shown._thread.join(10)
        assert not shown._thread.is_alive()


def make(commands: Any, clock: Clock) -> Notification:
    found = find_notification(commands.env)
    assert found is not None
    return Notification(found, "ondevice-1", clock=clock)


def test_posted_once_with_all_its_words_and_removed(commands: Any, clock: Clock, said: Any) -> None:
    shown = make(commands, clock)
    for _ in range(3):
        shown.tell(RUNNING)
        settle(shown)
        clock.now += 2 * PERIOD_S
    shown.close()
    shown.close()
    post, remove = said()
    assert post == [
        *("termux-notification", "--id", "ondevice-1", "--ongoing", "--alert-once", "--priority", "low"),
        *("--title", "notes: running", "--content", "step 1\n34.1 C"),
        *("--button1", "Pause", "--button1-action", "a b", "--button2", "Stop", "--button2-action", "c"),
    ]
    assert remove == ["termux-notification-remove", "ondevice-1"]


def test_numbers_once_a_minute_and_a_new_state_after_half_a_minute(commands: Any, clock: Clock, said: Any) -> None:
    shown = make(commands, clock)
    for second in range(181):
        clock.now = 1000.0 + second
        shown.tell(Post(title="t", text=f"step {second}", state="running" if second < 130 else "paused"))
        settle(shown)
    texts = [words[words.index("--content") + 1] for words in said()]
    assert texts == ["step 0", "step 60", "step 120", f"step {120 + round(SOON_S)}"]


@pytest.mark.parametrize("script", ["sleep 60 & sleep 60", "trap '' TERM; sleep 60"])
def test_a_hanging_command_costs_the_teller_nothing_and_is_killed(
    commands: Any, clock: Clock, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(notification, "REMOVE_S", 0.3)
    commands.make("termux-notification", script)
    commands.make("termux-notification-remove", script)
    shown, began = make(commands, clock), time.perf_counter()
    for _ in range(1000):
        shown.tell(RUNNING)
        clock.now += 0.01
    assert time.perf_counter() - began < 0.9
    while not commands.started():
        time.sleep(0.01)
    clock.now += PERIOD_S
    shown.tell(PAUSED)  # the first still hangs: no second child
    assert len(commands.started()) == 1
    shown.close()
    assert time.perf_counter() - began < 20
    until = time.monotonic() + 5  # what was killed is gone a moment later
    while commands.left() and time.monotonic() < until:
        time.sleep(0.02)
    assert commands.left() == []


def test_after_three_failures_it_asks_every_ten_minutes(commands: Any, clock: Clock) -> None:
    commands.make("termux-notification", "exit 1")
    commands.make("termux-notification-remove", "exit 1")
    shown = make(commands, clock)
    tried = []
    for _ in range(130):
        before = len(commands.started())
        shown.tell(RUNNING)
        settle(shown)
        if len(commands.started()) > before:
            tried.append(clock.now - 1000.0)
        clock.now += 10.0
    assert tried == [0.0, SOON_S, 2 * SOON_S, 2 * SOON_S + BACK_OFF_S, 2 * SOON_S + 2 * BACK_OFF_S]
    shown.close()
    assert len(commands.started()) == len(tried)  # what never appeared needs no removal


def test_it_recovers_after_a_failure(commands: Any, clock: Clock, said: Any) -> None:
    shown = make(commands, clock)
    shown._failures = 2
    shown.tell(RUNNING)
    settle(shown)
    assert shown._failures == 0 and len(said()) == 1


def test_a_command_that_vanished_hurts_nobody(commands: Any, clock: Clock) -> None:
    commands.make("termux-notification", "")
    shown = make(commands, clock)
    (commands.folder / "termux-notification").unlink()
    shown.tell(RUNNING)
    settle(shown)
    shown.close()
    assert shown._failures == 1


def test_nothing_is_told_after_the_end(commands: Any, clock: Clock, said: Any) -> None:
    shown = make(commands, clock)
    shown.close()
    shown.tell(RUNNING)
    assert said() == [] and shown._thread is None
