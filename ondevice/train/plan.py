"""The plan: turns a wish and a dataset into a recipe (`make_recipe`), and says what it will take (`Estimate`).

Pure values in, values out; ``ondevice.train.prepare`` measures the machine and calls it. No torch here, so that
``ondevice plan`` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ondevice.errors import DataError, UsageError
from ondevice.model.counts import count_parameters
from ondevice.run.recipe import (
    DataRecipe,
    EvalRecipe,
    Fit,
    ModelShape,
    Recipe,
    SampleRecipe,
    TrainRecipe,
)
from ondevice.run.schema import Config
from ondevice.train.fitting import optimizer_state_of
from ondevice.train.memory import MemoryEstimate, estimate_run
from ondevice.train.sizing import DEFAULT_MINUTES, MANY_EPOCHS, Corpus, choose_lr, needs_rate
from ondevice.train.top_layers import told_top_layers

__all__ = [
    "FEW_UPDATES",
    "SHARE_OF_TIME",
    "Estimate",
    "estimate",
    "make_recipe",
    "panel_cost",
    "spread",
    "train_budget",
    "warnings_of",
]

LOSS_SHARE, PANEL_SHARE = 0.035, 0.01  # of the training, for all evaluations together
LARGEST_PANEL = 8
PANEL_PROMPT_TOKENS = 32
SHARE_OF_TIME = 0.9  # the rest of the minutes goes to evaluation, samples, saves and start-up
FEW_UPDATES = 100


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will take. ``train_s`` counts training at the given rate, without rests."""

    parameters: int
    steps: int
    tokens: int
    epochs: float
    memory: MemoryEstimate
    train_s: float | None


def train_budget(config: Config, corpus: Corpus, *, tokens_per_step: int, tok_s: float | None) -> tuple[int, str]:
    """Optimizer steps and the reason. Exactly one of tokens, steps, epochs may be given; else minutes x tok_s."""
    train = config.train
    given = [key for key in ("tokens", "steps", "epochs") if getattr(train, key) is not None]
    if len(given) > 1:
        raise UsageError(f"'train.{given[0]}' and 'train.{given[1]}' say the same thing; give only one of them.")
    if train.steps is not None:
        return train.steps, f"{train.steps:,} steps as given"
    if train.tokens is not None:
        return math.ceil(train.tokens / tokens_per_step), f"the first step at or past {train.tokens:,} tokens"
    if train.epochs is not None:
        steps = math.ceil(train.epochs * corpus.train_tokens / tokens_per_step)
        return max(1, steps), f"{train.epochs:g} passes over {corpus.train_tokens:,} tokens"
    if not needs_rate(config):
        return _steps_for_data(corpus, tokens_per_step)
    minutes = config.budget.minutes or DEFAULT_MINUTES
    if tok_s is None:
        raise UsageError("a budget in minutes needs a measured rate; this is a bug in the caller.")
    steps = max(1, math.floor(minutes * 60.0 * SHARE_OF_TIME * tok_s / tokens_per_step))
    return steps, f"{minutes:g} minutes x {SHARE_OF_TIME:.0%} at {tok_s:,.0f} tokens/s, fixed now"


def _steps_for_data(corpus: Corpus, tokens_per_step: int) -> tuple[int, str]:
    return max(1, math.ceil(MANY_EPOCHS * corpus.train_tokens / tokens_per_step)), (
        f"only memory was given, so {MANY_EPOCHS:g} passes over the text (more repeats teach little)"
    )


def spread(count: int, steps: int) -> tuple[int, ...]:
    """``count`` steps evenly over 0 ... steps, both ends included; one means the last only."""
    if count <= 0:
        return ()
    if count == 1:
        return (steps,)
    return tuple(sorted({round(index * steps / (count - 1)) for index in range(count)}))


def make_recipe(
    config: Config,
    corpus: Corpus,
    *,
    shape: ModelShape,
    batch: int,
    data: DataRecipe,
    precision: str,
    tok_s: float | None,
    prompts: tuple[str, ...],
    why: Mapping[str, str],
    panel_prompts: tuple[str, ...] = (),
) -> Recipe:
    """The complete decision. ``prompts`` serve where the config has none; ``panel_prompts`` as far as they are paid."""
    reasons = dict(why)
    needed = shape.context + 1
    if corpus.train_tokens < needed and not corpus.packed:
        raise DataError(
            f"The training text has {corpus.train_tokens:,} tokens, fewer than one block of {needed}; "
            "add text or make model.context smaller."
        )
    steps, reasons["train.steps"] = train_budget(config, corpus, tokens_per_step=batch * shape.context, tok_s=tok_s)
    train = _train_recipe(config, shape, steps=steps, batch=batch, precision=precision, why=reasons)
    sample = config.sample
    return Recipe(
        model=shape,
        data=data,
        train=train,
        eval=EvalRecipe(
            steps=spread(config.eval.count, steps) if corpus.val_tokens else (),
            max_tokens=_eval_tokens(config, corpus, train),
            panel_prompts=panel_prompts[: _panel(config, shape, train)],
            panel_tokens=config.eval.panel_tokens,
        ),
        sample=SampleRecipe(
            steps=spread(sample.count + 1, steps)[1:] if sample.count else (),
            prompts=sample.prompts or prompts,
            max_new_tokens=sample.max_new_tokens,
            temperature=sample.temperature,
            top_k=sample.top_k,
            top_p=sample.top_p,
            repetition_penalty=sample.repetition_penalty,
            seed=sample.seed,
        ),
        why=reasons,
    )


