"""The tiny runs that campaigns break: a corpus of a few hundred lines and configs whose step takes milliseconds."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from ondevice.run.config import parse_config, read_limits, write_limits
from ondevice.run.directory import RunDir
from ondevice.run.schema import Limits

from .lab import Lab

__all__ = ["WISHES", "Wish", "make", "set_limits"]

_WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "dog", "run", "home", "è", "naïve"]

_CONFIG = """
[data]
split = "hash:0.1"
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 32
heads = 2
context = 32
dropout = 0.1
[train]
steps = 120
batch = 6
lr = 3e-3
warmup_steps = 8
precision = "fp32"
[eval]
count = 5
max_tokens = 256
[sample]
count = 3
max_new_tokens = 8
[fit]
micro_batch = 4
threads = 1
[limits]
min_free_disk_mb = 0
keep_last = 2
"""


@dataclass(frozen=True)
class Wish:
    """A configuration of the campaign. ``save_every``: steps between saves; ``background``: saves off the thread."""

    name: str
    changes: tuple[str, ...]
    background: bool = False
    save_every: int = 3


WISHES = (
    Wish("llama-adamw", ('model.arch="llama"', 'train.optimizer="adamw"')),
    Wish("gpt2-muon", ('model.arch="gpt2"', 'train.optimizer="muon"', "fit.micro_batch=2", 'train.schedule="wsd"')),
    Wish("llama-muon-2-threads", ('model.arch="llama"', 'train.optimizer="muon"', "fit.threads=2")),
    Wish(
        "gpt2-adamw-recompute",
        ('model.arch="gpt2"', 'train.optimizer="adamw"', "fit.activation_checkpointing=true", "model.tied=false"),
        save_every=1,
    ),
    Wish("llama-adamw-background", ('model.arch="llama"', 'train.optimizer="adamw"'), background=True),
    Wish("gpt2-muon-background", ('model.arch="gpt2"', 'train.optimizer="muon"'), background=True, save_every=2),
)


def make(lab: Lab, wish: Wish, *, steps: int) -> RunDir:
    """A fresh run of a wish, with its corpus beside it."""
    corpus = _write_corpus(lab.folder / "corpus")
    sources = "".join(
        f'[[data.sources]]\npath = "{path}"\nname = "{path.stem}"\ndocument = "line"\n' for path in corpus
    )
    changes = (*wish.changes, f"train.steps={steps}")
    return lab.make(_CONFIG + sources, base=lab.folder, changes=changes, name=wish.name)


def _write_corpus(folder: Path) -> list[Path]:
    """Two sources, the same at every call: run directories of one lab share the dataset."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(7)
    paths = [folder / f"{name}.txt" for name in ("first", "second")]
    for path in paths:
        lines = [" ".join(rng.choices(_WORDS, k=12)) for _ in range(240)]
        path.write_text("\n".join(lines), "utf-8")
    return paths


def set_limits(run: RunDir, **changes: object) -> Limits:
    """Changes how politely a stopped run will behave; gives the limits that hold now."""
    if run.limits.exists():
        limits = read_limits(run.limits)
    else:
        limits = parse_config(run.config.read_text("utf-8"), where=str(run.config), base=run.path).limits
    limits = replace(limits, **changes)  # type: ignore[arg-type]
    write_limits(run.limits, limits)
    return limits
