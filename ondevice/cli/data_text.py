"""A dataset as lines for a 40-column screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ondevice.cli.common import for_terminal

if TYPE_CHECKING:
    from ondevice.data.dataset import Dataset, SourceEntry
    from ondevice.data.inventory import Inventory

__all__ = ["dataset_lines", "inventory_lines"]

_CUTS = {
    "paragraph": "at paragraphs",
    "sentence": "at sentences",
    "definition": "before definitions",
    "block": "before blocks",
    "blank_line": "at blank lines",
    "line": "at lines",
    "inside": "inside sentences or lines",
}


def dataset_lines(dataset: Dataset) -> list[str]:
    """Sources with their tokens, then what was left out and why."""
    tokenizer = dataset.tokenizer()
    lines = [f"Tokens   {tokenizer.kind}, vocabulary {tokenizer.vocab_size:,}"]
    facts = dataset.examples
    if facts is not None:
        lines.append(f"Examples {facts.kind}: only the answers are learned")
    for entry in dataset.sources:
        language = f" ({entry.language})" if entry.language else ""
        documents = "1 document" if entry.documents == 1 else f"{entry.documents:,} documents"
        lines.append(f"Source   {entry.name}{language}: {documents}")
        lines.append(f"         {entry.train_tokens:,} tokens to learn, {entry.val_tokens:,} to validate")
        if facts is not None:
            learned = facts.learned[entry.name]
            lines.append(f"         of answers: {learned['train']:,} and {learned['val']:,}")
        lines += _item_lines(entry)
    return lines + [f"Left out {for_terminal(text)}" for text in dataset.problems.summary()]


def _item_lines(entry: SourceEntry) -> Iterator[str]:
    """Where documents were cut into items."""
    if entry.cuts:
        cuts = ", ".join(f"{count:,} {_CUTS[kind]}" for kind, count in entry.cuts.items())
        repeated = f", {entry.overlap_tokens:,} tokens repeated" if entry.overlap_tokens else ""
        yield f"         {entry.train_documents + entry.val_documents:,} items; cut {cuts}{repeated}"


def inventory_lines(inventory: Inventory) -> Iterator[str]:
    """Where every token went for windows of one context length."""
    yield f"Windows of {inventory.context} tokens:"
    for row in inventory.rows:
        if row.tokens:
            yield f"  {row.windows:>9,} {row.split:<5} {row.source}, remainder {row.remainder}"
    yield f"  {inventory.covered:,} covered + {inventory.remainder:,} remainder = {inventory.tokens:,} tokens"
