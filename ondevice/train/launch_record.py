"""The ``launch`` record: where a launch goes on from, what holds from here on, and whether bit-exactness does.

It tells enough to mend ``run.json``, ``config.toml``, limits and pins later, and to notice what went missing.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import suppress
from typing import Any

import ondevice
from ondevice.errors import CheckpointError, DataError
from ondevice.run.audit import story_end
from ondevice.run.directory import RunDir, boot_id
from ondevice.run.files import read_json
from ondevice.run.papers import environment
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Limits
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import TelemetryWriter, launch_files
from ondevice.train.checkpoint import exactness_facts
from ondevice.train.launch_found import Before, Found
from ondevice.train.refit import Decision, differences

__all__ = ["story_before", "tell_launch"]


def tell_launch(
    telemetry: TelemetryWriter,
    run: RunDir,
    recipe: Recipe,
    *,
    number: int,
    found: Found,
    before: Before,
    limits: Limits | None,
    **more: Any,
) -> None:
    """Writes the record, and a ``fit`` record where the fit changed. ``limits``: None where they are damaged; ``more``:
    fields as they are."""
    checkpoint, decision = found.checkpoint, before.decision
    telemetry.write(
        "launch",
        found.step,
        launch=number,
        resumed_step=checkpoint.step if checkpoint else None,
        resumed_sha256=checkpoint.sha256 if checkpoint else None,
        steps=recipe.train.steps,
        recipe_sha256=recipe.sha256,
        fit=decision.fit.to_json(),
        full_threads=decision.full_threads,
        previous=before.ended,
        boot_id=boot_id(),
        cores=before.device.cores,
        memory_total_mb=before.device.total_mb,
        code_version=ondevice.__version__,
        inexact=_inexact(checkpoint, decision, recipe),
        **exactness_facts(recipe),
        **_origin(run),
        **_settings(run, limits),
        **more,
    )
    if decision.changes:
        old, new = decision.before.to_json(), decision.fit.to_json()
        telemetry.write("fit", found.step, old=old, new=new, why=decision.why, exact_from=found.step)
    for sentence in found.damage:
        telemetry.write("note", found.step, text=f"Skipped a damaged checkpoint: {sentence}")


def story_before(run: RunDir) -> dict[str, Any] | None:
    """How far the story went before this launch, so that a cut of its file is noticed later."""
    files = launch_files(run.telemetry)
    return {**story_end(files[-1]), "size": files[-1].stat().st_size} if files else None


def _origin(run: RunDir) -> dict[str, Any]:
    """Where the run comes from and what started this launch: enough to mend ``run.json`` and ``config.toml``."""
    return {
        "identity": run.read_identity(),
        "config": _config_text(run),
        "command": sys.argv,
        "environment": environment(),
        "measured": _measured_step(run),
    }


def _config_text(run: RunDir) -> str | None:
    """As it is, readable or not; None: it is gone, which a note says."""
    with suppress(OSError):
        return run.config.read_text("utf-8", "replace")
    return None


def _measured_step(run: RunDir) -> dict[str, Any] | None:
    """What a step took that was made before the run was, as ``fit.json`` says; None: none was, or it is damaged."""
    with suppress(DataError):
        raw = read_json(run.fit)
        return raw.get("measured") if isinstance(raw, dict) else None
    return None


def _settings(run: RunDir, limits: Limits | None) -> dict[str, Any]:
    """What holds from here on and which checkpoints there are, so that a later loss is noticed; None: it is damaged."""
    store = Store(run.checkpoints)
    pins: dict[str, str] | None = None
    with suppress(CheckpointError):
        pins = {str(step): reason for step, reason in store.pins().items()}
    return {"limits": limits and dataclasses.asdict(limits), "pins": pins, "checkpoints": store.steps()}


def _inexact(checkpoint: Checkpoint | None, decision: Decision, recipe: Recipe) -> list[str]:
    """What differs from the checkpoint's maker and may change bits from here on."""
    if checkpoint is None:
        return [f"fit.{change}" for change in decision.changes]
    made = Fit.from_json(checkpoint.facts.get("fit"), where=str(checkpoint.path / "manifest.json"))
    told, facts = decision.told, exactness_facts(recipe)
    if told is not None and (told.step, told.fit) == (checkpoint.step, decision.fit):
        made, _ = told.fit, facts.pop("threads")  # it changed right after that save, and exactness began anew there
    changed = [
        f"{key}: {checkpoint.facts.get(key)} -> {now}" for key, now in facts.items() if checkpoint.facts.get(key) != now
    ]
    return changed + [f"fit.{change}" for change in differences(made, decision.fit)]
