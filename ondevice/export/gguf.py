"""A model as one GGUF file for llama.cpp and its relatives, through the gguf package, read back before it appears."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DeviceError, OndeviceError, UsageError
from ondevice.export.gguf_tensors import architecture, gguf_tensors
from ondevice.export.gguf_tokenizer import Vocabulary, vocabulary
from ondevice.export.place import check_place, folder_in_place
from ondevice.run.recipe import ModelShape

__all__ = ["FILE", "TYPES", "GgufInfo", "export_gguf"]

FILE = "model.gguf"
TYPES = ("f32", "f16", "q8_0", "q4_0")
_BLOCK = 32  # inputs in a block of q8_0 and q4_0
_ALWAYS_F32 = ("position_embd.weight", "rope_freqs.weight")
_TABLES = ("token_embd.weight", "output.weight")  # q8_0 in a q4_0 file: errors of the head cost most
_MOST_ERROR = {"F32": 0.0, "F16": 1e-3, "Q8_0": 0.02, "Q4_0": 0.2}  # of the spread of a tensor


@dataclass(frozen=True, kw_only=True)
class GgufInfo:
    """What was written; ``worst_error`` is the largest error of a tensor, as a share of the spread of its values."""

    bytes: int
    tensors: int
    worst_error: float


def export_gguf(
    shape: ModelShape,
    state: Mapping[str, Any],
    folder: Path,
    *,
    tokenizer: Tokenizer,
    name: str,
    kind: str = "f16",
    overwrite: bool = False,
) -> GgufInfo:
    """Writes ``model.gguf`` into a folder. ``state`` has our names; ``kind`` is one of `TYPES`.

    Raises UsageError for a folder that exists or a tokenizer that llama.cpp has not, DeviceError without the gguf
    package, CheckpointError for wrong weights, ResourceError for a full disk; nothing is left behind then.
    """
    check_place(folder, marker=FILE, overwrite=overwrite)
    gguf = _package()
    words = vocabulary(tokenizer, size=shape.vocab_size)
    kinds = {each: _kind(gguf, each, array, kind) for each, array in gguf_tensors(shape, state)}
    with folder_in_place(folder, need_bytes=_bytes(gguf, shape, state, kinds)) as temporary:
        path = temporary / FILE
        writer = gguf.GGUFWriter(path, architecture(shape))
        _describe(gguf, writer, shape, name, kind)
        _add_vocabulary(writer, words)
        try:
            _write(gguf, writer, shape, state, kinds)
        except OSError as error:  # numpy does not say what a short write was for
            raise OSError(error.errno or errno.ENOSPC, str(error)) from error
        finally:
            writer.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())
        worst = _read_back(gguf, path, shape, state)
        return GgufInfo(bytes=path.stat().st_size, tensors=len(kinds), worst_error=worst)


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise DeviceError("The gguf package is not installed: run `pip install gguf`.") from error
    return gguf


def _kind(gguf: Any, name: str, array: np.ndarray, kind: str) -> Any:
    """How a tensor is stored: vectors whole, rows that are no whole blocks as halves."""
    kinds = gguf.GGMLQuantizationType
    if kind not in TYPES:
        raise UsageError(f"No GGUF type {kind!r}; choose {', '.join(TYPES)}.")
    if array.ndim == 1 or name in _ALWAYS_F32 or kind == "f32":
        return kinds.F32
    if kind == "f16" or array.shape[1] % _BLOCK:
        return kinds.F16
    return kinds.Q8_0 if kind == "q8_0" or name in _TABLES else kinds.Q4_0


def _bytes(gguf: Any, shape: ModelShape, state: Mapping[str, Any], kinds: Mapping[str, Any]) -> int:
    return sum(_stored(gguf, array.shape, kinds[name])[1] for name, array in gguf_tensors(shape, state))


def _stored(gguf: Any, dims: tuple[int, ...], kind: Any) -> tuple[tuple[int, ...], int]:
    """Shape of a tensor's bytes, and how many."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = (*dims[:-1], dims[-1] // block * size)
    return rows, int(np.prod(rows))


def _describe(gguf: Any, writer: Any, shape: ModelShape, name: str, kind: str) -> None:
    writer.add_name(name)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_vocab_size(shape.vocab_size)
    types = gguf.LlamaFileType
    writer.add_file_type(
        {"f32": types.ALL_F32, "f16": types.MOSTLY_F16, "q8_0": types.MOSTLY_Q8_0, "q4_0": types.MOSTLY_Q4_0}[kind]
    )
    if kind.startswith("q"):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if shape.arch == "gpt2":
        writer.add_layer_norm_eps(shape.norm_eps)
        return
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    if shape.rope_scaling is not None and shape.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_scaling.factor)


def _add_vocabulary(writer: Any, words: Vocabulary) -> None:
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    if words.merges:
        writer.add_token_merges(words.merges)
    if words.scores:
        writer.add_token_scores(words.scores)
    writer.add_bos_token_id(words.eot_id)
    writer.add_eos_token_id(words.eot_id)
    if words.unknown_id is not None:
        writer.add_unk_token_id(words.unknown_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _write(gguf: Any, writer: Any, shape: ModelShape, state: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Header first, then one tensor after another, so that the model is never in memory twice."""
    for name, array in gguf_tensors(shape, state):
        kind = kinds[name]
        dtype = {"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8)
        dims, size = _stored(gguf, array.shape, kind)
        writer.add_tensor_info(name, dims if dtype is np.uint8 else array.shape, np.dtype(dtype), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, array in gguf_tensors(shape, state):
        writer.write_tensor_data(gguf.quants.quantize(array, kinds[name]))


def _read_back(gguf: Any, path: Path, shape: ModelShape, state: Mapping[str, Any]) -> float:
    """The worst relative error of a tensor. Raises OndeviceError for one beyond what its bits allow."""
    read = {each.name: each for each in gguf.GGUFReader(path).tensors}
    worst = 0.0
    for name, wanted in gguf_tensors(shape, state):
        tensor = read[name]
        error = _error(gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(wanted.shape), wanted)
        if not error <= _MOST_ERROR[tensor.tensor_type.name]:
            raise OndeviceError(
                f"{name}: what was written differs from the weights by {error:.2g} of their spread; this is a fault of "
                "ondevice or of the gguf package, please report it."
            )
        worst = max(worst, error)
    return worst


def _error(got: np.ndarray, wanted: np.ndarray) -> float:
    if np.array_equal(got, wanted):
        return 0.0
    size = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
    return float(np.sqrt(np.mean(np.square(got - wanted, dtype=np.float64)))) / size if size else float("inf")
