"""Linear layers and embedding tables as nodes, in fp32, int8 or int4.

int8: the activations are quantized as they come (DynamicQuantizeLinear, MatMulInteger), which onnxruntime fuses into
one kernel, as fast as its own contrib operator and portable. int4: MatMulNBits at accuracy level 4, where activations
become int8 in blocks of 32. A table that is both embedding and head is stored once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ondevice.export.graph import Graph
from ondevice.export.quantize import BLOCK, Int4, Int8

__all__ = ["Matrix", "matrix"]

_ACCURACY = 4  # MatMulNBits computes in int8
_FLOAT, _INT32 = 1, 6


class Matrix(ABC):
    """A matrix ``[out, in]`` of a graph, as initializers."""

    def __init__(self, graph: Graph, tensor: Any) -> None:
        self._graph = graph
        self._out, self._in = (int(dim) for dim in tensor.shape)

    @abstractmethod
    def linear(self, x: str, bias: str | None, *, name: str) -> str:
        """``x @ matrix.T + bias``: ``[N, in] -> [N, out]``."""

    @abstractmethod
    def rows(self, ids_N: str) -> str:
        """The rows of these ids, ``[N, in]``."""


class _Float(Matrix):
    def __init__(self, graph: Graph, name: str, tensor: Any) -> None:
        super().__init__(graph, tensor)
        self._weight = graph.weight(name, tensor)

    def linear(self, x: str, bias: str | None, *, name: str) -> str:
        return self._graph.node("Gemm", x, self._weight, *([bias] if bias else []), transB=1, name=name)

    def rows(self, ids_N: str) -> str:
        return self._graph.node("Gather", self._weight, ids_N, axis=0)


class _Int8(Matrix):
    def __init__(self, graph: Graph, name: str, tensor: Any) -> None:
        super().__init__(graph, tensor)
        whole = Int8(tensor)
        self._values = graph.payload(f"{name}.int8", whole.value_payload)
        self._scales = graph.payload(f"{name}.scale", whole.scale_payload)

    def linear(self, x: str, bias: str | None, *, name: str) -> str:
        g = self._graph
        small, scale, zero = g.split_node("DynamicQuantizeLinear", x, names=("small", "small_scale", "small_zero"))
        sums = g.node("Cast", g.node("MatMulInteger", small, self._values, zero), to=_FLOAT)
        product = g.node("Mul", sums, g.node("Mul", scale, self._scales), name=name if bias is None else "")
        return product if bias is None else g.node("Add", product, bias, name=name)

    def rows(self, ids_N: str) -> str:
        g = self._graph
        columns = g.node("Transpose", g.node("Gather", self._values, ids_N, axis=1), perm=[1, 0])
        scales = g.node("Unsqueeze", g.node("Gather", self._scales, ids_N, axis=0), g.ints(1))
        return g.node("Mul", g.node("Cast", columns, to=_FLOAT), scales)


class _Int4(Matrix):
    def __init__(self, graph: Graph, name: str, tensor: Any) -> None:
        super().__init__(graph, tensor)
        whole = Int4(tensor)
        self._blocks = whole.blocks
        self._values = graph.payload(f"{name}.int4", whole.value_payload)
        self._scales = graph.payload(f"{name}.scale", whole.scale_payload)

    def linear(self, x: str, bias: str | None, *, name: str) -> str:
        inputs = [x, self._values, self._scales, *(["", "", bias] if bias else [])]
        settings = {"K": self._in, "N": self._out, "bits": 4, "block_size": BLOCK, "accuracy_level": _ACCURACY}
        return self._graph.microsoft_node("MatMulNBits", *inputs, name=name, **settings)

    def rows(self, ids_N: str) -> str:
        g = self._graph
        pairs = g.node("Cast", g.node("Gather", self._values, ids_N, axis=0), to=_INT32)
        sixteen, eight = g.constant(16, "int32"), g.scalar(8.0)
        high = g.node("Div", pairs, sixteen)
        low = g.node("Sub", pairs, g.node("Mul", high, sixteen))
        both = g.node("Concat", *(g.node("Unsqueeze", each, g.ints(3)) for each in (low, high)), axis=3)
        values = g.node("Reshape", both, g.ints(-1, self._blocks, BLOCK))
        scales = g.node("Unsqueeze", g.node("Gather", self._scales, ids_N, axis=0), g.ints(2))
        rows = g.node("Mul", g.node("Sub", g.node("Cast", values, to=_FLOAT), eight), scales)
        flat = g.node("Reshape", rows, g.ints(-1, self._blocks * BLOCK))
        return flat if self._in % BLOCK == 0 else g.node("Slice", flat, g.ints(0), g.ints(self._in), g.ints(1))


_KINDS: dict[str, Callable[[Graph, str, Any], Matrix]] = {"fp32": _Float, "int8": _Int8, "int4": _Int4}


def matrix(graph: Graph, kind: str, name: str, tensor: Any) -> Matrix:
    """A matrix in ``fp32``, ``int8`` or ``int4``.

    >>> table = matrix(g, "int4", "embed.weight", state["embed.weight"])
    >>> table.linear(hidden, None, name="logits")
    """
    return _KINDS[kind](graph, name, tensor)
