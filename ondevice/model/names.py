"""Our weights under Hugging Face's names and layouts, both ways, for GPT-2 and Llama.

GPT-2's matrices are transposed there (Conv1D keeps ``[in, out]``); Llama's fused matrices are split by rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ondevice.errors import CheckpointError
from ondevice.run.recipe import ModelShape

__all__ = ["each_from_hugging_face", "from_hugging_face", "hugging_face_config", "to_hugging_face"]

# Buffers that older files carry beside the weights.
_GPT2_BUFFERS = (".attn.bias", ".attn.masked_bias")
_LLAMA_BUFFERS = (".rotary_emb.inv_freq",)


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """One of our tensors and those it is made of there: ``rows`` of each, stacked, or one transposed."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...]
    columns: int | None = None  # None for a vector
    transposed: bool = False

    def wanted(self, index: int) -> tuple[int, ...]:
        """Shape there of part ``index``."""
        size = (self.rows[index],) if self.columns is None else (self.rows[index], self.columns)
        return size[::-1] if self.transposed else size


def to_hugging_face(shape: ModelShape, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under Hugging Face's names. The tensors are views where they can be, some not contiguous.

    Raises CheckpointError naming a tensor that is missing or has another shape.
    """
    out: dict[str, Tensor] = {}
    for rule in _rules(shape):
        tensor = _take(state, rule.ours)
        if len(tensor) != sum(rule.rows):
            raise CheckpointError(f"Tensor {rule.ours!r} has {len(tensor)} rows, not {sum(rule.rows)}.")
        parts = (tensor.t(),) if rule.transposed else tensor.split(rule.rows)
        for index, (name, part) in enumerate(zip(rule.theirs, parts, strict=True)):
            out[name] = _checked(name, part, rule.wanted(index))
    return out


def from_hugging_face(shape: ModelShape, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face tensors as our state dict, in our order; `to_hugging_face` backwards.

    Takes GPT-2 files with and without the ``transformer.`` prefix; old buffers are ignored, and so is a head stored
    beside the embedding it is tied to. Some tensors are views of those given.
    Raises CheckpointError naming a tensor missing, unknown or of another shape.
    """
    return dict(each_from_hugging_face(shape, tensors))


def each_from_hugging_face(shape: ModelShape, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """`from_hugging_face` tensor by tensor, so that a large model need not be in memory twice."""
    given = _with_prefix(tensors) if shape.arch == "gpt2" else dict(tensors)
    _refuse_unknown(shape, given)
    for rule in _rules(shape):
        parts = [_checked(name, _take(given, name), rule.wanted(index)) for index, name in enumerate(rule.theirs)]
        yield rule.ours, parts[0].t() if rule.transposed else parts[0] if len(parts) == 1 else torch.cat(parts)


def hugging_face_config(shape: ModelShape) -> dict[str, Any]:
    """The ``config.json`` of a model of this shape. Ids of special tokens are the tokenizer's business: null here."""
    common = {
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return {**_gpt2_config(shape), **common} if shape.arch == "gpt2" else {**_llama_config(shape), **common}


def _gpt2_config(shape: ModelShape) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_positions": shape.context,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_inner": shape.hidden,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": shape.norm_eps,
        "embd_pdrop": shape.dropout,
        "attn_pdrop": shape.dropout,
        "resid_pdrop": shape.dropout,
    }


def _llama_config(shape: ModelShape) -> dict[str, Any]:
    kind = "Qwen2" if shape.qkv_bias else "Llama"
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "max_position_embeddings": shape.context,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": _rope_config(shape),
        "attention_dropout": shape.dropout,
        **({"use_sliding_window": False} if shape.qkv_bias else {"attention_bias": False, "mlp_bias": False}),
    }


def _rope_config(shape: ModelShape) -> dict[str, Any] | None:
    scaling = shape.rope_scaling
    if scaling is None:
        return None
    # Files of today repeat the base beside the kind; older programs look at the top level only.
    told: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor, "rope_theta": shape.rope_theta}
    if scaling.kind == "llama3":
        told |= {
            "low_freq_factor": scaling.low_frequency,
            "high_freq_factor": scaling.high_frequency,
            "original_max_position_embeddings": scaling.original_context,
        }
    return told


def _rules(shape: ModelShape) -> Iterator[_Rule]:
    yield from _gpt2_rules(shape) if shape.arch == "gpt2" else _llama_rules(shape)
    if not shape.tied:
        yield _plain("head.weight", "lm_head.weight", shape.vocab_size, shape.width)


