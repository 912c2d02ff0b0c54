"""Keyed hashes and permutations over arrays: computed from a position alone, without memory or replay."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Ints", "Words", "mix", "permute", "word", "words"]

_ROUNDS = 6

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


def permute(indices: Ints, sizes: Ints, keys: Words) -> Ints:
    """A keyed permutation of 0 ... size - 1 for each element, without memory; all arrays have shape [N].

    A Feistel network over a rectangle of about sqrt(size) by sqrt(size) places (Black and Rogaway, "Ciphers with
    arbitrary finite domains", 2002): places beyond the size are walked through until the walk comes back inside.
    """
    wide = np.ceil(np.sqrt(sizes.astype(np.float64))).astype(np.int64)
    high = (sizes + wide - 1) // wide
    out = indices.copy()
    todo = np.arange(len(indices))
    while len(todo):
        out[todo] = _feistel(out[todo], wide[todo], high[todo], keys[todo])
        todo = todo[out[todo] >= sizes[todo]]
    return out


def _feistel(values: Ints, wide: Ints, high: Ints, keys: Words) -> Ints:
    row, column = np.divmod(values, wide)
    for number in range(0, _ROUNDS, 2):
        column = _turn(column, row, wide, keys, number)
        row = _turn(row, column, high, keys, number + 1)
    return row * wide + column


def _turn(value: Ints, other: Ints, size: Ints, keys: Words, number: int) -> Ints:
    """Adds a keyed function of the other half, modulo the size."""
    noise = mix(words(other), keys + np.uint64(number))
    return (value + (noise % size.astype(np.uint64)).astype(np.int64)) % size


def mix(values: Words, keys: Words | np.uint64) -> Words:
    """A 64-bit hash of a value and a key (the finaliser of splitmix64, after the key was multiplied in)."""
    x = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ (keys * np.uint64(0xD1342543DE82EF95))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def words(values: Ints) -> Words:
    """Whole numbers as 64-bit words."""
    return values.astype(np.uint64)


def word(seed: int) -> Words:
    """The seed as an array, because numpy warns when a lone 64-bit number overflows and not when an array does."""
    return np.array([seed & (1 << 64) - 1], dtype=np.uint64)
