"""Post-mortem: was the last launch killed, how far had it come, and what probably killed it?

Judged from the papers alone (telemetry, the status of the last second, unanswered letters) and from a `Scene`, which is
what the system says now; reading that is ``ondevice.device.vitals``' business. SIGKILL leaves no name: where nothing
points anywhere the cause is "unknown", in honest words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from ondevice.run import control
from ondevice.run.directory import RunDir, boot_id, lock_holder
from ondevice.run.liveness import read_status
from ondevice.run.telemetry import as_number, launch_files, launch_number, read_file

__all__ = [
    "ANDROID_SHARE",
    "CAUSES",
    "CURE_PHANTOM",
    "Death",
    "Scene",
    "examine",
    "fruitless_deaths",
    "lost",
    "previous",
]

CAUSES = ("memory", "power", "user", "phantom", "unknown")
CURE_PHANTOM = "Developer options > Disable child process restrictions"

LOW = 0.08  # of all memory: with less available the system begins to kill
NEAR_LIMIT = 0.9
ANDROID_SHARE = 0.35  # of all memory for one app: beyond this Android may kill it
MANY_PROCESSES = 16  # of ours; Android 12 and later allow 32 to all apps together
_CLOCKS_APART_S = 2.0  # the kernel's log and ours
_DOING = {
    "start": " while starting",
    "evaluate": " while evaluating",
    "sample": " while writing a sample",
    "save": " while saving",
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the system says when a dead launch is found; None where it does not tell.

    ``oom_kills`` counts what the kernel killed for want of memory in ``memory_group``; ``victims`` are the process
    numbers in the kernel's log, with the time since boot.
    """

    boot_id: str | None = None
    boottime_s: float | None = None
    memory_group: str | None = None
    oom_kills: int | None = None
    victims: Mapping[int, float] = field(default_factory=dict)
    android: bool = False


@dataclass(frozen=True, kw_only=True)
class Death:
    """A launch that ended without a word. ``cause`` is one of `CAUSES`, ``why`` a part of a sentence.

    ``step`` was the last one known to be done; ``t`` (unix seconds) the last sign of life; ``phase`` what it was doing
    then, "" where unknown.
    """

    launch: int
    cause: str
    why: str
    step: int
    phase: str
    t: float | None
    evidence: dict[str, Any]

    def __str__(self) -> str:
        return f"killed at step {self.step:,}{_DOING.get(self.phase, '')}, {self.why}"

    def sentence(self, steps_lost: int) -> str:
        """What a person is told when the run goes on."""
        few = {0: "nothing is lost", 1: "1 step is done again"}
        return f"The last launch was {self}: {few.get(steps_lost, f'{steps_lost:,} steps are done again')}."


@dataclass
class _Story:
    """What the telemetry of one launch holds that matters here."""

    launch: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    saved: bool = False
    step: int = 0
    last_t: float | None = None
    stopped_by: str = ""
    told: dict[str, Any] = field(default_factory=dict)  # a note that names a cause


def _read_story(path: Path) -> _Story:
    story = _Story()
    for record in read_file(path):
        kind = record["kind"]
        story.step, story.last_t = max(story.step, record["step"]), record["t"]
        if kind == "launch":
            story.launch = record
        elif kind == "end":
            story.end = record
        elif kind == "checkpoint":
            story.saved = True
        elif kind == "control" and record.get("verb") == "stop" and record.get("ok"):
            story.stopped_by = str(record.get("from") or "a letter")
        elif kind == "note" and record.get("cause") in CAUSES:
            story.told = record
    return story


def examine(run: RunDir, scene: Scene | None = None, *, held: bool = False) -> Death | None:
    """How the last launch died; None if it ended with a word, still lives, or there was none.

    ``held``: the caller itself holds the lock. Raises DataError when the telemetry is of a newer version.
    """
    files = launch_files(run.telemetry)
    if not files or (not held and lock_holder(run) is not None):
        return None
    story = _read_story(files[-1])
    if story.end is not None:
        return None
    number = launch_number(files[-1])
    status = read_status(run)
    signs = status if status.get("launch") == number else {}
    scene = scene or Scene(boot_id=boot_id())
    cause, why = _judge(run, story, signs, scene)
    step = signs.get("step")
    return Death(
        launch=number,
        cause=cause,
        why=why,
        step=max(story.step, step if type(step) is int else 0),
        phase=str(signs.get("phase") or ""),
        t=as_number(signs.get("heartbeat_t")) or story.last_t,
        evidence=_evidence(story, signs, scene),
    )


def _judge(run: RunDir, story: _Story, signs: dict[str, Any], scene: Scene) -> tuple[str, str]:
    """The cause, and why. What was seen comes before what is likely."""
    if story.told:
        return str(story.told["cause"]), str(story.told.get("why") or story.told.get("text") or "as it said itself")
    memory = _memory(signs, scene)
    if why := _restarted(story, signs, scene):
        return "power", why + (f" (before that, {memory})" if memory else "")
    if _named(signs, scene):
        return "memory", "for want of memory: the kernel's log says so" + (f" ({memory})" if memory else "")
    if why := _counted(signs, scene):
        return "memory", why + (f" ({memory})" if memory else "")
    if memory:
        return "memory", f"probably for want of memory ({memory})"
    if by := story.stopped_by or _asked_to_stop(run, story):
        return "user", f"after it had been asked to stop ({by}) and before it had saved"
    return _nobody(signs, scene)


