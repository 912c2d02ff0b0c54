"""Which human language a text is in, offline, by py3langid (an extra): language consistency and switch rate.

Without the package, `open_identifier` says why and what to install. Knows strings only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Protocol

from ondevice.errors import DeviceError

__all__ = ["LANGUAGE_VERSION", "Identifier", "LanguageUse", "language_use", "open_identifier"]

LANGUAGE_VERSION = 1
_CONFIDENT = 0.9
_FEWEST_LETTERS = 20
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")


class Identifier(Protocol):
    """``identify(text) -> (ISO 639-1 code, probability)``."""

    def identify(self, text: str) -> tuple[str, float]: ...


@dataclass(frozen=True, kw_only=True)
class LanguageUse:
    """Of ``n`` texts long enough to tell: the share in their prompt's language, and the share in which two sentences
    are confidently of different languages. None where no text was long enough."""

    n: int
    consistency: float | None
    switch_rate: float | None

    def to_json(self) -> dict[str, Any]:
        return {"v": LANGUAGE_VERSION, **asdict(self)}


def language_use(pairs: Sequence[tuple[str, str]], identifier: Identifier) -> LanguageUse:
    """``pairs`` are prompts (or ISO codes of two letters) and what was written after them."""
    same = switched = n = 0
    for prompt, text in pairs:
        if not _tellable(text) or not (_is_code(prompt) or _tellable(prompt)):
            continue
        wanted = prompt if _is_code(prompt) else identifier.identify(prompt)[0]
        n += 1
        same += identifier.identify(text)[0] == wanted
        switched += len(_confident(text, identifier)) > 1
    return LanguageUse(n=n, consistency=same / n if n else None, switch_rate=switched / n if n else None)


def _is_code(text: str) -> bool:
    return re.fullmatch("[a-z]{2}", text) is not None


def _tellable(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= _FEWEST_LETTERS


def _confident(text: str, identifier: Identifier) -> set[str]:
    """Languages of the sentences that are long and clear enough."""
    found = [identifier.identify(part) for part in _SENTENCE.split(text) if _tellable(part)]
    return {language for language, probability in found if probability >= _CONFIDENT}


@cache
def open_identifier() -> Identifier:
    """py3langid with its own model. Raises DeviceError where it is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise DeviceError("No language identifier is installed; run `pip install py3langid`.") from error
    return _Py3langid(LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True))


class _Py3langid:
    def __init__(self, identifier: Any) -> None:
        self._identifier = identifier

    def identify(self, text: str) -> tuple[str, float]:
        language, probability = self._identifier.classify(text)
        return str(language), float(probability)
