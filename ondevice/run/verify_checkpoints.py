"""Re-checks every checkpoint of a run: its bytes, its place in the life of the run, and that none is missing.

Holds a lease on each while it is hashed, so that a live trainer neither removes nor lightens it meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.files import read_json
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.run.manifest import MANIFEST, Checkpoint
from ondevice.run.recipe import Recipe
from ondevice.run.store import Store
from ondevice.run.verify_story import Story

__all__ = ["DAMAGED", "Examined", "examine", "headless", "missing_steps", "verify_checkpoints"]

DAMAGED = "damaged"  # where doctor puts what it takes out of the way
_SET_ASIDE = re.compile(r"[0-9]{8}-[0-9]{6}-step-([0-9]+)(\.[0-9]+)?")
_FEWEST = 2


@dataclass
class Examined:
    """One checkpoint. ``faults`` are halves of sentences; without any it is sound. ``notes`` are no faults.

    ``doubts``: its bytes are right and something else is not, or it cannot be told which of two is wrong.
    ``checkpoint`` is None where it is not what its manifest says.
    """

    step: int
    path: Path
    checkpoint: Checkpoint | None = None
    faults: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.faults

    @property
    def complete(self) -> bool:
        """Whether training can go on from it."""
        return self.sound and self.checkpoint is not None and self.checkpoint.complete


def examine(run: RunDir, story: Story, recipe: Recipe | None) -> list[Examined]:
    """Every checkpoint that is there, oldest first, each byte read. Raises CheckpointError when none can be listed."""
    store, found = Store(run.checkpoints), []
    for step in store.steps():
        examined = Examined(step, store.path(step))
        try:
            with store.lease(step) as checkpoint:
                examined.checkpoint = checkpoint
                _check_state(checkpoint, recipe, examined)
                examined.notes += _strangers(checkpoint)
        except OndeviceError as error:
            if not os.path.lexists(store.path(step) / MANIFEST):
                continue  # pruned meanwhile
            examined.faults.append(_inside(run, error))
        found.append(examined)
    for each in found:
        _check_place(each, story)
    _check_chain(found, story)
    return found


def _inside(run: RunDir, error: OndeviceError) -> str:
    return str(error).replace(f"{run.checkpoints}{os.sep}", "").rstrip(".")


def _check_state(checkpoint: Checkpoint, recipe: Recipe | None, examined: Examined) -> None:
    stated = checkpoint.facts.get("recipe_sha256")
    if recipe is not None and not recipe.made(stated):
        examined.faults.append("made by another recipe than recipe.json")
    if "state.json" not in checkpoint.files:
        return  # not of a trainer
    state = read_json(checkpoint.path / "state.json")
    kept = state.get("recipe") if isinstance(state, dict) else None
    if isinstance(kept, dict) and kept.get("sha256") != stated:
        examined.faults.append("its state.json holds another recipe than its manifest names")
    if isinstance(state, dict) and state.get("step", checkpoint.step) != checkpoint.step:
        examined.faults.append(f"its state.json is of step {state['step']}")


def _strangers(checkpoint: Checkpoint) -> list[str]:
    known = {MANIFEST, *checkpoint.files}
    return [
        f"{path.name} is left from an interrupted change"
        if path.name in checkpoint.dropped or path.name.startswith(".tmp-")
        else f"{path.name} does not belong there"
        for path in sorted(checkpoint.path.iterdir())
        if path.name not in known
    ]


def _check_place(examined: Examined, story: Story) -> None:
    """Whether it is the checkpoint that the story tells of."""
    checkpoint = examined.checkpoint
    if checkpoint is None:
        return
    recorded = story.told.checkpoints.get(examined.step)
    if recorded is not None and recorded != checkpoint.sha256:
        examined.faults.append("intact, but not the one that was saved here: the story has another hash")
    place = story.place(checkpoint.facts.get("telemetry"))
    blamed = examined.faults if story.whole else examined.doubts
    if place == "ahead":
        blamed.append("ahead of its story: the telemetry from before it was saved is not all there")
    elif place == "foreign":
        blamed.append("saved after another story than the telemetry that is here")


def _check_chain(found: list[Examined], story: Story) -> None:
    """Each names the one before it; where that is there, it must be the same."""
    by_step = {each.step: each for each in found if each.checkpoint is not None}
    for each in by_step.values():
        previous = each.checkpoint.facts.get("previous") if each.checkpoint else None
        if not isinstance(previous, dict):
            continue
        before = by_step.get(previous.get("step", -1))
        if before is None or before.checkpoint is None or before.checkpoint.sha256 == previous.get("sha256"):
            continue
        told, text = _is_told(each, story), f"another checkpoint of step {before.step} than the one that is here"
        if told == _is_told(before, story):
            each.doubts.append(f"came after {text}")
        elif told and before.sound:
            before.faults.append(f"not the one that the checkpoint of step {each.step} came after")
        elif not told and each.sound:
            each.faults.append(f"came after {text}")


def _is_told(each: Examined, story: Story) -> bool:
    return each.checkpoint is not None and story.told.checkpoints.get(each.step) == each.checkpoint.sha256


def verify_checkpoints(run: RunDir, story: Story, recipe: Recipe | None, now: dict[str, Any]) -> Iterator[Finding]:
    """A finding for each checkpoint that is there or should be. ``now`` is the present environment."""
    try:
        found = examine(run, story, recipe)
    except OndeviceError as error:
        yield damage("checkpoints", str(error))
        return
    whole = any(each.complete for each in found)
    for each in found:
        yield from _findings(run, each, whole=whole)
    yield from _halves(run, story, found)
    yield from _missing(run, story, found)
    yield from _exactness(found, now.get("torch"))


def _findings(run: RunDir, each: Examined, *, whole: bool) -> Iterator[Finding]:
    name = f"checkpoints/{each.path.name}"
    remedy = (
        f"`ondevice doctor {run.name}` sets it aside; training goes on from another."
        if whole
        else "No checkpoint is left to go on from; copy one back from a backup."
    )
    for fault in each.faults:
        yield damage(name, fault, remedy)
    for doubt in each.doubts:
        yield damage(name, doubt, "Its own bytes are right, and training may go on from it.")
    for text in each.notes:
        yield note(name, text)
    if each.sound and each.checkpoint is not None:
        light = "" if each.checkpoint.complete else ", light (no optimizer state)"
        yield ok(name, f"every byte as saved{light}, {each.checkpoint.sha256[:16]}")


def _halves(run: RunDir, story: Story, found: list[Examined]) -> Iterator[Finding]:
    """Folders without a manifest: half-pruned, unless the story says that the checkpoint is there."""
    for step in headless(run):
        if step in missing_steps(run, story, found):
            text = "its manifest is gone"
            yield damage(f"checkpoints/{Store(run.checkpoints).path(step).name}", text, _aside(run))
        else:
            text = "half-pruned; the next launch removes it"
            yield note(f"checkpoints/{Store(run.checkpoints).path(step).name}", text)


def _aside(run: RunDir) -> str:
    return f"`ondevice doctor {run.name}` sets it aside."


def headless(run: RunDir) -> list[int]:
    """Steps that have a folder with files and no manifest."""
    store, steps = Store(run.checkpoints), []
    with suppress(OSError):
        for path in sorted(run.checkpoints.glob("step-*")):
            digits = path.name.removeprefix("step-")
            if digits.isdecimal() and path == store.path(int(digits)) and path.is_dir() and not path.is_symlink():
                steps += [int(digits)] if not os.path.lexists(path / MANIFEST) else []
    return steps


def missing_steps(run: RunDir, story: Story, found: list[Examined]) -> list[int]:
    """Steps whose checkpoint the story says is there and is not, where no prune can be the reason.

    A prune tells of itself with the save it belongs to, and takes nothing but what is older than two complete ones.
    """
    if not story.whole:
        return []
    there = {each.step for each in found}
    gone = sorted(set(story.told.checkpoints) - there - set_aside(run))
    untold = story.told.made_room or max(there, default=0) > max(story.told.checkpoints, default=0)
    newest = sorted(each.step for each in found if each.complete)[-_FEWEST:]
    if untold and len(newest) == _FEWEST:
        gone = [step for step in gone if step > newest[0]]
    return gone


def set_aside(run: RunDir) -> set[int]:
    """Steps of damaged checkpoints that doctor took out of the way."""
    with suppress(OSError):
        names = (_SET_ASIDE.fullmatch(path.name) for path in (run.path / DAMAGED).iterdir())
        return {int(match[1]) for match in names if match}
    return set()


def _missing(run: RunDir, story: Story, found: list[Examined]) -> Iterator[Finding]:
    for step in missing_steps(run, story, found):
        name = f"checkpoints/{Store(run.checkpoints).path(step).name}"
        if step in headless(run):
            continue
        if story.copied:
            yield note(name, "stayed behind when the run was copied here")
        else:
            yield damage(name, "gone, and nothing says that it was pruned", "Copy it back from a backup.")
    for step in sorted(set_aside(run)):
        yield note(DAMAGED, f"the damaged checkpoint of step {step} was set aside", "Delete it when it is not needed.")


def _exactness(found: list[Examined], now: str | None) -> Iterator[Finding]:
    newest: Any = next((each.checkpoint for each in reversed(found) if each.complete), None)
    was = newest.facts.get("torch_version") if newest else None
    if was and now and was != now:
        yield note("", f"torch is {now} now, the newest checkpoint was saved with {was}: going on is not bit-exact")
