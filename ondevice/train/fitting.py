"""Which fit a run takes: every way to cut the work, what each needs and costs, and the cheapest in time that fits.

Time is counted in ordinary steps, from arithmetic: what is computed twice, and a little for smaller pieces. Pure
values; no torch, no clock. `ways` is what ``ondevice plan`` shows as a table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondevice.errors import ResourceError, UsageError
from ondevice.model.counts import count_breakdown
from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.run.schema import Config
from ondevice.train.adapter_wish import adapter_of
from ondevice.train.memory import MemoryEstimate, estimate_memory

if TYPE_CHECKING:
    from ondevice.train.sizing import Machine

__all__ = ["Way", "choose_fit", "describe", "fastest", "frontier", "memory_of", "optimizer_state_of", "time_of", "ways"]

OPTIMIZER_STATE = {"adamw": "adamw-fp32", "muon": "muon-zolotarev-adamw-fp32"}
MOST_TOKENS = 4096  # of a micro-batch: more are not faster
SMALL_CHUNK = 64  # tokens whose logits exist at once, where every megabyte counts
_HALVED = 0.02  # of a step's time, for each halving of the micro-batch
_CHUNKED = 0.01  # the same of the logits
_DEPTH_STEPS = 12
_LAYERWISE = 0.03  # memory given back after each block is cleared again


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run a step. ``time``: of it, in ordinary steps with the largest micro-batch."""

    fit: Fit
    memory: MemoryEstimate
    time: float


def choose_fit(
    config: Config,
    shape: ModelShape,
    machine: Machine,
    *,
    batch: int,
    why: dict[str, str],
    ids: int | None = None,
) -> Fit:
    """The cheapest fit in time that the memory has room for; the reason goes to ``why``. ``ids`` as in `memory_of`.
    Raises ResourceError when nothing fits, with what would."""
    threads = config.fit.threads or max(1, min(4, machine.cores))
    known = ways(config, shape, batch=batch, threads=threads, ids=ids)
    chosen = fastest(known, machine.memory_mb)
    if chosen is not None:
        need_mb = chosen.memory.total_mb
        why["fit"] = f"{describe(chosen.fit)} (of {batch}): about {need_mb:,.0f} of {machine.memory_mb:,.0f} MB"
        return chosen.fit
    least_mb = min(way.memory.total_mb for way in known)
    raise ResourceError(
        f"Training needs about {least_mb:,.0f} MB and {machine.memory_mb:,.0f} MB may be used; "
        f"make {_what_would_fit(config)} smaller, or allow more with --memory."
    )


def fastest(known: Iterable[Way], memory_mb: float) -> Way | None:
    """The cheapest way in time that needs at most ``memory_mb``, of equal ones that which needs the least."""
    fitting = [way for way in known if way.memory.total_mb <= memory_mb]
    return min(fitting, key=lambda way: (round(way.time, 6), way.memory.total_mb), default=None)


def frontier(known: Iterable[Way]) -> list[Way]:
    """Ways that no other beats in both time and memory, the cheapest in time first."""
    found: list[Way] = []
    for way in sorted(known, key=lambda way: (round(way.time, 6), way.memory.total_mb)):
        if not found or way.memory.total_mb < found[-1].memory.total_mb:
            found.append(way)
    return found


