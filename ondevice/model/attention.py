"""Causal self-attention of both decoders: one matrix product for queries, keys and values, grouped heads, cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ondevice.model.cache import KVCache
from ondevice.model.layers import Linear
from ondevice.model.rope import Rotation, rotate
from ondevice.run.recipe import ModelShape

__all__ = ["Attention", "Place", "attend", "attend_apart", "continuation_mask", "ragged_mask"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tokens of one forward pass stand, the same for every block."""

    start: int
    positions: slice | Tensor  # [T], or [B, T] where rows differ
    cache: KVCache | None = None
    mask: Tensor | None = None  # [T, S] or [B, 1, T, S]; only where causality alone does not say who looks where
    rotation: Rotation | None = None
    lengths: tuple[int, ...] | None = None  # of the texts that stand side by side and do not see each other


def continuation_mask(start: int, count: int, device: torch.device) -> Tensor | None:
    """True where token ``start + i`` may look, ``[count, start + count]``; None where no mask is needed."""
    if start == 0 or count == 1:
        return None
    return torch.ones(count, start + count, dtype=torch.bool, device=device).tril(start)


def ragged_mask(start: int, count: int, lead_B: Tensor) -> Tensor:
    """`continuation_mask` where the first ``lead_B`` columns of each row are padding, ``[B, 1, count, start + count]``.

    Padding looks at itself alone: a row that may look nowhere would be no number.
    """
    columns = torch.arange(start + count, device=lead_B.device)
    rows = columns[start:, None]
    seen = (columns <= rows) & ((columns >= lead_B[:, None, None]) | (columns == rows))
    return seen[:, None]


def attend(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, *, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Attention of T queries over S keys -> ``[B, H, T, D]``; without mask causal from position 0 (or T is 1).

    Query head h reads key head ``h // (H / K)``. Keys and values are not repeated in memory.
    """
    B, H, T, D = q_BHTD.shape
    K = k_BKSD.shape[1]
    if T == 1 and H != K:  # the queries of a group are rows of one product: half the time of enable_gqa
        q_BKGD = q_BHTD.reshape(B, K, H // K, D)
        grouped = F.scaled_dot_product_attention(q_BKGD, k_BKSD, v_BKSD, attn_mask=mask, dropout_p=dropout)
        return grouped.reshape(B, H, 1, D)
    return F.scaled_dot_product_attention(
        q_BHTD,
        k_BKSD,
        v_BKSD,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and T > 1,
        enable_gqa=H != K,
    )


def attend_apart(
    q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, lengths: Sequence[int], *, dropout: float = 0.0
) -> Tensor:
    """Causal attention of texts that stand side by side, each within itself: a block-diagonal mask, never made.

    A text at a time: a mask of all T x T places would cost their product and memory, and most of it is nothing. In fp32
    whatever comes in: for each new length of a text torch's bf16 kernels keep 5 MB of code, and for short ones they are
    the slower (texts of 24 to 64 tokens: by 3 to 6 times).
    """
    exact = (x.float() if x.dtype == torch.bfloat16 else x for x in (q_BHTD, k_BKTD, v_BKTD))
    parts = zip(*(x.split(lengths, dim=2) for x in exact), strict=True)
    with torch.autocast("cpu", enabled=False):
        # Joined with time before heads, as the output projection wants them, so that nothing is copied twice.
        y_BTHD = torch.cat([attend(q, k, v, dropout=dropout).transpose(1, 2) for q, k, v in parts], dim=1)
    return y_BTHD.transpose(1, 2).to(q_BHTD.dtype)


class Attention(nn.Module):
    """``qkv`` rows are queries, then keys, then values; ``out`` joins the heads again."""

    def __init__(self, shape: ModelShape, layer: int, *, qkv_bias: bool, out_bias: bool) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.dropout = shape.dropout
        self.qkv = Linear(shape.width, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, bias=qkv_bias)
        self.out = Linear(shape.heads * shape.head_dim, shape.width, bias=out_bias)

    def forward(self, x_BTC: Tensor, place: Place) -> Tensor:
        B, T, _ = x_BTC.shape
        q_BHTD, k_BKTD, v_BKTD = self._heads(x_BTC, place)
        if place.cache is not None:
            k_BKTD, v_BKTD = place.cache.store(self.layer, place.start, k_BKTD, v_BKTD)
        dropout = self.dropout if self.training else 0.0
        if place.lengths is not None:
            y_BHTD = attend_apart(q_BHTD, k_BKTD, v_BKTD, place.lengths, dropout=dropout)
        else:
            y_BHTD = attend(q_BHTD, k_BKTD, v_BKTD, mask=place.mask, dropout=dropout)
        y_BTC: Tensor = self.out(y_BHTD.transpose(1, 2).reshape(B, T, -1))
        return y_BTC

    def _heads(self, x_BTC: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, heads before time; queries and keys are turned together, in one go."""
        B, T, _ = x_BTC.shape
        turning = self.heads + self.kv_heads
        qkv = self.qkv(x_BTC).view(B, T, turning + self.kv_heads, self.head_dim)
        qk, v = qkv.split((turning, self.kv_heads), dim=2)
        if place.rotation is not None:
            qk = rotate(qk, place.rotation)
        q, k = qk.split((self.heads, self.kv_heads), dim=2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