def _train_recipe(
    config: Config, shape: ModelShape, *, steps: int, batch: int, precision: str, why: dict[str, str]
) -> TrainRecipe:
    train = config.train
    lr = choose_lr(config, shape, why)
    lr_min = train.lr_min if train.lr_min is not None else lr / 10
    if train.top_layers is not None:
        why["train.top_layers"] = told_top_layers(shape, train.top_layers)
    tail_steps = max(1, round(train.tail_fraction * steps)) if train.schedule == "wsd" else 0
    if train.schedule == "wsd" and train.tail == "inverse-proportional" and lr_min <= 0:
        raise UsageError("'train.lr_min' must be more than 0 for the inverse-proportional tail.")
    if train.schedule == "ramp" and lr_min <= 0:
        raise UsageError("'train.lr_min' must be more than 0 for a ramp.")
    if lr_min > lr:
        raise UsageError(f"'train.lr_min' {lr_min:g} is above the peak 'train.lr' {lr:g}.")
    return TrainRecipe(
        steps=steps,
        tokens=steps * batch * shape.context,
        batch=batch,
        optimizer=train.optimizer,
        optimizer_state=optimizer_state_of(config),
        lr=lr,
        lr_min=lr_min,
        schedule=train.schedule,
        warmup_steps=_warmup_steps(train.warmup_steps, steps, why),
        tail=train.tail,
        tail_steps=tail_steps,
        weight_decay=train.weight_decay,
        beta1=train.beta1,
        beta2=train.beta2,
        eps=train.eps,
        clip=train.clip,
        clip_scope=train.clip_scope,
        top_layers=train.top_layers,
        average=train.average,
        init=train.init,
        seed=train.seed,
        precision=precision,
        compile=train.compile,
    )


def _warmup_steps(given: int | None, steps: int, why: dict[str, str]) -> int:
    if given is not None:
        return min(given, steps)
    why["train.warmup_steps"] = "a fiftieth of the steps, at most 200"
    return min(200, steps // 50)


def _evaluations(config: Config) -> int:
    """How many there will be: a chain is measured at its beginning and at the end of each part."""
    return config.chain.parts + 1 if config.chain.parts and config.eval.count else config.eval.count


def _eval_tokens(config: Config, corpus: Corpus, train: TrainRecipe) -> int:
    """Validation tokens per source so that all evaluations cost about 3.5 % of training (a forward pass is a third of a
    step), at least one window; 0 means all."""
    if config.eval.max_tokens is not None:
        return config.eval.max_tokens
    affordable = LOSS_SHARE * 3.0 * train.tokens / max(1, _evaluations(config)) / max(1, corpus.sources)
    window = train.tokens // (train.steps * train.batch)
    return int(min(65_536, max(window, affordable)))


def _panel(config: Config, shape: ModelShape, train: TrainRecipe) -> int:
    """Texts at each evaluation that cost about 1 % of training; none where not even two are paid."""
    if config.eval.panel is not None:
        return config.eval.panel
    affordable = PANEL_SHARE * 3.0 * train.tokens / max(1, _evaluations(config))
    sizes = range(LARGEST_PANEL, 1, -1)
    return next((texts for texts in sizes if panel_cost(texts, config.eval.panel_tokens, shape) <= affordable), 0)


def panel_cost(texts: int, tokens: int, shape: ModelShape) -> float:
    """What writing so many texts together costs, in tokens of a forward pass over validation text.

    Beside its tokens each step of writing reads every weight once, which is as much work as some 8 tokens, and starts
    every layer's operations anew, which takes 2.5 ms a layer where a token takes 2 operations a parameter at 20 GFLOP/s
    (measured on small models). All of it costs up to 1.7 times what so many tokens of many at once do (measured in
    processor time at 0.7 to 8 M parameters)."""
    overhead = 8.0 + 2.5e7 * shape.layers / count_parameters(shape)
    return 1.7 * (PANEL_PROMPT_TOKENS * texts + tokens * (texts + overhead))


def estimate(recipe: Recipe, fit: Fit, *, tok_s: float | None) -> Estimate:
    """What the recipe will take with this fit at ``tok_s`` tokens a second."""
    unique = min(recipe.data.train_tokens, recipe.data.max_unique_tokens or recipe.data.train_tokens)
    steps, tokens = recipe.train.planned_steps, recipe.train.tokens - recipe.train.start_tokens
    parameters = count_parameters(recipe.model)
    return Estimate(
        parameters=parameters,
        steps=steps,
        tokens=tokens,
        epochs=tokens / max(1, unique),
        memory=estimate_run(recipe, fit),
        train_s=None if not tok_s else tokens / tok_s,
    )


def warnings_of(expected: Estimate) -> list[str]:
    """Sentences about plans that will disappoint."""
    found = []
    if expected.steps < FEW_UPDATES:
        found.append(
            f"Only {expected.steps} optimizer updates: fewer than {FEW_UPDATES} rarely teach anything. "
            "Make train.batch smaller or give more tokens or minutes."
        )
    if expected.epochs > MANY_EPOCHS:
        found.append(
            f"The text is repeated {expected.epochs:.1f} times: beyond {MANY_EPOCHS:g} a model learns little that is "
            "new and starts to recite. Add text, or spend fewer tokens."
        )
    return found
