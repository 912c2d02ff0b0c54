"""A file of the hidden states that frozen blocks give, one place for each row of examples, in the run's ``cache/``.

Written by the trainer only, and never relied on: every row has a checksum that names it, and one that is missing, torn
or of another run is computed again, so nothing here is synced. Read and written by offset rather than mapped: a mapped
file counts as memory of the process, and a full disk would kill it. Knows neither model nor data.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ondevice.errors import OndeviceError
from ondevice.run.files import make_folder, read_json, write_json

__all__ = ["FrozenCache", "remove_cache"]

CACHE_VERSION = 1
_ENTRY = struct.Struct("<II")  # of the index: checksum, tokens (0: not there)
_FLOAT = 4
_MB = 1 << 20


class FrozenCache:
    """``rows`` places of ``tokens x width`` fp32 numbers, of which the first are used as far as ``room_mb`` reaches.

    ``key`` says what the states depend on: a folder with another one is emptied. ``least_free_mb`` must stay free on
    the disk. Nothing here ever raises because the disk is full or damaged: then rows are computed.
    """

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, Any],
        *,
        rows: int,
        tokens: int,
        width: int,
        room_mb: float,
        least_free_mb: float = 0.0,
    ) -> None:
        self._folder, self._tokens, self._width = folder, tokens, width
        self._least_free = least_free_mb * _MB
        self._slot = tokens * width * _FLOAT
        self.places = max(0, min(rows, int(room_mb * _MB) // self._slot))
        self.read_rows = self.written_rows = 0
        self._data: BinaryIO | None = None
        self._index: BinaryIO | None = None
        if self.places:
            with suppress(OSError, OndeviceError):
                self._open(json.loads(json.dumps({"v": CACHE_VERSION, **key, "tokens": tokens, "width": width})))

    def _open(self, key: dict[str, Any]) -> None:
        make_folder(self._folder)
        about = self._folder / "frozen.json"
        try:
            known = read_json(about) == key
        except OndeviceError:
            known = False
        if not known:
            for name in ("frozen.bin", "frozen.index"):
                (self._folder / name).unlink(missing_ok=True)
            write_json(about, key)
        self._data, self._index = (_opened(self._folder / name) for name in ("frozen.bin", "frozen.index"))

    def read(self, number: int, tokens: int) -> Tensor | None:
        """The states of a row, ``[tokens, width]``; None where they are not there or not whole."""
        if self._data is None or self._index is None or not number < self.places:
            return None
        states = np.empty((tokens, self._width), np.float32)
        try:
            self._index.seek(number * _ENTRY.size)
            entry = self._index.read(_ENTRY.size)
            if len(entry) < _ENTRY.size or _ENTRY.unpack(entry)[1] != tokens:
                return None
            self._data.seek(number * self._slot)
            whole = self._data.readinto(states.data.cast("B")) == states.nbytes  # type: ignore[attr-defined]
        except OSError:
            return None
        if not whole or _checksum(states, number) != _ENTRY.unpack(entry)[0]:
            return None
        self.read_rows += 1
        return torch.from_numpy(states)

    def write(self, number: int, states_NC: Tensor) -> None:
        """Keeps the states of a row, where there is a place for it."""
        if self._data is None or self._index is None or not number < self.places or len(states_NC) > self._tokens:
            return
        states = states_NC.detach().contiguous().numpy()
        assert states.dtype == np.float32, states.dtype
        try:
            if shutil.disk_usage(self._folder).free - states.nbytes < self._least_free:
                return
            self._data.seek(number * self._slot)
            whole = self._data.write(states.data.cast("B")) == states.nbytes
            self._index.seek(number * _ENTRY.size)
            if whole:
                self._index.write(_ENTRY.pack(_checksum(states, number), len(states)))
        except OSError:
            return
        self.written_rows += whole

    def close(self) -> None:
        """Lets go of the files, which stay for the next launch."""
        for file in (self._data, self._index):
            if file is not None:
                file.close()
        self._data = self._index = None

    def remove(self) -> None:
        """Gives the disk back; from now on every row is computed."""
        self.close()
        remove_cache(self._folder)


def remove_cache(folder: Path) -> None:
    """Deletes a cache; never raises."""
    shutil.rmtree(folder, ignore_errors=True)


def _opened(path: Path) -> BinaryIO:
    path.touch()
    return open(path, "r+b", buffering=0)


def _checksum(states: np.ndarray, number: int) -> int:
    return zlib.crc32(states.data.cast("B"), zlib.crc32(number.to_bytes(8, "little")))
