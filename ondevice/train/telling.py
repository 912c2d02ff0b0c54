"""What the loop tells of a step, an evaluation and a sample: their records, and what the status shows of them.

Told, not decided: whether something was the best, or is due, is the loop's business.
"""

from __future__ import annotations

from ondevice.data.dataset import Dataset
from ondevice.errors import OndeviceError
from ondevice.evaluate.losses import Evaluation
from ondevice.run.recipe import SampleRecipe
from ondevice.train.desk import Desk
from ondevice.train.engine import StepResult
from ondevice.train.sample_request import SampleRequest
from ondevice.train.samples import write_sample
from ondevice.train.state import TrainState

__all__ = ["tell_evaluation", "tell_sample", "tell_step"]


def tell_step(desk: Desk, state: TrainState, result: StepResult, *, lr: float, step_s: float, tokens: int) -> None:
    """A step that was done; ``tokens`` of its effective batch, ``step_s`` seconds without rests."""
    desk.pulse.after_step(step_s)
    desk.pulse.note(loss=result.loss, lr=lr, epoch=state.cursor.epoch)
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
    desk: Desk, state: TrainState, evaluation: Evaluation, mixed: float, *, best: bool | None, eval_s: float
) -> None:
    """Losses per source and their mix. ``best`` None: the mix is not a number, and the run has diverged."""
    losses = evaluation.record()
    desk.telemetry.write(
        "eval",
        state.step,
        tokens=state.tokens,
        val_loss_mixed=mixed,
        **losses,
        best_step=state.best_step,
        trained_tokens=state.cursor.tokens_by_source(),
        trained_epochs=state.cursor.epochs_by_source(),
        eval_s=round(eval_s, 3),
    )
    if best is None:
        desk.trouble(state.step, "The validation loss is not a finite number: the run has diverged.")
        return
    desk.pulse.note(
        val_loss=losses["val_loss"], val_loss_mixed=mixed, best_step=state.best_step, best_loss=state.best_loss
    )
    desk.display.say(f"step {state.step}: validation loss {mixed:.4f}" + (" (best)" if best else ""))


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
