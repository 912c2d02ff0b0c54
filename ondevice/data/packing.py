"""Which examples share a row of ``context`` tokens: a plan made of lengths alone, the same for every epoch.

Examples are taken in a seeded order, some thousand at a time, and each goes into the fullest row that has room for it
(best fit, longest first). The plan has a fixed number of rows, so any place of any epoch is found without replay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ondevice.data.permutation import mix, permute, word

__all__ = ["PACKING_VERSION", "Packing", "best_fit", "pack"]

PACKING_VERSION = 1
_SHUFFLED, _IN_ORDER = 4096, 256  # examples among which a row is filled

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packing:
    """Row ``r`` holds the examples ``members[bounds[r] : bounds[r + 1]]``, of which the first ``cuts`` ids are cut.

    ``truncated`` and ``dropped`` are how many examples were too long for a row and how many of those are in none.
    """

    members: Ints
    bounds: Ints
    cuts: Ints
    truncated: int
    dropped: int
    filled: int

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def row(self, number: int) -> Ints:
        """The examples of a row."""
        return self.members[self.bounds[number] : self.bounds[number + 1]]


def pack(lengths: Ints, cuts: Ints, *, context: int, seed: int, shuffled: bool) -> Packing:
    """The plan for examples of ``lengths`` ids, of which ``cuts`` are cut at the beginning; a cut of all drops it.

    An example of n ids takes n - 1 places: its last id is only predicted. Without ``shuffled`` rows follow the order
    of the examples, near enough.
    """
    sizes = lengths - cuts - 1
    order = _order(len(lengths), seed) if shuffled else np.arange(len(lengths))
    order = order[sizes[order] > 0]
    window = _SHUFFLED if shuffled else _IN_ORDER
    rows = [row for at in range(0, len(order), window) for row in _window(order[at : at + window], sizes, context)]
    dropped = int((sizes <= 0).sum())
    return Packing(
        members=np.array([member for row in rows for member in row], dtype=np.int64),
        bounds=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        cuts=cuts,
        truncated=int((cuts > 0).sum()),
        dropped=dropped,
        filled=int(sizes[order].sum()),
    )


def _order(count: int, seed: int) -> Ints:
    places = np.arange(count, dtype=np.int64)
    keys = np.broadcast_to(mix(word(PACKING_VERSION), word(seed)), places.shape)
    return permute(places, np.full_like(places, count), keys)


def _window(members: Ints, sizes: Ints, context: int) -> list[list[int]]:
    longest_first = members[np.argsort(-sizes[members], kind="stable")]
    return best_fit(longest_first.tolist(), sizes[longest_first].tolist(), context)


def best_fit(members: list[int], sizes: list[int], context: int) -> list[list[int]]:
    """Each member goes into the row whose room is the least that is enough, or begins a row of ``context`` places."""
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(context + 1)]  # rows by the places that are left
    there = 0  # bit n: there is a row with n places left
    for member, size in zip(members, sizes, strict=True):
        enough = there >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                there ^= 1 << room
        else:
            room, row = context, len(rows)
            rows.append([])
        rows[row].append(member)
        with_room[room - size].append(row)
        there |= 1 << (room - size)
    return rows
