"""What the graphs of both decoders share: inputs, mask, cached attention, linear layers, head.

Activations are flat, ``[N, C]`` with N = batch * sequence, so that every linear layer is one Gemm on weights as they
are trained (``[out, in]``, transB=1) with its bias inside, and the tied head shares the embedding's initializer.
Shapes in names as in ARCHITECTURE.md; S = past + sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ondevice.errors import CheckpointError
from ondevice.export.graph import Graph
from ondevice.export.graph_linear import Matrix, matrix
from ondevice.export.onnx_format import NATIVE_OPSET, OPSET
from ondevice.export.plan import FP32, Plan
from ondevice.infer.export_folder import IN_PLACE, NATIVE, PORTABLE
from ondevice.run.recipe import ModelShape

__all__ = ["FORMS", "IN_PLACE", "NATIVE", "PORTABLE", "Decoder", "Weights"]

FORMS = (PORTABLE, NATIVE, IN_PLACE)
"""portable: opset 17. native: attention, norms and rotation of opset 23. in place: opset 17 with onnxruntime's own
attention, which writes into a cache of fixed length instead of making a longer one at every step."""

_INT32 = 6

_HIDDEN = float(np.finfo(np.float32).min)  # finite: a row of padding sees nothing, and must not become NaN


class Weights:
    """The state dict, with its names and shapes checked: what the graph takes must be there, and nothing else."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        self._left = set(state)

    def rank(self, layer: str) -> int:
        """Of the adapter beside a layer; 0 where there is none."""
        beside = self._state.get(f"{layer}.lora_A")
        return 0 if beside is None else int(beside.shape[0])

    def take(self, name: str, *dims: int) -> Any:
        """The tensor of this name. Raises CheckpointError when it is missing or has another shape."""
        if name not in self._state:
            raise CheckpointError(f"The weights lack {name!r}; they do not belong to this model shape.")
        tensor = self._state[name]
        if tuple(tensor.shape) != dims:
            raise CheckpointError(
                f"The weights {name!r} have shape {list(tensor.shape)}, the model shape wants {list(dims)}; "
                "they do not belong together."
            )
        self._left.discard(name)
        return tensor

    def finish(self) -> None:
        """Raises CheckpointError when a tensor was never taken: the graph would compute something else."""
        if self._left:
            raise CheckpointError(f"Unknown weights {sorted(self._left)[0]!r}; they do not belong to this model shape.")


