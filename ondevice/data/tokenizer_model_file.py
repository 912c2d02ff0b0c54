"""Sentencepiece ``.model`` files without the package: the protobuf wire format of their pieces and settings.

Also the equivalent Hugging Face ``tokenizer.json``. Field numbers are those of ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ondevice.errors import DataError

__all__ = ["SCORE_STEP", "ModelFile", "Piece", "hf_json", "read_model", "round_scores", "without_added_spaces"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_UNIGRAM, _BPE = 1, 2
SPACE = "\u2581"
_NEVER = -100_000.0

SCORE_STEP = 1 / 64
"""Scores of a unigram model are multiples of this, so that their sums over a piece of text (at most 8,192 symbols of
less than 32 nats: 18 bits before the point, 6 after it) are exact in the 24 bits of a float. Then ties are ties in
sentencepiece (float) and in the tokenizers package (double) alike, and both cut every text in the same way."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of a vocabulary; ``type`` is `NORMAL` ... `BYTE`, and a higher ``score`` is merged or chosen first."""

    text: str
    score: float
    type: int

    def bytes(self) -> bytes:
        """What the piece stands for in text; nothing for control pieces."""
        if self.type == CONTROL:
            return b""
        if self.type == BYTE:
            return bytes([int(self.text[3:5], 16)])
        return b"\xef\xbf\xbd" if self.type == UNKNOWN else self.text.replace(SPACE, " ").encode()


@dataclass(frozen=True, slots=True)
class ModelFile:
    """``kind`` is ``bpe`` or ``unigram``; the flags are those of the normaliser."""

    pieces: tuple[Piece, ...]
    kind: str
    eos_id: int
    byte_fallback: bool
    identity: bool
    dummy_prefix: bool
    remove_spaces: bool


def read_model(data: bytes, where: str) -> ModelFile:
    """Parses a model. Raises DataError when it is not one or of a type that has no exact decoding."""
    try:
        top = list(_fields(data))
        pieces = tuple(_piece(value) for number, _, value in top if number == 1)
        trainer = _merged(top, 2)
        normalizer = _merged(top, 3)
        kind = {_UNIGRAM: "unigram", _BPE: "bpe"}.get(trainer.get(3, _UNIGRAM))
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise DataError(f"{where}: not a sentencepiece model ({error}).") from error
    if not pieces or kind is None:
        raise DataError(f"{where}: not a sentencepiece model of type bpe or unigram.")
    return ModelFile(
        pieces=pieces,
        kind=kind,
        eos_id=_signed(trainer.get(42, 2)),
        byte_fallback=bool(trainer.get(35, 0)),
        identity=not normalizer.get(2, b""),
        dummy_prefix=bool(normalizer.get(3, 1)),
        remove_spaces=bool(normalizer.get(4, 1)),
    )


def round_scores(data: bytes) -> bytes:
    """The same model with every score rounded to a multiple of `SCORE_STEP`."""
    out = bytearray(data)
    for number, at, value in _fields(data):
        if number == 1:
            for inner, offset, score in _fields(value):
                if inner == 2:
                    rounded = round(struct.unpack("<f", score)[0] / SCORE_STEP) * SCORE_STEP
                    struct.pack_into("<f", out, at + offset, rounded)
    return bytes(out)


def without_added_spaces(data: bytes) -> bytes:
    """The same model with add_dummy_prefix and remove_extra_whitespaces off: a normalizer_spec merged into its own."""
    return data + bytes([3 << 3 | _BYTES, 4, 3 << 3, 0, 4 << 3, 0])


def _piece(data: bytes) -> Piece:
    fields = {number: value for number, _, value in _fields(data)}
    return Piece(fields[1].decode(), struct.unpack("<f", fields.get(2, bytes(4)))[0], fields.get(3, NORMAL))


def _merged(fields: list[tuple[int, int, Any]], wanted: int) -> dict[int, Any]:
    """The message in field ``wanted`` as its own fields; of several, later values win, as protobuf has it."""
    messages = [value for number, _, value in fields if number == wanted]
    return {number: value for message in messages for number, _, value in _fields(message)}


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, offset of the value, value) of a message; fixed-width values stay bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, end = _varint(data, at)
            yield tag >> 3, at, value
        else:
            start, end = _span(data, at, wire)
            yield tag >> 3, start, data[start:end]
        at = end


def _span(data: bytes, at: int, wire: int) -> tuple[int, int]:
    """Start and end of a value that is not a varint."""
    if wire == _BYTES:
        size, at = _varint(data, at)
    elif wire in (_FIXED32, _FIXED64):
        size = 4 if wire == _FIXED32 else 8
    else:
        raise ValueError(f"wire type {wire}")
    if at + size > len(data):
        raise ValueError("cut short")
    return at, at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def hf_json(model: ModelFile) -> str:
    """The ``tokenizer.json`` that gives the same ids.

    Spaces are spaces in its vocabulary, so the letter U+2581 in a text stays what it is (as bytes) and needs no
    normaliser. Equal for unigram because scores are rounded (`SCORE_STEP`). BPE merges are every way to make a piece
    of two pieces, by score; where one piece could be made in two overlapping ways at once, sentencepiece takes the
    left one and the package the one listed first: the longer left part, which is the left one in every text tried,
    though not provably in all.
    """
    names = {i: piece.text.replace(SPACE, " ") for i, piece in enumerate(model.pieces)}
    spec = _bpe(model, names) if model.kind == "bpe" else _unigram(model, names)
    special = [i for i, piece in enumerate(model.pieces) if piece.type in (CONTROL, UNKNOWN)]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_added(i, names[i]) for i in special],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": spec,
        },
        ensure_ascii=False,
    )


def _added(token: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token, "content": content, **flags}


def _unigram(model: ModelFile, names: dict[int, str]) -> dict[str, Any]:
    unknown = next(i for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN)
    # The package finds byte and control pieces in text, which sentencepiece does not: this score keeps them out.
    vocab = [[names[i], piece.score if piece.type == NORMAL else _NEVER] for i, piece in enumerate(model.pieces)]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": True}


def _bpe(model: ModelFile, names: dict[int, str]) -> dict[str, Any]:
    normal = {names[i]: piece.score for i, piece in enumerate(model.pieces) if piece.type == NORMAL}
    merges = [
        (-score, -cut, [name[:cut], name[cut:]])
        for name, score in normal.items()
        for cut in range(1, len(name))
        if name[:cut] in normal and name[cut:] in normal
    ]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next(names[i] for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": {name: i for i, name in names.items()},
        "merges": [pair for _, _, pair in sorted(merges)],
    }
