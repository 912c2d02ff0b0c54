"""One dial: derives model shape, batch and learning rate from minutes and memory where a config leaves them open.

Pure arithmetic over values; every derived number comes with a sentence that says why. Makes no decision a person made.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ondevice.errors import DataError, ResourceError, UsageError
from ondevice.model.counts import count_parameters, flops_per_token
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.schema import Config
from ondevice.train.fitting import choose_fit, optimizer_state_of
from ondevice.train.memory import estimate_memory

__all__ = [
    "Corpus",
    "Machine",
    "choose_batch",
    "choose_lr",
    "choose_shape",
    "expected_tokens",
    "needs_rate",
]

DEFAULT_MINUTES = 30.0
MANY_EPOCHS = 4.0  # more passes over the same text teach little
TOKENS_PER_PARAMETER = 2.0  # below this a smaller model learns more in the same time (measured, see tools/LOG.md)
EFFICIENCY = 0.6  # share of the measured matrix-product rate that a whole step reaches on small models
SMALLEST_STEP, LARGEST_STEP = 2_048.0, 65_536.0  # tokens
LARGEST_GIVEN_STEP = 2**24  # tokens: a step's ids are in memory together, 16 bytes a token
SHORTEST_CONTEXT = 8
# (layers, width), each about 1.7 times the work of the one before
LADDER = ((2, 64), (3, 96), (4, 128), (4, 192), (5, 256), (6, 320), (8, 384), (10, 512), (12, 640), (12, 768))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What the plan needs to know of a dataset. ``largest_tokens``: training tokens of the largest source, whose
    windows no other source shares; None for all of them. ``packed``: tokens are places in rows of examples."""

    train_tokens: int
    val_tokens: int
    vocab_size: int
    sources: int
    largest_tokens: int | None = None
    packed: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the plan needs to know of the device. ``flops_s``: measured fp32 matrix-product rate; ``memory_mb``: what
    the process may use."""

    flops_s: float
    memory_mb: float
    cores: int


def choose_shape(
    config: Config, corpus: Corpus, machine: Machine, why: dict[str, str], *, base: ModelShape | None = None
) -> ModelShape:
    """The shape of the config with open keys derived; reasons go to ``why``. ``base`` is that of the model to begin
    with, at its longest context. Raises ResourceError if nothing fits, UsageError for a shape the base has not."""
    context = config.model.context or _choose_context(corpus, why)
    if base is not None and config.model.context is None:
        context = min(context, base.context)
    _check_context(corpus, context)
    if base is not None:
        return _of_base(config, corpus, base, context)
    ladder: tuple[tuple[int, int], ...] = LADDER
    if config.model.width is not None or config.model.layers is not None:
        ladder = (_given_size(config),)
    shapes = [_shape(config, corpus, layers=layers, width=width, context=context) for layers, width in ladder]
    # Given heads must divide a derived width; a width that a person gave is for check_shape to judge.
    shapes = [shape for shape in shapes if _splits(shape)] or shapes
    fitting = [shape for shape in shapes if _fits(config, shape, machine)]
    if not fitting:
        smallest = shapes[0]
        fit = choose_fit(config, smallest, machine, batch=1, why={})
        need_mb = estimate_memory(smallest, fit, optimizer=optimizer_state_of(config)).total_mb
        raise ResourceError(
            f"A model of {count_parameters(smallest):,} parameters needs about {need_mb:,.0f} MB and "
            f"{machine.memory_mb:,.0f} MB may be used; make model.width, model.context or the vocabulary smaller, or "
            "allow more with --memory."
        )
    if len(ladder) == 1:
        return fitting[0]
    return _largest_worth_training(config, corpus, fitting, machine, why)


def _of_base(config: Config, corpus: Corpus, base: ModelShape, context: int) -> ModelShape:
    """A model that begins with others' weights has their shape."""
    for key in ("layers", "width", "heads", "kv_heads", "hidden"):
        if (given := getattr(config.model, key)) not in (None, getattr(base, key)):
            raise UsageError(f"'model.{key}' is {given}, but model.base has {getattr(base, key)}; leave it out.")
    if context > base.context:
        raise UsageError(f"'model.context' {context:,} is more than the {base.context:,} tokens of model.base.")
    if corpus.vocab_size > base.vocab_size:
        raise UsageError(
            f"The tokenizer has {corpus.vocab_size:,} tokens and model.base only {base.vocab_size:,}: they do not "
            "belong together; leave tokenizer.path out to take the one of the base."
        )
    return dataclasses.replace(base, context=context, dropout=config.model.dropout)


def _largest_worth_training(
    config: Config, corpus: Corpus, shapes: list[ModelShape], machine: Machine, why: dict[str, str]
) -> ModelShape:
    if needs_rate(config) and config.budget.minutes is None:
        why["budget.minutes"] = f"nothing else was given, so {DEFAULT_MINUTES:.0f} minutes"
    chosen = shapes[0]
    for shape in shapes:
        if expected_tokens(config, corpus, shape, machine) >= TOKENS_PER_PARAMETER * count_parameters(shape):
            chosen = shape
    expected = expected_tokens(config, corpus, chosen, machine)
    why["model"] = (
        f"the largest shape that sees at least {TOKENS_PER_PARAMETER:g} tokens a parameter: about "
        f"{expected / 1e6:.1f} M tokens for {count_parameters(chosen) / 1e6:.2f} M parameters"
    )
    return chosen


