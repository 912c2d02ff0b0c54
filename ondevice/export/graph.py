"""A small graph builder: names, nodes, shared constants and weights, written as an ONNX file.

Weights stay where they are (a mapped checkpoint, say) until the file is written, a block of rows at a time. Knows
nothing of decoders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ondevice import __version__
from ondevice.export import onnx_format
from ondevice.export.onnx_format import Attribute
from ondevice.export.protobuf import Blob, Message, write_pieces
from ondevice.infer.export_folder import DATA_FILE, MODEL_FILE
from ondevice.run.files import HashedFile

__all__ = ["Graph", "Payload", "WrittenFile", "as_float32"]

_BLOCK_BYTES = 4 << 20
_ALIGNMENT = 65_536  # onnxruntime maps external data from a page boundary; 64 KiB covers every ARM page size
MICROSOFT = "com.microsoft"
_EXTERNAL_FROM = 16_384  # smaller tensors stay in the model file: padding would outweigh them


def as_float32(tensor: Any) -> np.ndarray:
    """A numpy array or torch tensor (any float type, any device) as little-endian float32, without torch's name."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().float().numpy()
    return np.ascontiguousarray(tensor, dtype="<f4")


class Payload(Blob, Protocol):
    """The content of an initializer."""

    @property
    def dims(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...


@dataclass(frozen=True)
class _Weight:
    """A float32 payload over a tensor-like, read in blocks of rows."""

    tensor: Any

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(int(dim) for dim in self.tensor.shape)

    @property
    def size(self) -> int:
        return 4 * prod(self.dims)

    def blocks(self) -> Iterator[memoryview]:
        rows = max(1, _BLOCK_BYTES * self.dims[0] // max(self.size, 1))
        for start in range(0, self.dims[0], rows):
            yield as_float32(self.tensor[start : start + rows]).data.cast("B")


@dataclass(frozen=True)
class _Bytes:
    """A payload that is already bytes."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def blocks(self) -> Iterator[bytes]:
        yield self.data


@dataclass(frozen=True)
class _Initializer:
    name: str
    dims: tuple[int, ...]
    dtype: str
    data: Blob


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file as it was written."""

    name: str
    bytes: int
    sha256: str


class Graph:
    """A graph under construction; every method that makes a value returns its name.

    >>> g = Graph("twice")
    >>> x = g.input("x", "float32", ["n"])
    >>> g.output(g.node("Add", x, x, name="y"), "float32", ["n"])
    """

    def __init__(self, name: str, *, opset: int = onnx_format.OPSET) -> None:
        self.name = name
        self.opset = opset
        self.domains: set[str] = set()
        """Domains of operators beyond ONNX's own."""
        self._nodes: list[Message] = []
        self._initializers: list[_Initializer] = []
        self._inputs: list[Message] = []
        self._outputs: list[Message] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._used: dict[str, int] = {}

    def _unique(self, name: str) -> str:
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return f"{name}_{count}" if count else name

    def input(self, name: str, dtype: str, dims: list[int | str]) -> str:
        self._inputs.append(onnx_format.value_info(self._unique(name), dtype, dims))
        return name

    def output(self, name: str, dtype: str, dims: list[int | str]) -> None:
        """Declares an existing value as an output of the graph."""
        self._outputs.append(onnx_format.value_info(name, dtype, dims))

    def weight(self, name: str, tensor: Any) -> str:
        """A float32 initializer over a numpy array or torch tensor, which must live until `save`."""
        data = _Weight(tensor)
        self._initializers.append(_Initializer(self._unique(name), data.dims, "float32", data))
        return name

    def payload(self, name: str, data: Payload) -> str:
        """An initializer of any type whose bytes are made when the file is written."""
        self._initializers.append(_Initializer(self._unique(name), data.dims, data.dtype, data))
        return name

    def constant(self, value: Any, dtype: str) -> str:
        """A small initializer; equal constants are one."""
        array = np.asarray(value, dtype=dtype)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._unique("constant")
            self._initializers.append(_Initializer(name, array.shape, dtype, _Bytes(key[2])))
            self._constants[key] = name
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A constant vector of int64, such as a shape or axes."""
        return self.constant(values, "int64")

    def scalar(self, value: float) -> str:
        """A constant float32 of rank 0."""
        return self.constant(value, "float32")

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Attribute) -> str:
        """Adds a node of one output and returns that output's name: ``name`` exactly, else one made from ``op``."""
        return self.split_node(op, *inputs, names=(name or op.lower(),), **attributes)[0]

    def split_node(self, op: str, *inputs: str, names: tuple[str, ...], **attributes: Attribute) -> list[str]:
        """Adds a node of several outputs and returns their names."""
        return self._add(op, inputs, names, attributes)

    def microsoft_node(self, op: str, *inputs: str, name: str = "", **attributes: Attribute) -> str:
        """`node` for an operator that is onnxruntime's own."""
        return self.microsoft_split_node(op, *inputs, names=(name or op.lower(),), **attributes)[0]

    def microsoft_split_node(self, op: str, *inputs: str, names: tuple[str, ...], **attributes: Attribute) -> list[str]:
        """`split_node` for an operator that is onnxruntime's own."""
        self.domains.add(MICROSOFT)
        return self._add(op, inputs, names, attributes, MICROSOFT)

    def _add(
        self,
        op: str,
        inputs: Sequence[str],
        names: Sequence[str],
        attributes: Mapping[str, Attribute],
        domain: str = "",
    ) -> list[str]:
        outputs = [self._unique(each) for each in names]
        name = f"{op}:{outputs[0]}"
        self._nodes.append(onnx_format.node(op, inputs, outputs, attributes, name=name, domain=domain))
        return outputs

    @property
    def nodes(self) -> int:
        return len(self._nodes)

    @property
    def data_bytes(self) -> int:
        """Bytes of all initializers."""
        return sum(each.data.size for each in self._initializers)

    def save(self, folder: Path, *, external: bool, metadata: Mapping[str, str] | None = None) -> list[WrittenFile]:
        """Writes ``model.onnx``, and ``model.onnx.data`` where ``external``; each is fsynced. Raises OSError."""
        outside = [each for each in self._initializers if external and each.data.size >= _EXTERNAL_FROM]
        offsets = _offsets(outside)
        message = onnx_format.model(
            onnx_format.graph(
                self.name,
                nodes=self._nodes,
                initializers=(_initializer(each, offsets) for each in self._initializers),
                inputs=self._inputs,
                outputs=self._outputs,
            ),
            producer="ondevice",
            producer_version=__version__,
            metadata=metadata,
            domains=sorted(self.domains),
            opset=self.opset,
            ir_version=onnx_format.ir_version(self.opset),
        )
        files = [_write(folder / MODEL_FILE, message.pieces)]
        if outside:
            files.append(_write(folder / DATA_FILE, _padded(outside, offsets)))
        return files


def _offsets(initializers: list[_Initializer]) -> dict[str, int]:
    """Where each initializer begins in the data file: name -> bytes, aligned."""
    offsets, end = {}, 0
    for each in initializers:
        offsets[each.name] = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = offsets[each.name] + each.data.size
    return offsets


def _padded(initializers: list[_Initializer], offsets: Mapping[str, int]) -> Iterator[bytes | Blob]:
    end = 0
    for each in initializers:
        yield bytes(offsets[each.name] - end)
        yield each.data
        end = offsets[each.name] + each.data.size


def _initializer(each: _Initializer, offsets: Mapping[str, int]) -> Message:
    if each.name not in offsets:
        return onnx_format.tensor(each.name, each.dims, each.dtype, each.data)
    return onnx_format.external_tensor(
        each.name, each.dims, each.dtype, location=DATA_FILE, offset=offsets[each.name], length=each.data.size
    )


def _write(path: Path, pieces: Any) -> WrittenFile:
    file = HashedFile(path)
    try:
        write_pieces(file, pieces)
    except BaseException:
        file.close(durable=False)
        raise
    file.close()
    return WrittenFile(name=path.name, bytes=file.size, sha256=file.sha256)