def _plain(ours: str, theirs: str, rows: int, columns: int | None = None) -> _Rule:
    return _Rule(ours=ours, theirs=(theirs,), rows=(rows,), columns=columns)


def _gpt2_rules(shape: ModelShape) -> Iterator[_Rule]:
    C = shape.width
    yield _plain("embed.weight", "transformer.wte.weight", shape.vocab_size, C)
    yield _plain("position.weight", "transformer.wpe.weight", shape.context, C)
    for layer in range(shape.layers):
        here, there = f"blocks.{layer}", f"transformer.h.{layer}"
        yield from _gpt2_norm(f"{here}.norm1", f"{there}.ln_1", C)
        yield from _conv1d(f"{here}.attn.qkv", f"{there}.attn.c_attn", 3 * C, C)
        yield from _conv1d(f"{here}.attn.out", f"{there}.attn.c_proj", C, C)
        yield from _gpt2_norm(f"{here}.norm2", f"{there}.ln_2", C)
        yield from _conv1d(f"{here}.mlp.up", f"{there}.mlp.c_fc", shape.hidden, C)
        yield from _conv1d(f"{here}.mlp.down", f"{there}.mlp.c_proj", C, shape.hidden)
    yield from _gpt2_norm("norm", "transformer.ln_f", C)


def _gpt2_norm(ours: str, theirs: str, width: int) -> Iterator[_Rule]:
    for kind in ("weight", "bias"):
        yield _plain(f"{ours}.{kind}", f"{theirs}.{kind}", width)


def _conv1d(ours: str, theirs: str, rows: int, columns: int) -> Iterator[_Rule]:
    yield _Rule(ours=f"{ours}.weight", theirs=(f"{theirs}.weight",), rows=(rows,), columns=columns, transposed=True)
    yield _plain(f"{ours}.bias", f"{theirs}.bias", rows)


def _llama_rules(shape: ModelShape) -> Iterator[_Rule]:
    C, keys = shape.width, shape.kv_heads * shape.head_dim
    yield _plain("embed.weight", "model.embed_tokens.weight", shape.vocab_size, C)
    for layer in range(shape.layers):
        here, there = f"blocks.{layer}", f"model.layers.{layer}"
        yield _plain(f"{here}.norm1.weight", f"{there}.input_layernorm.weight", C)
        heads = {"q_proj": C, "k_proj": keys, "v_proj": keys}
        yield _stacked(f"{here}.attn.qkv", f"{there}.self_attn", heads, C)
        if shape.qkv_bias:
            yield _stacked(f"{here}.attn.qkv", f"{there}.self_attn", heads, None)
        yield _plain(f"{here}.attn.out.weight", f"{there}.self_attn.o_proj.weight", C, C)
        yield _plain(f"{here}.norm2.weight", f"{there}.post_attention_layernorm.weight", C)
        halves = {"gate_proj": shape.hidden, "up_proj": shape.hidden}
        yield _stacked(f"{here}.mlp.gate_up", f"{there}.mlp", halves, C)
        yield _plain(f"{here}.mlp.down.weight", f"{there}.mlp.down_proj.weight", C, shape.hidden)
    yield _plain("norm.weight", "model.norm.weight", C)


def _stacked(ours: str, theirs: str, parts: dict[str, int], columns: int | None) -> _Rule:
    """Matrices of so many columns, or the biases beside them (None)."""
    kind = "bias" if columns is None else "weight"
    return _Rule(
        ours=f"{ours}.{kind}",
        theirs=tuple(f"{theirs}.{part}.{kind}" for part in parts),
        rows=tuple(parts.values()),
        columns=columns,
    )


def _take(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"Tensor {name!r} is missing from the model's weights.")
    return tensors[name]


def _checked(name: str, tensor: Tensor, wanted: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != wanted:
        raise CheckpointError(f"Tensor {name!r} has shape {list(tensor.shape)}, not {list(wanted)}.")
    return tensor


def _with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    whole = ("transformer.", "lm_head.")
    return {name if name.startswith(whole) else f"transformer.{name}": tensors[name] for name in tensors}


def _refuse_unknown(shape: ModelShape, given: Mapping[str, Tensor]) -> None:
    known = {name for rule in _rules(shape) for name in rule.theirs}
    if shape.tied:
        known.add("lm_head.weight")
    buffers = _GPT2_BUFFERS if shape.arch == "gpt2" else _LLAMA_BUFFERS
    for name in given:
        if name not in known and not name.endswith(buffers):
            raise CheckpointError(f"Tensor {name!r} has no place in a {shape.arch} model of this shape.")
