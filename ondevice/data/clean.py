"""Which documents are worth learning, by rules a person set, and Unicode in one form. Everything left out is counted.

Works on documents as the readers give them, before anything is hashed or split. Knows no files and no formats.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ondevice.data.documents import Document, Problems
from ondevice.data.languages import LANGUAGES, guess_language
from ondevice.data.sources_types import PROGRAMMING
from ondevice.errors import UsageError, nearest
from ondevice.run.schema import CleanConfig

__all__ = ["check_clean", "cleaned", "is_unspaced", "rules_of"]

# A letter of a script that is written without spaces counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_LETTER = re.compile(rf"[{_UNSPACED}]")
_SHOWN_CHARS = 40


def check_clean(clean: CleanConfig) -> None:
    """Raises UsageError for a language that is not told apart, or that is kept and dropped."""
    for key in ("keep_languages", "drop_languages"):
        for name in getattr(clean, key):
            if name not in LANGUAGES:
                raise UsageError(
                    f"data.clean.{key}: '{name}' is no language that is told apart{nearest(name, LANGUAGES)}; "
                    f"they are: {', '.join(LANGUAGES)}."
                )
    if both := sorted(set(clean.keep_languages) & set(clean.drop_languages)):
        raise UsageError(f"data.clean: '{both[0]}' is in keep_languages and in drop_languages; take it out of one.")


def is_unspaced(char: str) -> bool:
    """Whether a character is of a script that is written without spaces."""
    return bool(_LETTER.match(char))


def rules_of(clean: CleanConfig) -> dict[str, Any]:
    """What decides the text of a document, as JSON; empty where nothing was asked for, so that hashes stay."""
    plain = CleanConfig()
    keys = ("unicode", "min_words", "max_word_chars", "keep_languages", "drop_languages")
    return {key: value for key in keys if (value := getattr(clean, key)) != getattr(plain, key)}


def cleaned(documents: Iterator[Document], clean: CleanConfig, problems: Problems) -> Iterator[Document]:
    """The documents that follow the rules; the others are counted in ``problems`` with where they begin."""
    if not rules_of(clean):
        return documents
    check_clean(clean)
    return _cleaned(documents, clean, problems)


def _cleaned(documents: Iterator[Document], clean: CleanConfig, problems: Problems) -> Iterator[Document]:
    for document in documents:
        if clean.unicode == "nfc" and not unicodedata.is_normalized("NFC", document.text):
            document = document._replace(text=unicodedata.normalize("NFC", document.text))
        if reason := _fault(document, clean):
            problems.add(document.source, reason, f"{document.origin} {_beginning(document.text)}")
        else:
            yield document


def _fault(document: Document, clean: CleanConfig) -> str:
    """Why a document is left out; empty where it is kept."""
    text = document.text
    words = _WORD.finditer(text)
    if clean.min_words and sum(1 for _ in islice(words, clean.min_words)) < clean.min_words:
        return "few_words"
    if clean.max_word_chars is not None and re.search(rf"[^\s{_UNSPACED}]{{{clean.max_word_chars + 1}}}", text):
        return "long_word"
    if (clean.keep_languages or clean.drop_languages) and document.language not in PROGRAMMING:
        return _language_fault(guess_language(text), clean)
    return ""


def _language_fault(language: str, clean: CleanConfig) -> str:
    """A text whose language is not sure stays: the rule is for those that surely are another's."""
    unwanted = language in clean.drop_languages or (clean.keep_languages and language not in clean.keep_languages)
    return f"language_{language}" if language and unwanted else ""


def _beginning(text: str) -> str:
    start = " ".join(text[: 2 * _SHOWN_CHARS].split())
    return f"'{start[:_SHOWN_CHARS]}{'...' if len(start) > _SHOWN_CHARS or len(text) > 2 * _SHOWN_CHARS else ''}'"