def _restarted(story: _Story, signs: dict[str, Any], scene: Scene) -> str:
    """Whether the system began anew since: by its own name for this boot, or a clock that counts from there."""
    before = story.launch.get("boot_id") or signs.get("boot_id")
    sign_s = as_number(signs.get("boottime_s"))
    differs = bool(before and scene.boot_id and before != scene.boot_id)
    behind = sign_s is not None and scene.boottime_s is not None and scene.boottime_s < sign_s
    return "by a loss of power or a restart of the device" if differs or behind else ""


def _named(signs: dict[str, Any], scene: Scene) -> bool:
    """Whether the kernel's log has the process, killed after its last sign of life; numbers are used again."""
    pid, sign_s = signs.get("pid"), as_number(signs.get("boottime_s"))
    killed_s = scene.victims.get(pid) if type(pid) is int else None
    return killed_s is not None and sign_s is not None and killed_s >= sign_s - _CLOCKS_APART_S


def _counted(signs: dict[str, Any], scene: Scene) -> str:
    before = as_number(signs.get("oom_kills"))
    if before is None or scene.oom_kills is None or signs.get("memory_group") != scene.memory_group:
        return ""
    return "for want of memory: its memory group has lost a process to it since" if scene.oom_kills > before else ""


def _memory(signs: dict[str, Any], scene: Scene) -> str:
    """What in the last sign of life speaks for a lack of memory; "" where nothing does."""
    rss, peak, free, total, limit = (
        as_number(signs.get(key))
        for key in ("rss_mb", "peak_rss_mb", "mem_available_mb", "mem_total_mb", "memory_limit_mb")
    )
    held = max(rss or 0.0, peak or 0.0)
    if free is not None and total and free < LOW * total:
        return f"{free:,.0f} of {total:,.0f} MB were free" + (f", {held:,.0f} MB were its own" if held else "")
    if limit and held >= NEAR_LIMIT * limit:
        return f"it held {held:,.0f} MB of the {limit:,.0f} MB it is allowed"
    if scene.android and total and held > ANDROID_SHARE * total:
        return f"it held {held:,.0f} of {total:,.0f} MB, more than Android lets an app have"
    return ""


def _asked_to_stop(run: RunDir, story: _Story) -> str:
    """Who left a letter that asked the dead launch to stop, and got no answer."""
    began_t = as_number(story.launch.get("t")) or 0.0
    return next((x.sender or "a letter" for x in control.pending(run) if x.verb == "stop" and x.t >= began_t), "")


def _nobody(signs: dict[str, Any], scene: Scene) -> tuple[str, str]:
    """Memory was not short, the system went on, and nobody had asked."""
    if not scene.android:
        return "unknown", "by whom cannot be told (`kill -9`, the system or a crash; memory was not seen to be short)"
    processes = as_number(signs.get("processes"))
    if processes is not None and processes >= MANY_PROCESSES:
        return "phantom", (
            f"probably because {processes:.0f} processes ran: Android 12 and later kill child processes beyond 32 "
            f"(cure: {CURE_PHANTOM})"
        )
    return "unknown", (
        "by whom cannot be told (Android's battery saver, its limit on child processes or a person; should it happen "
        f"often: {CURE_PHANTOM}, and battery use of Termux unrestricted)"
    )


def _evidence(story: _Story, signs: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """What the judgement rests on, for the record."""
    names = ("rss_mb", "peak_rss_mb", "mem_available_mb", "mem_total_mb", "memory_limit_mb", "oom_kills", "processes")
    found = {name: signs[name] for name in names if name in signs}
    found |= {"boot_id": story.launch.get("boot_id") or signs.get("boot_id"), "boot_id_now": scene.boot_id}
    return found | ({"oom_kills_now": scene.oom_kills} if scene.oom_kills is not None else {})


def lost(run: RunDir, death: Death, *, resumed_step: int) -> tuple[int, float]:
    """Steps that a death cost, and the seconds of training they took."""
    path = run.telemetry / f"{death.launch:04d}.jsonl"
    seconds = sum(
        as_number(record.get("step_s")) or 0.0
        for record in read_file(path)
        if record["kind"] == "step" and record["step"] > resumed_step
    )
    return max(0, death.step - resumed_step), round(seconds, 3)


def previous(run: RunDir, death: Death | None, *, resumed_step: int) -> dict[str, Any] | None:
    """What a ``launch`` record says of the launch before it; None for the first."""
    files = launch_files(run.telemetry)
    if not files:
        return None
    if death is None:
        story = _read_story(files[-1])
        end = story.end or {}
        return {
            "launch": launch_number(files[-1]),
            "outcome": end.get("outcome"),
            "why": end.get("why"),
            "step": story.step,
        }
    steps_lost, seconds_lost = lost(run, death, resumed_step=resumed_step)
    return {
        "launch": death.launch,
        "outcome": "killed",
        "cause": death.cause,
        "why": death.why,
        "step": death.step,
        "phase": death.phase,
        "last_t": death.t,
        "steps_lost": steps_lost,
        "seconds_lost": seconds_lost,
        "evidence": death.evidence,
    }


def fruitless_deaths(run: RunDir) -> int:
    """How many launches in a row, up to the last, were killed before they saved anything.

    Raises DataError when the telemetry is of a newer version.
    """
    return sum(1 for _ in takewhile(_is_fruitless, _stories(run)))


def _stories(run: RunDir) -> Iterator[_Story]:
    return (_read_story(path) for path in reversed(launch_files(run.telemetry)))


def _is_fruitless(story: _Story) -> bool:
    return story.end is None and not story.saved
