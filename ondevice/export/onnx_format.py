"""ONNX messages on top of the wire format: model, graph, node, attribute, tensor and value info.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (proto2, so repeated numbers are not
packed unless it says so). Knows nothing of our decoders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ondevice.export.protobuf import Blob, Message

__all__ = [
    "IR_VERSION",
    "NATIVE_OPSET",
    "OPSET",
    "Attribute",
    "attribute",
    "element_type",
    "external_tensor",
    "graph",
    "ir_version",
    "model",
    "node",
    "tensor",
    "value_info",
]

OPSET = 17  # the newest whose operators every onnxruntime from 1.20 on runs natively; has LayerNormalization
IR_VERSION = 8
NATIVE_OPSET = 23  # has attention with a cache, RMSNorm and rotary positions as operators of their own

Attribute = int | float | str | Sequence[int] | Sequence[float]

_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}
_FLOAT, _INT, _STRING, _FLOATS, _INTS = 1, 2, 3, 6, 7
_EXTERNAL = 1


def ir_version(opset: int) -> int:
    """The version of the file format that came with a set of operators."""
    return IR_VERSION if opset == OPSET else 11


def element_type(dtype: np.dtype | str) -> int:
    """TensorProto.DataType of a numpy dtype. Raises KeyError for one our graphs do not use."""
    return _ELEMENT_TYPES[np.dtype(dtype).name]


def tensor(name: str, dims: Iterable[int], dtype: np.dtype | str, data: Blob) -> Message:
    """TensorProto with its data (little-endian, row by row) inside."""
    return _tensor_head(name, dims, dtype).blob(9, data)


def external_tensor(
    name: str, dims: Iterable[int], dtype: np.dtype | str, *, location: str, offset: int, length: int
) -> Message:
    """TensorProto whose data are ``length`` bytes at ``offset`` of the file ``location`` beside the model."""
    message = _tensor_head(name, dims, dtype)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        message.message(13, Message().text(1, key).text(2, value))
    return message.varint(14, _EXTERNAL)


def _tensor_head(name: str, dims: Iterable[int], dtype: np.dtype | str) -> Message:
    return Message().varints(1, dims).varint(2, element_type(dtype)).text(8, name)


def attribute(name: str, value: Attribute) -> Message:
    """AttributeProto. A list is of floats when its first item is one."""
    message = Message().text(1, name)
    if isinstance(value, str):
        return message.text(4, value).varint(20, _STRING)
    if isinstance(value, int):
        return message.varint(3, value).varint(20, _INT)
    if isinstance(value, float):
        return message.float32(2, value).varint(20, _FLOAT)
    if value and isinstance(value[0], float):
        return message.floats32(7, value).varint(20, _FLOATS)
    return message.varints(8, (int(item) for item in value)).varint(20, _INTS)


def node(
    op: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    attributes: Mapping[str, Attribute],
    *,
    name: str,
    domain: str = "",
) -> Message:
    """NodeProto."""
    message = Message()
    for each in inputs:
        message.text(1, each)
    for each in outputs:
        message.text(2, each)
    message.text(3, name).text(4, op)
    for key, value in attributes.items():
        message.message(5, attribute(key, value))
    return message.text(7, domain) if domain else message


def value_info(name: str, dtype: np.dtype | str, dims: Iterable[int | str]) -> Message:
    """ValueInfoProto of a tensor. A dimension is a number, or a name where it is only known when the model runs."""
    shape = Message()
    for dim in dims:
        shape.message(1, Message().text(2, dim) if isinstance(dim, str) else Message().varint(1, dim))
    tensor_type = Message().varint(1, element_type(dtype)).message(2, shape)
    return Message().text(1, name).message(2, Message().message(1, tensor_type))


def graph(
    name: str,
    *,
    nodes: Iterable[Message],
    initializers: Iterable[Message],
    inputs: Iterable[Message],
    outputs: Iterable[Message],
) -> Message:
    """GraphProto. Nodes must be in an order in which every input exists before it is used."""
    message = Message()
    for each in nodes:
        message.message(1, each)
    message.text(2, name)
    for field, parts in ((5, initializers), (11, inputs), (12, outputs)):
        for each in parts:
            message.message(field, each)
    return message


def model(
    graph: Message,
    *,
    producer: str,
    producer_version: str,
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
    metadata: Mapping[str, str] | None = None,
    domains: Iterable[str] = (),
) -> Message:
    """ModelProto: the whole file. ``domains`` are further sets of operators, in their version 1."""
    message = Message().varint(1, ir_version).text(2, producer).text(3, producer_version).message(7, graph)
    message.message(8, Message().text(1, "").varint(2, opset))
    for domain in domains:
        message.message(8, Message().text(1, domain).varint(2, 1))
    for key, value in (metadata or {}).items():
        message.message(14, Message().text(1, key).text(2, value))
    return message
