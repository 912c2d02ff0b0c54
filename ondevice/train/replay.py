"""Does the last steps of a run again, from the checkpoint before the newest, and compares the result bit for bit.

Everything stays in memory: nothing is written to the run or anywhere else. Steps are deterministic, so weights,
optimizer, data cursor, random generators and counters must be equal, and each loss the one in telemetry. Measuring
changes what is best so far and nothing that is learned: an evaluation that the run made in between is made again, and
its loss compared as well. Samples draw from generators of their own and are not written again; which were written,
and how long training took, is not compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ondevice.data.dataset import Dataset
from ondevice.data.parcel import open_dataset
from ondevice.errors import CheckpointError, DeviceError, OndeviceError, UsageError
from ondevice.evaluate.losses import Evaluation, mixed_loss
from ondevice.model import safetensors
from ondevice.run.directory import RunDir
from ondevice.run.files import read_json
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import read_records
from ondevice.run.vocabulary import read_kept
from ondevice.train.begin import make_state, prepare_torch
from ondevice.train.checkpoint import exactness_facts, freeze
from ondevice.train.engine import Engine, StepResult, micro_batches
from ondevice.train.refit_live import put_in_force
from ondevice.train.schedule import learning_rate
from ondevice.train.state import TrainState
from ondevice.train.told_fits import fits_by_step

__all__ = ["Replay", "replay"]

_NOT_COMPARED = ("train_s", "sampled", "adviser", "v", "recipe")  # the recipe is compared before
_PAIR = 2


@dataclass(kw_only=True)
class Replay:
    """``differences`` are halves of sentences, the first one first; none where all was identical.

    ``elsewhere`` says what differs from the machine that trained, so that differences prove nothing.
    """

    first: int
    last: int
    differences: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    unheard: list[int] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        return not self.differences


def replay(run: RunDir, *, anyway: bool = False, progress: Callable[[int, int], None] | None = None) -> Replay:
    """Replays from the last but one complete checkpoint to the last; ``progress(step, last)`` before every step.

    Raises UsageError where there are not two of them, DeviceError where torch, processor or threads are not those that
    trained (unless ``anyway``), CheckpointError or DataError.
    """
    with ExitStack() as leases:
        before, after = _pair(run, leases)
        recipe = _recipe(run, after)
        dataset = open_dataset(recipe.data)
        fit = Fit.from_json(after.facts.get("fit"), where=str(after.path / "manifest.json"))
        fits = _fits(run, before, after, fit)
        prepare_torch(fit, recipe)
        result = Replay(first=before.step, last=after.step, elsewhere=_elsewhere(after, recipe))
        if result.elsewhere and not anyway:
            raise DeviceError(
                f"{run.name}: its last steps cannot be replayed bit for bit here ({'; '.join(result.elsewhere)}); add "
                "--replay-anyway to see how they differ."
            )
        state = make_state(recipe, dataset, fits[before.step], before, kept=read_kept(run, recipe))
        goal = read_json(after.path / "state.json")
        _go(_Pass(recipe, fits[before.step], fits, state, dataset, goal), run, result, progress)
        result.differences += _compare(state, recipe, fit, after)
    return result


def _recipe(run: RunDir, after: Checkpoint) -> Recipe:
    """The recipe, or the earlier revision of it under which the last steps were made."""
    recipe, stated = run.read_recipe(), after.facts.get("recipe_sha256")
    if stated == recipe.sha256 or not recipe.made(stated):
        return recipe
    return Recipe.from_json(read_json(after.path / "state.json")["recipe"], where=str(after.path / "state.json"))


def _pair(run: RunDir, leases: ExitStack) -> tuple[Checkpoint, Checkpoint]:
    """The newest two complete checkpoints that verify, leased."""
    store, found = Store(run.checkpoints), []
    for step in reversed(store.complete_steps()):
        try:
            found.append(leases.enter_context(store.lease(step)))
        except CheckpointError:
            continue
        if len(found) == _PAIR:
            return found[1], found[0]
    raise UsageError(
        f"{run.name}: a replay goes from one complete checkpoint to the next, and there are {len(found)}; save again "
        "later with `ondevice save`."
    )


def _fits(run: RunDir, before: Checkpoint, after: Checkpoint, last: Fit) -> dict[int, Fit]:
    """The fits from one checkpoint to the other, by the step each began with; ``last`` made the second one."""
    told = fits_by_step(run)
    first = [fit for step, fit in told.items() if step <= before.step]
    between = {step: fit for step, fit in told.items() if before.step < step < after.step}
    if not first or [first[-1], *between.values()][-1] != last:
        return {before.step: last}  # the story is not whole
    return {before.step: first[-1], **between}


def _elsewhere(checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    return [
        f"{key} was {checkpoint.facts.get(key)}, is {now}"
        for key, now in exactness_facts(recipe).items()
        if checkpoint.facts.get(key) != now
    ]


@dataclass
class _Pass:
    """What a replay goes through, and ``goal``: the ``state.json`` it must arrive at. ``fit`` is in force, one of
    ``fits`` by the step each began with."""

    recipe: Recipe
    fit: Fit
    fits: Mapping[int, Fit]
    state: TrainState
    dataset: Dataset
    goal: dict[str, Any]

    def refit(self, engine: Engine) -> None:
        """Puts a fit in force that begins with this step, as the run did."""
        if self.state.step in self.fits:
            self.fit = self.fits[self.state.step]
            put_in_force(self.fit, engine)

    def step(self, engine: Engine) -> StepResult:
        """One optimizer step as the loop does it."""
        state = self.state
        batch = state.next_batch()
        engine.begin(batch.y_BT)
        for piece in micro_batches(batch, self.fit.micro_batch):
            engine.accumulate(*piece)
        result = engine.update(learning_rate(self.recipe.train, state.step))  # of a layerwise step all that is left
        state.advance(batch.x_BT.size, start_step=self.recipe.train.start_step)
        return result

    def measure(self) -> None:
        """Evaluates where the run did so after `state` was saved."""
        state = self.state
        planned = state.step in self.goal["evaluated"] and state.step not in state.evaluated
        lost = dict(self.goal.get("losses", ())).get(state.step)
        if not planned and (lost is None or state.losses.get(state.step) == lost):
            return
        evaluation = Evaluation.of(state.model, self.dataset, self.recipe, self.fit)
        with state.shown():
            for _ in evaluation.batches():
                pass
        mixed = mixed_loss(evaluation.losses)
        if mixed is not None and math.isfinite(mixed):
            state.measured(mixed)
        if planned:
            state.evaluated.append(state.step)


def _go(way: _Pass, run: RunDir, result: Replay, progress: Callable[[int, int], None] | None) -> None:
    told = _told(run, result)
    engine = Engine.of(way.state.model, way.state.optimizer, way.recipe, way.fit)
    way.refit(engine)
    way.measure()
    while way.state.step < result.last:
        if progress is not None:
            progress(way.state.step, result.last)
        try:
            done = way.step(engine)
        except OndeviceError as error:
            result.differences.append(f"step {way.state.step + 1} failed: {error}")
            return
        found, step = {"loss": done.loss, "grad_norm": done.grad_norm}, way.state.step
        if step not in told:
            result.unheard.append(step)
        for key, value in told.get(step, {}).items():
            if value != found[key]:
                result.differences.append(f"{key} of step {step}: was {value}, is {found[key]}")
        way.measure()
        way.refit(engine)


def _told(run: RunDir, result: Replay) -> dict[int, dict[str, float]]:
    """Loss and gradient norm of each replayed step, as last told."""
    return {
        record["step"]: {key: record[key] for key in ("loss", "grad_norm") if key in record}
        for record in read_records(run.telemetry)
        if record["kind"] == "step" and result.first < record["step"] <= result.last
    }


def _compare(state: TrainState, recipe: Recipe, fit: Fit, after: Checkpoint) -> Iterator[str]:
    frozen = freeze(state, recipe=recipe, fit=fit, launch=0)
    yield from _differing(frozen.model, after.path / "model.safetensors")
    yield from _differing(frozen.optimizer, after.path / "optimizer.safetensors")
    found, goal = json.loads(json.dumps(frozen.body)), read_json(after.path / "state.json")
    for key in found:
        if key not in _NOT_COMPARED and key in goal and found[key] != goal[key]:
            yield f"{key} in state.json" + ("" if key == "rng" else f": was {goal[key]}, is {found[key]}")


def _differing(tensors: Mapping[str, torch.Tensor], path: Path) -> Iterator[str]:
    """The first tensor that is not equal to the bit, and how many more are not."""
    with safetensors.open_file(path) as file:
        names = sorted(tensors.keys() | set(file.names))
        wrong = [name for name in names if name not in tensors or name not in file.names]
        wrong += [name for name in names if name not in wrong and not _same_bits(tensors[name], file.tensor(name))]
    if wrong:
        more = f" and {len(wrong) - 1} more tensors" if len(wrong) > 1 else ""
        yield f"{wrong[0]}{more} in {path.name}"


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(
        one.detach().contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8)
    )
