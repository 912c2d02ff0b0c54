"""Our tensors under GGUF's names and layouts, as llama.cpp computes with them. Knows nothing of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ondevice.errors import CheckpointError
from ondevice.export.graph import as_float32
from ondevice.run.recipe import ModelShape

__all__ = ["architecture", "gguf_tensors", "rope_factors"]

_PARTS = {"norm1": "attn_norm", "attn.out": "attn_output", "norm2": "ffn_norm", "mlp.up": "ffn_up",
          "mlp.down": "ffn_down", "attn.qkv": "attn_qkv"}  # fmt: skip
_WHOLE = {"embed": "token_embd", "position": "position_embd", "norm": "output_norm", "head": "output"}


def architecture(shape: ModelShape) -> str:
    """What llama.cpp calls the model."""
    return "qwen2" if shape.qkv_bias else shape.arch


def gguf_tensors(shape: ModelShape, state: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and fp32 array ``[out, in]`` of every tensor, one in memory at a time.

    Raises CheckpointError for a tensor that belongs to no such model.
    """
    for name, tensor in state.items():
        path, _, kind = name.rpartition(".")
        if path in _WHOLE:
            yield f"{_WHOLE[path]}.{kind}", as_float32(tensor)
            continue
        blocks, _, rest = path.partition(".")
        layer, _, part = rest.partition(".")
        if blocks != "blocks" or not layer.isdigit():
            raise CheckpointError(f"Tensor {name!r} has no place in a GGUF file.")
        for each, array in _block(shape, part, as_float32(tensor)):
            yield f"blk.{layer}.{each}.{kind}", array
    if (factors := rope_factors(shape)) is not None:
        yield "rope_freqs.weight", factors


def _block(shape: ModelShape, part: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if part == "attn.qkv" and shape.arch == "llama":
        keys = shape.kv_heads * shape.head_dim
        q, k, v = np.split(array, np.cumsum([shape.heads * shape.head_dim, keys]))
        yield "attn_q", _turned(shape, q, shape.heads)
        yield "attn_k", _turned(shape, k, shape.kv_heads)
        yield "attn_v", v
    elif part == "mlp.gate_up":
        gate, up = np.split(array, 2)
        yield "ffn_gate", gate
        yield "ffn_up", up
    elif part in _PARTS:
        yield _PARTS[part], array
    else:
        raise CheckpointError(f"Tensor {part!r} has no place in a GGUF file.")


def _turned(shape: ModelShape, rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbours in the architecture it calls llama, and halves, as we do, in qwen2."""
    if architecture(shape) == "qwen2":
        return rows
    halves = rows.reshape(heads, 2, shape.head_dim // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def rope_factors(shape: ModelShape) -> np.ndarray | None:
    """By what each frequency is divided, ``[head_dim / 2]``; None but for the scaling of Llama 3."""
    scaling = shape.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return None
    exponents = np.arange(0, shape.head_dim, 2) / shape.head_dim
    turns = scaling.original_context * shape.rope_theta**-exponents / (2 * np.pi)
    share = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    share = np.clip(share, 0, 1)
    factors: np.ndarray = (1 / ((1 - share) / scaling.factor + share)).astype(np.float32)
    return factors
