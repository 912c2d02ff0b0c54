"""Re-checks what a run was begun with: identity, papers, the chain of its ancestors, where and how it was made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from ondevice.errors import CheckpointError, OndeviceError
from ondevice.run.directory import LAYOUT, RunDir
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.run.papers import lineage_of, paper_faults
from ondevice.run.recipe import Recipe
from ondevice.run.revision import extends, is_unfinished
from ondevice.run.verify_story import Story, launch_records

__all__ = ["doctor_says", "readable_recipe", "stated_identity", "verify_papers"]

_INEXACT = ("torch", "machine")  # what may change the last bits when it differs


def doctor_says(run: RunDir) -> str:
    """The remedy for what can be derived from the rest of the run."""
    return f"`ondevice doctor {run.name}` restores it."


def readable_recipe(run: RunDir) -> Recipe | None:
    """``recipe.json`` where it is what it says it is."""
    try:
        return run.read_recipe()
    except OndeviceError:
        return None


def stated_identity(run: RunDir) -> dict[str, Any] | None:
    """``run.json`` as the newest launch found it; None where none of them says."""
    found = (record.get("identity") for record in launch_records(run))
    return next((identity for identity in found if isinstance(identity, dict)), None)


def verify_papers(run: RunDir, story: Story, now: dict[str, Any]) -> Iterator[Finding]:
    """A finding for each paper, then the lineage, the environment (which is ``now``) and the command."""
    try:
        identity = run.read_identity()
    except CheckpointError as error:  # of a newer layout, or a changed number
        yield damage("run.json", _without_advice(run, error), doctor_says(run))
        identity = {}
    except OndeviceError as error:
        yield damage("run.json", _without_advice(run, error), doctor_says(run))
        identity = {}
    if identity:
        yield from _identity(run, identity, story)
    identity_or_stated = identity or stated_identity(run) or {}
    yield from _papers(run, identity_or_stated)
    if "recipe.json" not in paper_faults(run, identity_or_stated):
        yield from _recipe(run)
    yield from _circumstances(identity, now)


def _without_advice(run: RunDir, error: OndeviceError) -> str:
    said = str(error).removeprefix(f"{run.identity}: ").removeprefix(f"{run.path}: ")
    return re.split(r"(?<=[.;]) ?(?:Repair|repair) it with", said)[0].strip(" ;.")


def _identity(run: RunDir, identity: dict[str, Any], story: Story) -> Iterator[Finding]:
    if identity["layout"] < LAYOUT:
        yield note("run.json", f"of layout {identity['layout']}: much cannot be re-checked", doctor_says(run))
        return
    stated = story.told.identity if story.whole else None
    differs = [key for key in ("id", "papers", "lineage") if stated and stated.get(key) != identity.get(key)]
    if differs == ["papers"] and extends(identity.get("papers"), stated and stated.get("papers")):
        differs = []  # a chain was revised since
    if differs:
        yield damage("run.json", f"not the one its launches found ({', '.join(differs)} differ)", doctor_says(run))
    else:
        yield ok("run.json", f"sealed, layout {identity['layout']}, run {identity.get('id')}")
    parent = identity.get("parent")
    if identity.get("lineage") != lineage_of(parent if isinstance(parent, dict) else None):
        yield damage("run.json", "its lineage is not the hash of its parent", doctor_says(run))
    elif isinstance(parent, dict):
        origin = f"a fork of {parent.get('run')} at step {parent.get('step')}"
        yield ok("run.json", f"{origin}, lineage {str(identity['lineage'])[:16]}")


def _papers(run: RunDir, identity: dict[str, Any]) -> Iterator[Finding]:
    papers = identity.get("papers")
    names = list(papers) if isinstance(papers, dict) else []
    faults = paper_faults(run, identity)
    if "recipe.json" in faults and is_unfinished(run, identity):
        del faults["recipe.json"]
        yield note("recipe.json", "a revision that a crash interrupted", "The next launch completes it.")
    for name in names:
        if name in faults:
            yield damage(name, faults[name].removeprefix(f"{run.path / name}: ").rstrip("."), doctor_says(run))
        else:
            yield ok(name, "as it was when the run was made")
    for path in sorted(run.tokenizer.glob("*")) if names else ():
        if path.relative_to(run.path).as_posix() not in papers and path.is_file():  # type: ignore[operator]
            yield note(path.relative_to(run.path).as_posix(), "not a part of the run's tokenizer", "Delete it.")


def _recipe(run: RunDir) -> Iterator[Finding]:
    try:
        recipe = run.read_recipe()
    except OndeviceError as error:
        yield damage(
            "recipe.json", str(error).removeprefix(f"{run.recipe}: ").split(";")[0].rstrip("."), doctor_says(run)
        )
        return
    yield ok("recipe.json", f"recipe {recipe.sha256[:16]}, {recipe.train.steps:,} steps")


def _circumstances(identity: dict[str, Any], now: dict[str, Any]) -> Iterator[Finding]:
    made = identity.get("environment")
    if isinstance(made, dict):
        named = ", ".join(f"{key} {value}" for key, value in made.items() if value)
        yield ok("", f"made with {named}")
        for key, value in made.items():
            if value is not None and value != now.get(key):
                matters = "; what is learned from here on may differ in the last bits" if key in _INEXACT else ""
                yield note("", f"{key} is {now.get(key) or 'missing'} now, was {value} when the run was made{matters}")
    command = identity.get("command")
    if isinstance(command, list) and command:
        yield ok("", f"command: {shlex.join(str(word) for word in command)}")
