"""What a run's papers and telemetry say of how its model was made: data, order, losses, time and energy.

For model cards. Only what was recorded; what was not is None.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, home
from ondevice.run.recipe import Recipe
from ondevice.run.telemetry import as_number, read_records

__all__ = ["Ancestor", "Source", "Story", "energy_wh", "read_story"]

_LONGEST_GAP_S = 120.0  # readings come every 30 s; what lies in a longer gap is not known


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source at the evaluation that belongs to the model; losses in nats per token."""

    name: str
    weight: float
    val_loss: float | None
    bits_per_byte: float | None
    trained_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A run that this one was forked from, up to the fork; ``hours`` None where it is not on this machine."""

    run: str
    step: int
    hours: float | None
    energy_wh: float | None


@dataclass(frozen=True, kw_only=True)
class Story:
    """A model's making up to ``step``. ``energy_wh`` is integrated from readings of the battery's power. What the
    ``ancestors`` spent, the nearest first, is not in ``hours`` and ``energy_wh``."""

    run: str
    run_id: str
    step: int
    recipe: Recipe
    sources: tuple[Source, ...]
    eval_step: int | None
    val_loss: float | None
    train_loss: float | None
    tokens: int | None
    hours: float
    energy_wh: float | None
    machine: str
    torch: str
    checkpoint_sha256: str
    ancestors: tuple[Ancestor, ...] = ()


def read_story(run: RunDir, *, step: int, checkpoint_sha256: str) -> Story:
    """The story up to a checkpoint's step. Raises CheckpointError or DataError for papers that cannot be read."""
    records = _records(run, step)
    recipe, identity = run.read_recipe(), run.read_identity()
    last_eval = _last(records, "eval")
    last_step = _last(records, "step")
    environment = identity.get("environment") or {}
    return Story(
        run=run.name,
        run_id=str(identity["id"]),
        step=step,
        recipe=recipe,
        sources=tuple(_source(name, weight, last_eval) for name, weight in recipe.data.weights.items()),
        eval_step=_whole(last_eval.get("step")),
        val_loss=as_number(last_eval.get("val_loss_mixed")),
        train_loss=as_number(last_step.get("loss")),
        tokens=_whole(last_step.get("tokens")),
        hours=_hours(records),
        energy_wh=energy_wh(records),
        machine=" ".join(str(environment[key]) for key in ("system", "machine") if key in environment),
        torch=str(environment.get("torch", "")),
        checkpoint_sha256=checkpoint_sha256,
        ancestors=tuple(_ancestors(run, identity)),
    )


def _records(run: RunDir, step: int) -> list[dict[str, Any]]:
    return [record for record in read_records(run.telemetry) if (as_number(record.get("step")) or 0) <= step]


def _hours(records: Iterable[Mapping[str, Any]]) -> float:
    return sum(as_number(each.get("step_s")) or 0.0 for each in _kept(records)) / 3600


def _ancestors(run: RunDir, identity: Mapping[str, Any]) -> Iterator[Ancestor]:
    """From the parent on; beyond one that is gone nobody knows."""
    parent, seen = identity.get("parent"), {identity.get("id")}
    while isinstance(parent, dict):
        name, step = str(parent["run"]), int(parent["step"])
        found = None if parent["id"] in seen else _found(run, name, parent["id"])
        seen.add(parent["id"])
        if found is None:
            yield Ancestor(run=name, step=step, hours=None, energy_wh=None)
            return
        records = _records(found, step)
        yield Ancestor(run=name, step=step, hours=_hours(records), energy_wh=energy_wh(records))
        parent = found.read_identity().get("parent")


def _found(run: RunDir, name: str, identity: object) -> RunDir | None:
    """The run of that name and identity, beside the other or at home; None where it is gone."""
    if os.path.basename(name) != name:
        return None
    for folder in (run.path.parent, home() / "runs"):
        with suppress(OndeviceError, OSError):
            if RunDir(folder / name).read_identity()["id"] == identity:
                return RunDir(folder / name)
    return None


def energy_wh(records: Iterable[Mapping[str, Any]]) -> float | None:
    """Watt-hours between readings of one launch, by the trapezium rule; None where no two lie close together."""
    joules, known = 0.0, False
    readings = [record for record in records if record.get("kind") in ("reading", "launch")]
    for before, after in pairwise(readings):
        power = [as_number(each.get("power_w")) for each in (before, after)]
        seconds = (as_number(after.get("t")) or 0.0) - (as_number(before.get("t")) or 0.0)
        if power[0] is None or power[1] is None or not 0 < seconds <= _LONGEST_GAP_S:
            continue
        joules, known = joules + (power[0] + power[1]) / 2 * seconds, True
    return joules / 3600 if known else None


def _kept(records: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """One record a step: the last, which is the one that was kept."""
    return {record["step"]: record for record in records if record.get("kind") == "step"}.values()


def _last(records: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((each for each in reversed(list(records)) if each.get("kind") == kind), {})


def _source(name: str, weight: float, last_eval: Mapping[str, Any]) -> Source:
    def told(key: str) -> float | None:
        values = last_eval.get(key)
        return as_number(values.get(name)) if isinstance(values, dict) else None

    return Source(
        name=name,
        weight=weight,
        val_loss=told("val_loss"),
        bits_per_byte=told("bits_per_byte"),
        trained_tokens=_whole(told("trained_tokens")),
    )


def _whole(value: Any) -> int | None:
    number = as_number(value)
    return None if number is None else int(number)
