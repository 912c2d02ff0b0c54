"""Sentencepiece BPE and unigram tokenizers that give back every text exactly.

No normalisation, no added or removed spaces, bytes for what is not in the vocabulary. The letter U+2581, which
sentencepiece cannot tell from a space, is always written as its three bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.tokenizer_base import (
    EOT,
    TableTokenizer,
    content_hash,
    cut_text,
    in_groups,
    join_ids,
    require,
    surrogate_error,
)
from ondevice.data.tokenizer_model_file import (
    BYTE,
    CONTROL,
    SPACE,
    ModelFile,
    hf_json,
    read_model,
    round_scores,
    without_added_spaces,
)
from ondevice.errors import DataError, DeviceError

__all__ = ["MAX_SAMPLE_BYTES", "SentencePieceTokenizer", "from_model_file", "train_sentencepiece"]

MODEL_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"
MAX_SAMPLE_BYTES = {"sentencepiece-bpe": 8_000_000, "sentencepiece-unigram": 4_000_000}
"""Training text beyond this is not used: the trainer keeps all of it in memory (bpe 130 MB, unigram 120 MB at this
size, and 380 MB for 16 MB of text)."""

_PIECE_CHARS = 8192
_TRAIN_CHARS = 4000
_UNUSABLE = re.compile("[\u2581\u2585\0]")  # letters the trainer keeps for itself; it would skip the whole piece
# With each of these letters known, no text is so strange that the tokenizers package would take the names of control
# and byte pieces in it for the pieces (see `hf_json`).
_REQUIRED = "".join(sorted(set(EOT + "<unk><0x0123456789ABCDEF>" + SPACE)))
_EOT_NAMES = (EOT, "<|end_of_text|>", "</s>", "<eos>")

Encode = Callable[[list[str], bool], list[Any]]
"""Texts to lists or arrays of ids, each with the end-of-text id behind it or not."""


class SentencePieceTokenizer(TableTokenizer):
    """A model file, run by the sentencepiece package or, where that is absent, by ``tokenizers``.

    A model that adds a space before every text or folds spaces (Llama 2's does) is run without that, so that text
    comes back as it was; only ids at the start of a text and at double spaces differ from the original's.
    """

    def __init__(self, data: bytes, *, where: str = MODEL_FILE) -> None:
        self._model = _checked(read_model(data, where), where)
        if self._model.dummy_prefix or self._model.remove_spaces:
            data = without_added_spaces(data)
        self._data = data
        super().__init__([piece.bytes() for piece in self._model.pieces])
        self.kind = f"sentencepiece-{self._model.kind}"
        self.eot_id = _eot_id(self._model, where)
        self.sha256 = content_hash([self.kind, [[p.text, p.score, p.type] for p in self._model.pieces]])
        by_byte = {piece.bytes(): i for i, piece in enumerate(self._model.pieces) if piece.type == BYTE}
        self._space_letter = [by_byte[bytes([byte])] for byte in SPACE.encode()]
        self._encode = _encoder(data, self._model, self.eot_id)

    @property
    def special_ids(self) -> Mapping[str, int]:
        return {piece.text: i for i, piece in enumerate(self._model.pieces) if piece.type == CONTROL}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.encode_batch([text])[0].tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        if _are_plain(texts):
            return [join_ids([ids]) for ids in self._ids(list(texts))]
        pieces = [_pieces(text) for text in texts]
        ids = self._ids([piece for part in pieces for piece in part if piece is not None])
        return [join_ids([self._space_letter if p is None else next(ids) for p in part]) for part in pieces]

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        if not texts or not _are_plain(texts):
            return super().encode_documents(texts)
        rows = list(self._ids(list(texts), end=True))
        return np.concatenate(rows), np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))

    def _ids(self, pieces: list[str], *, end: bool = False) -> Iterator[Any]:
        for group in in_groups(pieces):
            try:
                yield from self._encode(group, end)
            except (UnicodeEncodeError, TypeError) as error:
                raise surrogate_error() from error

    def files(self) -> dict[str, bytes]:
        return {MODEL_FILE: self._data, JSON_FILE: hf_json(self._model).encode()}


def _are_plain(texts: Sequence[str]) -> bool:
    """Whether each text can be given to the encoder as it is."""
    return all(len(text) <= _PIECE_CHARS and SPACE not in text for text in texts)


def _pieces(text: str) -> list[str | None]:
    """The text cut for the encoder; None stands for one letter U+2581."""
    result: list[str | None] = []
    for i, part in enumerate(text.split(SPACE)):
        if i:
            result.append(None)
        result += cut_text(part, _PIECE_CHARS)
    return result


def _encoder(data: bytes, model: ModelFile, eot_id: int) -> Encode:
    """Texts to ids by whichever package is installed."""
    if find_spec("sentencepiece") is None and find_spec("tokenizers") is not None:
        from ondevice.data.tokenizer_bpe import load_engine

        engine = load_engine(hf_json(model), JSON_FILE)
        return _ended(lambda texts: [e.ids for e in engine.encode_batch_fast(texts, add_special_tokens=False)], eot_id)
    processor = require("sentencepiece").SentencePieceProcessor(model_proto=data)
    try:
        processor.encode([""], out_type="numpy")
    except RuntimeError:  # 0.2.1 and older know no arrays: "unknown out_type=numpy"
        return _ended(processor.encode, eot_id)
    if processor.eos_id() != eot_id:
        return _ended(lambda texts: processor.encode(texts, out_type="numpy"), eot_id)
    return lambda texts, end: processor.encode(texts, out_type="numpy", add_eos=end)


def _ended(encode: Callable[[list[str]], list[Any]], eot_id: int) -> Encode:
    """The same for what does not know the end-of-text id."""
    return lambda texts, end: [[*ids, eot_id] for ids in encode(texts)] if end else encode(texts)


def _checked(model: ModelFile, where: str) -> ModelFile:
    """Refuses models that would not give back the text."""
    faults = {
        "changes text by a normalisation rule": not model.identity,
        "has no byte_fallback": not model.byte_fallback,
        "has no piece for a space": all(piece.text != SPACE for piece in model.pieces),
    }
    if found := [fault for fault, present in faults.items() if present]:
        raise DataError(
            f"{where}: this sentencepiece model does not give back the text it was given: it {' and '.join(found)}; "
            "train one with `ondevice tokenizer train`."
        )
    return model


def _eot_id(model: ModelFile, where: str) -> int:
    if 0 <= model.eos_id < len(model.pieces) and model.pieces[model.eos_id].type == CONTROL:
        return model.eos_id
    for i, piece in enumerate(model.pieces):
        if piece.type == CONTROL and piece.text in _EOT_NAMES:
            return i
    raise DataError(f"{where}: has no end-of-text piece (eos_id); train one with `ondevice tokenizer train`.")


def from_model_file(path: Path) -> SentencePieceTokenizer:
    """Reads a ``.model`` file. Raises DataError when it is not one or does not give back the text exactly."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    return SentencePieceTokenizer(data, where=str(path))


def train_sentencepiece(
    texts: Iterable[str], *, model_type: str, vocab_size: int, exact: bool
) -> SentencePieceTokenizer:
    """Learns a model. ``exact``: the vocabulary was asked for, so a smaller one is a DataError.

    Texts are read twice when the first size was too large, so ``texts`` must be iterable again.
    """
    package = require("sentencepiece")
    _refuse_fatal(str(package.__version__))
    try:
        data = _train(package, texts, model_type, vocab_size)
    except RuntimeError as error:
        largest = _largest(str(error), vocab_size)
        if exact:
            raise DataError(
                f"tokenizer.vocab_size = {vocab_size} is not what this text supports, at most {largest} ids: "
                "change it, or add text."
            ) from error
        data = _train(package, texts, model_type, largest)
    return SentencePieceTokenizer(round_scores(data) if model_type == "unigram" else data)


def _refuse_fatal(version: str) -> None:
    """Before 0.2.3 the trainer ended or crashed the whole process where the text supports too few ids."""
    if [int(part) for part in version.split(".")[:3] if part.isdigit()] < [0, 2, 3]:
        raise DeviceError(
            f"sentencepiece {version} is too old to train with: run `pip install --upgrade sentencepiece`, or set "
            'tokenizer.kind = "byte".'
        )


def _train(package: Any, texts: Iterable[str], model_type: str, vocab_size: int) -> bytes:
    out = io.BytesIO()
    package.SentencePieceTrainer.train(
        sentence_iterator=_sentences(texts),
        model_writer=out,
        model_type=model_type,
        vocab_size=vocab_size,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        byte_fallback=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.9999,
        required_chars=_REQUIRED,
        unk_id=0,
        bos_id=-1,
        pad_id=-1,
        eos_id=1,
        eos_piece=EOT,
        max_sentence_length=1 << 20,
        num_threads=4,  # fixed: the sums of a unigram model depend on it
        minloglevel=4,
    )
    return out.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for piece in cut_text(text, _TRAIN_CHARS):
            yield _UNUSABLE.sub(" ", piece)


def _largest(message: str, vocab_size: int) -> int:
    """The largest vocabulary, from the trainer's complaint. Raises DataError when it complains of something else."""
    if match := re.search(r"value <= (\d+)", message):
        return int(match[1])
    if match := re.search(r"(?:smaller than required_chars|vocab_size.*?)\D+\d+ vs (\d+)", message):
        raise DataError(f"tokenizer.vocab_size = {vocab_size} is too small for this text: at least {match[1]} ids.")
    if "sentences_.empty()" in message:
        raise DataError("There is no text to train a tokenizer on; add text to the sources.")
    raise DataError(f"The sentencepiece trainer failed: {' '.join(message.split())[:300]}")
