"""How a launch died, judged from crafted papers."""

from __future__ import annotations

from typing import Any

import pytest

from ondevice.run import control
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.liveness import write_status
from ondevice.run.postmortem import CURE_PHANTOM, Death, Scene, examine, fruitless_deaths, lost, previous
from ondevice.run.telemetry import TelemetryWriter

HERE = Scene(boot_id="this", boottime_s=5_000.0)
PHONE = Scene(boot_id="this", boottime_s=5_000.0, android=True)
PLENTY = {"rss_mb": 300.0, "mem_available_mb": 2_000.0, "mem_total_mb": 4_000.0}


def tell(run: RunDir, *, launch: int = 1, resumed: int | None = None, steps: int = 3, **more: Any) -> None:
    """A launch that made steps and then said what ``more`` has by kind."""
    writer = TelemetryWriter(run.telemetry, launch)
    first = resumed or 0
    writer.write("launch", first, launch=launch, resumed_step=resumed, boot_id="this")
    for step in range(first + 1, first + 1 + steps):
        writer.write("step", step, step_s=0.5)
    for kind, fields in more.items():
        writer.write(kind, first + steps, **fields)
    writer.close()


def sign(run: RunDir, *, launch: int = 1, step: int = 3, **more: Any) -> None:
    """The status of the last second."""
    status = {"launch": launch, "step": step, "pid": 4711, "heartbeat_t": 1e9, "boottime_s": 4_000.0, "phase": "step"}
    write_status(run, {**status, **more}, durable=False)


def cause(run: RunDir, scene: Scene = HERE) -> str:
    death = examine(run, scene)
    assert death is not None
    return death.cause


def test_no_launch_a_living_one_and_one_that_ended_are_no_deaths(run: RunDir) -> None:
    assert examine(run, HERE) is None and previous(run, None, resumed_step=0) is None
    tell(run)
    lock = RunLock(run)
    assert examine(run, HERE) is None
    assert examine(run, HERE, held=True) is not None
    lock.release()
    assert examine(run, HERE) is not None
    tell(run, launch=2, end={"outcome": "stopped", "why": "asked"})
    assert examine(run, HERE) is None
    assert previous(run, None, resumed_step=3) == {"launch": 2, "outcome": "stopped", "why": "asked", "step": 3}


def test_another_boot_or_a_younger_one_is_a_loss_of_power(run: RunDir) -> None:
    tell(run)
    sign(run, **PLENTY)
    assert cause(run) == "unknown"
    assert cause(run, Scene(boot_id="another")) == "power"
    assert cause(run, Scene(boottime_s=3_999.0)) == "power"
    assert cause(run, Scene()) == "unknown"


def test_a_loss_of_power_that_took_the_story_with_it(run: RunDir) -> None:
    """The launch record was not on the disk yet, the status was."""
    run.telemetry.mkdir(exist_ok=True)
    (run.telemetry / "0001.jsonl").touch()
    sign(run, step=7, boot_id="an earlier one")
    death = examine(run, HERE)
    assert death is not None and (death.cause, death.step) == ("power", 7)


@pytest.mark.parametrize(
    ("signs", "scene", "words"),
    [
        ({"mem_available_mb": 100.0, "mem_total_mb": 4_000.0, "rss_mb": 1_900.0}, HERE, "100 of 4,000 MB were free"),
        ({**PLENTY, "memory_limit_mb": 320.0}, HERE, "300 MB of the 320 MB"),
        ({**PLENTY, "peak_rss_mb": 500.0, "memory_limit_mb": 520.0}, HERE, "500 MB of the 520 MB"),
        ({**PLENTY, "rss_mb": 1_500.0}, PHONE, "more than Android lets an app have"),
    ],
)
def test_short_memory_at_the_last_sign_of_life(run: RunDir, signs: dict[str, Any], scene: Scene, words: str) -> None:
    tell(run)
    sign(run, **signs)
    death = examine(run, scene)
    assert death is not None
    assert death.cause == "memory" and words in death.why and death.why.startswith("probably")
    assert death.evidence["rss_mb"] == signs["rss_mb"]


def test_the_kernels_word_counts_only_for_this_process_and_after_its_last_sign(run: RunDir) -> None:
    tell(run)
    sign(run, **PLENTY)
    named = {"boot_id": "this", "boottime_s": 5_000.0}
    death = examine(run, Scene(**named, victims={4711: 4_000.5}))
    assert death is not None and (death.cause, "kernel's log" in death.why) == ("memory", True)
    assert cause(run, Scene(**named, victims={4712: 4_000.5})) == "unknown"
    assert cause(run, Scene(**named, victims={4711: 3_000.0})) == "unknown"  # an earlier process of that number


