"""Our tokenizers as GGUF's keys: byte-level BPE (llama.cpp's "gpt2") and sentencepiece BPE (its "llama").

Knows nothing of the gguf package; values are plain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ondevice.data.tokenizer import Tokenizer
from ondevice.data.tokenizer_model_file import SPACE, read_model
from ondevice.errors import UsageError
from ondevice.export.hf_tokenizer import tokenizer_json

__all__ = ["Vocabulary", "vocabulary"]

_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
_NEVER = ["þ ÿ"]  # the bytes 254 and 255, which no UTF-8 has: llama.cpp wants at least one merge
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {rf"{_WORDS}\p{{N}}{{1,3}}{_OTHERS}": "llama-bpe", rf"{_WORDS}\p{{N}}{_OTHERS}": "qwen2"}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """``model`` and ``pre`` are llama.cpp's names of the algorithm and of how text is cut before it."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    eot_id: int
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    unknown_id: int | None = None


def vocabulary(tokenizer: Tokenizer, *, size: int) -> Vocabulary:
    """The vocabulary filled up to the model's ``size``. Raises UsageError for a kind that llama.cpp has not."""
    if tokenizer.kind == "sentencepiece-bpe":
        return _sentencepiece(tokenizer, size)
    if tokenizer.kind in ("bpe", "byte"):
        return _byte_level(tokenizer, size)
    raise UsageError(
        f"llama.cpp has no tokenizer that gives the same ids as a {tokenizer.kind} one; export with --format hf."
    )


def _byte_level(tokenizer: Tokenizer, size: int) -> Vocabulary:
    spec = tokenizer_json(tokenizer)
    if (spec["model"]["type"], _decoder(spec)) != ("BPE", "ByteLevel"):
        raise UsageError("This tokenizer.json is no byte-level BPE, so llama.cpp cannot run it; use --format hf.")
    special = {token["id"]: token["content"] for token in spec["added_tokens"]}
    names = {index: name for name, index in spec["model"]["vocab"].items()} | special
    merges = [each if isinstance(each, str) else " ".join(each) for each in spec["model"]["merges"]]
    return Vocabulary(
        model="gpt2",
        pre="gpt-2" if tokenizer.kind == "byte" else _cut(spec["pre_tokenizer"]),
        tokens=[names.get(index, f"[PAD{index}]") for index in range(size)],
        types=[_CONTROL if i in special else _NORMAL if i in names else _UNUSED for i in range(size)],
        eot_id=tokenizer.eot_id,
        merges=merges or _NEVER,
    )


def _decoder(spec: dict[str, Any]) -> str:
    return str((spec.get("decoder") or {}).get("type"))


def _cut(before: dict[str, Any]) -> str:
    """llama.cpp's name for a pre-tokenizer. Raises UsageError for one that it would not cut in the same way."""
    steps = before.get("pretokenizers", [before])
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and (name := _SPLITS.get(steps[0]["pattern"].get("Regex", ""))):
        return name
    raise UsageError(
        f"llama.cpp is not known to cut text as this tokenizer does ({', '.join(kinds)}); export with --format hf."
    )


def _sentencepiece(tokenizer: Tokenizer, size: int) -> Vocabulary:
    pieces = list(read_model(tokenizer.files()["tokenizer.model"], "tokenizer.model").pieces)
    missing = range(len(pieces), size)
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=[*(piece.text.replace(" ", SPACE) for piece in pieces), *(f"[PAD{i}]" for i in missing)],
        types=[*(piece.type for piece in pieces), *(_UNUSED for _ in missing)],
        scores=[*(piece.score for piece in pieces), *(0.0 for _ in missing)],
        eot_id=tokenizer.eot_id,
        unknown_id=next((i for i, piece in enumerate(pieces) if piece.type == 2), None),
    )
