"""What a run's papers and telemetry say of how its model was made: data, order, losses, time and energy.

For model cards. Only what was recorded; what was not is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ondevice.run.directory import RunDir
from ondevice.run.recipe import Recipe
from ondevice.run.telemetry import as_number, read_records

__all__ = ["Source", "Story", "energy_wh", "read_story"]

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
class Story:
    """A model's making up to ``step``. ``energy_wh`` is integrated from readings of the battery's power."""

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


def read_story(run: RunDir, *, step: int, checkpoint_sha256: str) -> Story:
    """The story up to a checkpoint's step. Raises CheckpointError or DataError for papers that cannot be read."""
    records = [record for record in read_records(run.telemetry) if (as_number(record.get("step")) or 0) <= step]
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
        hours=sum(as_number(each.get("step_s")) or 0.0 for each in _kept(records)) / 3600,
        energy_wh=energy_wh(records),
        machine=" ".join(str(environment[key]) for key in ("system", "machine") if key in environment),
        torch=str(environment.get("torch", "")),
        checkpoint_sha256=checkpoint_sha256,
    )


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
