"""Weights in fewer bits: int8 with a scale for each output, int4 with a scale for every 32 inputs of an output.

Both are symmetric. Everything is computed when it is written, a block of rows at a time. Knows nothing of operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ondevice.export.graph import as_float32

__all__ = ["BLOCK", "Int4", "Int8", "Payload"]

BLOCK = 32  # inputs that share a scale in int4
_ROWS_BYTES = 1 << 20
_TRIED = (1.0, 0.94, 0.88)  # scales that are tried, in parts of the one that just holds the largest


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A matrix ``[out, in]`` that is read in blocks of rows, and must live until it was written."""

    tensor: Any

    @property
    def rows(self) -> int:
        return int(self.tensor.shape[0])

    @property
    def columns(self) -> int:
        return int(self.tensor.shape[1])

    def parts(self) -> Iterator[tuple[slice, np.ndarray]]:
        step = max(1, _ROWS_BYTES // (4 * self.columns))
        for start in range(0, self.rows, step):
            rows = slice(start, min(start + step, self.rows))
            yield rows, as_float32(self.tensor[rows])


@dataclass(frozen=True)
class Payload:
    """A payload of known size that is made when it is written."""

    dims: tuple[int, ...]
    dtype: str
    size: int
    make: Callable[[], Iterator[memoryview]]

    def blocks(self) -> Iterator[memoryview]:
        yield from self.make()


class Int8(_Matrix):
    """int8 in -127 ... 127, stored ``[in, out]`` as MatMulInteger wants it."""

    @cached_property
    def scales(self) -> np.ndarray:
        """``[out]``: what one unit stands for."""
        largest = np.zeros(self.rows, dtype=np.float32)
        for rows, block in self.parts():
            largest[rows] = np.abs(block).max(axis=1, initial=0.0)
        return np.where(largest > 0, largest / 127, 1.0).astype(np.float32)

    def values(self) -> np.ndarray:
        out = np.empty((self.columns, self.rows), dtype=np.int8)
        for rows, block in self.parts():
            out[:, rows] = np.rint(block / self.scales[rows, None]).astype(np.int8).T
        return out

    def restored(self) -> np.ndarray:
        """The matrix ``[out, in]`` that is computed with."""
        return np.ascontiguousarray(self.values().T.astype(np.float32) * self.scales[:, None])

    @property
    def value_payload(self) -> Payload:
        size = self.rows * self.columns
        return Payload((self.columns, self.rows), "int8", size, lambda: iter([self.values().data.cast("B")]))

    @property
    def scale_payload(self) -> Payload:
        return Payload((self.rows,), "float32", 4 * self.rows, lambda: iter([self.scales.data.cast("B")]))


class Int4(_Matrix):
    """int4 in blocks along the inputs, stored as MatMulNBits wants it: value + 8, the even input in the low half."""

    @property
    def blocks(self) -> int:
        """Blocks in a row; the last may be padded with zeros."""
        return -(-self.columns // BLOCK)

    @cached_property
    def scales(self) -> np.ndarray:
        """``[out, blocks]``: what one unit stands for, of a few tried the one with the least squared error."""
        out = np.empty((self.rows, self.blocks), dtype=np.float32)
        for rows, block in self.parts():
            out[rows] = _best_scales(self._blocked(block))
        return out

    def _blocked(self, block: np.ndarray) -> np.ndarray:
        padding = self.blocks * BLOCK - self.columns
        if padding:
            block = np.pad(block, ((0, 0), (0, padding)))
        return block.reshape(len(block), self.blocks, BLOCK)

    def _quantized(self, rows: slice, block: np.ndarray) -> np.ndarray:
        return _nearest(self._blocked(block), self.scales[rows]) + 8

    def packed(self) -> Iterator[np.ndarray]:
        """Rows ``[n, blocks, 16]`` of bytes, two values in each."""
        for rows, block in self.parts():
            values = self._quantized(rows, block).astype(np.uint8)
            yield values[..., 0::2] | values[..., 1::2] << 4

    def restored(self) -> np.ndarray:
        """The matrix ``[out, in]`` that is computed with."""
        parts = [(self._quantized(r, b) - 8) * self.scales[r][..., None] for r, b in self.parts()]
        return np.concatenate([part.reshape(len(part), -1)[:, : self.columns] for part in parts])

    @property
    def value_payload(self) -> Payload:
        size = self.rows * self.blocks * BLOCK // 2
        dims = (self.rows, self.blocks, BLOCK // 2)
        return Payload(dims, "uint8", size, lambda: (each.data.cast("B") for each in self.packed()))

    @property
    def scale_payload(self) -> Payload:
        size = 4 * self.rows * self.blocks
        return Payload((self.rows, self.blocks), "float32", size, lambda: iter([self.scales.data.cast("B")]))


def _nearest(x_RBK: np.ndarray, scales_RB: np.ndarray) -> np.ndarray:
    """Values -8 ... 7, still as floats."""
    out: np.ndarray = x_RBK * (1 / scales_RB)[..., None]
    np.rint(out, out=out)
    return np.clip(out, -8, 7, out=out)


def _best_scales(x_RBK: np.ndarray) -> np.ndarray:
    """The largest value of a block becomes -8, or a little less or more where that is better for all the others."""
    high, low = x_RBK.max(axis=-1), x_RBK.min(axis=-1)
    largest = np.where(high > -low, high, low)
    whole = np.where(largest != 0, largest / -8, 1.0).astype(np.float32)
    best, least = whole, None
    for part in _TRIED:
        scales = whole * np.float32(part)
        wrong = _nearest(x_RBK, scales)
        wrong *= scales[..., None]
        wrong -= x_RBK
        error = np.einsum("rbk,rbk->rb", wrong, wrong)
        if least is None:
            best, least = scales, error
        else:
            better = error < least
            best, least = np.where(better, scales, best), np.where(better, error, least)
    return best
