"""Matrices that never learn, kept small: bf16, int8 by row, 4-bit integers and NF4 by block, unpacked tile by tile.

No more than one tile of numbers exists in full precision, forward and backward, and while a matrix is filled. What is
stored depends on the numbers alone, not on the pieces it was filled with or on threads, so that a run resumes to the
bit. Knows nothing of layers and models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["NF4", "FrozenMatrix", "frozen_matrix"]

_TILE = 1 << 17  # numbers in full precision at once: half a megabyte, which caches hold
_GROUP = 256  # scales of NF4 that share a scale of their own
_HALF_MAX = 65504.0
# The 16 values of arXiv 2305.14314, appendix E: quantiles of a normal distribution, with an exact zero.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


class FrozenMatrix(nn.Module, ABC):
    """``[rows, columns]``. Filled by `fill` in pieces of whole rows, then `seal`-ed, then read."""

    dtype = torch.float32  # of what it gives

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @abstractmethod
    def fill(self, first: int, part: Tensor) -> None:
        """Stores finite fp32 rows from ``first`` on."""

    def seal(self) -> None:
        """Every row was filled."""
        return

    @abstractmethod
    def unpacked(self, rows: slice | Tensor) -> Tensor:
        """Those rows in fp32."""

    def tiles(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """All rows, some at a time."""
        step = max(1, _TILE // self.columns)
        for first in range(0, self.rows, step):
            rows = slice(first, min(first + step, self.rows))
            yield rows, self.unpacked(rows).to(dtype)

    def times(self, x_NI: Tensor, out: Tensor) -> Tensor:
        """``out = x @ self.T``, ``[N, rows]``, in the precision of ``x``."""
        for rows, tile in self.tiles(x_NI.dtype):
            torch.mm(x_NI, tile.t(), out=out[:, rows])
        return out

    def back(self, grad_NO: Tensor, out: Tensor) -> Tensor:
        """``out = grad @ self``, ``[N, columns]``."""
        for rows, tile in self.tiles(grad_NO.dtype):
            out.addmm_(grad_NO[:, rows], tile, beta=1 if rows.start else 0)
        return out

    def product(self, x: Tensor) -> Tensor:
        """``x [..., columns] @ self.T``; under autocast in its precision. The gradient of ``x`` needs no ``x``."""
        dtype = x.dtype
        if dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
        y: Tensor = _Product.apply(x.to(dtype), self)
        return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: FrozenMatrix) -> Tensor:
        ctx.matrix = matrix
        y = x.new_empty(*x.shape[:-1], matrix.rows)  # no view is given: an adapter adds to it in place
        with torch.autocast("cpu", enabled=False):
            matrix.times(x.reshape(-1, matrix.columns), y.view(-1, matrix.rows))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad_NO = grad.reshape(-1, ctx.matrix.rows)
        into_x = ctx.matrix.back(grad_NO, grad.new_empty(len(grad_NO), ctx.matrix.columns))
        return into_x.view(*grad.shape[:-1], ctx.matrix.columns), None


def frozen_matrix(form: str, rows: int, columns: int) -> FrozenMatrix:
    """An empty matrix in a format: bf16, int8, int4 or nf4."""
    return _FORMATS[form](rows, columns)


class _Bf16(FrozenMatrix):
    """Rounded: an error of at most 2^-9 of each number."""

    codes: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns)
        self.register_buffer("codes", torch.empty(rows, columns, dtype=torch.bfloat16))

    def fill(self, first: int, part: Tensor) -> None:
        self.codes[first : first + len(part)] = part

    def unpacked(self, rows: slice | Tensor) -> Tensor:
        return self.codes[rows].float()


class _Int8(FrozenMatrix):
    """Each row in 255 even steps: an error of at most 1/254 of the row's largest number."""

    codes: Tensor
    scale: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns)
        self.register_buffer("codes", torch.empty(rows, columns, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(rows, 1))

    def fill(self, first: int, part: Tensor) -> None:
        scale = part.abs().amax(dim=1, keepdim=True).div_(127)
        self.scale[first : first + len(part)] = scale
        self.codes[first : first + len(part)] = torch.div(part, _not_zero(scale)).round_()

    def unpacked(self, rows: slice | Tensor) -> Tensor:
        return self.codes[rows].float().mul_(self.scale[rows])


class _Nibbles(FrozenMatrix):
    """Two 4-bit codes a byte, the first in the high half; each block of a row has a scale. The last block of a row may
    be filled up."""

    codes: Tensor

    def __init__(self, rows: int, columns: int, *, block: int, values: Tensor) -> None:
        super().__init__(rows, columns)
        self.block, self.blocks = block, -(-columns // block)
        self.register_buffer("codes", torch.empty(rows, self.blocks * block // 2, dtype=torch.uint8))
        # A byte is looked up as one pair of numbers, seen as one integer of 8 bytes: twice as fast as two look-ups.
        self._pairs = torch.stack((values.repeat_interleave(16), values.repeat(16)), dim=1).view(torch.int64)[:, 0]

    @abstractmethod
    def scales(self, rows: slice | Tensor) -> Tensor:
        """Of the blocks of those rows, fp32 ``[n, blocks]``."""

    def unpacked(self, rows: slice | Tensor) -> Tensor:
        codes = self.codes[rows]
        pairs = self._pairs.index_select(0, codes.flatten().int())
        numbers = pairs.view(torch.float32).view(len(codes), self.blocks, self.block)
        return numbers.mul_(self.scales(rows)[:, :, None]).flatten(1)[:, : self.columns]

    def blocked(self, part: Tensor) -> Tensor:
        """``[n, blocks, block]``, filled up with zeros."""
        full = nn.functional.pad(part, (0, self.blocks * self.block - self.columns))
        return full.contiguous().view(len(part), self.blocks, self.block)

    def pack(self, first: int, codes: Tensor) -> None:
        codes = codes.to(torch.uint8).flatten(1)
        self.codes[first : first + len(codes)] = (codes[:, 0::2] << 4) | codes[:, 1::2]


class _Int4(_Nibbles):
    """Blocks of 32 in steps from -8 to 7, where -8 is the number of the largest magnitude; scales in half precision."""

    scale: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns, block=32, values=torch.arange(-8, 8, dtype=torch.float32))
        self.register_buffer("scale", torch.empty(rows, self.blocks, dtype=torch.float16))

    def fill(self, first: int, part: Tensor) -> None:
        numbers = self.blocked(part)
        largest = numbers.gather(2, numbers.abs().argmax(dim=2, keepdim=True))
        scale = largest.div_(-8).clamp_(-_HALF_MAX, _HALF_MAX).half()
        self.scale[first : first + len(part)] = scale[:, :, 0]
        self.pack(first, torch.div(numbers, _not_zero(scale.float())).round_().clamp_(-8, 7).add_(8))

    def scales(self, rows: slice | Tensor) -> Tensor:
        return self.scale[rows].float()


class _Nf4(_Nibbles):
    """NormalFloat in blocks of 64 with double quantization: a block's scale is its largest magnitude, less the mean of
    all, in 255 even steps for each 256 of them (the paper has 8-bit floats there, which are coarser near the ends)."""

    scale_codes: Tensor
    scale_of_scales: Tensor
    mean: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns, block=64, values=torch.tensor(NF4))
        self.register_buffer("scale_codes", torch.empty(rows, self.blocks, dtype=torch.int8))
        self.register_buffer("scale_of_scales", torch.empty(-(-rows * self.blocks // _GROUP)))
        self.register_buffer("mean", torch.zeros(()))
        self._largest: Tensor | None = None  # fp32 [rows, blocks], until it is sealed

    def fill(self, first: int, part: Tensor) -> None:
        numbers = self.blocked(part)
        largest = numbers.abs().amax(dim=2, keepdim=True)
        if self._largest is None:
            self._largest = torch.empty(self.rows, self.blocks)
        self._largest[first : first + len(part)] = largest[:, :, 0]
        values = torch.tensor(NF4)
        between = (values[1:] + values[:-1]) / 2
        self.pack(first, torch.bucketize(torch.div(numbers, _not_zero(largest)), between, out_int32=True))

    def seal(self) -> None:
        assert self._largest is not None
        # By numpy, on one thread: a sum in another order would be another mean.
        self.mean.fill_(float(np.mean(self._largest.numpy(), dtype=np.float64)))
        apart = (self._largest - self.mean).flatten()
        groups = nn.functional.pad(apart, (0, -len(apart) % _GROUP)).view(-1, _GROUP)
        steps = groups.abs().amax(dim=1, keepdim=True).div_(127)
        self.scale_of_scales.copy_(steps[:, 0])
        codes = torch.div(groups, _not_zero(steps)).round_().flatten()[: len(apart)]
        self.scale_codes.copy_(codes.view_as(self.scale_codes))
        self._largest = None

    def scales(self, rows: slice | Tensor) -> Tensor:
        codes = self.scale_codes[rows]
        numbers = torch.arange(self.rows)[rows] if isinstance(rows, slice) else rows
        places = (numbers[:, None] * self.blocks + torch.arange(self.blocks)).div_(_GROUP, rounding_mode="floor")
        steps = self.scale_of_scales.index_select(0, places.flatten()).view_as(codes)
        return steps.mul_(codes).add_(self.mean)


def _not_zero(scale: Tensor) -> Tensor:
    """A scale to divide by: where everything is zero any will do."""
    return scale.masked_fill(scale == 0, 1.0)


_FORMATS: dict[str, type[Any]] = {"bf16": _Bf16, "int8": _Int8, "int4": _Int4, "nf4": _Nf4}
