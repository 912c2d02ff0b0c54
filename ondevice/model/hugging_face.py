"""A folder of Hugging Face as a model of ours: its ``config.json`` as a shape, its weights tensor by tensor.

GPT-2 and distilgpt2; Llama, SmolLM2, TinyLlama and Mistral; Qwen2 and Qwen2.5. What a config asks for beyond what our
decoders compute is refused by name, never left out. Weights stay mapped: no more of a model than one tensor is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice.errors import CheckpointError, UsageError, nearest
from ondevice.model.foreign import Weights, open_weights
from ondevice.model.names import each_from_hugging_face
from ondevice.model.shape import check_shape
from ondevice.model.untrusted import read_object
from ondevice.run.recipe import ModelShape, RopeScaling

__all__ = ["FAMILIES", "HuggingFaceModel", "open_hugging_face", "shape_of"]

FAMILIES = ("gpt2", "llama", "mistral", "qwen2")
_MAX_CONFIG = 1_000_000  # bytes
_LARGEST = 2**31
_PIECE = 1 << 17  # numbers
_GELUS = ("gelu_new", "gelu_pytorch_tanh")


@dataclass(frozen=True, eq=False)
class HuggingFaceModel:
    """A folder that was opened. ``longest`` is the context the model was made for; ``shape`` has the one asked for."""

    folder: Path
    family: str
    shape: ModelShape
    longest: int
    weights: Weights

    def tensors(self) -> Iterator[tuple[str, int, Tensor]]:
        """Our names, and rows in fp32 from the given one on: no more of them at once than `_PIECE` numbers or a matrix
        that is stored transposed. Raises CheckpointError for a weight that is not finite."""
        for name, tensor in each_from_hugging_face(self.shape, _cut_positions(self.shape, self.weights)):
            rows = len(tensor) if not tensor.is_contiguous() else max(1, _PIECE * len(tensor) // tensor.numel())
            for first in range(0, len(tensor), rows):
                part = tensor[first : first + rows].to(torch.float32)
                if not torch.isfinite(part).all():
                    raise CheckpointError(f"{self.folder}: weight {name!r} has values that are not finite numbers.")
                yield name, first, part
                self.weights.release()


def open_hugging_face(
    folder: Path, *, context: int | None = None, available_mb: float | None = None
) -> HuggingFaceModel:
    """The model in a folder, for sequences of ``context`` tokens (None: as long as it was made for).

    Raises CheckpointError for a folder that is none or a model we cannot compute, UsageError for a context it has not,
    ResourceError where the weights do not fit into that memory (MiB; None does not ask).
    """
    raw = _read_config(folder / "config.json")
    shape = shape_of(raw, where=str(folder / "config.json"))
    longest = shape.context
    if context is not None and context > longest:
        raise UsageError(f"model.context = {context:,} is more than the {longest:,} tokens that {folder} was made for.")
    weights = open_weights(folder, available_mb=available_mb)
    if weights.format not in ("safetensors", "torch"):
        raise CheckpointError(f"{folder}: its weights are {weights.what}, not a model of Hugging Face.")
    return HuggingFaceModel(
        folder=folder,
        family=str(raw["model_type"]),
        shape=replace(shape, tied=_tied(shape, weights), context=context or longest),
        longest=longest,
        weights=weights,
    )


def _tied(shape: ModelShape, weights: Mapping[str, Tensor]) -> bool:
    """Some configs leave out that the head is tied; the file tells."""
    return shape.tied or "lm_head.weight" not in weights


def _cut_positions(shape: ModelShape, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A shorter context of GPT-2 takes the first rows of its table of positions."""
    if shape.arch != "gpt2":
        return weights
    names = [name for name in ("transformer.wpe.weight", "wpe.weight") if name in weights]
    return {**weights, **{name: weights[name][: shape.context] for name in names}}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"{path}: not there, so {path.parent.name} is no folder of Hugging Face.")
    return read_object(path, at_most=_MAX_CONFIG, refusal="not the config of a model.")


