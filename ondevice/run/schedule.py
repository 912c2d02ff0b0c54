"""The schedule of a chain, ``schedule.json``: each part with its stage, steps, state, tries, checkpoints and results.

A pure fold: `Unfolding` makes it of the recipe and the story, so nothing in it can be lost, and the file is only there
to be read at a glance. The trainer writes it where it changes; ``verify`` compares it with the fold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ondevice.errors import UsageError
from ondevice.run.directory import RunDir
from ondevice.run.files import write_sealed
from ondevice.run.recipe import PartRecipe, Recipe

__all__ = [
    "ESSENTIALS",
    "FILE",
    "SCHEDULE_VERSION",
    "SETTLED",
    "Part",
    "Schedule",
    "Unfolding",
    "chain_recipe",
    "chained_hash",
    "ends_of",
    "schedule_of",
    "write_schedule",
]

FILE = "schedule.json"
SCHEDULE_VERSION = 1
SETTLED = ("done", "skipped")
ESSENTIALS = ("index", "name", "stage", "steps", "tokens", "checkpoint_in", "checkpoint_out")  # what is chained
_RESULTS = (
    "checkpoint_in",
    "checkpoint_out",
    "train_s",
    "loss_first",
    "loss",
    "val_loss",
    "val_loss_mixed",
    "stage_loss",
    "verified",
    "chained",
    "max_battery_c",
    "max_cpu_c",
    "wh",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part. ``state`` is waiting, training, done, failed or skipped; ``tries`` are launches that got nowhere in it
    before the one that is at work, ``error`` says why it failed last, or was skipped."""

    index: int
    name: str
    stage: str
    tokens: int
    sources: dict[str, int]  # tokens of each source
    first_step: int
    last_step: int
    state: str = "waiting"
    tries: int = 0
    error: str | None = None
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def planned_steps(self) -> int:
        return self.last_step - self.first_step


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """All parts in order. ``revision`` counts from 1."""

    revision: int
    parts: tuple[Part, ...]

    @property
    def done(self) -> int:
        """How many parts are done."""
        return sum(part.state == "done" for part in self.parts)

    @property
    def current(self) -> Part | None:
        """The first part that is neither done nor skipped; None when all are."""
        return next((part for part in self.parts if part.state not in SETTLED), None)

    @property
    def chained(self) -> str:
        """The end of the chain of hashes over the parts that are done; empty before the first."""
        return next((part.results["chained"] for part in reversed(self.parts) if part.state == "done"), "")

    def to_json(self) -> dict[str, Any]:
        parts = [{**vars(part), "planned_steps": part.planned_steps} for part in self.parts]
        return {"v": SCHEDULE_VERSION, "revision": self.revision, "parts": parts}


def chain_recipe(run: RunDir) -> Recipe:
    """The recipe of a run in parts. Raises UsageError for a run without."""
    recipe = run.read_recipe()
    if not recipe.data.parts:
        raise UsageError(
            f"{run.name}: trained in one go, not in parts; a new run gets parts with `--set chain.parts=30`."
        )
    return recipe


