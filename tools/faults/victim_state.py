"""What a person could tell of a victim's folder, and whether a fault may have left it like that.

Everything is read through the program's own readers; a checkpoint's content is compared with what `victim.content`
says was written, so that a wrong one that verifies is noticed too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, OndeviceError
from ondevice.run.audit import audit_file
from ondevice.run.config import read_limits
from ondevice.run.control import pending
from ondevice.run.create import create_run
from ondevice.run.directory import RunDir, list_runs, offline_lock
from ondevice.run.liveness import read_status
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import launch_files, read_file

from .victim import FIT, RECIPE, content, do, save

__all__ = ["State", "Verdict", "differences", "goes_on", "judge", "read_state"]

_LAST_STEP = 99


@dataclass
class State:
    """``checkpoints``: by step, the hash and whether it is complete; ``wrong``: what must never be found."""

    runs: tuple[str, ...] = ()
    checkpoints: dict[int, tuple[str, bool]] = field(default_factory=dict)
    pins: dict[int, str] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    limits: Any = None
    story: dict[str, list[Any]] = field(default_factory=dict)
    letters: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def read_state(root: Path) -> State:
    """The state of the first run of a folder, which may have another name by now."""
    state = State(runs=tuple(run.name for run in list_runs(root)))
    names = [name for name in state.runs if name != "second"]
    if not names:
        return state
    run = RunDir(root / names[0])
    try:
        _read_run(run, state)
    except OndeviceError as error:
        state.wrong.append(f"unreadable: {error}")
    return state


def _read_run(run: RunDir, state: State) -> None:
    run.read_identity()
    run.read_recipe()
    _read_checkpoints(Store(run.checkpoints), state)
    if os.path.lexists(run.status):
        state.status = read_status(run)
        if not state.status:
            state.wrong.append("the status is damaged")
    if os.path.lexists(run.limits):
        state.limits = read_limits(run.limits)
    for path in launch_files(run.telemetry):
        state.story[path.name] = [(record["step"], record["loss"]) for record in read_file(path)]
        state.wrong += audit_file(path).faults
    state.letters = sorted(letter.verb or letter.fault for letter in pending(run))


def _read_checkpoints(store: Store, state: State) -> None:
    state.pins = store.pins()
    for step in store.steps():
        try:
            checkpoint = store.open(step)
        except CheckpointError as error:
            state.wrong.append(f"a broken checkpoint looks whole: {error}")
            continue
        state.checkpoints[step] = (checkpoint.sha256, checkpoint.complete)
        state.silent += differences(checkpoint)


def differences(checkpoint: Checkpoint) -> list[str]:
    """Files of a verified checkpoint that are not what was written."""
    paths = [checkpoint.path / name for name in checkpoint.files]
    changed = [path for path in paths if path.read_bytes() != content(path.name, checkpoint.step)]
    return [f"{path}: verifies, and is not what was written" for path in changed]


@dataclass
class Verdict:
    """``losses``: broken promises in words; ``silent``: wrong content that verifies."""

    losses: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def judge(old: State, new: State, found: State, *, ended: int, said: str) -> Verdict:
    """Old or new, thing by thing. ``ended``: the exit code, negative for a kill; ``said``: what it wrote to stderr."""
    losses = [*found.wrong, *_mixed(old, new, found, ended)]
    losses += [f"checkpoint {step}: neither old nor new" for step in _strange(old, new, found)]
    if found.runs and sum(complete for _, complete in found.checkpoints.values()) < 2:
        losses.append("fewer than two complete checkpoints are left")
    if ended == 0 and not _same(found, new):
        losses.append("it ended as if it had succeeded, and nothing is new")
    if ended > 0 and not _is_sentence(said):
        losses.append(f"not an error for a person (exit {ended}): {said[-300:]!r}")
    return Verdict(losses, found.silent)


def _mixed(old: State, new: State, found: State, ended: int) -> Iterator[str]:
    for name in ("runs", "pins", "status", "limits", "letters"):
        value = getattr(found, name)
        if value not in (getattr(old, name), getattr(new, name)) and found.runs:
            yield f"{name}: neither old nor new: {value}"
    for file, records in found.story.items():
        whole = new.story.get(file) or old.story.get(file, [])
        part = records == whole[: len(records)] if ended < 0 else _is_part(records, whole)
        if not part or not _is_part(old.story.get(file, []), records):
            yield f"telemetry/{file}: not a part of what was written: {records}"


def _strange(old: State, new: State, found: State) -> list[int]:
    steps = found.checkpoints.keys() | old.checkpoints.keys() if found.runs else set()
    allowed = {step: (old.checkpoints.get(step), new.checkpoints.get(step)) for step in steps}
    return [step for step in sorted(steps) if found.checkpoints.get(step) not in allowed[step]]


def _is_part(part: list[Any], whole: list[Any]) -> bool:
    """Whether ``part`` is ``whole`` with some items left out."""
    rest = iter(whole)
    return all(item in rest for item in part)


def _same(one: State, other: State) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("runs", "checkpoints", "pins", "status", "limits", "story", "letters")
    )


def _is_sentence(said: str) -> bool:
    return len(said.splitlines()) == 1 and said.rstrip().endswith(".") and "Traceback" not in said


def goes_on(act: str, root: Path, new: State) -> list[str]:
    """Repeats the act without a fault, then saves and makes another run as usual; gives what is wrong after that."""
    _make_old(root)
    try:
        do(act, root)
        wrong = [] if _equivalent(read_state(root), new) else ["a repetition without a fault ends in another state"]
        wrong += _tidy(root)
    except OndeviceError as error:
        return [f"a repetition without a fault fails: {error}"]
    return wrong


def _make_old(root: Path) -> None:
    """Litter that another process may still be writing is left alone for an hour: the hour passes."""
    for path in [root, *root.rglob("*")]:
        if path.name.startswith((".tmp-", ".ondevice-")):
            os.utime(path, (0, 0))


def _equivalent(found: State, new: State) -> bool:
    """Equal, but a story is told again in a file of its own and a letter is sent again."""
    found.story = {"last": found.story[max(found.story)]} if found.story else {}
    found.letters = sorted(set(found.letters))
    expected = State(**{**vars(new), "story": {"last": new.story[max(new.story)]} if new.story else {}})
    return _same(found, expected) and not found.wrong


def _tidy(root: Path) -> Iterator[str]:
    """What is left after the next save and the next new run that should have been swept away."""
    create_run(root / "next", config_toml="", recipe=RECIPE, fit=FIT, save_tokenizer=lambda folder: folder.mkdir())
    for run in list_runs(root):
        with offline_lock(run, what="test"):
            save(Store(run.checkpoints), _LAST_STEP)
            Store(run.checkpoints).open(_LAST_STEP)
    light = {run.checkpoints / "step-00000001" / "optimizer.safetensors" for run in list_runs(root) if _is_light(run)}
    for path in root.rglob("*"):
        if path.name.startswith((".tmp-", ".ondevice-")) or path in light:
            yield f"litter: {path.relative_to(root)}"


def _is_light(run: RunDir) -> bool:
    store = Store(run.checkpoints)
    return 1 in store.steps() and not store.open(1).complete
