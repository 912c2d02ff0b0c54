"""Pairs of short texts that are nearly the same, by MinHash in memory; for the rows of an example file."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ondevice.data.minhash import STRETCH_WORDS, likeness, signatures

__all__ = ["look_alikes"]

_BAND = 4  # places that must agree for a pair to be looked at
_MOST_IN_BUCKET = 50  # texts compared with each other; more are the form that all share
_WORD = re.compile(r"\w+")


def look_alikes(texts: Sequence[str], *, threshold: float) -> dict[int, tuple[int, float]]:
    """For each text that is like an earlier one: the earlier one's number and how like, from ``threshold`` to 1.

    Texts of fewer than five words are alike where their words are the same.
    """
    words = [_WORD.findall(text.casefold()) for text in texts]
    found: dict[int, tuple[int, float]] = {}
    first: dict[tuple[str, ...], int] = {}
    for number, each in enumerate(words):
        earlier = first.setdefault(tuple(each), number)
        if earlier != number:
            found[number] = (earlier, 1.0)
    long = [number for number, each in enumerate(words) if len(each) >= STRETCH_WORDS and number not in found]
    if long:
        signed = signatures([texts[number] for number in long])
        for later, (earlier, alike) in _alike(signed, threshold).items():
            found[long[later]] = (long[earlier], alike)
    return found


def _alike(signed: npt.NDArray[np.uint16], threshold: float) -> dict[int, tuple[int, float]]:
    found: dict[int, tuple[int, float]] = {}
    for place in range(0, signed.shape[1], _BAND):
        buckets: dict[bytes, list[int]] = {}
        band = np.ascontiguousarray(signed[:, place : place + _BAND])
        for number in range(len(band)):
            buckets.setdefault(band[number].tobytes(), []).append(number)
        for members in buckets.values():
            for at, later in enumerate(members[1:_MOST_IN_BUCKET], start=1):
                if later in found:
                    continue
                alike = likeness(signed[members[:at]], signed[later])
                best = int(np.argmax(alike))
                if alike[best] >= threshold:
                    found[later] = (members[best], float(alike[best]))
    return found
