"""Documents cut into training items of a least and a greatest number of tokens: `ItemCutter`.

A cut lies between two tokens of the document as it was encoded whole, at the best border of its text: no token is lost,
changed or, but for the declared overlap, doubled. Reads ids and gives ids; knows no files, sources or windows.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice.data.borders import CODE_KINDS, PROSE_KINDS, Border, code_borders, prose_borders
from ondevice.data.clean import is_unspaced
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import UsageError
from ondevice.run.schema import ItemsConfig

__all__ = ["INSIDE", "Item", "ItemCutter", "check_items"]

INSIDE = "inside"
"""The kind of a cut where there was no border: inside a sentence or a line of code."""

_END = "end"
_BREAKS = "\u2010'\u2019-_.:/@"  # marks that join two parts of a word where letters stand on both sides
_STRETCH = 1 << 15  # tokens of a long document that are looked at together
_SEEN_AHEAD = 256  # tokens behind a cut that may have a say in what kind of border it is
_LONGEST_CHARACTER = 4  # bytes of UTF-8
_FREE, _BETWEEN_WORDS, _IN_WORD, _IN_CHARACTER = range(4)  # how good a place inside a sentence is


class Item(NamedTuple):
    """Tokens ``start`` ... ``end - 1`` of a document; ``kind`` is the border it ends at (`INSIDE` where there was none,
    ``end`` for the last)."""

    start: int
    end: int
    kind: str


def check_items(rule: ItemsConfig) -> None:
    """Raises UsageError where no text can be cut so."""
    if rule.max_tokens is None:
        if rule.min_tokens is not None or rule.overlap_tokens:
            raise UsageError("data.items: min_tokens and overlap_tokens need max_tokens, which turns the cutting on.")
        return
    if rule.min_tokens is not None and 2 * rule.min_tokens > rule.max_tokens:
        raise UsageError(
            f"data.items: min_tokens = {rule.min_tokens} is more than half of max_tokens = {rule.max_tokens}, so that "
            f"some texts could not be cut; take at most {rule.max_tokens // 2}."
        )
    if 4 * rule.overlap_tokens > rule.max_tokens:
        raise UsageError(
            f"data.items: overlap_tokens = {rule.overlap_tokens} is more than a quarter of max_tokens = "
            f"{rule.max_tokens}; take at most {rule.max_tokens // 4}."
        )


class ItemCutter:
    """Cuts by the rules of a config; an item's end-of-text token counts as one of its tokens.

    >>> cutter = ItemCutter(ByteTokenizer(), ItemsConfig(max_tokens=8, min_tokens=2))
    >>> cutter.cut(np.frombuffer(b"One. Two three.", dtype=np.uint8), is_code=False, overlaps=True)
    [Item(start=0, end=5, kind='sentence'), Item(start=5, end=9, kind='inside'), Item(start=9, end=15, kind='end')]
    """

    def __init__(self, tokenizer: Tokenizer, rule: ItemsConfig) -> None:
        check_items(rule)
        most = rule.max_tokens or 1 << 62
        self._most = most - 1
        self._least = max(1, (most // 4 if rule.min_tokens is None else rule.min_tokens) - 1)
        self._overlap = rule.overlap_tokens
        self._tokenizer = tokenizer
        self._widths = tokenizer.byte_lengths()

    def lay_out(
        self, ids: npt.NDArray[Any], *, is_code: bool, overlaps: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], Counter[str]]:
        """A document (its end-of-text id last) as items in a row, each with its own end-of-text id; how many tokens
        each has with it; and the kinds of the cuts, with the tokens that are repeated under ``overlap_tokens``."""
        if len(ids) <= self._most + 1:
            return ids, np.array([len(ids)], dtype=np.int64), Counter()
        items = self.cut(ids[:-1], is_code=is_code, overlaps=overlaps)
        kinds = Counter(item.kind for item in items[:-1])
        lengths = np.array([item.end - item.start + 1 for item in items], dtype=np.int64)
        if repeated := int(lengths.sum()) - len(items) - (len(ids) - 1):
            kinds["overlap_tokens"] = repeated
        return (
            np.concatenate([part for item in items for part in (ids[item.start : item.end], ids[-1:])]),
            lengths,
            kinds,
        )

    def cut(self, ids: npt.NDArray[Any], *, is_code: bool, overlaps: bool) -> list[Item]:
        """The items of a document without its end-of-text id. ``overlaps`` repeats the declared overlap after a cut
        `INSIDE` a sentence."""
        if len(ids) <= self._most:
            return [Item(0, len(ids), _END)]
        items, start, done = [], 0, 0
        places = self._places(ids, 0, is_code=is_code)
        while len(ids) - start > self._most:
            low, high = max(start + self._least, done + 1), start + self._most
            if high + _SEEN_AHEAD > places.end and places.end < len(ids):
                places = self._places(ids, start, is_code=is_code)
            # What is left for the last item is not less than the least either.
            end, kind = places.best(low, max(low, min(high, len(ids) - self._least)))
            items.append(Item(start, end, kind))
            earliest, start, done = max(start + 1, end - self._overlap), end, end
            if overlaps and earliest < end and kind == INSIDE:
                start = places.beginning(earliest, end)
        return [*items, Item(start, len(ids), _END)]

    def _places(self, ids: npt.NDArray[Any], start: int, *, is_code: bool) -> _Places:
        """The places of a stretch of a document: of all of a long one they would take much memory."""
        part = ids[start : start + max(_STRETCH, 4 * self._most)]
        data = self._tokenizer.decode_bytes(part.tolist())
        return _Places(data, self._widths[part], is_code=is_code, first=start)


class _Places:
    """Where between the tokens of a stretch of a document a cut may be; place ``k`` is before token ``k`` of the
    document, ``first`` is the stretch's first token and ``end`` the one after its last."""

    def __init__(self, data: bytes, widths: npt.NDArray[np.int32], *, is_code: bool, first: int) -> None:
        self._data = data
        self._first = first
        self.end = first + len(widths)
        self._at = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])  # byte of each place
        self._kinds = CODE_KINDS if is_code else PROSE_KINDS
        text = data.decode("utf-8", "surrogateescape")
        self._ranks = self._ranked(text, code_borders(text) if is_code else prose_borders(text))

    def _ranked(self, text: str, borders: Iterable[Border]) -> npt.NDArray[np.int8]:
        """For each place the rank of the best border there; as many as there are kinds where there is none."""
        ranks = np.full(len(self._at), len(self._kinds), dtype=np.int8)
        found = [(border.start, border.end, self._kinds.index(border.kind)) for border in borders]
        if not found:
            return ranks
        table = np.array(found, dtype=np.int64)
        bounds = _byte_offsets(text)[table[:, :2]]
        places = np.searchsorted(self._at, bounds[:, 1], side="right") - 1  # the last one within the border
        sound = self._at[places] >= bounds[:, 0]
        np.minimum.at(ranks, places[sound], table[sound, 2].astype(np.int8))
        return ranks

    def best(self, low: int, high: int) -> tuple[int, str]:
        """The last place of the best kind from ``low`` to ``high``, both included."""
        ranks = self._ranks[low - self._first : high + 1 - self._first]
        rank = int(ranks.min())
        if rank < len(self._kinds):
            return low + int(np.flatnonzero(ranks == rank)[-1]), self._kinds[rank]
        return self._freest(range(high, low - 1, -1)), INSIDE

    def beginning(self, low: int, end: int) -> int:
        """The best place to begin again from ``low`` on; ``end`` where all the others are inside a character, or inside
        a word that ``end`` is not inside of."""
        place = self._freest(range(low, end))
        worst = max(self._freedom(end), _BETWEEN_WORDS)
        return place if self._freedom(place) <= min(worst, _IN_WORD) else end

    def _freest(self, places: range) -> int:
        """The first place beside a space, else the first between words, else between characters, else the first."""
        best, found = len(range(4)), places[0]
        for place in places:
            freedom = self._freedom(place)
            if freedom < best:
                best, found = freedom, place
            if best == _FREE:
                break
        return found

    def _freedom(self, place: int) -> int:
        at = int(self._at[place - self._first])
        if at < len(self._data) and self._data[at] & 0xC0 == 0x80:
            return _IN_CHARACTER
        # Two characters on each side tell an apostrophe inside a word from one around it.
        reach = 2 * _LONGEST_CHARACTER
        before = self._data[max(0, at - reach) : at].decode("utf-8", "ignore")[-2:]
        after = self._data[at : at + reach].decode("utf-8", "ignore")[:2]
        return _freedom_between(before, after)


def _freedom_between(before: str, after: str) -> int:
    """How good a place between up to two characters on each side is for a cut."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return _FREE
    if is_unspaced(before[-1]) or is_unspaced(after[0]):
        return _IN_WORD if unicodedata.category(after[0]).startswith("M") else _FREE
    left = _in_word(before[-1]) or (before[-1] in _BREAKS and _in_word(before[:1]))
    right = _in_word(after[0]) or (after[0] in _BREAKS and _in_word(after[1:]))
    return _IN_WORD if left and right else _BETWEEN_WORDS


def _in_word(char: str) -> bool:
    """Letters, digits, and the marks above and below letters."""
    return bool(char) and (char.isalnum() or unicodedata.category(char).startswith("M"))


def _byte_offsets(text: str) -> npt.NDArray[np.int64]:
    """The byte at which each character begins, and the length at last; shape [len(text) + 1]."""
    if text.isascii():
        return np.arange(len(text) + 1, dtype=np.int64)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    widths[(points >= 0xDC80) & (points <= 0xDCFF)] = 1  # a byte that is no UTF-8
    return np.concatenate([[0], np.cumsum(widths)])