def test_a_memory_group_that_lost_a_process_since(run: RunDir) -> None:
    tell(run)
    sign(run, **PLENTY, memory_group="/a", oom_kills=2)
    assert cause(run, Scene(boot_id="this", memory_group="/a", oom_kills=3)) == "memory"
    assert cause(run, Scene(boot_id="this", memory_group="/a", oom_kills=2)) == "unknown"
    assert cause(run, Scene(boot_id="this", memory_group="/b", oom_kills=3)) == "unknown"


def test_what_the_launch_said_itself_comes_first(run: RunDir) -> None:
    tell(run, note={"text": "MemoryError", "cause": "memory", "why": "for want of memory: the system refused more"})
    sign(run, **PLENTY)
    assert cause(run, Scene(boot_id="another")) == "memory"


def test_who_was_asked_to_stop_and_died_before_it_saved(run: RunDir) -> None:
    tell(run)
    sign(run, **PLENTY)
    control.send(run, "pause", sender="somebody")
    assert cause(run) == "unknown"
    control.send(run, "stop", sender="the terminal")
    death = examine(run, HERE)
    assert death is not None and death.cause == "user" and "the terminal" in death.why
    for letter in control.pending(run):
        control.discard(run, letter)
    tell(run, launch=2, control={"verb": "stop", "ok": True, "from": "command line"})
    assert cause(run) == "user"


def test_a_letter_from_before_the_launch_asks_nothing_of_it(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ondevice.run.control.time.time", lambda: 1_000.0)
        control.send(run, "stop", sender="long ago")
    tell(run)
    assert cause(run) == "unknown"


def test_many_processes_on_android_and_the_cure(run: RunDir) -> None:
    tell(run)
    sign(run, **PLENTY, processes=20)
    death = examine(run, PHONE)
    assert death is not None and death.cause == "phantom" and CURE_PHANTOM in death.why
    assert cause(run, HERE) == "unknown"
    sign(run, **PLENTY, processes=3)
    death = examine(run, PHONE)
    assert death is not None and death.cause == "unknown" and "cannot be told" in death.why


def test_a_status_of_an_earlier_launch_is_no_sign_of_this_one(run: RunDir) -> None:
    tell(run)
    sign(run, step=90, mem_available_mb=1.0, mem_total_mb=4_000.0)
    tell(run, launch=2, resumed=3, steps=2)
    death = examine(run, HERE)
    assert death is not None
    assert (death.launch, death.cause, death.step, death.phase) == (2, "unknown", 5, "")


@pytest.mark.parametrize(
    ("phase", "lost_steps", "says"),
    [
        ("save", 0, "The last launch was killed at step 3 while saving, because: nothing is lost."),
        ("step", 1, "The last launch was killed at step 3, because: 1 step is done again."),
        ("start", 1200, "The last launch was killed at step 3 while starting, because: 1,200 steps are done again."),
    ],
)
def test_the_line_for_a_person(phase: str, lost_steps: int, says: str) -> None:
    death = Death(launch=1, cause="unknown", why="because", step=3, phase=phase, t=None, evidence={})
    assert death.sentence(lost_steps) == says


def test_what_it_cost(run: RunDir) -> None:
    tell(run, resumed=10, steps=6)
    sign(run, step=17)  # one step more than its story tells
    death = examine(run, HERE)
    assert death is not None and death.step == 17
    assert lost(run, death, resumed_step=12) == (5, 2.0)
    told = previous(run, death, resumed_step=12)
    assert told is not None
    assert {
        "outcome": "killed",
        "cause": "unknown",
        "step": 17,
        "steps_lost": 5,
        "seconds_lost": 2.0,
    }.items() <= told.items()


@pytest.mark.parametrize("damage", [b"", b"\xff\x00garbage", b'{"v":1,"t":1,"kind":"step"'])
def test_a_torn_story_and_a_damaged_status_are_still_a_death(run: RunDir, damage: bytes) -> None:
    run.telemetry.mkdir(exist_ok=True)
    (run.telemetry / "0001.jsonl").write_bytes(damage)
    run.status.write_bytes(damage)
    death = examine(run, HERE)
    assert death is not None and (death.cause, death.step, death.phase) == ("unknown", 0, "")


def test_deaths_in_a_row_that_saved_nothing(run: RunDir) -> None:
    assert fruitless_deaths(run) == 0
    tell(run, launch=1)
    tell(run, launch=2, checkpoint={"bytes": 1})
    assert fruitless_deaths(run) == 0
    tell(run, launch=3)
    tell(run, launch=4)
    assert fruitless_deaths(run) == 2
    tell(run, launch=5, end={"outcome": "stopped"})
    assert fruitless_deaths(run) == 0
    tell(run, launch=6)
    assert fruitless_deaths(run) == 1
