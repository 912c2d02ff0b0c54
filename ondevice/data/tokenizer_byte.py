"""The byte tokenizer: 256 bytes and the end-of-text id. Needs no package and no training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.tokenizer_base import EOT, TableTokenizer, content_hash, surrogate_error

__all__ = ["ByteTokenizer"]


class ByteTokenizer(TableTokenizer):
    """Id ``i`` is byte ``i``; id 256 is the end of a text."""

    kind = "byte"
    eot_id = 256

    def __init__(self) -> None:
        super().__init__([*(bytes([i]) for i in range(256)), b""])
        self.sha256 = content_hash({"kind": self.kind, "eot": EOT})

    def encode(self, text: str) -> list[int]:
        return list(_utf8(text))

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        return [np.frombuffer(_utf8(text), dtype=np.uint8) for text in texts]

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        # No UTF-8 has the byte 255: it marks where a text ends until the ids are wide enough for the real one.
        data = np.frombuffer(b"\xff".join([*map(_utf8, texts), b""]), dtype=np.uint8)
        ends = np.flatnonzero(data == 255)
        ids = data.astype(np.uint16)
        ids[ends] = self.eot_id
        return ids, np.diff(ends, prepend=-1)

    def decode_bytes(self, ids: Any) -> bytes:
        return bytes([i for i in ids if i < 256])

    def files(self) -> dict[str, bytes]:
        return {}


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise surrogate_error() from error
