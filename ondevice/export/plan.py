"""In how many bits each part of an exported model is stored: plans, and those that ``auto`` chooses from.

Pure values; how a part is quantized is ``ondevice.export.quantize``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.run.recipe import ModelShape

__all__ = ["CANDIDATES", "FP32", "MOST_GROWTH", "PLANS", "Plan"]

MOST_GROWTH = 0.03
"""Share by which the perplexity on validation text may grow where ``auto`` chooses."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Each part is ``fp32``, ``int8`` or ``int4``. ``ends`` are the first and the last block, where
    errors cost most; a tied head is the embedding's table and has its kind."""

    name: str
    blocks: str
    ends: str
    embedding: str
    head: str

    def block(self, layer: int, shape: ModelShape) -> str:
        """The kind of the matrices of a block."""
        return self.ends if layer in (0, shape.layers - 1) else self.blocks

    @property
    def quantized(self) -> bool:
        return {self.blocks, self.ends, self.embedding, self.head} != {"fp32"}


def _plan(name: str, blocks: str, table: str, *, ends: str | None = None) -> Plan:
    return Plan(name=name, blocks=blocks, ends=ends or blocks, embedding=table, head=table)


FP32 = _plan("fp32", "fp32", "fp32")
PLANS = {
    "fp32": FP32,
    "int8": _plan("int8", "int8", "int8"),
    "int4": _plan("int4", "int4", "int4"),
}
"""What a person asks for by name."""

CANDIDATES = (
    PLANS["int4"],
    _plan("int4, tables int8", "int4", "int8"),
    _plan("int4, ends and tables int8", "int4", "int8", ends="int8"),
    _plan("int4, tables fp32", "int4", "fp32"),
    PLANS["int8"],
    _plan("int8, tables fp32", "int8", "fp32"),
    FP32,
)
"""Every plan that ``auto`` may choose; which is smaller depends on the model."""
