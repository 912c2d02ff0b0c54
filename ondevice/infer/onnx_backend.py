"""The onnxruntime backend over an export folder. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ondevice.infer.export_folder import IN_PLACE, ExportFolder
from ondevice.infer.onnx_session import OnnxSession

__all__ = ["OnnxBackend"]

_PIECE = 32  # tokens read at once: long enough for full speed, and bounds the logits, which nobody needs but the last


class OnnxBackend:
    """A `Backend`.

    >>> backend = OnnxBackend(Path("exports/first"), threads=2)
    >>> backend.start(1); logits_BV = backend.step(np.array([[5, 9, 2]]))
    """

    name = "onnxruntime"

    def __init__(
        self, folder: Path, *, threads: int | None = None, low_memory: bool = False, verify: bool = False
    ) -> None:
        """``verify`` checks the hash of every file first. Raises UsageError when the folder is no export, DataError
        when it is damaged, DeviceError when onnxruntime is missing or too old."""
        self.export = ExportFolder.open(folder, verify=verify)
        self.context = self.export.shape.context
        self.vocab_size = self.export.shape.vocab_size
        self._session = OnnxSession(
            self.export.model,
            self.export.shape,
            threads=threads,
            low_memory=low_memory,
            oldest=self.export.onnxruntime,
            in_place=self.export.form == IN_PLACE,
        )

    def start(self, batch: int) -> None:
        self._session.start(batch)

    def step(self, ids_BT: np.ndarray) -> np.ndarray:
        count = ids_BT.shape[1]
        if self._session.length + count > self.context:
            raise ValueError(f"{self._session.length} + {count} tokens exceed the context of {self.context}")
        for start in range(0, count, _PIECE):
            logits_BTV = self._session.run(ids_BT[:, start : start + _PIECE])
        return logits_BTV[:, -1]

    def read(self, rows: Sequence[Sequence[int]], *, room: int) -> np.ndarray:
        longest = max(map(len, rows))
        ids_BT = np.zeros((len(rows), longest), np.int64)
        mask_BT = np.zeros((len(rows), longest), np.int64)
        for row, ids in enumerate(rows):
            ids_BT[row, longest - len(ids) :], mask_BT[row, longest - len(ids) :] = ids, 1
        self._session.start(len(rows), capacity=min(self.context, longest + room))
        for start in range(0, longest, _PIECE):
            piece = slice(start, start + _PIECE)
            logits_BTV = self._session.run(ids_BT[:, piece], mask_BT=mask_BT[:, piece])
        return logits_BTV[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        self._session.keep(rows)

    def logits(self, ids_BT: np.ndarray) -> np.ndarray:
        with self._session.set_aside():
            self._session.start(len(ids_BT), capacity=ids_BT.shape[1])
            return self._session.run(ids_BT)
