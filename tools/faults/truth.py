"""The truth: what an uninterrupted run was at every step, so that another can be held against it.

Bytes are compared, not closeness: the files of a checkpoint by their hashes, losses as the numbers telemetry holds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.digest import digest
from ondevice.run.directory import RunDir
from ondevice.run.files import read_json
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import read_records

from .lab import Lab
from .wishes import set_limits

__all__ = ["Truth", "curve", "fingerprint", "learn", "run_once"]

HISTORY = frozenset({"train_s"})  # keys of state.json that tell how a run went, not what it learned


def fingerprint(checkpoint: Checkpoint) -> dict[str, str]:
    """A hash for every file of a verified checkpoint; of ``state.json`` only what must not depend on time."""
    hashes = {name: entry["sha256"] for name, entry in checkpoint.files.items()}
    state = {key: value for key, value in read_json(checkpoint.path / "state.json").items() if key not in HISTORY}
    hashes["state.json"] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    return hashes


def curve(run: RunDir) -> dict[str, Any]:
    """Everything a run learned as its telemetry tells it, replayed steps counted once."""
    told = digest(read_records(run.telemetry))
    return {
        "loss": told.loss.points,
        "lr": told.lr.points,
        "grad_norm": told.grad_norm.points,
        "val_loss": {source: series.points for source, series in told.val_loss.items()},
        "samples": [(sample["step"], sample["prompt"], sample["text"]) for sample in told.samples],
        "tokens": told.tokens,
        "best": (told.best_step, told.best_loss),
        "ended": told.ended and told.ended.get("outcome"),
    }


def run_once(lab: Lab, run: RunDir) -> None:
    """An undisturbed launch to the end. Raises RuntimeError when it does not get there."""
    result = lab.begin(run).end(timeout_s=600.0)
    if result.get("outcome") != "finished":
        raise RuntimeError(f"{run.name}: an undisturbed run did not finish: {result}")


@dataclass(frozen=True)
class Truth:
    """What an uninterrupted run was: each step's checkpoint by `fingerprint`, and its whole `curve`."""

    steps: int
    checkpoints: dict[int, dict[str, str]]
    curve: dict[str, Any]

    def differs(self, checkpoint: Checkpoint) -> list[str]:
        """Files of a verified checkpoint that are not what they were in the uninterrupted run."""
        expected, found = self.checkpoints[checkpoint.step], fingerprint(checkpoint)
        return sorted(name for name in expected.keys() - set(checkpoint.dropped) if found.get(name) != expected[name])

    def best(self, steps: set[int]) -> set[int]:
        """The step of these that was measured best, if any was."""
        losses = {step: loss for step, loss in self.curve["val_loss"].get("", []) if step in steps}
        return {min(losses, key=lambda step: (losses[step], step))} if losses else set()

    def differs_at_end(self, run: RunDir) -> list[str]:
        """What is not as in the uninterrupted run after the last step."""
        try:
            last, told = Store(run.checkpoints).open(self.steps), curve(run)
        except OndeviceError as error:
            return [f"the end: {error}"]
        faults = [f"the end: {name} differs" for name in self.differs(last)]
        return faults + [f"telemetry: {key} differs" for key in self.curve if told[key] != self.curve[key]]


def learn(lab: Lab, run: RunDir) -> Truth:
    """Runs it without a disturbance, keeping the checkpoint of every step until all are hashed; then removes it."""
    set_limits(run, keep_last=10_000, save_every_steps=1, save_in_background=False)
    run_once(lab, run)
    store, steps = Store(run.checkpoints), run.read_recipe().train.steps
    if store.steps() != list(range(1, steps + 1)):
        raise RuntimeError(f"{run.name}: an undisturbed run did not keep a checkpoint of every step")
    checkpoints = {step: fingerprint(store.open(step)) for step in store.steps()}
    truth = Truth(steps=steps, checkpoints=checkpoints, curve=curve(run))
    shutil.rmtree(run.path)
    return truth
