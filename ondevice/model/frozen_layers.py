"""A linear layer and an embedding over frozen matrices, and back to plain ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ondevice.model.frozen import FrozenMatrix
from ondevice.model.layers import Embedding, Linear

__all__ = ["FrozenEmbedding", "FrozenLinear"]


class FrozenLinear(nn.Module):
    """A linear layer over a frozen matrix ``[out, in]``."""

    def __init__(self, matrix: FrozenMatrix, *, bias: bool) -> None:
        super().__init__()
        self.matrix = matrix
        self.register_buffer("bias", torch.empty(matrix.rows) if bias else None)
        self.bias: Tensor | None

    @property
    def weight(self) -> FrozenMatrix:
        return self.matrix

    def forward(self, x: Tensor) -> Tensor:
        y = self.matrix.product(x)
        return y if self.bias is None else y.add_(self.bias)

    def plain(self) -> Linear:
        """The layer with its matrix unpacked."""
        layer = Linear(1, 1, bias=self.bias is not None)
        layer.out_features, layer.in_features = self.matrix.shape
        layer.weight = nn.Parameter(_whole(self.matrix), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias, requires_grad=False)
        return layer


class FrozenEmbedding(nn.Module):
    """Rows of a frozen matrix by number; ``matrix`` may serve as head too."""

    def __init__(self, matrix: FrozenMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    @property
    def weight(self) -> FrozenMatrix:
        return self.matrix

    def forward(self, ids: Tensor) -> Tensor:
        return self.matrix.unpacked(ids.flatten()).view(*ids.shape, self.matrix.columns)

    def plain(self) -> Embedding:
        """The table unpacked."""
        rows, columns = self.matrix.shape
        return Embedding(rows, columns, _weight=_whole(self.matrix), _freeze=True)


def _whole(matrix: FrozenMatrix) -> Tensor:
    whole = torch.empty(matrix.shape)
    for rows, tile in matrix.tiles(torch.float32):
        whole[rows] = tile
    return whole
