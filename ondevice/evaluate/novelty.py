"""Whether generated tokens are a long verbatim copy of training tokens: any 51 in a row that training holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ondevice.data.stream import TokenStream

__all__ = ["LONGEST_COPY", "copied"]

LONGEST_COPY = 50
_BLOCK = 1 << 20
_MULTIPLIER = 0x9E3779B97F4A7C15
_WRAP = (1 << 64) - 1


def _windows(ids: np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of every window of ``length`` tokens, by doubling."""
    power = ids.astype(np.uint64) + np.uint64(0x632BE59BD9B4E019)
    power *= np.uint64(0xD6E8FEB86659FD93)
    power ^= power >> np.uint64(32)
    result: np.ndarray | None = None
    done, size, factor = 0, 1, _MULTIPLIER
    while size <= length:
        if length & size:
            shifted = power[done:]
            if result is None:
                result = shifted
            else:
                count = len(shifted)
                result = result[:count] * np.uint64(factor) + shifted
            done += size
        if 2 * size > length:
            break
        power = power[: len(power) - size] * np.uint64(factor) + power[size:]
        factor = factor * factor & _WRAP
        size *= 2
    assert result is not None
    return result[: max(0, len(ids) - length + 1)]


def copied(
    generations: Sequence[Sequence[int] | np.ndarray], streams: Iterable[TokenStream], *, longest: int = LONGEST_COPY
) -> list[bool]:
    """For each generation whether more than ``longest`` of its tokens in a row stand in the streams.

    By 64-bit hashes: a copy is never missed, a false alarm has odds of one in a billion billion a window.
    """
    length = longest + 1
    hashes = [
        _windows(np.asarray(ids, np.int64), length) if len(ids) >= length else np.zeros(0, np.uint64)
        for ids in generations
    ]
    wanted = np.unique(np.concatenate([*hashes, np.zeros(0, np.uint64)]))
    found = np.zeros(len(wanted), bool)
    for stream in streams if len(wanted) else ():
        for start in range(0, max(0, len(stream) - length + 1), _BLOCK):
            ids = stream.read(start, min(_BLOCK + length - 1, len(stream) - start)).astype(np.int64)
            hashed = _windows(ids, length)
            places = np.searchsorted(wanted, hashed)
            places[places == len(wanted)] = 0
            found[places[wanted[places] == hashed]] = True
    return [bool(found[np.searchsorted(wanted, each)].any()) for each in hashes]