def ends_of(parts: Iterable[PartRecipe], *, batch: int, start: int = 0) -> list[int]:
    """The step at which each part is done."""
    ends, windows = [], 0
    for part in parts:
        windows += part.windows
        ends.append(start + windows // batch)
    return ends


def schedule_of(recipe: Recipe, records: Iterable[Mapping[str, Any]]) -> Schedule:
    """The schedule after a story."""
    unfolding = Unfolding(recipe)
    for record in records:
        unfolding.see(record)
    return unfolding.schedule()


class Unfolding:
    """The fold. Later records win: a part that a launch went back before is not done any more."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._parts = _planned(recipe)
        self._by_name = {part.name: index for index, part in enumerate(self._parts)}
        self._tries = _Tries()

    def see(self, record: Mapping[str, Any]) -> None:
        """Takes a record into account; only `launch`, `checkpoint`, `fit`, `part` and `end` tell of parts."""
        self._tries.see(record)
        kind = record["kind"]
        if kind == "launch":
            self._go_back(int(record.get("resumed_step") or 0))
        elif kind == "part" and record.get("name") in self._by_name:
            self._on_part(self._by_name[record["name"]], record)
        elif kind == "end" and record.get("outcome") == "failed":
            self._fail(record.get("why"))

    def schedule(self) -> Schedule:
        found = list(self._parts)
        current = next((part for part in found if part.state not in SETTLED), None)
        if current is not None:
            training = current.first_step <= self._tries.reached and self._tries.begun
            state = current.state if current.state == "failed" else "training" if training else "waiting"
            tries = self._tries.count if training else 0
            found[current.index] = replace(current, state=state, tries=tries)
        return Schedule(revision=len(self._recipe.revises) + 1, parts=tuple(found))

    @property
    def fruitless(self) -> int:
        """Launches in a row up to the last, which is over, that failed or were killed at the same place."""
        return 0 if self._tries.recipe not in (None, self._recipe.sha256) else self._tries.fruitless

    def is_done(self, index: int) -> bool:
        return self._parts[index].state in SETTLED

    def _go_back(self, step: int) -> None:
        for index, part in enumerate(self._parts):
            if part.state == "failed" or (part.state == "done" and part.last_step > step):
                self._parts[index] = replace(part, state="waiting", results={})

    def _on_part(self, index: int, record: Mapping[str, Any]) -> None:
        part = self._parts[index]
        if part.state == "skipped":
            return
        if record.get("outcome") != "done":
            self._parts[index] = replace(part, state="failed", error=record.get("why"))
            return
        results = {key: record[key] for key in _RESULTS if key in record}
        self._parts[index] = replace(part, state="done", error=None, results=results)

    def _fail(self, why: Any) -> None:
        current = next((part for part in self._parts if part.state not in SETTLED), None)
        if current is not None:
            self._parts[current.index] = replace(current, state="failed", error=str(why) if why else current.error)


def _planned(recipe: Recipe) -> list[Part]:
    context, start = recipe.model.context, recipe.train.start_step
    ends = ends_of(recipe.data.parts, batch=recipe.train.batch, start=start)
    firsts = [start, *ends][: len(ends)]
    return [
        Part(
            index=index,
            name=part.name,
            stage=part.stage,
            tokens=sum(source.windows for source in part.sources) * context,
            sources={source.name: source.windows * context for source in part.sources},
            first_step=first,
            last_step=last,
            state="skipped" if part.skipped else "waiting",
            error=part.skipped or None,
        )
        for index, (part, first, last) in enumerate(zip(recipe.data.parts, firsts, ends, strict=True))
    ]


class _Tries:
    """Launches in a row that failed or died at the same step. A person who starts the run, another recipe or a smaller
    fit is a new beginning."""

    def __init__(self) -> None:
        self.count, self.reached, self.begun = 0, 0, False
        self.recipe: str | None = None
        self._from: int | None = None
        self._ended = ""

    @property
    def fruitless(self) -> int:
        if not self.begun or self._ended in ("stopped", "finished"):
            return 0
        if self.reached == self._from:
            return self.count + 1
        return 1 if self._ended == "failed" else 0  # it saved what it had learned before it failed

    def see(self, record: Mapping[str, Any]) -> None:
        kind = record["kind"]
        if kind == "launch":
            step, recipe = int(record.get("resumed_step") or 0), record.get("recipe_sha256")
            anew = record.get("fresh") is True or recipe != self.recipe or step != self.reached
            self.count = 0 if anew else self.fruitless
            self._from, self._ended, self.begun, self.reached, self.recipe = step, "", True, step, recipe
        elif kind == "checkpoint":
            self.reached = max(self.reached, int(record.get("step") or 0))
        elif kind == "fit" and record.get("step") == self._from:
            self.count = 0
        elif kind == "end":
            self._ended = str(record.get("outcome"))


def chained_hash(before: str, part: Mapping[str, Any]) -> str:
    """The hash that ties a part to the one before: over its plan and the checkpoints it led from and to."""
    body = json.dumps([before, {key: part.get(key) for key in ESSENTIALS}], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


def write_schedule(folder: Path, schedule: Schedule) -> None:
    """Writes ``schedule.json`` of a run in one instant. Raises ResourceError on a full disk."""
    write_sealed(folder / FILE, schedule.to_json())