def expected_tokens(config: Config, corpus: Corpus, shape: ModelShape, machine: Machine) -> float:
    """About how many tokens the run will see, before any step was timed."""
    train = config.train
    if train.tokens is not None:
        return train.tokens
    if train.epochs is not None:
        return train.epochs * corpus.train_tokens
    if train.steps is not None:
        return train.steps * (train.batch or 16) * shape.context
    if not needs_rate(config):
        return MANY_EPOCHS * corpus.train_tokens
    minutes = config.budget.minutes or DEFAULT_MINUTES
    return minutes * 60.0 * EFFICIENCY * machine.flops_s / flops_per_token(shape, shape.context)


def needs_rate(config: Config) -> bool:
    """Whether the number of steps depends on how fast this machine is."""
    train, budget = config.train, config.budget
    given = (train.tokens, train.epochs, train.steps)
    return given == (None, None, None) and (budget.minutes is not None or budget.memory_mb is None)


def _choose_context(corpus: Corpus, why: dict[str, str]) -> int:
    """Long enough to be worth learning, short enough for many windows, of which a source must hold some."""
    context, largest = 256 if corpus.train_tokens >= 1_000_000 else 128, corpus.train_tokens
    if corpus.largest_tokens is not None:
        largest = min(largest, corpus.largest_tokens)
    while context > 32 and (corpus.train_tokens < 64 * context or largest < 8 * context):
        context //= 2
    while context > SHORTEST_CONTEXT and largest < context + 1:
        context //= 2
    why["model.context"] = f"{context} suits {corpus.train_tokens:,} training tokens"
    if largest < corpus.train_tokens:
        why["model.context"] += f", {largest:,} in the largest source"
    return context


def _check_context(corpus: Corpus, context: int) -> None:
    """Refuses a text without a single window before anything of that length is timed."""
    if corpus.largest_tokens is not None and corpus.largest_tokens < context + 1:
        raise DataError(
            f"The corpus is smaller than one block: its largest source has {corpus.largest_tokens:,} training tokens "
            f"and a window needs {context + 1:,}; add text or take a smaller model.context."
        )


def _given_size(config: Config) -> tuple[int, int]:
    """Layers and width where at least one is given; the other follows the ladder's proportions."""
    layers, width = config.model.layers, config.model.width
    if width is None:
        return layers or 1, min(LADDER, key=lambda size: abs(size[0] - (layers or 1)))[1]
    return layers or min(LADDER, key=lambda size: abs(size[1] - width))[0], width


def _shape(config: Config, corpus: Corpus, *, layers: int, width: int, context: int) -> ModelShape:
    model = config.model
    heads = model.heads or _choose_heads(width)
    if model.arch == "gpt2" and model.kv_heads not in (None, heads):
        raise UsageError("'model.kv_heads' must equal 'model.heads' for gpt2; leave it out.")
    ratio = 8 / 3 if model.arch == "llama" else 4
    return ModelShape(
        arch=model.arch,
        vocab_size=corpus.vocab_size,
        context=context,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=model.kv_heads or heads,
        hidden=model.hidden or round(ratio * width / 32) * 32 or 32,
        tied=model.tied,
        dropout=model.dropout,
        rope_theta=model.rope_theta,
        norm_eps=model.norm_eps,
    )


def _choose_heads(width: int) -> int:
    """Heads of about 32 (64 from width 512 on) that divide the width into even parts, which rotation needs."""
    wanted = max(1, width // (64 if width >= 512 else 32))
    return next((heads for heads in range(wanted, 0, -1) if width % (2 * heads) == 0), 1)


def _splits(shape: ModelShape) -> bool:
    return shape.width % (2 * shape.heads) == 0 and shape.heads % shape.kv_heads == 0


def _fits(config: Config, shape: ModelShape, machine: Machine) -> bool:
    fit = Fit(micro_batch=1, threads=1, activation_checkpointing=False, loss_chunk_tokens=256)
    averaged = config.train.average > 0
    need_mb = estimate_memory(shape, fit, optimizer=optimizer_state_of(config), averaged=averaged).total_mb
    return need_mb <= machine.memory_mb


def choose_batch(config: Config, shape: ModelShape, expected_tokens: float, why: dict[str, str]) -> int:
    """Sequences in an optimizer step: about 1/1500 of the expected tokens, within the bounds above."""
    if config.train.batch is not None:
        if config.train.batch * shape.context > LARGEST_GIVEN_STEP:
            raise UsageError(
                f"'train.batch' {config.train.batch:,} with a context of {shape.context:,} makes "
                f"{config.train.batch * shape.context:,} tokens a step; at most {LARGEST_GIVEN_STEP:,} are allowed."
            )
        return config.train.batch
    wanted = min(LARGEST_STEP, max(SMALLEST_STEP, expected_tokens / 1500.0))
    batch = 1 << (max(1, round(wanted / shape.context)).bit_length() - 1)
    why["train.batch"] = f"{batch} x {shape.context} = {batch * shape.context:,} tokens a step"
    return batch


def choose_lr(config: Config, shape: ModelShape, why: dict[str, str]) -> float:
    """Peak rate. AdamW: 3e-3 up to width 128, then falling as 1/width (as in maximal-update scaling). Muon, whose
    updates are scaled by width already: 1e-2, falling as its square root for the embedding's sake."""
    if config.train.lr is not None:
        return config.train.lr
    if config.model.base:
        why["train.lr"] = "gentle, for weights that have learned much already"
        return 5e-4 if config.train.optimizer == "muon" else 5e-5
    narrow = min(1.0, 128 / shape.width)
    if config.train.optimizer == "muon":
        why["train.lr"] = f"muon: 1e-2 x sqrt(min(1, 128 / width {shape.width}))"
        return 1e-2 * math.sqrt(narrow)
    why["train.lr"] = f"adamw: 3e-3 x min(1, 128 / width {shape.width})"
    return 3e-3 * narrow