class Decoder:
    """A decoder's graph while it is built, in one of `FORMS`."""

    def __init__(self, shape: ModelShape, state: Mapping[str, Any], plan: Plan = FP32, *, form: str = PORTABLE) -> None:
        self.shape = shape
        self.plan = plan
        self.native, self.in_place = form == NATIVE, form == IN_PLACE
        opset = NATIVE_OPSET if self.native else OPSET
        self.weights = Weights(state)
        self.graph = g = Graph(shape.arch, opset=opset)
        self.ids_BT = g.input("input_ids", "int64", ["batch", "sequence"])
        self.mask_BS = g.input("attention_mask", "int64", ["batch", "past + sequence"])
        self.positions_BT = g.input("position_ids", "int64", ["batch", "sequence"])
        length = "capacity" if self.in_place else "past"
        dims: list[int | str] = ["batch", shape.kv_heads, length, shape.head_dim]
        self.past = [
            tuple(g.input(f"past_key_values.{i}.{part}", "float32", dims) for part in ("key", "value"))
            for i in range(shape.layers)
        ]
        self._table = self._matrix("embed.weight", plan.embedding, shape.vocab_size, shape.width)
        self._bt = g.node("Shape", self.ids_BT, name="batch_sequence")
        heads = shape.heads + 2 * shape.kv_heads
        self._heads_shape = g.node("Concat", self._bt, g.ints(heads, shape.head_dim), axis=0, name="heads_shape")
        self._bias = self._attention_bias()

    def weight(self, name: str, *dims: int) -> str:
        """A trained tensor as an initializer of the same name."""
        return self.graph.weight(name, self.weights.take(name, *dims))

    def _matrix(self, name: str, kind: str, *dims: int) -> Matrix:
        return matrix(self.graph, kind, name, self.weights.take(name, *dims))

    def _attention_bias(self) -> str:
        """0 where a query may look, the lowest float where not: ``[B, 1, G*T, S]``, G query heads a key head.

        A query at column c sees the columns up to c that the attention mask allows, so left padding works as it
        does in transformers.
        """
        g = self.graph
        zero, one = g.constant(0, "int64"), g.constant(1, "int64")
        total = g.node("Gather", g.node("Shape", self.mask_BS), one, axis=0)
        past = g.node("Sub", total, g.node("Gather", self._bt, one, axis=0))
        columns_S = g.node("Range", zero, total, one)
        rows_T1 = g.node("Unsqueeze", g.node("Range", past, total, one), g.ints(1))
        causal_TS = g.node("LessOrEqual", columns_S, rows_T1)
        real_B11S = g.node("Unsqueeze", g.node("Cast", self.mask_BS, to=9), g.ints(1, 2))
        seen = g.node("And", causal_TS, real_B11S)
        bias = g.node("Where", seen, g.scalar(0.0), g.scalar(_HIDDEN), name="attention_bias")
        if self.in_place:
            last = g.node("Cast", g.node("Sub", total, one), to=_INT32)
            self._total = g.node("Cast", total, to=_INT32)
            self._last_B = g.node("Expand", last, g.node("Gather", self._bt, g.ints(0), axis=0))
        group = 1 if self.native or self.in_place else self.shape.heads // self.shape.kv_heads
        return g.node("Concat", *[bias] * group, axis=2, name="attention_bias_grouped") if group > 1 else bias

    def embed(self) -> str:
        """Token embeddings ``[N, C]``."""
        g = self.graph
        return self._table.rows(g.node("Reshape", self.ids_BT, g.ints(-1)))

    def linear(self, x: str, name: str, out: int, into: int, *, bias: bool) -> str:
        """``x @ weight.T + bias`` of flat activations, ``[N, into] -> [N, out]``, in the bits of the plan; an adapter
        that lies beside the matrix stays there, in fp32."""
        layer = int(name.split(".")[1])
        weight = self._matrix(f"{name}.weight", self.plan.block(layer, self.shape), out, into)
        y = weight.linear(x, self.weight(f"{name}.bias", out) if bias else None, name=name)
        rank = self.weights.rank(name)
        if not rank:
            return y
        down, up = self.weight(f"{name}.lora_A", rank, into), self.weight(f"{name}.lora_B", out, rank)
        low = self.graph.node("Gemm", x, down, transB=1)
        return self.graph.node("Gemm", low, up, y, transB=1, name=f"{name}.adapted")

    def split_heads(self, qkv_NX: str) -> str:
        """``[N, (H+2K)*D] -> [B, H+2K, T, D]``."""
        g = self.graph
        return g.node("Transpose", g.node("Reshape", qkv_NX, self._heads_shape), perm=[0, 2, 1, 3])

    def attend(self, layer: int, q_BHTD: str, k_BKTD: str, v_BKTD: str) -> str:
        """Attention over the cache and the new keys; the grown cache becomes an output. Gives ``[N, H*D]``.

        Query heads that share a key head are stacked along the rows, so keys and values are never repeated.
        """
        g, shape = self.graph, self.shape
        past_k, past_v = self.past[layer]
        if self.native:
            names = ("mixed", f"present.{layer}.key", f"present.{layer}.value")
            inputs = (q_BHTD, k_BKTD, v_BKTD, self._bias, past_k, past_v)
            return self._flat(g.split_node("Attention", *inputs, names=names)[0])
        k_BKSD = g.node("Concat", past_k, k_BKTD, axis=2, name=f"present.{layer}.key")
        v_BKSD = g.node("Concat", past_v, v_BKTD, axis=2, name=f"present.{layer}.value")
        grouped = shape.heads != shape.kv_heads
        q = g.node("Reshape", q_BHTD, g.ints(0, shape.kv_heads, -1, shape.head_dim)) if grouped else q_BHTD
        q = g.node("Mul", q, g.scalar(shape.head_dim**-0.5))  # onnxruntime folds this and the transpose into MatMul
        scores = g.node("MatMul", q, g.node("Transpose", k_BKSD, perm=[0, 1, 3, 2]))
        odds = g.node("Softmax", g.node("Add", scores, self._bias), axis=-1)
        mixed = g.node("MatMul", odds, v_BKSD)
        if grouped:
            mixed = g.node("Reshape", mixed, g.ints(0, shape.heads, -1, shape.head_dim))
        return self._flat(mixed)

    def attend_packed(self, layer: int, qkv_NX: str, *, rope: tuple[str, str] | None = None) -> str:
        """`attend` in place: rotation by the tables ``rope``, cache and attention in one operator. Gives ``[N, H*D]``.

        The cache is as long as who runs it made it; new keys and values are written behind the old ones. Positions
        are columns, which padding on the left shifts by the same number for queries and keys.
        """
        g, shape = self.graph, self.shape
        packed = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        qkv_BTX = g.node("Reshape", qkv_NX, g.node("Concat", self._bt, g.ints(packed), axis=0))
        inputs = (qkv_BTX, "", "", *self.past[layer], self._last_B, self._total, *(rope or ("", "")), "", self._bias)
        mixed_BTX = g.microsoft_split_node(
            "GroupQueryAttention",
            *inputs,
            names=("mixed", f"present.{layer}.key", f"present.{layer}.value"),
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=int(rope is not None),
        )[0]
        return g.node("Reshape", mixed_BTX, g.ints(-1, shape.heads * shape.head_dim))

    def _flat(self, mixed_BHTD: str) -> str:
        """``[B, H, T, D] -> [N, H*D]``."""
        g, shape = self.graph, self.shape
        mixed_BTHD = g.node("Transpose", mixed_BHTD, perm=[0, 2, 1, 3])
        return g.node("Reshape", mixed_BTHD, g.ints(-1, shape.heads * shape.head_dim))

    def finish(self, hidden_NC: str) -> Graph:
        """Adds the head over all positions and declares the outputs."""
        g, shape = self.graph, self.shape
        head = self._table
        if not shape.tied:
            head = self._matrix("head.weight", self.plan.head, shape.vocab_size, shape.width)
        logits_shape = g.node("Concat", self._bt, g.ints(shape.vocab_size), axis=0, name="logits_shape")
        logits = g.node("Reshape", head.linear(hidden_NC, None, name="head"), logits_shape, name="logits")
        g.output(logits, "float32", ["batch", "sequence", shape.vocab_size])
        for i in range(shape.layers):
            for part in ("key", "value"):
                length = "capacity" if self.in_place else "past + sequence"
                dims: list[int | str] = ["batch", shape.kv_heads, length, shape.head_dim]
                g.output(f"present.{i}.{part}", "float32", dims)
        self.weights.finish()
        return g
