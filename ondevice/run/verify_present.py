"""Re-checks what holds now (status, limits, pins, scores) against the story, and that nothing strange lies in a run.

A change that no trainer told of states how far the story went (``after``): as long as the story ends there, it is
newer than all that was told. Scores are judged by their seal alone, since they may be deleted and made again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run import control
from ondevice.run.config import LIMITS_VERSION, read_wish
from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.files import read_sealed
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.run.liveness import STATUS_VERSION
from ondevice.run.quality import QUALITY_FILE, read_quality
from ondevice.run.remembered import read_remembered
from ondevice.run.store import PINS_VERSION, Store
from ondevice.run.verify_checkpoints import DAMAGED
from ondevice.run.verify_papers import doctor_says
from ondevice.run.verify_story import Story
from ondevice.run.verify_told import apply_limits, apply_pin

__all__ = ["began_with", "limits_fault", "litter", "pins_fault", "status_fault", "strange", "verify_present"]


def verify_present(run: RunDir, story: Story) -> Iterator[Finding]:
    """A finding for each of these files, then for what does not belong into a run."""
    for name, fault in (
        ("status.json", status_fault(run, story)),
        ("limits.json", limits_fault(run, story)),
        ("checkpoints/pins.json", pins_fault(run, story)),
    ):
        if fault:
            yield damage(name, fault, doctor_says(run))
        elif (run.path / name).exists():
            yield ok(name, "sealed, and as the story tells")
    if fault := _quality_fault(run):
        yield damage(f"evals/{QUALITY_FILE}", fault)
    elif (run.evals / QUALITY_FILE).exists():
        yield ok(f"evals/{QUALITY_FILE}", "sealed")
    yield from _remembered(run)
    yield from _lost_pins(run)
    yield from strange(run)


def _inside(run: RunDir, error: OndeviceError) -> str:
    return str(error).replace(f"{run.path}{os.sep}", "").rstrip(".")


def status_fault(run: RunDir, story: Story) -> str:
    """What is wrong with ``status.json``; empty where nothing is."""
    told = story.told
    if not os.path.lexists(run.status):
        return "gone, though the last launch wrote one" if told.has_steps and not story.copied else ""
    try:
        read_sealed(run.status, version=STATUS_VERSION)
    except OndeviceError as error:
        return _inside(run, error)
    position = story.status.get("telemetry")
    if not story.whole or not isinstance(position, dict):
        return ""
    if story.place(position) != "covered":
        return "not of this story: it knows another one"
    if told.has_steps and position["launch"] != told.launch:
        return f"of launch {position['launch']}, while launch {told.launch} has made steps"
    if "step_s" in (told.ended or {}) and position != story.end and lock_holder(run) is None:
        return "older than the end of the run, after which it was written"
    return ""


def limits_fault(run: RunDir, story: Story) -> str:
    """What is wrong with ``limits.json``; empty where nothing is."""
    told = story.told.limits if story.whole else None
    if not os.path.lexists(run.limits):
        if told is None or not (story.told.asked_limits or _differs(began_with(run), told)):
            return ""
        return "gone, though limits were changed" if not _is_asked(run, "limit") else ""
    try:
        raw = read_sealed(run.limits, version=LIMITS_VERSION)
    except OndeviceError as error:
        return _inside(run, error)
    if told is None or _is_newer(raw, story):
        return ""
    as_told = any(not _differs(raw, expected) for expected in _with_letters(run, "limit", told, apply_limits))
    return "" if as_told else "not the limits that the story tells of"


def began_with(run: RunDir) -> Mapping[str, Any] | None:
    """The limits of ``config.toml``; None where it cannot be read."""
    try:
        return vars(read_wish(run.config).limits)
    except OndeviceError:
        return None


def _differs(found: Mapping[str, Any] | None, told: Mapping[str, Any]) -> bool:
    """Keys that only one program version knows do not count."""
    return found is not None and any(found[key] != told[key] for key in found.keys() & told.keys())


def pins_fault(run: RunDir, story: Story) -> str:
    """What is wrong with ``pins.json``; empty where nothing is."""
    told, path = story.told.pins if story.whole else None, run.checkpoints / "pins.json"
    try:
        Store(run.checkpoints).pins()
        raw = read_sealed(path, version=PINS_VERSION) if os.path.lexists(path) else {"pins": {}}
    except OndeviceError as error:
        return _inside(run, error).split(" Restore it")[0].rstrip(".")
    if told is None or _is_newer(raw, story):
        return ""
    if raw["pins"] in _with_letters(run, "pin", told, apply_pin):
        return ""
    lost = sorted(told.keys() - raw["pins"].keys(), key=int)
    return (
        f"step {lost[0]} is no longer pinned, and nobody unpinned it"
        if lost
        else "not the pins that the story tells of"
    )


def _is_newer(raw: Mapping[str, Any], story: Story) -> bool:
    """Whether it was changed while no trainer lived, and none has lived since."""
    return raw.get("after") is not None and raw["after"] == story.end


def _is_asked(run: RunDir, verb: str) -> bool:
    return any(letter.verb == verb for letter in control.pending(run))


def _with_letters(
    run: RunDir, verb: str, told: Mapping[str, Any], apply: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """What was told, and what it becomes by letters that may be obeyed already and are not answered yet."""
    yield told
    for letter in control.pending(run):
        if letter.verb == verb:
            told = apply(told, letter.args)
            yield told


def _quality_fault(run: RunDir) -> str:
    try:
        read_quality(run.evals)
    except OndeviceError as error:
        return _inside(run, error)
    return ""


def _remembered(run: RunDir) -> Iterator[Finding]:
    """Nothing depends on it, so damage to it is none to the run."""
    try:
        if read_remembered(run) is not None:
            yield ok(run.governor.name, "sealed; derived, nothing that is learned depends on it")
    except OndeviceError as error:
        yield note(run.governor.name, _inside(run, error), "The next launch leaves it aside and writes its own.")


def _lost_pins(run: RunDir) -> Iterator[Finding]:
    store = Store(run.checkpoints)
    try:
        pins, steps = store.pins(), store.steps()
    except OndeviceError:
        return
    for step in sorted(set(pins) - set(steps)):
        yield note("checkpoints/pins.json", f"step {step} is pinned ({pins[step]}) and has no checkpoint")


def litter(run: RunDir) -> list[Path]:
    """Files that killed writers left, where no writer is at work."""
    if lock_holder(run) is not None:
        return []
    folders = (run.path, run.checkpoints, run.telemetry, run.evals, run.tokenizer)
    return sorted(path for folder in folders for path in folder.glob(".tmp-*") if not path.is_symlink())


def strange(run: RunDir) -> Iterator[Finding]:
    """What does not belong into a run, whoever put it there."""
    for path in litter(run):
        yield note(path.relative_to(run.path).as_posix(), "left by a writer that was killed", doctor_says_away(run))
    for root, folders, names in os.walk(run.path):
        folders[:] = [name for name in folders if os.path.join(root, name) != str(run.path / DAMAGED)]
        for name in [*folders, *names]:
            path = Path(root) / name
            text = _not_a_file(path)
            if text:
                yield damage(
                    path.relative_to(run.path).as_posix(), text, "Put the file itself in its place, or delete it."
                )
    mode = stat.S_IMODE(run.path.stat().st_mode)
    if mode & 0o077:
        yield note("", f"others may enter this folder (mode {mode:o})", f"`chmod 700 {run.path}` keeps it private.")


def doctor_says_away(run: RunDir) -> str:
    return f"`ondevice doctor {run.name}` removes it."


def _not_a_file(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except OSError:  # gone meanwhile
        return ""
    if stat.S_ISLNK(mode):
        return "a symbolic link; everything of a run must lie inside it"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "neither a file nor a folder"
