"""Everything that must survive a crash, in one place: the state of a run between two optimizer steps."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ondevice.data.cursor import BatchCursor
from ondevice.model.decoder import Decoder
from ondevice.train.optimizer import Optimizer

__all__ = ["TrainState", "capture_rng", "restore_rng"]


@dataclass
class TrainState:
    """``step`` updates are done. ``best_loss`` is the lowest mixed validation loss so far, reached at ``best_step``."""

    model: Decoder
    optimizer: Optimizer
    cursor: BatchCursor
    step: int = 0
    tokens: int = 0
    train_s: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    best_saved: int | None = None  # the last best step that has a checkpoint
    evaluated: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)


def capture_rng() -> dict[str, Any]:
    """State of every global random generator (python, numpy, torch) as JSON values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, base64.b64encode(np.asarray(keys).tobytes()).decode(), position, has_gauss, cached],
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }


def restore_rng(saved: dict[str, Any]) -> None:
    """Puts back what `capture_rng` gave."""
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((name, np.frombuffer(base64.b64decode(keys), np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(saved["torch"])), dtype=torch.uint8))
