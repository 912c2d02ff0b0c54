"""The instruction arm of finetune.py: examples of natural lengths, and the rate of tokens that are learned from.

Lengths are drawn once from a log-normal distribution with a median of 150 ids, kept between 30 and 500; the answer is
a third of an example. Ours packs them into rows; Trainer takes 8 at a time in a random order and pads them to the
longest, as its makers set it up. A step of ours has as many rows as hold about 8 examples.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch

from ondevice.data.packed import IGNORE, PackedSource, flattened
from ondevice.model.products import round_rows

__all__ = ["CONTEXT", "ours", "theirs"]

CONTEXT, SHORTEST, LONGEST, MEDIAN, SPREAD = 512, 30, 500, 150, 0.7
EXAMPLES = 512


class Examples:
    """Random ids of natural lengths, the last third of each learned; what a packed source reads."""

    def __init__(self) -> None:
        draw = np.random.default_rng(11)
        lengths = np.exp(draw.normal(math.log(MEDIAN), SPREAD, EXAMPLES)).astype(np.int64)
        self.lengths = np.clip(lengths, SHORTEST, LONGEST)
        self._ids = [draw.integers(0, 250, length) for length in self.lengths]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self._ids[index]
        return ids, np.arange(len(ids)) >= len(ids) - len(ids) // 3


def ours(job: dict[str, Any], engine: Any) -> float:
    """Learned tokens a second over the counted steps."""
    packed = PackedSource(Examples(), context=CONTEXT, seed=3, shuffled=True, too_long="keep_end")  # type: ignore[arg-type]
    order = np.random.default_rng(job["round"]).permutation(len(packed))
    rows = max(1, round(job["batch"] * len(packed) / EXAMPLES))
    learned, took = 0, 0.0
    for step in range(job["steps"] + 1):
        batch = packed.rows([int(row) for row in order[step * rows : (step + 1) * rows]])
        began = time.perf_counter()
        engine.begin(batch.y_BT)
        for first in range(0, rows, job["ours"]["micro"]):
            piece = slice(first, first + job["ours"]["micro"])
            engine.accumulate(*flattened(batch.x_BT[piece], batch.y_BT[piece], batch.lengths_B[piece], round_rows))
        engine.update(1e-4)
        if step:  # the first warms up
            learned, took = learned + int((batch.y_BT != IGNORE).sum()), took + time.perf_counter() - began
    return learned / took


def padded(examples: Examples, order: np.ndarray) -> list[dict[str, torch.Tensor]]:
    """What Trainer's dataset holds: ids and labels of each example."""
    rows = []
    for index in order.tolist():
        ids, mask = examples.read(index)
        labels = np.where(mask, ids, IGNORE)
        rows.append({"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)})
    return rows


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Pads to the longest of the batch, as the collators of transformers do."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([row["input_ids"] for row in rows], batch_first=True)
    labels = pad([row["labels"] for row in rows], batch_first=True, padding_value=IGNORE)
    mask = pad([torch.ones_like(row["input_ids"]) for row in rows], batch_first=True)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def theirs(job: dict[str, Any], train: Any) -> float:
    """Learned tokens a second; ``train(rows, collate)`` gives the seconds of each step."""
    examples = Examples()
    order = np.random.default_rng(job["round"]).permutation(EXAMPLES)[: job["batch"] * (job["steps"] + 1)]
    rows = padded(examples, order)
    took = train(rows, collate)
    learned = sum(int((row["labels"][1:] != IGNORE).sum()) for row in rows[job["batch"] :])
    return learned / sum(took)
