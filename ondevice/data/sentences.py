"""Where sentences end, in text of any language: `sentence_ends`.

One set of rules for all scripts, so that no language has to be known: Latin, Greek and Cyrillic marks need a space
after them, those of Chinese, Japanese, Hindi and others do not. When in doubt a sentence goes on: two sentences that
stay together harm nobody, half a sentence does. Knows no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["sentence_ends"]

_CLOSERS = "\"'\u2019\u201d\u00bb\u203a)\\]}\u300d\u300f\uff09\u3009\u300b\u3011"
_SPACED = ".!?\u2026\u061f\u06d4\u037e\u0589"  # ... Arabic and Urdu, Greek, Armenian
_UNSPACED = (
    "\u3002\uff01\uff1f\uff61\u0964\u0965\u104b\u17d4\u1362\u0f0d"  # CJK, danda, Burmese, Khmer, Ethiopic, Tibetan
)
_END = re.compile(rf"[{_SPACED}]+[{_CLOSERS}]*(?=\s|\Z)|[{_UNSPACED}][{_UNSPACED}{_SPACED}]*[{_CLOSERS}]*")
_SPACE = re.compile(r"\s*")
_WORD_BEFORE = re.compile(r"([^\W_]+)\Z")
_ROMAN = re.compile(r"[IVXLC]+\Z")
_LOOKED_BACK = 16  # characters: longer than any abbreviation

# Words after whose point a sentence goes on; not those that often end one (etc., usw., ecc., Inc.): where such a word
# is in the middle of a sentence, a small letter follows. Single letters (z. B., J. S. Bach, i.e.) need no list.
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        """
        adm al approx apr art assoc aug ave bd bldg blvd brig bzw ca cap capt cf cfr ch chap cmd col comdr cpl cpt dec
        dept dipl doc dott dr dra ed eds eq esp est evtl exc ext feb fig figs fn fr frau gen ggf gov hon hr hrn ing insb
        jan jul jun kap lt ltn maj mar med mehr mlle mm mme mr mrs ms mt mtl nat nov nr num obs oct okt op para pag par
        pfc ph pp pres prof proff prov publ pvt rd rep rer resp rev rr sen sens sept sgt sig sigg sog sr sra srta ss st
        str sup tab tel trad univ ust vgl vol vols vs zb zzgl yy yrd doç dz alb av bkz örn
        """,
    )
)


def sentence_ends(text: str) -> Iterator[tuple[int, int]]:
    """For each sentence where its last mark ends and where the next sentence begins, in characters.

    >>> list(sentence_ends("Dr. Kaya came. Why?"))
    [(14, 15), (19, 19)]
    """
    for match in _END.finditer(text):
        begin = _space_end(text, match.end())
        if text[match.start()] in _UNSPACED or not _goes_on(text, match, begin):
            yield match.end(), begin


def _space_end(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _goes_on(text: str, match: re.Match[str], begin: int) -> bool:
    """Whether the sentence goes on after a mark that looks like its end."""
    following = text[begin : begin + 1]
    if following.islower():
        return True
    if match[0][:2].rstrip(_CLOSERS) != ".":
        return False
    before = _WORD_BEFORE.search(text, max(0, match.start() - _LOOKED_BACK), match.start())
    return before is not None and _is_short(before[1], following)


def _is_short(word: str, following: str) -> bool:
    """Whether a word before a point is rather an abbreviation or an ordinal (3. Mai, II. Mehmed) than the last one."""
    if word.isdecimal():
        return len(word) <= 2 and following.isalnum()
    is_initial = len(word) == 1 and word.isalpha()
    return is_initial or word.lower() in _ABBREVIATIONS or bool(_ROMAN.match(word))
