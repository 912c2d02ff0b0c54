"""What tests train on: the words of their made-up texts, and the smallest model that a step of milliseconds gives."""

from __future__ import annotations

import random
from types import SimpleNamespace

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "dog", "run", "home", "è", "naïve"]

# What estimates ask of the [train] of a recipe.
TRAIN = SimpleNamespace(
    batch=8,
    clip=1.0,
    clip_scope="all",
    optimizer_state="adamw-fp32",
    top_layers=None,
    average=0.0,
    compile=False,
    precision="fp32",
)

SMALLEST = """
[tokenizer]
kind = "byte"
[model]
layers = 1
width = 16
heads = 2
context = 32
[train]
batch = {batch}
lr = 1e-3
precision = "fp32"
[eval]
max_tokens = 64
[sample]
count = 0
[fit]
micro_batch = {batch}
threads = 1
[limits]
min_free_disk_mb = 0
"""


def word_lines(rng: random.Random, count: int = 240) -> str:
    """So many lines of twelve words."""
    return "\n".join(" ".join(rng.choices(WORDS, k=12)) for _ in range(count))
