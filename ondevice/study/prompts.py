"""Prompt sets: from a JSONL file, or cut from the validation text of a dataset, where the true continuation is known.

A row is ``{"prompt": ...}`` with, as wanted, ``group`` (the source in reports), ``language`` (a programming language or
an ISO code), ``expected`` (a continuation, for probes), ``contains`` (what a right answer holds), ``answer`` (the JSON
object that a task wants, as text) and ``before`` (text before the prompt, which a parser reads and the model does not).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.dataset import Dataset, SourceEntry
from ondevice.data.json_row import field_of, parse_object, sound_text, text_of
from ondevice.errors import DataError, nearest
from ondevice.evaluate.code_lexer import is_code, lex
from ondevice.evaluate.code_quality import code_tokens

__all__ = ["Prompt", "PromptSet", "cut_prompts", "overlap", "read_prompts"]

_MOST = 10_000
_LONGEST_FILE = 64 << 20
_SEARCHED_TOKENS = 1 << 20
_NEAR_TOKENS = 4096  # of a document are looked at
_TRIES = 12
_MORE_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Text to go on from."""

    prompt: str
    group: str = ""
    language: str = ""
    expected: str = ""
    answer: str = ""
    before: str = ""
    contains: str = ""


@dataclass(frozen=True)
class PromptSet:
    """Prompts in order; ``origin`` says for people where they are from."""

    prompts: tuple[Prompt, ...]
    origin: str

    @property
    def sha256(self) -> str:
        rows = [asdict(prompt) for prompt in self.prompts]
        for row in rows:
            if not row["contains"]:
                del row["contains"]  # a key that came later counts only where it is given
        text = json.dumps(rows, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def split(self) -> tuple[PromptSet, PromptSet]:
        """Every other prompt of each group: for tuning, and held out. Equal prompts stay on one side."""
        sides: tuple[list[Prompt], list[Prompt]] = ([], [])
        seen: dict[str, int] = {}
        counts: dict[str, int] = {}
        for prompt in self.prompts:
            if prompt.prompt not in seen:
                seen[prompt.prompt] = counts.get(prompt.group, 0) % 2
                counts[prompt.group] = counts.get(prompt.group, 0) + 1
            sides[seen[prompt.prompt]].append(prompt)
        return PromptSet(tuple(sides[0]), f"{self.origin}, tuning"), PromptSet(
            tuple(sides[1]), f"{self.origin}, holdout"
        )


def read_prompts(path: Path) -> PromptSet:
    """Raises DataError naming file and line."""
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise DataError(f"{path}: larger than {_LONGEST_FILE >> 20} MB; a prompt set is a short file.")
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); convert it first.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    prompts = [_row(line, f"{path}:{number}") for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not prompts:
        raise DataError(f'{path}: has no prompts; write one JSON object a line, such as {{"prompt": "Once"}}.')
    if len(prompts) > _MOST:
        raise DataError(f"{path}: has {len(prompts)} prompts, more than {_MOST}; use fewer.")
    return PromptSet(tuple(prompts), str(path))


def _row(line: str, where: str) -> Prompt:
    names = set(Prompt.__dataclass_fields__)
    raw = parse_object(line, where, expected='an object such as {"prompt": "Once"}')
    field_of(raw, "prompt", where)
    unknown = next((key for key in raw if key not in names), None)
    if unknown is not None:
        known = nearest(unknown, sorted(names)) or f"; there are {', '.join(sorted(names))}"
        raise DataError(f'{where}: unknown key "{unknown}"{known}.')
    for name, value in raw.items():
        sound_text(text_of(value, name, where), name, where)
    if raw.get("answer") and not _is_object(raw["answer"]):
        raise DataError(f'{where}: "answer" is not a JSON object as text, such as "{{\\"label\\": \\"spam\\"}}".')
    return Prompt(**raw)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def cut_prompts(dataset: Dataset, *, per_source: int, prompt_tokens: int, new_tokens: int) -> PromptSet:
    """At most ``per_source`` prompts of each source, cut from documents of its validation text that are spread over it.

    Depends on the dataset and the numbers alone. Raises DataError where no document is long enough.
    """
    found = [
        prompt
        for entry in dataset.sources
        for prompt in _of_source(dataset, entry, per_source, prompt_tokens, new_tokens)
    ]
    if not found:
        raise DataError(
            f"{dataset.folder}: no validation text is long enough to cut prompts from; give some with --prompts."
        )
    return PromptSet(tuple(found), f"validation text of {dataset.folder.name}")


def _of_source(dataset: Dataset, entry: SourceEntry, count: int, size: int, new: int) -> Iterator[Prompt]:
    stream, tokenizer = dataset.stream(entry.name, "val"), dataset.tokenizer()
    ids = stream.read(0, min(len(stream), _SEARCHED_TOKENS)).astype(np.int64)
    ends = np.flatnonzero(ids == tokenizer.eot_id)
    starts = np.concatenate([[0], ends + 1])[: len(ends)]
    spans = [(int(a), int(min(b, a + _NEAR_TOKENS))) for a, b in zip(starts, ends, strict=True)]
    least = 2 if max((b - a for a, b in spans), default=0) < 8 + new // 2 else 8 + new // 2
    long_enough = [span for span in spans if span[1] - span[0] >= least]
    if not long_enough:
        return
    made: set[str] = set()
    for document, shift in _looked_at(ids, long_enough, count, made):
        at = _place(document, entry.language, tokenizer, size, new, shift)
        if at is None:
            continue
        begin = max(0, at - size)
        text = tokenizer.decode(document[begin:at].tolist())
        if text in made:
            continue
        made.add(text)
        yield Prompt(
            prompt=text,
            group=entry.name,
            language=entry.language,
            expected=tokenizer.decode(document[at : at + 8].tolist()),
            before=tokenizer.decode(document[:begin].tolist()) if is_code(entry.language) else "",
        )


def _looked_at(
    ids: np.ndarray, spans: Sequence[tuple[int, int]], count: int, made: Collection[str]
) -> Iterator[tuple[np.ndarray, float]]:
    """Documents spread over the text with where to begin in each, as often as it takes, and a few times more where
    prompts are still missing: because a document has no place to cut, or gave one that there is already."""
    rounds = -(-count // len(spans))
    for turn in range(rounds + _MORE_ROUNDS):
        wanted = min(count - len(made), len(spans))
        more = max(0, turn - rounds + 1)
        for index in range(wanted):
            start, end = spans[(index * len(spans) // wanted + more) % len(spans)]
            yield ids[start:end], (turn + more / (_MORE_ROUNDS + 1)) / rounds


def _place(document: np.ndarray, language: str, tokenizer: Any, size: int, new: int, shift: float) -> int | None:
    """Where to cut a document: with room after it, and in code only where code follows, not a comment."""
    first, last = min(size, len(document) // 2), max(len(document) // 2, len(document) - new)
    for attempt in range(_TRIES):
        at = first + int((last - first) * ((attempt / _TRIES + shift) % 1.0))
        if 0 < at < len(document) and (not is_code(language) or _leads_to_code(document, at, language, tokenizer, new)):
            return at
    return None


def _leads_to_code(document: np.ndarray, at: int, language: str, tokenizer: Any, new: int) -> bool:
    before = tokenizer.decode(document[:at].tolist())
    text = before + tokenizer.decode(document[at : at + new].tolist())
    tokens = lex(text, language).tokens
    inside = any(token.kind in ("comment", "error") and token.start < len(before) < token.end for token in tokens)
    return not inside and code_tokens(text, [token for token in tokens if token.end > len(before)]) >= min(20, new // 4)


def overlap(first: Sequence[Prompt], second: Sequence[Prompt]) -> list[str]:
    """Prompts that are in both."""
    return sorted({prompt.prompt for prompt in first} & {prompt.prompt for prompt in second})
