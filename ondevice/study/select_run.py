"""Measures the kept checkpoints of a run and chooses among them; writes ``quality.json`` and ``selection.json``.

A checkpoint that was measured before is read again; a damaged one is named and passed over. Losses that the trainer
measured of the same weights on the same windows are taken from its story. Pins nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from ondevice.data.dataset import Dataset
from ondevice.errors import CheckpointError, UsageError
from ondevice.evaluate.losses import SourceLoss
from ondevice.evaluate.trajectory import Settings, advise, diminishing, trajectory
from ondevice.run.directory import RunDir
from ondevice.run.files import make_folder, write_sealed
from ondevice.run.quality import write_quality
from ondevice.run.store import Store
from ondevice.run.telemetry import as_number, read_records
from ondevice.study.averages import measure_averages
from ondevice.study.evaluation import Wish, default_prompts, evaluate
from ondevice.study.judges import Judges
from ondevice.study.selection import SELECTION_FILE, SELECTION_VERSION, Candidate, SelectionRule, select
from ondevice.study.story import validation_points
from ondevice.study.target import open_run_step

__all__ = ["select_run"]


def select_run(
    run: RunDir,
    wish: Wish,
    *,
    rule: SelectionRule | None = None,
    steps: list[int] | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """What was found, as it is kept. ``steps`` limits the choice.

    Raises CheckpointError where no checkpoint is sound, UsageError for a step that is not there or without prompts.
    """
    rule = rule or SelectionRule()
    told: dict[int, dict[str, SourceLoss]] = {}
    if wish.loss_tokens is None:  # the windows that the trainer measured, so that losses are those of its curve
        told = _told_losses(run) if wish.losses else {}
        wish = replace(wish, loss_tokens=run.read_recipe().eval.max_tokens)
    there = Store(run.checkpoints).steps()
    if not there:
        raise CheckpointError(f"{run.name}: has no checkpoints yet; ask it with `ondevice save {run.name}`.")
    if unknown := sorted(set(steps or ()) - set(there)):
        raise UsageError(f"{run.name}: no checkpoint of step {unknown[0]}; there are: {', '.join(map(str, there))}.")
    panels, skipped = _measure_all(run, wish, sorted(steps or there), told, threads, progress)
    if not panels:
        raise CheckpointError(f"{run.name}: no checkpoint is sound ({skipped[0]['why']}).")
    chosen = select([_candidate(panel) for panel in panels], rule)
    practical = next(panel for panel in panels if panel["step"] == chosen.roles["practical"])
    result = {
        "v": SELECTION_VERSION,
        "run": run.name,
        "rule": rule.to_json(),
        "roles": chosen.roles,
        "sentences": list(chosen.sentences),
        "flags": chosen.flags.to_json(),
        "regressions": [each.to_json() for each in chosen.regressions],
        "checkpoints": [_row(panel) for panel in panels],
        "averages": list(measure_averages(run, wish, practical, threads=threads, progress=progress)),
        "skipped": skipped,
        "prompts": panels[0]["prompts"],
        "sampling": panels[0]["sampling"],
        "trajectory": _trajectory(run),
    }
    make_folder(run.evals)
    scores = {panel["step"]: panel["quality"]["all"]["score"] for panel in panels if "all" in panel["quality"]}
    if scores:
        write_quality(run.evals, scores)
    write_sealed(run.evals / SELECTION_FILE, result)
    return result


def _measure_all(
    run: RunDir,
    wish: Wish,
    steps: list[int],
    told: dict[int, dict[str, SourceLoss]],
    threads: int | None,
    progress: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Results of the sound checkpoints, and the others with the reason."""
    panels, skipped = [], []
    dataset: Dataset | None = None
    judges: Judges | None = None
    for place, step in enumerate(steps, 1):
        try:
            with open_run_step(run, step, threads=threads, dataset=dataset) as target:
                if wish.prompts is None:
                    wish = replace(wish, prompts=default_prompts(target, wish))
                if judges is None and target.dataset is not None:
                    dataset, judges = target.dataset, Judges(target.dataset)
                progress(f"step {step:,} ({place} of {len(steps)})")
                panels.append(evaluate(target, wish, judges=judges, told=told.get(step)))
        except CheckpointError as error:
            skipped.append({"step": step, "why": str(error)})
            progress(f"left out: {error}")
    return panels, skipped


def _told_losses(run: RunDir) -> dict[int, dict[str, SourceLoss]]:
    """By step, where the trainer told everything of every source; what a kill undid is left out."""
    found: dict[int, dict[str, SourceLoss]] = {}
    for record in read_records(run.telemetry):
        if record["kind"] == "launch":
            resumed = record.get("resumed_step")
            found = {step: losses for step, losses in found.items() if type(resumed) is int and step <= resumed}
        elif record["kind"] == "eval" and (losses := _source_losses(record)):
            found[int(record["step"])] = losses
    return found


def _source_losses(record: dict[str, Any]) -> dict[str, SourceLoss]:
    """Of one evaluation; empty where a number is missing. The bytes follow from the other three."""
    nats, bits, counts = (record.get(key) or {} for key in ("val_loss", "bits_per_byte", "val_tokens"))
    losses = {}
    for name, loss in nats.items():
        numbers = [as_number(each) for each in (loss, bits.get(name), counts.get(name))]
        if not all(numbers):
            return {}
        value, bits_per_byte, tokens = (float(each or 0) for each in numbers)
        size = round(value * tokens / (math.log(2) * bits_per_byte))
        losses[name] = SourceLoss(nats=value, tokens=int(tokens), bytes=size)
    return losses


def _candidate(panel: dict[str, Any]) -> Candidate:
    quality = panel["quality"]
    return Candidate(
        step=panel["step"],
        loss=panel["val_loss_mixed"],
        quality=tuple(quality.get("scores", ())),
        groups=tuple(quality.get("prompt_groups", ())),
    )


def _row(panel: dict[str, Any]) -> dict[str, Any]:
    return {
        "step": panel["step"],
        "val_loss_mixed": panel["val_loss_mixed"],
        "val_loss": panel["val_loss"],
        "quality": panel["quality"].get("all", {}).get("score"),
        "quality_groups": {name: each["score"] for name, each in panel["quality"].get("groups", {}).items()},
        "diversity": panel["degeneration"]["all"]["diversity"],
        "loop_rate": panel["degeneration"]["all"]["loop_rate"],
        "generations": panel["generations"]["file"],
    }


def _trajectory(run: RunDir) -> dict[str, Any] | None:
    """The run's own validation curve and what follows from it; None before the first evaluation."""
    points = validation_points(run)
    if not points:
        return None
    found, train = trajectory(points), run.read_recipe().train
    stable = train.schedule == "wsd" and points[-1].step < train.steps - train.tail_steps
    return {
        **found.to_json(),
        "settings": Settings().to_json(),
        "diminishing": asdict(diminishing(found)),
        "advice": asdict(advise(points, in_stable_phase_of_wsd=stable)),
    }
