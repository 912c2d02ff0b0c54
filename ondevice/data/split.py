"""Which documents are for validation, and how one long text is cut into sections.

Pure functions over hashes and text: no clock, no disk. A document is for validation when a second hash of its hash
is among the smallest, so the choice does not depend on the order of the documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ondevice.errors import UsageError

__all__ = [
    "Split",
    "cut_sections",
    "cut_tail",
    "is_validation",
    "mix64",
    "parse_split",
    "validation_count",
    "validation_mask",
    "validation_threshold",
]

Hashes = npt.NDArray[np.uint64]

_KINDS = ("hash", "tail")
_SALT = 0x5EED_0F_5B117
_RANKED = 1 << 14
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Split:
    """``kind`` is ``hash`` (documents chosen by hash) or ``tail`` (the last part); ``share`` is in [0, 1)."""

    kind: str
    share: float


def parse_split(text: str) -> Split:
    """The split a person wrote, ``hash:0.05`` or ``tail:0.1``. Raises UsageError that says what is allowed."""
    kind, colon, number = text.partition(":")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if kind not in _KINDS or not colon or not 0 <= share < 1:
        raise UsageError(
            f"data.split = '{text}' is not a split: write hash:F (a share F of the documents) or tail:F "
            "(the last part), with F at least 0 and below 1, such as hash:0.05."
        )
    return Split(kind, share)


def mix64(values: Hashes, salt: int) -> Hashes:
    """A second, independent hash of 64-bit hashes (the finaliser of splitmix64), elementwise and invertible."""
    x = np.asarray(values, dtype=np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) & _MASK)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def validation_count(documents: int, share: float) -> int:
    """How many of a source's documents are for validation: the share, at least one, and never all of them."""
    if share <= 0 or documents < 2:
        return 0
    return min(max(1, round(share * documents)), documents - 1)


def validation_threshold(hashes: Hashes, share: float) -> int:
    """The bound for `is_validation` that marks exactly `validation_count` of these different hashes.

    Copies of one document (equal hashes) always fall on the same side, so the two sides never share a document; many
    copies that would take more than twice their share stay on the training side.
    """
    count = validation_count(len(hashes), share)
    if count == 0:
        return 0
    ranks = np.empty(len(hashes), dtype=np.uint64)
    for start in range(0, len(hashes), _RANKED):  # mixing needs several times the memory of what is mixed
        ranks[start : start + _RANKED] = mix64(hashes[start : start + _RANKED], _SALT)
    ranks.partition(count - 1)
    bound = ranks[count - 1]
    copies_included = int(np.count_nonzero(ranks <= bound))
    return int(bound) + 1 if copies_included <= 2 * count else int(bound)


def validation_mask(hashes: Hashes, threshold: int) -> npt.NDArray[np.bool_]:
    """`is_validation` of many documents."""
    if threshold > _MASK:
        return np.ones(len(hashes), dtype=np.bool_)
    mask: npt.NDArray[np.bool_] = mix64(hashes, _SALT) < np.uint64(threshold)
    return mask


def is_validation(document_hash: int, threshold: int) -> bool:
    """Whether the document with this hash is for validation."""
    return bool(validation_mask(np.array([document_hash], dtype=np.uint64), threshold)[0])


_DEFINITION = re.compile(
    r"(?<=\n)(?=\#{1,6}[ ]|={1,6}[ ]|@\w|(?:(?:pub|export|public|private|protected|internal|static|abstract|final|async"
    r"|default|inline|extern|unsafe|template|virtual|const|data|sealed)\b[^\n]{0,60}?)?"
    r"(?:def|class|fn|func|function|fun|impl|struct|enum|trait|interface|module|namespace|type|union|package)[ (])"
)
# Best first: each is a pattern whose *end* is a place to cut.
_BORDERS = (
    re.compile(r"\n[ \t]*\n(?=[^\s])"),  # a blank line before an unindented line: prose and code alike
    _DEFINITION,
    re.compile(r"\n[ \t]*\n"),
    re.compile(r"\n"),
    re.compile(r" "),
)


def cut_sections(text: str, target_chars: int) -> list[str]:
    """Cuts a text into sections of about ``target_chars`` characters; joined, they are the text exactly.

    Each cut is at the best border between half and one and a half times the target: a blank line, the start of a
    top-level definition or heading, a newline, a space, else after ``target_chars`` characters.
    """
    if target_chars < 1:
        raise ValueError(f"target_chars must be at least 1, not {target_chars}")
    sections, start = [], 0
    while len(text) - start > target_chars + target_chars // 2:
        end = _border(text, start, target_chars)
        sections.append(text[start:end])
        start = end
    return [*sections, text[start:]] if start < len(text) else sections


def _border(text: str, start: int, target: int) -> int:
    """The end of the section that begins at ``start``."""
    ideal = start + target
    low, high = start + max(1, target // 2), ideal + target // 2
    window = text[start:high]  # so that a pattern looks no further than the section
    for pattern in _BORDERS:
        ends = [m.end() + start for m in pattern.finditer(window, max(0, low - start - 1))]
        if (cut := _nearest(ends, ideal, low, high)) is not None:
            return cut
    return ideal


def _nearest(ends: Iterable[int], ideal: int, low: int, high: int) -> int | None:
    """The end in [low, high] that is nearest to the ideal one."""
    return min((end for end in ends if low <= end <= high), key=lambda end: abs(end - ideal), default=None)


def cut_tail(text: str, share: float) -> tuple[str, str]:
    """Head and tail of a text; the cut is at exactly the character ``int(len(text) * (1 - share))``."""
    cut = int(len(text) * (1 - share))
    return text[:cut], text[cut:]
