"""What a run directory holds for a report: papers, present, story and judgements, each as far as it can be read.

Works on a run that lives, was killed or was copied from elsewhere; what cannot be read is named in ``trouble``. Bounded
memory however long the run: curves are thinned with their extremes kept. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.digest import Digest
from ondevice.run.directory import RunDir
from ondevice.run.files import read_sealed
from ondevice.run.liveness import Liveness, read_liveness, read_status
from ondevice.run.quality import read_quality
from ondevice.run.recipe import Recipe
from ondevice.run.series import Series
from ondevice.run.store import Store
from ondevice.run.telemetry import as_number, read_records
from ondevice.study.selection import SELECTION_FILE, SELECTION_VERSION
from ondevice.study.story import Interval, intervals_of
from ondevice.study.sweep_record import latest_sweep

__all__ = ["FELT", "CheckpointFacts", "RunFacts", "gather_run"]

FELT = ("battery_c", "skin_c", "cpu_c", "power_w", "battery_percent", "rss_mb", "duty")
_CURVES = 400
_MOST_TOLD = 200


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """A checkpoint that is there now; ``complete`` ones can be trained from."""

    step: int
    mb: float
    complete: bool
    pinned: str
    quality: float | None


@dataclass
class RunFacts:
    """Everything a page of a run is made of. ``felt`` are series over hours since the first launch."""

    run: RunDir
    alive: Liveness
    identity: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    status: dict[str, Any] = field(default_factory=dict)
    story: Digest = field(default_factory=Digest)
    evals: list[dict[str, Any]] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    felt: dict[str, Series] = field(default_factory=dict)
    samples: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    orders: Counter[str] = field(default_factory=Counter)
    launches: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[CheckpointFacts] = field(default_factory=list)
    selection: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    trouble: list[str] = field(default_factory=list)
    _began_t: float | None = None


def gather_run(run: RunDir) -> RunFacts:
    """Raises nothing for damage; DataError for telemetry that a newer version wrote."""
    facts = RunFacts(run=run, alive=read_liveness(run), status=read_status(run))
    try:
        facts.identity = run.read_identity()
    except OndeviceError as error:
        facts.trouble.append(str(error))
    try:
        facts.recipe = run.read_recipe()
    except OndeviceError as error:
        facts.trouble.append(str(error))
    for record in read_records(run.telemetry):
        _fold(facts, record)
    facts.intervals = intervals_of(facts.evals)
    facts.evals = [record for record in facts.evals if record["kind"] == "eval"]
    facts.checkpoints = _checkpoints(facts)
    with suppress(OndeviceError):
        facts.selection = read_sealed(run.evals / SELECTION_FILE, version=SELECTION_VERSION)
    facts.sweep = latest_sweep(run.evals)
    return facts


def _fold(facts: RunFacts, record: dict[str, Any]) -> None:
    kind, t = record["kind"], as_number(record.get("sim_t", record["t"])) or 0.0
    facts.story.fold(record)
    facts._began_t = t if facts._began_t is None else facts._began_t
    hours = (t - facts._began_t) / 3600.0
    if kind == "launch":
        _rewind(facts, record)
    elif kind == "eval":
        facts.evals.append(record)
    elif kind == "sample":
        facts.samples.setdefault(record["step"], []).append(record)
    elif kind == "reading":
        for name in FELT[:-1]:
            _feel(facts, name, hours, record.get(name))
    elif kind == "order":
        facts.orders[str(record.get("why") or record.get("order"))[:80]] += 1
        _feel(facts, "duty", hours, record.get("duty"))
    if kind in ("advice", "fit", "part", "end", "control") or (kind == "note" and record.get("text")):
        facts.told = [*facts.told[-_MOST_TOLD:], {**record, "hours": hours}]


def _feel(facts: RunFacts, name: str, hours: float, value: Any) -> None:
    if (number := as_number(value)) is not None and hours >= 0:
        facts.felt.setdefault(name, Series(_CURVES)).add(hours, number)


def _rewind(facts: RunFacts, record: dict[str, Any]) -> None:
    """What a kill undid: its evaluations and samples will come again; readings stay."""
    resumed = record.get("resumed_step")
    kept = resumed if type(resumed) is int else -1
    facts.launches.append(record)
    facts.evals = [*(each for each in facts.evals if each["kind"] == "eval" and each["step"] <= kept)]
    facts.samples = {step: each for step, each in facts.samples.items() if step <= kept}


def _checkpoints(facts: RunFacts) -> list[CheckpointFacts]:
    store, pins, quality = Store(facts.run.checkpoints), {}, {}
    try:
        pins, quality = store.pins(), read_quality(facts.run.evals)
    except OndeviceError as error:
        facts.trouble.append(str(error))
    found = []
    for step in store.steps():
        try:
            each = store.peek(step)
        except OndeviceError as error:
            facts.trouble.append(str(error))
            continue
        found.append(
            CheckpointFacts(
                step=step,
                mb=sum(entry["bytes"] for entry in each.files.values()) / 2**20,
                complete=each.complete,
                pinned=pins.get(step, ""),
                quality=quality.get(step),
            )
        )
    return found
