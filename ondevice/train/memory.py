"""How much memory a training process will take: arithmetic over shape, fit and optimizer, no torch.

Counts what is alive at the peak of a step, and what the C library keeps beyond it. The constants are measured with
``tools/bench/memory.py``. Read by the plan, which prints it, and by the choice of size and fit.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from ondevice.model.counts import count_breakdown, count_learned
from ondevice.model.frozen_counts import frozen_bytes
from ondevice.model.targets import adapter_parameters, chosen_targets
from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape, Recipe
from ondevice.train import memory_layerwise, memory_plain

__all__ = ["MUON_STACK", "PACKED_BYTES", "RUNTIME_MB", "MemoryEstimate", "estimate_memory", "estimate_run"]

MUON_STACK = 2**19  # numbers in the square matrices that Muon works on together: so many stay in the cache
RUNTIME_MB = 270.0  # python, torch, its thread pools, and a heap of small blocks, after first steps
_COMPILER_MB = 140.0  # torch's compiler, once blocks were compiled; g++ took 440 MB of its own before the first step
_TOKENIZER_MB = 20.0  # the package of a learned tokenizer, its vocabulary, and the mapped chunks of a larger text
_LARGE_VOCABULARY = 16_384  # ids up to which that holds
_ID_MB = 0.8 / 1024  # of each id beyond: its letters and its merge, in tables both ways
_BYTES_VOCABULARY = 300  # at most this many ids: no tokenizer package
_KEPT_BY_MALLOC = 0.15  # of the activations: glibc cannot give back what lies between living blocks
_UNPACKING_MB = 8.0  # tiles of frozen matrices, and what they are unpacked through
_GAPS_MB = 20.0  # of a layerwise step, which gives memory back after each block
_MB = 2.0**20
_FLOAT = 4
_NARROW = 2  # bytes of a bf16 number
PACKED_BYTES = 1 + 4 / 256  # of a number of an 8-bit state


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Megabytes (2^20 bytes) at the peak of a step, by what holds them. ``scratch_mb``: of the optimizer's arithmetic;
    ``allocator_mb``: freed, and not given back to the system."""

    runtime_mb: float
    weights_mb: float
    gradients_mb: float
    optimizer_mb: float
    activations_mb: float
    head_mb: float
    scratch_mb: float
    allocator_mb: float

    @property
    def total_mb(self) -> float:
        return float(sum(dataclasses.astuple(self)))


def estimate_run(recipe: Recipe, fit: Fit) -> MemoryEstimate:
    """Peak memory of a recipe with a fit."""
    train = recipe.train
    return estimate_memory(
        recipe.trained,
        fit,
        optimizer=train.optimizer_state,
        adapter=recipe.adapter,
        batch=train.batch,
        waits=train.clip > 0 and train.clip_scope == "all",
        top_layers=train.top_layers,
        averaged=train.average > 0,
        ids=recipe.model.vocab_size,
        compiled=train.compile,
        precision=train.precision,
    )


def estimate_memory(
    shape: ModelShape,
    fit: Fit,
    *,
    optimizer: str = "adamw",
    adapter: AdapterRecipe | None = None,
    batch: int | None = None,
    waits: bool = True,
    top_layers: int | None = None,
    averaged: bool = False,
    ids: int | None = None,
    compiled: bool = False,
    precision: str = "fp32",
) -> MemoryEstimate:
    """Peak memory of training with an optimizer (``adamw``, ``muon``) or a kind of weights and state (``adamw-int8``,
    ``adamw-bf16``); with an ``adapter`` of that alone, by AdamW. ``batch``: sequences of a whole step (None: of several
    micro-batches, of a layerwise fit of one); of layerwise fits it counts whether gradients wait for the norm of all
    (``waits``). With ``top_layers`` only so many blocks learn.
    ``averaged``: an average of what learns is kept beside it. ``ids``: of the tokenizer, where a trimmed vocabulary has
    fewer. ``compiled``: the blocks are."""
    if adapter is not None:
        found = _adapter_memory(shape, fit, adapter)
    elif fit.layerwise:
        whole = batch or fit.micro_batch
        found = _layerwise_memory(shape, fit, optimizer, batch=whole, waits=waits, top_layers=top_layers)
    else:
        lower = precision == "bf16"
        found = _plain_memory(shape, fit, optimizer, batch=batch, top_layers=top_layers, lower=lower)
    if averaged:
        learned_floats = adapter_parameters(shape, adapter) if adapter else count_learned(shape, top_layers).total
        found = dataclasses.replace(found, weights_mb=found.weights_mb + learned_floats * _FLOAT / _MB)
    if ids is not None:
        found = dataclasses.replace(found, runtime_mb=RUNTIME_MB + _tokenizer_mb(ids))
    if compiled:
        found = dataclasses.replace(found, runtime_mb=found.runtime_mb + _COMPILER_MB)
    return found


