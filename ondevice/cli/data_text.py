"""A dataset as lines for a 40-column screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ondevice.cli.common import for_terminal

if TYPE_CHECKING:
    from ondevice.data.dataset import Dataset
    from ondevice.data.inventory import Inventory

__all__ = ["dataset_lines", "inventory_lines"]


def dataset_lines(dataset: Dataset) -> list[str]:
    """Sources with their tokens, then what was left out and why."""
    tokenizer = dataset.tokenizer()
    lines = [f"Tokens   {tokenizer.kind}, vocabulary {tokenizer.vocab_size:,}"]
    facts = dataset.examples
    if facts is not None:
        lines.append(f"Examples {facts.kind}: only the answers are learned")
    for entry in dataset.sources:
        language = f" ({entry.language})" if entry.language else ""
        lines.append(f"Source   {entry.name}{language}: {entry.documents:,} documents")
        lines.append(f"         {entry.train_tokens:,} tokens to learn, {entry.val_tokens:,} to validate")
        if facts is not None:
            learned = facts.learned[entry.name]
            lines.append(f"         of answers: {learned['train']:,} and {learned['val']:,}")
    return lines + [f"Left out {for_terminal(text)}" for text in dataset.problems.summary()]


def inventory_lines(inventory: Inventory) -> Iterator[str]:
    """Where every token went for windows of one context length."""
    yield f"Windows of {inventory.context} tokens:"
    for row in inventory.rows:
        if row.tokens:
            yield f"  {row.windows:>9,} {row.split:<5} {row.source}, remainder {row.remainder}"
    yield f"  {inventory.covered:,} covered + {inventory.remainder:,} remainder = {inventory.tokens:,} tokens"