def ways(
    config: Config, shape: ModelShape, *, batch: int, threads: int, ids: int | None = None, precision: str | None = None
) -> list[Way]:
    """Every way that the config leaves open, the plainest first. ``ids`` and ``precision`` as in `memory_of`."""
    adapter, top_layers = adapter_of(config, shape), config.train.top_layers
    waits = config.train.clip > 0 and config.train.clip_scope == "all"
    start = min(batch, config.fit.micro_batch or max(1, MOST_TOKENS // shape.context))
    found = []
    for fit in _fits(config, shape, start=start, threads=threads, adapter=adapter, waits=waits):
        memory = memory_of(config, shape, fit, batch=batch, ids=ids, precision=precision)
        time = time_of(fit, shape, start=start, chunk=_chunk(config, fit, shape), top_layers=top_layers)
        found.append(Way(fit=fit, memory=memory, time=time))
    return found


def memory_of(
    config: Config,
    shape: ModelShape,
    fit: Fit,
    *,
    batch: int | None = None,
    ids: int | None = None,
    precision: str | None = None,
) -> MemoryEstimate:
    """Peak memory of what the config wishes for, with a fit; ``shape`` as it trains. ``batch``: sequences of a whole
    step (None: of several micro-batches); ``ids``: of the tokenizer, where a trimmed vocabulary has fewer;
    ``precision``: of the products (None: the config's, and fp32 where that is auto)."""
    train = config.train
    return estimate_memory(
        shape,
        fit,
        optimizer=optimizer_state_of(config),
        adapter=adapter_of(config, shape),
        batch=batch,
        waits=train.clip > 0 and train.clip_scope == "all",
        top_layers=train.top_layers,
        averaged=train.average > 0,
        ids=ids,
        compiled=train.compile,
        precision=precision or train.precision,
    )


def _fits(
    config: Config, shape: ModelShape, *, start: int, threads: int, adapter: AdapterRecipe | None, waits: bool
) -> Iterator[Fit]:
    wish = config.fit
    for micro_batch in _halvings(start):
        plain = Fit(micro_batch=micro_batch, threads=threads, activation_checkpointing=False, loss_chunk_tokens=1)
        chunk = _chunk(config, plain, shape)
        plain = dataclasses.replace(plain, loss_chunk_tokens=chunk)
        for recompute in (False, True) if wish.activation_checkpointing is None else (wish.activation_checkpointing,):
            if not wish.layerwise:
                fit = dataclasses.replace(plain, activation_checkpointing=recompute)
                yield fit
                if recompute and chunk > SMALL_CHUNK and adapter is not None:
                    yield dataclasses.replace(fit, loss_chunk_tokens=SMALL_CHUNK)
        if wish.layerwise or (wish.layerwise is None and _is_layerwise_worth(config)):
            for size in dict.fromkeys((chunk, min(chunk, 2 * SMALL_CHUNK))):
                yield from _layerwise(config, shape, dataclasses.replace(plain, loss_chunk_tokens=size), waits=waits)


def _is_layerwise_worth(config: Config) -> bool:
    """Not for adapters, whose gradients are small, nor for Muon, which updates equal matrices of blocks together, nor
    where blocks are compiled."""
    wish, plain = config.fit, config.adapter.method == "none" and config.train.optimizer == "adamw"
    return plain and not config.train.compile and wish.activation_checkpointing is None


def _layerwise(config: Config, shape: ModelShape, fit: Fit, *, waits: bool) -> Iterator[Fit]:
    wish, layers = config.fit, min(shape.layers, config.train.top_layers or shape.layers)
    keeps = _counts(layers) if wish.kept_blocks is None else (min(layers, wish.kept_blocks),)
    repeats: Iterable[int] = (0,)
    if waits:
        repeats = _counts(layers) if wish.repeated_blocks is None else (min(layers, wish.repeated_blocks),)
    for kept in keeps:
        for repeated in repeats:
            yield dataclasses.replace(fit, layerwise=True, kept_blocks=kept, repeated_blocks=repeated)


def _counts(layers: int) -> list[int]:
    """From no block to all; of deep models a dozen steps between, as the pairs of all would take seconds."""
    return sorted({round(step * layers / _DEPTH_STEPS) for step in range(_DEPTH_STEPS + 1)})


def time_of(fit: Fit, shape: ModelShape, *, start: int, chunk: int, top_layers: int | None = None) -> float:
    """Of a step, in ordinary ones of the whole model with micro-batches of ``start`` and logits of ``chunk`` tokens;
    where only the ``top_layers`` learn, backward ends above the others."""
    counts = count_breakdown(shape)
    blocks = counts.attention + counts.mlp
    share = blocks / (blocks + shape.vocab_size * shape.width)  # of the forward pass, a third of a step
    layers = min(shape.layers, top_layers or shape.layers)
    below = 2 / 3 * share * (1 - layers / shape.layers)
    share *= layers / shape.layers
    if fit.layerwise:
        kept, repeated = min(layers, fit.kept_blocks), min(layers, fit.repeated_blocks)
        twice = share * (layers - kept) / layers / 3 + share * repeated / layers + _LAYERWISE
    else:
        twice = share / 3 if fit.activation_checkpointing else 0.0
    smaller = _HALVED * math.log2(start / fit.micro_batch) + _CHUNKED * math.log2(
        max(1.0, chunk / fit.loss_chunk_tokens)
    )
    return 1.0 + twice + smaller - below


def describe(fit: Fit) -> str:
    """A fit in a few words."""
    words = f"micro-batch {fit.micro_batch}, logits of {fit.loss_chunk_tokens} tokens"
    if not fit.layerwise:
        return words + (", recomputing activations" if fit.activation_checkpointing else "")
    words += f", step inside backward, {fit.kept_blocks} blocks keep activations"
    return words + (f", {fit.repeated_blocks} compute gradients twice" if fit.repeated_blocks else "")


def _chunk(config: Config, fit: Fit, shape: ModelShape) -> int:
    return min(config.fit.loss_chunk_tokens, max(16, fit.micro_batch * shape.context))


def _halvings(start: int) -> Iterator[int]:
    while start >= 1:
        yield start
        start //= 2


def _what_would_fit(config: Config) -> str:
    if not config.model.base:
        return "model.width or model.context"
    fewer = ["model.vocabulary (trimmed)"] if config.model.vocabulary == "full" else []
    if config.adapter.method == "none":
        keys = ["train.top_layers", "model.context", *fewer]
        if config.train.optimizer == "adamw" and config.train.optimizer_state != "int8":
            keys.append("train.optimizer_state (int8)")
        elif config.train.optimizer == "adamw" and config.train.weights != "bf16":
            keys.append("train.weights (bf16)")
    else:
        keys = [
            "model.context",
            *fewer,
            *(["adapter.base_format (nf4)"] if config.adapter.base_format != "nf4" else []),
        ]
    return f"{', '.join(keys[:-1])} or {keys[-1]}" if keys[1:] else keys[0]


def optimizer_state_of(config: Config) -> str:
    """The name of the optimizer with its kind of weights and state, as recipes and checkpoints give it: ``adamw``,
    ``adamw-int8``, ``adamw-bf16``, ``adamw-bf16-int8`` or Muon's. Raises UsageError."""
    if config.train.weights == "bf16":
        _check_narrow(config)
        return "adamw-bf16-int8" if config.train.optimizer_state == "int8" else "adamw-bf16"
    if config.train.optimizer_state == "int8":
        if config.train.optimizer == "muon" and config.adapter.method == "none":
            raise UsageError("'train.optimizer_state' int8 is adamw's: add train.optimizer = 'adamw'.")
        return "adamw-int8"
    return OPTIMIZER_STATE["adamw" if config.adapter.method != "none" else config.train.optimizer]


def _check_narrow(config: Config) -> None:
    """Raises UsageError for what bf16 weights do not go with."""
    if config.adapter.method != "none":
        raise UsageError(
            "'train.weights' bf16 is for whole models, and what an adapter learns is little: leave it out; the frozen "
            "base is kept so by adapter.base_format = 'bf16'."
        )
    if config.train.optimizer != "adamw":
        raise UsageError("'train.weights' bf16 is adamw's: add train.optimizer = 'adamw'.")
    if config.train.average:
        raise UsageError(
            "'train.weights' bf16 does not go with 'train.average', which moves by less than bf16 can hold; leave one "
            "of them out."
        )