def _plain_memory(
    shape: ModelShape, fit: Fit, optimizer: str, *, batch: int | None, top_layers: int | None, lower: bool
) -> MemoryEstimate:
    """Of a step whose forward and backward pass go through the whole model at once."""
    learned, layers = count_learned(shape, top_layers), min(shape.layers, top_layers or shape.layers)
    matrices = learned.attention + learned.mlp if optimizer.startswith("muon") else 0
    narrow = "bf16" in optimizer
    moment = memory_plain.worst_moment(shape, fit, batch=batch, top_layers=top_layers, narrow=narrow, lower=lower)
    scratch = _muon_floats(dataclasses.replace(shape, layers=layers), optimizer) if matrices else 0
    # Recomputing steps take large blocks from the system and give them back at once.
    gaps = 0.0 if fit.activation_checkpointing else _KEPT_BY_MALLOC * moment.activations
    state = (2 * learned.total - matrices) * (PACKED_BYTES if optimizer.endswith("int8") else _FLOAT)
    return MemoryEstimate(
        runtime_mb=RUNTIME_MB + _tokenizer_mb(shape.vocab_size),
        weights_mb=count_breakdown(shape).total * (_NARROW if narrow else _FLOAT) / _MB,
        gradients_mb=moment.gradients * _FLOAT / _MB,
        optimizer_mb=state / _MB,
        activations_mb=moment.activations * _FLOAT / _MB,
        head_mb=moment.head * _FLOAT / _MB,
        scratch_mb=scratch * _FLOAT / _MB,
        allocator_mb=gaps * _FLOAT / _MB,
    )


def _layerwise_memory(
    shape: ModelShape, fit: Fit, optimizer: str, *, batch: int, waits: bool, top_layers: int | None
) -> MemoryEstimate:
    plain = _plain_memory(shape, fit, optimizer, batch=batch, top_layers=top_layers, lower=False)
    moment = memory_layerwise.worst_moment(
        shape,
        fit,
        batch=batch,
        waits=waits,
        floats=memory_layerwise.BlockFloats.of(shape),
        top_layers=top_layers,
        narrow="bf16" in optimizer,
    )
    return dataclasses.replace(
        plain,
        gradients_mb=moment.gradients * _FLOAT / _MB,
        activations_mb=moment.activations * _FLOAT / _MB,
        head_mb=moment.head * _FLOAT / _MB,
        allocator_mb=_GAPS_MB,
    )


def _tokenizer_mb(vocab_size: int) -> float:
    """Measured at 151,936 ids: the tokenizer alone is 107 MB there, and nearly twice that with what reads its file."""
    if vocab_size <= _BYTES_VOCABULARY:
        return 0.0
    return _TOKENIZER_MB + _ID_MB * max(0, vocab_size - _LARGE_VOCABULARY)


def _adapter_memory(shape: ModelShape, fit: Fit, adapter: AdapterRecipe) -> MemoryEstimate:
    """Frozen matrices have no gradient and need no input for one; low-rank updates keep theirs."""
    learned = adapter_parameters(shape, adapter)
    tokens = fit.micro_batch * shape.context
    block = _adapter_block_floats(shape, adapter)
    kept = shape.layers * shape.width + block if fit.activation_checkpointing else shape.layers * block
    activations = tokens * (kept + 2 * shape.width)
    logits: float = min(fit.loss_chunk_tokens, tokens) * shape.vocab_size
    backward = tokens * (2 * shape.width + (3 if shape.arch == "llama" else 2) * shape.hidden)  # when logits are gone
    if fit.activation_checkpointing:
        logits -= tokens * block  # no block is computed again while they exist
    packed = adapter.base_format != "fp32"
    return MemoryEstimate(
        runtime_mb=RUNTIME_MB + _tokenizer_mb(shape.vocab_size),
        weights_mb=(frozen_bytes(shape, adapter.base_format) + learned * _FLOAT) / _MB,
        gradients_mb=learned * _FLOAT / _MB,
        optimizer_mb=2 * learned * _FLOAT / _MB,
        activations_mb=activations * _FLOAT / _MB,
        head_mb=max(logits, backward) * _FLOAT / _MB,
        scratch_mb=_UNPACKING_MB if packed else 0.0,
        allocator_mb=_KEPT_BY_MALLOC * activations * _FLOAT / _MB,
    )


def _adapter_block_floats(shape: ModelShape, adapter: AdapterRecipe) -> float:
    """Numbers a block keeps for its backward pass, per token: what comes into both norms, queries, keys and values,
    attention's output, the inner values; and the input of each adapted matrix, with a byte a number to drop some."""
    keys = shape.kv_heads * shape.head_dim
    inputs = {target.path: target.columns for target in chosen_targets(shape, adapter.targets)}
    masks = sum(inputs.values()) / _FLOAT if adapter.dropout else 0.0
    own = sum(columns for path, columns in inputs.items() if path != "attn.out")  # attention keeps its output anyway
    rotated = shape.width + keys if shape.arch == "llama" else 0
    inner = (2 if shape.arch == "llama" else 1) * shape.hidden
    return 3 * shape.width + (shape.width + 2 * keys) + rotated + inner + own + masks


def _muon_floats(shape: ModelShape, optimizer: str) -> int:
    """Numbers that exist at once while Muon works on its largest stack: of square matrices each six times (with two
    shifts, and the pieces of their inverses); as recipes before version 7 did, of equal matrices the stack, the iterate
    and the next one, and two products of the iterate with itself."""
    queries, keys, width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.width
    stacks = Counter({(queries, width): 1})
    stacks.update([(keys, width), (keys, width), (width, queries), (width, shape.hidden), (shape.hidden, width)])
    if shape.arch == "llama":
        stacks[shape.hidden, width] += 1
    if optimizer != "muon-adamw-fp32":
        squares = [min(sides) ** 2 for sides in stacks.elements()]
        return 6 * max(
            square * min(shape.layers * squares.count(square), max(1, MUON_STACK // max(1, square)))
            for square in squares
        )
    return max(
        shape.layers * count * (3 * rows * columns + 2 * min(rows, columns) ** 2)
        for (rows, columns), count in stacks.items()
    )
