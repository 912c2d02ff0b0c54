"""Averages of a run's checkpoints beside those checkpoints: found by their papers, measured by the same prompts.

Each is held against the checkpoint for use, in pairs of prompts. They are runs of their own, so none has a role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ondevice.errors import CheckpointError, OndeviceError
from ondevice.evaluate.intervals import paired_difference
from ondevice.run.directory import RunDir, home, list_runs
from ondevice.study.evaluation import Wish, evaluate
from ondevice.study.target import open_run_step

__all__ = ["Average", "averages_of", "measure_averages"]


@dataclass(frozen=True, kw_only=True)
class Average:
    """A run that began as the mean of ``steps`` of another; ``step`` is the mean's own."""

    run: RunDir
    step: int
    steps: tuple[int, ...]


def averages_of(run: RunDir) -> list[Average]:
    """Beside the run or at home, by name."""
    identity = run.read_identity()["id"]
    found = {}
    for folder in {run.path.parent, home() / "runs"}:
        for other in list_runs(folder):
            with suppress(OndeviceError, OSError, KeyError, TypeError, ValueError):
                parent = other.read_identity().get("parent") or {}
                if parent.get("id") == identity and parent.get("averaged"):
                    steps = tuple(int(step) for step, _ in parent["averaged"])
                    found[other.path] = Average(run=other, step=int(parent["step"]), steps=steps)
    return [found[path] for path in sorted(found)]


def measure_averages(
    run: RunDir, wish: Wish, best: dict[str, Any], *, threads: int | None, progress: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """A row for each that is still there and sound; ``best`` is the panel of the checkpoint for use."""
    for average in averages_of(run):
        progress(f"{average.run.name}, the mean of {len(average.steps)} checkpoints")
        try:
            with open_run_step(average.run, average.step, threads=threads) as target:
                panel = evaluate(target, wish)
        except CheckpointError as error:
            progress(f"left out: {error}")
            continue
        scores, against = panel["quality"].get("scores", ()), best["quality"].get("scores", ())
        pairs = [a - b for a, b in zip(scores, against, strict=True)]
        yield {
            "run": average.run.name,
            "steps": list(average.steps),
            "val_loss_mixed": panel["val_loss_mixed"],
            "quality": panel["quality"].get("all", {}).get("score"),
            "against_practical": paired_difference(pairs) if pairs else None,
        }
