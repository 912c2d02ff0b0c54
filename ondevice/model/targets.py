"""Which matrices an adapter may be put beside, and what it adds up to; pure arithmetic, no torch.

Targets have the names that PEFT knows, so that an adapter means the same there: ``q_proj`` is the query rows of our
joint matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ondevice.errors import UsageError, nearest
from ondevice.run.recipe import AdapterRecipe, ModelShape

__all__ = ["Target", "adapter_parameters", "chosen_targets", "scaling_of", "targets_of"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A matrix that an adapter may be put beside: ``rows`` rows from ``first`` on of the layer at ``path``."""

    name: str
    path: str  # inside a block
    first: int
    rows: int
    columns: int


def targets_of(shape: ModelShape) -> tuple[Target, ...]:
    """Every matrix of a block that may be adapted, under PEFT's names."""
    width, hidden, queries = shape.width, shape.hidden, shape.heads * shape.head_dim
    keys = shape.kv_heads * shape.head_dim
    if shape.arch == "gpt2":
        found = [("c_attn", "attn.qkv", 0, 3 * width, width), ("attn.c_proj", "attn.out", 0, width, width)]
        found += [("c_fc", "mlp.up", 0, hidden, width), ("mlp.c_proj", "mlp.down", 0, width, hidden)]
    else:
        found = [("q_proj", "attn.qkv", 0, queries, width), ("k_proj", "attn.qkv", queries, keys, width)]
        found += [("v_proj", "attn.qkv", queries + keys, keys, width), ("o_proj", "attn.out", 0, width, queries)]
        found += [("gate_proj", "mlp.gate_up", 0, hidden, width), ("up_proj", "mlp.gate_up", hidden, hidden, width)]
        found += [("down_proj", "mlp.down", 0, width, hidden)]
    return tuple(Target(name=n, path=p, first=first, rows=rows, columns=c) for n, p, first, rows, c in found)


def chosen_targets(shape: ModelShape, names: tuple[str, ...]) -> tuple[Target, ...]:
    """The targets of those names; ``c_proj`` means both of GPT-2. Raises UsageError for a name that matches none."""
    known = targets_of(shape)
    chosen = []
    for name in names:
        found = [target for target in known if target.name == name or target.name.endswith(f".{name}")]
        if not found:
            words = [target.name for target in known]
            raise UsageError(
                f"adapter.targets: '{name}' matches no matrix of this {shape.arch} model{nearest(name, words)}; there "
                f"are {', '.join(words)}."
            )
        chosen += [target for target in found if target not in chosen]
    if not chosen:
        raise UsageError("adapter.targets is empty: name at least one matrix, or leave it out.")
    return tuple(target for target in known if target in chosen)


def scaling_of(adapter: AdapterRecipe) -> float:
    """What the product of B and A is multiplied with: alpha / rank, or alpha / sqrt(rank) for rank-stabilized LoRA."""
    return adapter.alpha / (math.sqrt(adapter.rank) if adapter.rank_stabilized else adapter.rank)


def adapter_parameters(shape: ModelShape, adapter: AdapterRecipe) -> int:
    """Numbers that an adapter learns."""
    targets = chosen_targets(shape, adapter.targets)
    return shape.layers * adapter.rank * sum(target.rows + target.columns for target in targets)
