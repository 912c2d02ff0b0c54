"""What a run's own corpus can say of generated text: language, wording, copies; and the score of one generation.

Code is judged by the code score, everything else by the prose score. Trained from the dataset in a second or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ondevice.data.dataset import Dataset, SourceEntry
from ondevice.evaluate.code_lexer import LEXER_VERSION, is_code
from ondevice.evaluate.code_quality import CODE_SCORE_VERSION, score_code
from ondevice.evaluate.novelty import copied
from ondevice.evaluate.prose_quality import PROSE_SCORE_VERSION, Wording, score_prose
from ondevice.evaluate.text_classifier import TextClassifier, confusion
from ondevice.infer.batch import Written
from ondevice.study.prompts import Prompt

__all__ = ["JUDGES_VERSION", "Judges"]

JUDGES_VERSION = f"code {CODE_SCORE_VERSION}, lexer {LEXER_VERSION}, prose {PROSE_SCORE_VERSION}"
_TEXT = "text"  # the language of sources that name none
_SAMPLE_TOKENS = 1 << 17  # of each source
_PIECE = 2048
_HELD_OUT_PIECES = 40
_HELD_OUT_LETTERS = 250


class Judges:
    """Everything is learned from the training split; the confusion matrix is of the validation split."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        texts: dict[str, list[str]] = {}
        for entry in dataset.sources:
            texts.setdefault(entry.language or _TEXT, []).extend(_pieces(dataset, entry, "train"))
        self._classifier = TextClassifier(texts)
        prose = [piece for language, some in texts.items() if not is_code(language) for piece in some]
        self._wording = Wording(
            prose, [text for language in texts if not is_code(language) for text in self._held_out(language)]
        )

    @cached_property
    def confusion(self) -> dict[str, dict[str, int]]:
        """True language -> what the classifier says, of pieces it never saw, as long as a generation."""
        return confusion(self._classifier, {name: self._held_out(name) for name in self._classifier.languages})

    def _held_out(self, language: str) -> list[str]:
        """Pieces of a language that no judge was trained on, as long as a generation."""
        found = []
        for entry in self._dataset.sources:
            if (entry.language or _TEXT) == language:
                pieces = list(_pieces(self._dataset, entry, "val"))[:_HELD_OUT_PIECES]
                found += [piece[:_HELD_OUT_LETTERS] for piece in pieces if piece]
        return found

    def judge(
        self, prompts: Sequence[Prompt], written: Sequence[Written], texts: Sequence[str], *, own_tokens: bool = True
    ) -> list[dict[str, Any]]:
        """The components and ``score`` of each generation, in order; without ``own_tokens`` its ids are not those of
        the dataset, and copies are looked for in the ids of its text."""
        ids = [each.ids for each in written] if own_tokens else self._dataset.tokenizer().encode_batch(texts)
        streams = [self._dataset.stream(entry.name, "train") for entry in self._dataset.sources]
        copies = copied(ids, streams)
        return [self._one(*each) for each in zip(prompts, written, texts, copies, strict=True)]

    def _one(self, prompt: Prompt, written: Written, text: str, copy: bool) -> dict[str, Any]:
        language, ended = prompt.language or _TEXT, written.finish == "stop"
        guessed = self._classifier.guess(text)
        if language not in self._classifier.languages:  # a prompt of no language that was trained on
            guessed = language
        if is_code(language):
            return score_code(
                prompt.before + prompt.prompt,
                text,
                written.ids,
                language=language,
                guessed=guessed,
                copied=copy,
                ended=ended,
            ).to_json()
        return score_prose(
            text, written.ids, wording=self._wording, language=language, guessed=guessed, copied=copy, ended=ended
        ).to_json()


def _pieces(dataset: Dataset, entry: SourceEntry, split: str) -> Iterator[str]:
    """Text of a source, taken from all over it."""
    stream, tokenizer = dataset.stream(entry.name, split), dataset.tokenizer()
    count = max(1, min(len(stream), _SAMPLE_TOKENS) // _PIECE)
    for index in range(count):
        start = index * len(stream) // count
        ids: np.ndarray = stream.read(start, min(_PIECE, len(stream) - start))
        yield tokenizer.decode([int(token) for token in ids if token != tokenizer.eot_id])
