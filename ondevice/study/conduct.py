"""Conducts a study: makes or finds the run of every arm and seed, trains one after another, and keeps the record.

A cell that is finished is known by the hashes of its wish and its recipe and never trained again, so the same command
goes on after any kill. The seed outer, the arms inner: after the first seed every arm can be compared already.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ondevice
from ondevice.data.dataset import Dataset
from ondevice.errors import CheckpointError, DataError, Interrupted, OndeviceError, UsageError
from ondevice.run.directory import RunDir, home, offline_lock
from ondevice.run.files import make_folder, write_atomic
from ondevice.run.liveness import read_liveness
from ondevice.run.schema import Config, Limits
from ondevice.run.store import Store
from ondevice.run.studies import StudyDir
from ondevice.study.design import Arm, Design
from ondevice.study.evaluation import Wish
from ondevice.study.lr_range import LrRange, Ramp, find_rates, mean_rate, ramped
from ondevice.study.results import results_of
from ondevice.study.select_run import select_run
from ondevice.study.story import lr_losses, read_story
from ondevice.train.ending import Outcome
from ondevice.train.fork import ForkWish, fork_run, plan_fork
from ondevice.train.prepare import make_run, prepare
from ondevice.train.wish import resume_or_refuse

__all__ = ["Cell", "Study", "cells_of"]

_MOST_SAVES = 200  # that forks may ask of their parent


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm with one seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-{self.seed}"


def cells_of(design: Design) -> list[Cell]:
    """In the order in which they are trained."""
    return [Cell(arm=arm, seed=seed) for seed in design.seeds for arm in design.arms]


class Study:
    """A study under way. ``build`` gives the dataset of a config, ``train`` trains a run to its end or until someone
    asks to leave, ``say`` tells a person."""

    def __init__(
        self,
        design: Design,
        *,
        build: Callable[[Config], Dataset],
        train: Callable[[RunDir], Outcome],
        say: Callable[[str], None],
        cores: int,
        android: bool,
    ) -> None:
        self.design, self.folder = design, StudyDir(home() / "studies" / design.name)
        self._build, self._train, self._say = build, train, say
        self._cores, self._android = cores, android
        self._told: dict[str, dict[str, Any]] = {}
        self._lr_range: dict[str, Any] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and its record, or takes up an earlier one, and holds its lock. Raises RunBusy."""
        make_folder(self.folder.runs)
        with offline_lock(RunDir(self.folder.path), what="ondevice study"):
            if self.folder.record.exists():
                before = self.folder.read()
                self._told, self._lr_range = {cell["name"]: cell for cell in before["cells"]}, before["lr_range"]
            write_atomic(self.folder.design, self.design.text.encode())
            self._write()
            yield

    def cells(self, *, retry: bool = False) -> Iterator[Cell]:
        """Trains what is left, and gives each cell that ended, until one was asked to leave.

        A failed cell (a run that diverged) is passed over later as well, unless ``retry``. Raises what making and
        training a run raises.
        """
        for cell in cells_of(self.design):
            if self._is_done(cell, retry=retry):
                continue
            run = self._make(cell)
            self._note(cell, run, state="running")
            state = self._run(cell, run)
            self._note(cell, run, state=state)
            yield cell
            if state not in ("finished", "failed"):
                return

    def _run(self, cell: Cell, run: RunDir) -> str:
        """Trains and judges a run that exists; gives how it ended."""
        state = read_liveness(run).state
        if state != "finished":
            self._say(f"{cell.name}: arm {cell.arm.name}, seed {cell.seed}.")
            state = self._train(run).outcome
        if state == "finished" and self.design.panel is not None:
            panel = self.design.panel
            wish = Wish(per_source=panel.per_source, max_new_tokens=panel.max_new_tokens)
            select_run(run, wish, progress=lambda text: self._say(f"{cell.name}: {text}"))
        return state

    def range_rates(self, ramp: Ramp) -> dict[str, Any]:
        """A range test of every arm that begins with fresh weights, over all seeds; kept in the record. Raises as
        training does; Interrupted where one was asked to leave."""
        for arm in self.design.arms:
            if arm.parent is None:
                found = [self._range_of(Cell(arm=arm, seed=seed), ramp) for seed in self.design.seeds]
                rates = [each.suggested for each in found]
                self._lr_range[arm.name] = {
                    "ramp": dataclasses.asdict(ramp),
                    "seeds": list(self.design.seeds),
                    "suggested": mean_rate(rates),
                    "lowest": min(rates),
                    "highest": max(rates),
                    "tests": [each.to_json() for each in found],
                }
                self._write()
        return self._lr_range

    def _range_of(self, cell: Cell, ramp: Ramp) -> LrRange:
        mark = hashlib.sha256(repr(ramp).encode()).hexdigest()[:6]
        config = ramped(self._config(cell), ramp)
        config = dataclasses.replace(config, name=f"lr-{cell.name}-{mark}")
        run = resume_or_refuse(config, folder=self.folder.runs) or self._fresh(config)
        if read_liveness(run).state not in ("finished", "failed"):
            self._say(f"{run.name}: {ramp.steps} steps from {ramp.low:g} to {ramp.high:g}.")
            outcome = self._train(run)
            if outcome.outcome == "stopped":
                raise Interrupted(f"{self.design.name}: stopped ({outcome.why}); the same command goes on.")
        return find_rates(lr_losses(run))

    def _fresh(self, config: Config) -> RunDir:
        dataset = self._build(config)
        prepared = prepare(config, dataset, cores=self._cores, android=self._android)
        return make_run(config, prepared, dataset, folder=self.folder.runs)

    def _is_done(self, cell: Cell, *, retry: bool) -> bool:
        told, run = self._told.get(cell.name), self.folder.run(cell.name)
        if told is None or told["wish_sha256"] != self._wish_sha256(cell):
            return False
        if told["state"] == "failed":
            return not retry
        if told["state"] != "finished" or told.get("panel") != self._panel():
            return False
        with suppress(OndeviceError, OSError):
            return run.read_recipe().sha256 == told["recipe_sha256"] and read_liveness(run).state == "finished"
        return False

    def _panel(self) -> dict[str, Any] | None:
        return dataclasses.asdict(self.design.panel) if self.design.panel else None

    def _wish_sha256(self, cell: Cell) -> str:
        """Of everything the cell's run follows from; how politely it behaves is no part of it."""
        arm = dataclasses.asdict(dataclasses.replace(cell.arm, name=""))
        for table in ("limits", "fit"):
            del arm["config"][table]
        if not arm["config"]["train"]["compile"]:  # studies from before this key know their cells again
            del arm["config"]["train"]["compile"]
        body = json.dumps([arm, cell.seed, self.design.intervals], sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    def _make(self, cell: Cell) -> RunDir:
        if cell.arm.parent is not None:
            return self._make_fork(cell)
        config = self._config(cell)
        existing = resume_or_refuse(config, folder=self.folder.runs)
        dataset = self._build(config)
        if existing is not None:
            recipe = existing.read_recipe()
            if recipe.data.dataset_sha256 != dataset.sha256:
                raise DataError(
                    f"{existing.path}: was begun on other text than {dataset.folder} now holds, so its seeds cannot be "
                    "compared with new ones; put the text back, or give the study another name."
                )
            return existing
        prepared = prepare(config, dataset, cores=self._cores, android=self._android)
        limits = self._limits(cell.arm, prepared.recipe.train.batch * prepared.recipe.model.context, config.limits)
        return make_run(dataclasses.replace(config, limits=limits), prepared, dataset, folder=self.folder.runs)

    def _config(self, cell: Cell) -> Config:
        config = cell.arm.config
        return dataclasses.replace(
            config,
            name=cell.name,
            train=dataclasses.replace(config.train, seed=cell.seed),
            data=dataclasses.replace(config.data, seed=cell.seed),
            eval=dataclasses.replace(config.eval, count=self.design.intervals),
        )

    def _limits(self, arm: Arm, tokens_per_step: int, limits: Limits) -> Limits:
        """Those of the arm; one that others go on from saves at their steps and keeps what it saved whole."""
        forks = [other for other in self.design.arms if other.parent == arm.name]
        if not forks:
            return limits
        steps = {math.ceil(fork.at_tokens / tokens_per_step) for fork in forks}
        asked = [step for step in (limits.save_every_steps, limits.keep_every_steps) if step]
        every = math.gcd(*steps, *asked)
        if max(steps) // every > _MOST_SAVES:
            raise UsageError(
                f"{self.design.name}: arms go on from {arm.name} after {', '.join(map(str, sorted(steps)))} steps, "
                f"which only saves every {every} steps would meet; choose at_tokens that are multiples of one number."
            )
        return dataclasses.replace(limits, save_every_steps=every, keep_every_steps=every, drop_old_optimizer=False)

    def _make_fork(self, cell: Cell) -> RunDir:
        assert cell.arm.parent is not None
        parent = self.folder.run(f"{cell.arm.parent}-{cell.seed}")
        recipe, store = parent.read_recipe(), Store(parent.checkpoints)
        step = math.ceil(cell.arm.at_tokens / (recipe.train.batch * recipe.model.context))
        if step not in store.complete_steps():
            known = ", ".join(map(str, store.complete_steps())) or "none"
            raise CheckpointError(
                f"{parent.path}: has no checkpoint of step {step} ({cell.arm.at_tokens:,} tokens) for {cell.name} to "
                f"go on from; there are: {known}. Change at_tokens, or remove that run so that it is trained anew."
            )
        wish = ForkWish(
            name=cell.name,
            tokens=cell.arm.tokens,
            tail=cell.arm.tail,
            changes=(*cell.arm.changes, f"eval.count={self.design.intervals}"),
        )
        with store.lease(step) as checkpoint:
            return fork_run(plan_fork(parent, checkpoint, wish, folder=self.folder.runs))

    def _note(self, cell: Cell, run: RunDir, *, state: str) -> None:
        """Writes the record: this cell as it is now, and what all cells together say."""
        began = self._told.get(cell.name, {}).get("began_t")
        self._told[cell.name] = {
            "name": cell.name,
            "arm": cell.arm.name,
            "seed": cell.seed,
            "state": state,
            "wish_sha256": self._wish_sha256(cell),
            "recipe_sha256": run.read_recipe().sha256,
            "panel": self._panel() if state == "finished" else None,
            "began_t": began or round(time.time(), 3),
            "noted_t": round(time.time(), 3),
        }
        self._write()

    def _write(self) -> None:
        design = self.design
        names = [cell.name for cell in cells_of(design)]
        cells = [self._told[name] for name in names if name in self._told]
        done = {
            arm.name: {
                cell["seed"]: read_story(self.folder.run(cell["name"]))
                for cell in cells
                if cell["arm"] == arm.name and cell["state"] == "finished"
            }
            for arm in design.arms
        }
        self.folder.write(
            {
                "name": design.name,
                "question": design.question,
                "seeds": list(design.seeds),
                "intervals": design.intervals,
                "reference": design.reference,
                "design_sha256": hashlib.sha256(design.text.encode()).hexdigest(),
                "code_version": ondevice.__version__,
                "arms": [_told_arm(arm, design.arms) for arm in design.arms],
                "planned": names,
                "cells": cells,
                "lr_range": self._lr_range,
                "results": results_of(
                    done, reference=design.reference, planned=len(design.seeds), tails=tuple(_tails(design))
                ),
            }
        )


def _tails(design: Design) -> Iterator[tuple[str, str]]:
    """Every tail with the arms it is compared with: forks of the same checkpoint, as long and without a tail."""
    for tail in design.arms:
        for other in design.arms:
            same = (other.parent, other.at_tokens, other.tokens) == (tail.parent, tail.at_tokens, tail.tokens)
            if tail.tail is not None and other.tail is None and same:
                yield other.name, tail.name


def _told_arm(arm: Arm, arms: Sequence[Arm]) -> dict[str, Any]:
    return {
        "name": arm.name,
        "from": arm.parent,
        "at_tokens": arm.at_tokens or None,
        "tokens": arm.tokens or None,
        "tail": arm.tail,
        "order": arm.config.data.order,
        "stages": [stage.name for stage in arm.config.data.stages],
        "changes": list(arm.changes if arm.parent else _own(arm, arms)),
    }


def _own(arm: Arm, arms: Sequence[Arm]) -> Iterator[str]:
    """What sets an arm with fresh weights apart from the other such arms, as ``key=value``; paths of text do not."""
    others = [_values(other.config) for other in arms if other.parent is None]
    for key, value in _values(arm.config).items():
        if value is not None and any(other.get(key) != value for other in others):
            yield f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _values(config: Config) -> dict[str, Any]:
    """The single values of a config by their dotted keys; the order is told apart."""
    found: dict[str, Any] = {}
    tables = [("", dataclasses.asdict(config))]
    for prefix, table in tables:
        for key, value in table.items():
            if isinstance(value, dict):
                tables.append((f"{prefix}{key}.", value))
            elif not isinstance(value, list | tuple):
                found[f"{prefix}{key}"] = value
    return {key: value for key, value in found.items() if key not in ("name", "data.order")}
