"""The schedule of a chain, ``schedule.json``: each part with its stage, steps, state, tries, checkpoints and results.

A pure fold: `schedule_of` gives it from the recipe and the story, so nothing in it can be lost, and the file is only
there to be read at a glance. The trainer writes it where it changes; ``verify`` compares it with the fold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ondevice.run.files import write_sealed
from ondevice.run.recipe import PartRecipe, Recipe

__all__ = ["FILE", "Part", "Schedule", "chained_hash", "ends_of", "schedule_of", "write_schedule"]

FILE = "schedule.json"
_RESULTS = ("checkpoint_in", "checkpoint_out", "train_s", "loss", "val_loss", "val_loss_mixed", "verified", "chained")
_HEAT = ("max_battery_c", "max_cpu_c", "wh")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part. ``state`` is waiting, training, done or failed; ``tries`` are launches in it that got nowhere."""

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
        """Parts that are done, from the first on."""
        return sum(part.state == "done" for part in self.parts)

    @property
    def current(self) -> Part | None:
        """The first part that is not done; None when all are."""
        return next((part for part in self.parts if part.state != "done"), None)

    @property
    def chained(self) -> str:
        """The end of the chain of hashes over the parts that are done; empty before the first."""
        return next((part.results["chained"] for part in reversed(self.parts) if part.state == "done"), "")

    def to_json(self) -> dict[str, Any]:
        parts = [{**asdict(part), "planned_steps": part.planned_steps} for part in self.parts]
        return {"v": 1, "revision": self.revision, "parts": parts}


def ends_of(parts: Iterable[PartRecipe], *, batch: int, start: int = 0) -> list[int]:
    """The step at which each part is done."""
    ends, windows = [], 0
    for part in parts:
        windows += part.windows
        ends.append(start + windows // batch)
    return ends


def schedule_of(recipe: Recipe, records: Iterable[Mapping[str, Any]]) -> Schedule:
    """The schedule after a story. Later records win: a part that was done and is trained again is done again."""
    parts = _planned(recipe)
    by_name = {part.name: part for part in parts}
    tries = _Tries()
    for record in records:
        tries.see(record)
        if record["kind"] == "part" and (name := record.get("name")) in by_name:
            by_name[name] = _after(by_name[name], record)
    found = [by_name[part.name] for part in parts]
    for index, part in enumerate(found):
        if part.state == "done":
            continue
        training = part.first_step <= tries.reached and tries.begun
        state = part.state if part.state == "failed" else "training" if training else "waiting"
        found[index] = replace(part, state=state, tries=tries.count if training else part.tries)
        break
    return Schedule(revision=len(recipe.revises) + 1, parts=tuple(found))


def _planned(recipe: Recipe) -> list[Part]:
    context, start = recipe.model.context, recipe.train.start_step
    ends = ends_of(recipe.data.parts, batch=recipe.train.batch, start=start)
    firsts = [start, *ends[:-1]]
    return [
        Part(
            index=index,
            name=part.name,
            stage=part.stage,
            tokens=sum(source.windows for source in part.sources) * context,
            sources={source.name: source.windows * context for source in part.sources},
            first_step=first,
            last_step=last,
        )
        for index, (part, first, last) in enumerate(zip(recipe.data.parts, firsts, ends, strict=True))
    ]


def _after(part: Part, record: Mapping[str, Any]) -> Part:
    results = {key: record[key] for key in (*_RESULTS, *_HEAT) if key in record}
    if record.get("outcome") == "done":
        return replace(part, state="done", error=None, results=results)
    return replace(part, state="failed", error=record.get("why"))


class _Tries:
    """Launches in a row that began at the same step and were neither stopped by a person nor saved anything."""

    def __init__(self) -> None:
        self.count, self.reached, self.begun = 0, 0, False
        self._from: int | None = None
        self._parted = False

    def see(self, record: Mapping[str, Any]) -> None:
        kind = record["kind"]
        if kind == "launch":
            step = int(record.get("resumed_step") or 0)
            again = self.begun and step == self._from and not self._parted
            self.count = self.count + 1 if again else 0
            self._from, self._parted, self.begun, self.reached = step, False, True, step
        elif kind == "checkpoint":
            self.reached = max(self.reached, int(record.get("step") or 0))
        elif kind == "end":
            self._parted = record.get("outcome") in ("stopped", "finished")


def chained_hash(before: str, part: Mapping[str, Any]) -> str:
    """The hash that ties a part to the one before: over its plan and the checkpoints it led from and to."""
    body = json.dumps([before, dict(part)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


def write_schedule(folder: Path, schedule: Schedule) -> None:
    """Writes ``schedule.json`` of a run in one instant. Raises ResourceError on a full disk."""
    write_sealed(folder / FILE, schedule.to_json())
