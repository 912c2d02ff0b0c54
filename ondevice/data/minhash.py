"""Signatures of texts: how many places of two agree says how much of the texts is the same.

A text is the set of its stretches of five words, without regard to spaces and to capitals of the Latin alphabet; the
likeness of two texts is the share of their stretches that both have (Jaccard). Of each of 128 orders of all stretches a
signature keeps the first one that the text has, in 16 bits. A letter of Chinese or Japanese counts as a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ondevice.data.split import mix64

__all__ = ["PLACES", "STRETCH_WORDS", "likeness", "signatures", "stretch_hashes"]

PLACES = 128
STRETCH_WORDS = 5
_GROUP_BYTES = 1 << 16  # of text at once: what is computed for them stays in the processor's cache

Signatures = npt.NDArray[np.uint16]
Hashes = npt.NDArray[np.uint64]

_SEED = 0x5EED
_SPACES = np.isin(np.arange(256), [*range(9, 14), *range(28, 33)])
_WIDE = np.isin(np.arange(256), np.arange(0xE3, 0xEA))  # first bytes of the letters of Chinese and Japanese


def _random(count: int, salt: int) -> Hashes:
    return mix64(np.arange(1, count + 1, dtype=np.uint64), _SEED + salt)


def _letters() -> Hashes:
    """A random number for every byte, the same for a and A."""
    table = _random(256, 1)
    table[ord("A") : ord("Z") + 1] = table[ord("a") : ord("z") + 1]
    return table


_LETTERS = _letters()
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_POWERS = np.cumprod(np.full(_GROUP_BYTES + 4, _BASE, dtype=np.uint64))
_INVERSES = np.cumprod(np.full(_GROUP_BYTES + 4, pow(_BASE, -1, 1 << 64), dtype=np.uint64))
_FACTORS = _random(STRETCH_WORDS, 2) | np.uint64(1)
_MASKS = (_random(PLACES, 3) >> np.uint64(32)).astype(np.uint32)
_MULTIPLIERS = (_random(PLACES, 4) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def signatures(texts: Sequence[str]) -> Signatures:
    """The signature of each text, shape [texts, PLACES]."""
    smallest = np.full((len(texts), PLACES), 0xFFFFFFFF, dtype=np.uint32)
    for first, parts in _groups(texts):
        hashes, owners = stretch_hashes(parts)
        if not len(hashes):
            continue
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        rows = first + owners[starts]
        mixed = (hashes >> np.uint64(32)).astype(np.uint32)
        for place in range(PLACES):
            order = (mixed ^ _MASKS[place]) * _MULTIPLIERS[place]
            smallest[rows, place] = np.minimum(smallest[rows, place], np.minimum.reduceat(order, starts))
    # The first of many are small numbers: their high bits alone would be all the same.
    return ((smallest * np.uint32(0x9E3779B1)) >> np.uint32(16)).astype(np.uint16)


def likeness(one: Signatures, other: Signatures) -> npt.NDArray[np.float64]:
    """Estimated likeness of pairs of texts, 0 to 1, with a standard error of at most 0.045."""
    agreed: npt.NDArray[np.float64] = (one == other).mean(axis=-1)
    return agreed


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, list[bytes]]]:
    """Texts in bytes, together at most `_GROUP_BYTES`, and the number of the first. A longer one comes in parts, each a
    group of its own, between which a few stretches are lost."""
    first, group, size = 0, list[bytes](), 0
    for number, text in enumerate(texts):
        data = text.encode()
        if group and size + len(data) + 1 > _GROUP_BYTES:
            yield first, group
            group, size = [], 0
        if len(data) >= _GROUP_BYTES:
            for start in range(0, len(data), _GROUP_BYTES - 1):
                yield number, [data[start : start + _GROUP_BYTES - 1]]
            continue
        first = first if group else number
        group.append(data)
        size += len(data) + 1
    if group:
        yield first, group


def stretch_hashes(texts: Sequence[bytes]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """A hash of every stretch of words of some texts, and the index of its text; together below `_GROUP_BYTES`.

    A text with fewer words is one stretch.
    """
    data = np.frombuffer(b" ".join(texts), dtype=np.uint8)
    words, starts = _word_hashes(data)
    begins = np.cumsum([0, *(len(text) + 1 for text in texts)])
    first_words = np.searchsorted(starts, begins)
    owners = np.searchsorted(begins, starts, side="right") - 1
    ends = first_words[owners + 1]
    places = np.arange(len(words))
    combined = np.zeros(len(words), dtype=np.uint64)
    for step, factor in enumerate(_FACTORS):
        there = places + step < ends
        word = np.multiply(words[places[there] + step], factor, dtype=np.uint64)
        combined[there] = mix64(np.bitwise_xor(combined[there], word, dtype=np.uint64), 5)
    whole = (places + STRETCH_WORDS <= ends) | (places == first_words[owners])
    return combined[whole], owners[whole]


def _word_hashes(data: npt.NDArray[np.uint8]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """A hash of every word and where it begins: a polynomial of its bytes, by sums that run over all of the text."""
    space, wide = _SPACES[data], _WIDE[data]
    before, after_wide = np.roll(space, 1), np.roll(wide, 3)
    before[:1], after_wide[:3] = True, False
    begins = ~space & (before | wide | after_wide)
    behind = np.roll(begins | space, -1)
    behind[-1:] = True
    starts, stops = np.flatnonzero(begins), np.flatnonzero(~space & behind) + 1
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(_LETTERS[data] * _POWERS[: len(data)], out=sums[1:])
    hashes = np.multiply(np.subtract(sums[stops], sums[starts]), _INVERSES[starts], dtype=np.uint64)
    return mix64(hashes, 6), starts
