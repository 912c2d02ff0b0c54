"""What the loop tells of a step, an evaluation with its advice, and a sample: their records, and what the status shows.

Told, not decided: whether something was the best, or is due, is the loop's business.
"""

from __future__ import annotations

from typing import Any

from ondevice.data.dataset import Dataset
from ondevice.errors import OndeviceError
from ondevice.evaluate.advice import Seen
from ondevice.evaluate.losses import Evaluation, language_losses
from ondevice.run.recipe import Recipe, SampleRecipe, TrainRecipe
from ondevice.train.desk import Desk
from ondevice.train.engine import StepResult
from ondevice.train.sample_request import SampleRequest
from ondevice.train.samples import probe_panel, write_panel, write_sample
from ondevice.train.state import TrainState

__all__ = ["tell_evaluation", "tell_sample", "tell_step"]


def tell_step(desk: Desk, state: TrainState, result: StepResult, *, lr: float, step_s: float, tokens: int) -> None:
    """A step that was done; ``tokens`` of its effective batch, ``step_s`` seconds without rests."""
    desk.pulse.after_step(step_s)
    desk.pulse.note(loss=result.loss, lr=lr, epochs=round(state.cursor.epochs, 4))
    learned = {} if result.tokens == tokens else {"learned_tokens": result.tokens}
    desk.telemetry.write(
        "step",
        state.step,
        tokens=state.tokens,
        loss=result.loss,
        **learned,
        lr=lr,
        grad_norm=result.grad_norm,
        step_s=round(step_s, 5),
        tok_s=round(tokens / step_s, 1),
    )


def tell_evaluation(
    desk: Desk,
    state: TrainState,
    dataset: Dataset,
    recipe: Recipe,
    evaluation: Evaluation,
    mixed: float,
    *,
    best: bool | None,
    eval_s: float,
) -> None:
    """Losses per source and their mix, what the model writes, and what follows from all evaluations so far. ``best``
    None: the mix is not a number, and the run has diverged."""
    losses, by_source = evaluation.record(), state.cursor.epochs_by_source()
    trained = state.cursor.tokens_by_source()
    unique = sum(round(tokens / max(1.0, by_source[name])) for name, tokens in trained.items())
    panel = _panel(desk, state, dataset, recipe) if best is not None else {}
    desk.telemetry.write(
        "eval",
        state.step,
        tokens=state.tokens,
        val_loss_mixed=mixed,
        **losses,
        val_loss_by_language=language_losses(evaluation.losses, {each.name: each.language for each in dataset.sources}),
        best_step=state.best_step,
        trained_tokens=trained,
        epochs=round(state.cursor.epochs, 4),
        trained_epochs=by_source,
        unique_tokens=unique,
        eval_s=round(eval_s, 3),
        **panel,
    )
    if best is None:
        desk.trouble(state.step, "The validation loss is not a finite number: the run has diverged.")
        return
    desk.pulse.note(
        val_loss=losses["val_loss"], val_loss_mixed=mixed, best_step=state.best_step, best_loss=state.best_loss
    )
    desk.pulse.note(unique_tokens=unique, most_epochs=max(by_source.values(), default=None))
    desk.display.say(f"step {state.step}: validation loss {mixed:.4f}" + (" (best)" if best else ""))
    repeated = panel["panel"]["repeated_4gram_ratio"] if panel else None
    seen = Seen(
        step=state.step,
        tokens=state.tokens,
        mixed=mixed,
        losses=losses["val_loss"],
        epochs=by_source,
        repeated=repeated,
    )
    _advise(desk, state, seen, recipe.train)


def _panel(desk: Desk, state: TrainState, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """What the model writes, how much that repeats itself, and how well it expects the true end of its prompts; nothing
    where nobody asked or it cannot write."""
    if not recipe.eval.panel_prompts:
        return {}
    began = desk.world.monotonic()
    desk.pulse.enter("sample", step=state.step, tokens=state.tokens)
    try:
        tokenizer = dataset.tokenizer()
        texts, found = write_panel(state.model, tokenizer, recipe, pause=lambda: _rest(desk, state))
        probes = probe_panel(state.model, tokenizer, recipe, pause=lambda: _rest(desk, state))
    except OndeviceError as error:
        desk.trouble(state.step, f"No texts at this evaluation: {error}")
        return {}
    panel_s = round(desk.world.monotonic() - began, 3)
    return {"panel": found.to_json(), "generations": texts, "probes": probes, "panel_s": panel_s}


def _rest(desk: Desk, state: TrainState) -> None:
    desk.safe_point(step=state.step, tokens=state.tokens)


def _advise(desk: Desk, state: TrainState, seen: Seen, train: TrainRecipe) -> None:
    """Tells what is new; the status shows all that holds."""
    before_tail = train.schedule == "wsd" and state.step < train.steps - train.tail_steps
    for told in state.adviser.see(seen, before_tail=before_tail):
        desk.telemetry.write("advice", state.step, what=told.what, source=told.source or None, text=told.text)
        desk.display.say(told.text)
    desk.pulse.note(advice=state.adviser.standing)


def tell_sample(desk: Desk, state: TrainState, dataset: Dataset, recipe: SampleRecipe, request: SampleRequest) -> None:
    """Writes a sample and tells it; an odd prompt must not end a run."""
    prompt, sampling = request.prompt, request.applied_to(recipe)
    answers = dataset.examples is not None and dataset.examples.kind != "completion"
    try:
        text = write_sample(state.model, dataset.tokenizer(), sampling, prompt, answers=answers)
    except OndeviceError as error:
        desk.trouble(state.step, f"No sample: {error}", **request.told)
        return
    desk.telemetry.write("sample", state.step, prompt=prompt, text=text, **request.told)
    desk.display.say(f"step {state.step} sample: {prompt}{text}")
