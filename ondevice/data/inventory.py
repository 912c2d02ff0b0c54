"""Where every token went: by source, language and split, and by window or remainder for a context length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from ondevice.errors import DataError

__all__ = ["Inventory", "Row", "check_totals", "take_inventory", "window_count"]


class _Entry(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def train_tokens(self) -> int: ...
    @property
    def val_tokens(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tokens of one source and split: ``tokens`` = ``covered`` (windows x context) + ``remainder``."""

    source: str
    language: str
    split: str
    tokens: int
    windows: int
    covered: int
    remainder: int


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """All rows and their sums for one context length."""

    context: int
    rows: tuple[Row, ...]
    tokens: int
    covered: int
    remainder: int


def window_count(tokens: int, context: int) -> int:
    """Windows of ``context`` tokens, each with the token after its last one, that fit side by side."""
    return max(0, tokens - 1) // context


def take_inventory(sources: Iterable[_Entry], context: int) -> Inventory:
    """The exact inventory of the sources for windows of ``context`` tokens.

    >>> take_inventory(dataset.sources, 256).remainder
    311
    """
    rows = []
    for entry in sources:
        for split, tokens in (("train", entry.train_tokens), ("val", entry.val_tokens)):
            windows = window_count(tokens, context)
            rows.append(
                Row(
                    source=entry.name,
                    language=entry.language,
                    split=split,
                    tokens=tokens,
                    windows=windows,
                    covered=windows * context,
                    remainder=tokens - windows * context,
                )
            )
    return Inventory(
        context=context,
        rows=tuple(rows),
        tokens=sum(row.tokens for row in rows),
        covered=sum(row.covered for row in rows),
        remainder=sum(row.remainder for row in rows),
    )


def check_totals(manifest: dict[str, Any], *, where: str) -> None:
    """Whether chunks, sources and totals of a manifest agree to the token. Raises DataError when not."""
    chunks: dict[tuple[str, str], int] = {}
    for chunk in manifest["chunks"]:
        if chunk["split"] not in ("train", "val"):
            continue  # what belongs to the ids of examples, not more ids
        key = (chunk["source"], chunk["split"])
        chunks[key] = chunks.get(key, 0) + chunk["tokens"]
    sources = {
        (entry["name"], split): entry[f"{split}_tokens"] for entry in manifest["sources"] for split in ("train", "val")
    }
    agree = chunks == {key: tokens for key, tokens in sources.items() if tokens}
    if not agree or sum(sources.values()) != manifest["totals"]["tokens"]:
        raise DataError(f"{where}: the counts of tokens do not agree; `ondevice data build` makes it again.")
