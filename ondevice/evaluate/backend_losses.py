"""The losses of `ondevice.evaluate.losses` through any backend, such as onnxruntime: same windows, same formulas."""

from __future__ import annotations

import numpy as np

from ondevice.evaluate.losses import SourceLoss, Tokens, ValidationText, loss_windows
from ondevice.infer.backend import Backend
from ondevice.model.loss import IGNORE

__all__ = ["backend_losses"]


def backend_losses(backend: Backend, dataset: ValidationText, *, max_tokens: int, batch: int) -> dict[str, SourceLoss]:
    """Of every source with validation text; ``max_tokens`` a source, 0 for all."""
    lengths_V = dataset.tokenizer().byte_lengths()
    found = {}
    for entry in dataset.sources:
        stream = dataset.stream(entry.name, "val")
        if len(stream) >= 2:
            found[entry.name] = _source(backend, stream, lengths_V, max_tokens, batch)
    return found


def _source(backend: Backend, stream: Tokens, lengths_V: np.ndarray, max_tokens: int, batch: int) -> SourceLoss:
    total, tokens, size = 0.0, 0, 0
    for x_BT, y_BT in loss_windows(stream, backend.context, max_tokens, batch):
        for logits_TV, y_T in zip(backend.logits(x_BT), y_BT, strict=True):
            real = y_T != IGNORE
            total += _nats(logits_TV[real].astype(np.float64), y_T[real])
            tokens, size = tokens + int(real.sum()), size + int(lengths_V[y_T[real]].sum())
    return SourceLoss(nats=total / tokens, tokens=tokens, bytes=size)


def _nats(logits_NV: np.ndarray, targets_N: np.ndarray) -> float:
    top_N1 = logits_NV.max(axis=1, keepdims=True)
    totals_N = top_N1[:, 0] + np.log(np.exp(logits_NV - top_N1).sum(axis=1))
    return float((totals_N - logits_NV[np.arange(len(targets_N)), targets_N]).sum())