def shape_of(raw: Mapping[str, Any], *, where: str) -> ModelShape:
    """The shape that a ``config.json`` tells, with the longest context. Raises CheckpointError naming the key."""
    family = raw.get("model_type")
    if family not in FAMILIES:
        near = nearest(family, FAMILIES) if isinstance(family, str) else ""
        raise CheckpointError(
            f"{where}: model_type {family!r} is none of {', '.join(FAMILIES)}{near}, which are what can be imported."
        )
    config = _Config(raw, where)
    shape = _gpt2(config) if family == "gpt2" else _llama(config, family)
    try:
        check_shape(shape)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from None
    return shape


class _Config:
    """The keys of a config, each checked where it is taken."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self._raw, self.where = raw, where

    def get(self, key: str, default: Any = None) -> Any:
        value = self._raw.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 0 < value < _LARGEST:
            raise self.fault(key, f"must be a whole number of at least 1, not {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1e12:
            raise self.fault(key, f"must be a number above 0, not {value!r}")
        return float(value)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuses a value that our decoders do not compute; a key that is missing has the first."""
        if (value := self.get(key, allowed[0])) not in allowed:
            raise self.fault(key, f"is {value!r}; only {' or '.join(map(repr, allowed))} can be imported")

    def fault(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: '{key}' {what}.")


def _gpt2(config: _Config) -> ModelShape:
    config.only("activation_function", *_GELUS)
    for key in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        config.only(key, False)
    config.only("scale_attn_weights", True)
    width, heads = config.count("n_embd", 768), config.count("n_head", 12)
    return ModelShape(
        arch="gpt2",
        vocab_size=config.count("vocab_size", 50257),
        context=config.count("n_positions", config.get("n_ctx", 1024)),
        layers=config.count("n_layer", 12),
        width=width,
        heads=heads,
        kv_heads=heads,
        hidden=config.count("n_inner", 4 * width),
        tied=bool(config.get("tie_word_embeddings", True)),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
    )


def _llama(config: _Config, family: str) -> ModelShape:
    config.only("hidden_act", "silu", "swish")
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    config.only("pretraining_tp", 1)
    width, heads = config.count("hidden_size"), config.count("num_attention_heads")
    config.only("head_dim", width // heads)
    longest = config.count("max_position_embeddings", 2048)
    theta, scaling = _rope(config, longest)
    return ModelShape(
        arch="llama",
        vocab_size=config.count("vocab_size"),
        context=min(longest, _window(config, family, longest)),
        layers=config.count("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        hidden=config.count("intermediate_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope_theta=theta,
        norm_eps=config.number("rms_norm_eps", 1e-6),
        qkv_bias=family == "qwen2",
        rope_scaling=scaling,
    )


def _window(config: _Config, family: str, longest: int) -> int:
    """Tokens within which a sliding window makes no difference."""
    window = config.get("sliding_window")
    if window is None or (family == "qwen2" and not config.get("use_sliding_window", False)):
        return longest
    return config.count("sliding_window")


def _rope(config: _Config, longest: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling: at the top level in files of before, together in ``rope_parameters`` since transformers 5."""
    told = config.get("rope_parameters", config.get("rope_scaling", {}))
    if not isinstance(told, dict):
        raise config.fault("rope_scaling", f"must be a table, not {told!r}")
    rope = _Config(told, f"{config.where}: rope")
    theta = rope.number("rope_theta", config.number("rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    makers: dict[str, Callable[[], RopeScaling | None]] = {
        "default": lambda: None,
        "linear": lambda: RopeScaling(kind="linear", factor=rope.number("factor", 1.0)),
        "llama3": lambda: _llama3(rope, longest),
    }
    if kind not in makers:
        raise config.fault("rope_scaling", f"has the kind {kind!r}; only {', '.join(makers)} can be imported")
    return theta, makers[kind]()


def _llama3(rope: _Config, longest: int) -> RopeScaling:
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    if low >= high:
        raise rope.fault("high_freq_factor", f"must be above low_freq_factor {low:g}")
    return RopeScaling(
        kind="llama3",
        factor=rope.number("factor", 8.0),
        low_frequency=low,
        high_frequency=high,
        original_context=rope.count("original_max_position_embeddings", min(8192, longest)),
    )
