"""The loop: the one place that knows the order of events.

It pulls letters, readings and batches; it pushes records, status, samples and checkpoints. Nothing calls it back. Two
safe points: between micro-batches it may wait; between optimizer steps it may also evaluate, sample, save or leave.
"""

from __future__ import annotations

import dataclasses
import math

from ondevice.data.dataset import Dataset
from ondevice.errors import OndeviceError
from ondevice.evaluate.losses import Evaluation, mixed_loss
from ondevice.run.directory import RunGone
from ondevice.run.recipe import Fit, Recipe
from ondevice.train.desk import Desk
from ondevice.train.ending import Outcome
from ondevice.train.engine import Engine, NonFiniteError, TornError, micro_batches
from ondevice.train.keeper import Keeper, Origin, Saved
from ondevice.train.parts import Chain
from ondevice.train.refit_live import Refitter
from ondevice.train.sample_request import SampleRequest
from ondevice.train.schedule import learning_rate
from ondevice.train.state import TrainState
from ondevice.train.telling import tell_evaluation, tell_sample, tell_step

__all__ = ["Loop"]

ROOM_EVERY_S = 10.0  # between two looks at a full disk


class Loop:
    """One launch of one run, from a state that was just restored or made, to an `Outcome`."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        fit: Fit,
        state: TrainState,
        engine: Engine,
        dataset: Dataset,
        desk: Desk,
        keeper: Keeper,
        refitter: Refitter,
        chain: Chain,
        launch: int,
    ) -> None:
        self.recipe, self.fit = recipe, fit
        self.state, self.engine, self.dataset = state, engine, dataset
        self.desk, self.keeper, self.refitter, self.world = desk, keeper, refitter, desk.world
        self.chain = chain
        self.orders, self.telemetry, self.pulse, self.display = desk.orders, desk.telemetry, desk.pulse, desk.display
        self.origin = Origin(story=self.telemetry, recipe=recipe, fit=fit, launch=launch)

    def run_to_end(self) -> Outcome:
        """Trains until the recipe is fulfilled or someone asks to leave."""
        try:
            return self._run_to_end()
        finally:
            self.keeper.close()

    def _run_to_end(self) -> Outcome:
        while True:
            self._between_steps()
            if self.orders.stop:
                return self._leave("stopped", self.orders.stop)
            if self.state.step >= self.recipe.train.steps:
                return self._leave("finished", "every planned step is done")
            if self.chain.leave:
                return self._leave("stopped", self.chain.leave)
            try:
                self._step()
            except NonFiniteError as error:
                return self._leave_unsaved(error)
            except TornError as error:
                return self._leave_torn(error)
            except RunGone:
                raise
            except OndeviceError as error:  # such as a damaged chunk: what was learned until here is sound
                self._leave("failed", str(error))
                raise

    def _between_steps(self) -> None:
        step = self.state.step
        best: bool | None = False
        if step in self.recipe.eval.steps and step not in self.state.evaluated:
            best = self._evaluate()
            if best is not None:
                self.state.evaluated.append(step)
        if step in self.recipe.sample.steps and step not in self.state.sampled:
            self._sample([SampleRequest(prompt=prompt) for prompt in self.recipe.sample.prompts])
            self.state.sampled.append(step)
        self._promote(step)
        self._settle(wait=False)
        self._wait_for_room()
        if self.keeper.is_due(step, best=bool(best), limits=self.desk.limits):
            self._save()
        self._safe_point()
        while self.orders.asked:
            self._do_what_was_asked()
            self._safe_point()  # a held run does what it is asked and waits on
        if step < self.recipe.train.steps and not self.orders.stop and self.keeper.fault is None:
            self._refit(step)

    def _promote(self, step: int) -> None:
        """Where a part of a chain ends and was evaluated: keeps its checkpoint and tells of it; no step before that."""
        unseen = step in self.recipe.eval.steps and step not in self.state.evaluated
        if unseen or not self.chain.is_due(step):
            return
        if self.keeper.saved_step != step:
            self._save(at_once=True)
        if self.keeper.saved_step == step:
            self.display.say(self.chain.promote(step))
            self.pulse.note(**self.chain.told)
        elif self.keeper.fault is not None and not self.orders.stop:
            raise self.keeper.fault

    def _do_what_was_asked(self) -> None:
        if self.orders.evaluate:
            self.orders.evaluate, self.orders.busy = False, True
            self._evaluate()
            self.orders.busy = False
        if self.orders.samples:
            requests, self.orders.samples = self.orders.samples, []
            self._sample(requests)
        if self.orders.save:
            self._save()

    def _refit(self, step: int) -> None:
        """Cuts the work differently from this step on, after a save, where something lasting speaks for it."""
        if not self.refitter.is_due(step, self.desk.limits):
            return
        for _ in self.refitter.look(step):
            self._safe_point()
            if self.orders.stop:
                return
        self._settle()
        if self.refitter.next is not None and self.keeper.saved_step != step:
            self._save(at_once=True)
        if self.refitter.next is not None and self.keeper.saved_step == step:
            self.fit = self.refitter.carry_out(step)
            self.origin = dataclasses.replace(self.origin, fit=self.fit)

    def _safe_point(self, *, piece: bool = False) -> float:
        return self.desk.safe_point(step=self.state.step, tokens=self.state.tokens, piece=piece)

    def _step(self) -> None:
        state, started, waited = self.state, self.world.monotonic(), 0.0
        self.pulse.phase = "step"
        cursor_before = state.cursor.state_dict()
        batch = state.next_batch()
        lr = learning_rate(self.recipe.train, state.step)
        self.engine.begin(batch.y_BT)
        try:
            for piece in micro_batches(batch, self.fit.micro_batch):
                self.engine.accumulate(*piece)
                waited += self._safe_point(piece=True)
            for _ in self.engine.pieces(lr):
                waited += self._safe_point(piece=True)
            result = self.engine.update(lr)
        except OndeviceError as error:
            if self.engine.torn:
                raise TornError(f"{error} at step {state.step + 1} (learning rate {lr:.3g})") from error
            self.engine.abort()
            state.cursor.load_state_dict(cursor_before)
            if isinstance(error, NonFiniteError):
                raise NonFiniteError(f"{error} at step {state.step + 1} (learning rate {lr:.3g})") from error
            raise
        step_s = self.world.monotonic() - started - waited
        state.advance(batch.x_BT.size, start_step=self.recipe.train.start_step)
        state.train_s += step_s
        tell_step(self.desk, state, result, lr=lr, step_s=step_s, tokens=batch.x_BT.size)

    def _evaluate(self) -> bool | None:
        """Measures the validation text; gives whether it is the best so far, None when it was asked to leave."""
        with self.state.shown():
            return self._measure()

    def _measure(self) -> bool | None:
        state, began = self.state, self.world.monotonic()
        self.pulse.enter("evaluate", step=state.step, tokens=state.tokens)
        evaluation = Evaluation.of(state.model, self.dataset, self.recipe, self.fit)
        for _ in evaluation.batches():
            self._safe_point()
            if self.orders.stop:
                return None
        mixed = mixed_loss(evaluation.losses)
        if mixed is None:
            return False
        best = state.measured(mixed) if math.isfinite(mixed) else None
        eval_s = self.world.monotonic() - began
        tell_evaluation(self.desk, state, self.dataset, self.recipe, evaluation, mixed, best=best, eval_s=eval_s)
        return bool(best)

    def _sample(self, requests: list[SampleRequest]) -> None:
        self.pulse.enter("sample", step=self.state.step, tokens=self.state.tokens)
        with self.state.shown():
            for request in requests:
                tell_sample(self.desk, self.state, self.dataset, self.recipe.sample, request)

    def _save(self, *, at_once: bool = False) -> None:
        """Commits a checkpoint; waits for the one in flight before, and for room on the disk."""
        self.desk.place.check()
        background = self.desk.limits.save_in_background and not self.orders.hold and not at_once
        self.orders.save = False
        self._settle()
        if self.keeper.shortage is None:
            self._try_to_save(background=background)
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Lets the training stand still, its state in memory, until the disk has room or someone asks to leave."""
        if self.keeper.shortage is None or self.orders.stop:
            return
        if self.engine.below is not None and self.engine.below.cache is not None:
            self.engine.below.cache.remove()  # what can be computed makes room for what cannot
        where = {"step": self.state.step, "tokens": self.state.tokens}
        with self.desk.waiting(str(self.keeper.shortage), **where):
            while self.keeper.shortage is not None and not self.orders.stop:
                self.desk.wait(str(self.keeper.shortage), seconds=ROOM_EVERY_S, **where)
                if not self.orders.stop and self.keeper.has_room(self.state, self.desk.limits):
                    self._try_to_save()

    def _try_to_save(self, *, background: bool = False) -> None:
        self.pulse.enter("save", step=self.state.step, tokens=self.state.tokens)
        saved = self.keeper.save(self.state, self.origin, limits=self.desk.limits, background=background)
        if not self.keeper.in_flight:
            self._tell_save(saved)

    def _settle(self, *, wait: bool = True) -> None:
        if self.keeper.landed or (wait and self.keeper.in_flight):
            self._tell_save(self.keeper.settle())

    def _tell_save(self, saved: Saved | None) -> None:
        self.desk.tell_save(self.state.step, saved, self.keeper.fault, self.keeper.take_warnings())

    def _leave(self, outcome: str, why: str) -> Outcome:
        self._settle()
        if self.state.step not in (0, self.keeper.saved_step):
            self.keeper.shortage = None  # once more, whatever the disk said last
            self._save(at_once=True)
            if self.keeper.fault is not None:
                self._end("failed", str(self.keeper.fault))
                raise self.keeper.fault
        self._end(outcome, why)
        return Outcome(outcome=outcome, step=self.state.step, why=why, stalled=self.chain.stalled_by(why))

    def _leave_unsaved(self, error: OndeviceError) -> Outcome:
        """Leaves after a step that was refused: weights and cursor are as before it and worth keeping."""
        why = (
            f"{error}. Nothing was written to the weights. Start a run with a lower train.lr under another name, or "
            "look at the text around this point."
        )
        self.telemetry.write("note", self.state.step, text=why)
        return self._leave("failed", why)

    def _leave_torn(self, error: OndeviceError) -> Outcome:
        """Leaves after a step that broke off half applied: only the last checkpoint is whole, and it stays the last."""
        self._settle()
        why = (
            f"{error}. Its update was half written, so the run stands at its last checkpoint, step "
            f"{self.keeper.saved_step:,}. Start a run with a lower train.lr under another name, or look at the text "
            "around this point."
        )
        self.telemetry.write("note", self.state.step, text=why, restored_step=self.keeper.saved_step)
        self._end("failed", why)
        return Outcome(outcome="failed", step=self.keeper.saved_step, why=why, stalled=self.chain.stalled_by(why))

    def _end(self, outcome: str, why: str) -> None:
        state = self.state
        if outcome == "failed":
            self.chain.tell_failure(state.step, why)
        rates, parting = self.pulse.rates(state.step), self.chain.parting(why) or self.desk.parting()
        self.telemetry.write("end", state.step, outcome=outcome, why=why, **rates, **parting)
        self.desk.last_word(outcome, step=state.step, tokens=state.tokens)
