"""What a run writes after while it learns, where its config has no prompts: beginnings of its validation text."""

from __future__ import annotations

import math

from ondevice.data.dataset import Dataset
from ondevice.train.plan import PANEL_PROMPT_TOKENS

__all__ = ["panel_prompts", "sample_prompts"]


def sample_prompts(dataset: Dataset) -> tuple[str, ...]:
    """A prompt from the validation text of the largest source: the first line long enough to say something. Of
    examples, a question that is held out."""
    if dataset.examples is not None:
        return (dataset.examples.asked,)
    largest = max(dataset.sources, key=lambda entry: entry.val_tokens, default=None)
    if largest is None or largest.val_tokens < 2:
        return ("",)
    tokenizer = dataset.tokenizer()
    ids = dataset.stream(largest.name, "val").read(0, min(largest.val_tokens, 400))
    text = tokenizer.decode([int(token) for token in ids if token != tokenizer.eot_id])
    lines = [line for line in text.splitlines() if len(line.strip()) >= 12]
    return (lines[0][:48] if lines else text[:24],)


def panel_prompts(dataset: Dataset, count: int) -> tuple[str, ...]:
    """Beginnings of validation text, from each source in turn, spread over it; the first of each come first."""
    tokenizer = dataset.tokenizer()
    sources = [entry for entry in dataset.sources if entry.val_tokens > PANEL_PROMPT_TOKENS]
    rounds = math.ceil(count / len(sources)) if sources else 0
    found = []
    for turn in range(rounds):
        for entry in sources:
            start = turn * (entry.val_tokens - PANEL_PROMPT_TOKENS) // rounds
            ids = dataset.stream(entry.name, "val").read(start, PANEL_PROMPT_TOKENS)
            found.append(tokenizer.decode([int(token) for token in ids if token != tokenizer.eot_id]))
    return tuple(found[:count])
