"""Whether an ONNX file computes what the model computes: onnxruntime's logits against a reference's, case by case.

A file in fp32 must give the model's logits; one in fewer bits must at least be the same model, and says how far off.
Covers the ways a decoder is driven: an empty past, batches, left padding, prefill in pieces, decoding token by token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.errors import CheckpointError, OndeviceError
from ondevice.infer.onnx_session import OnnxSession
from ondevice.run.recipe import ModelShape

__all__ = ["TOLERANCE", "LogitsFn", "Parity", "WrongGraphError", "verify_onnx"]

TOLERANCE = 1e-4  # largest absolute error of a logit in fp32
UNRELATED = 1.0  # relative error of a quantized file: logits that have nothing to do with the model's come to 1.4
_LONGEST = 24  # tokens: with a large vocabulary the compared logits would be the largest arrays of an export
_DECODED = 6
_ROOM = 8  # columns of a cache of fixed length that stay empty: of the whole context they would be half the model

LogitsFn = Callable[[np.ndarray], np.ndarray]  # ids_BT int64 -> logits_BTV


class WrongGraphError(OndeviceError):
    """A file that computes something else than its model."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The result: largest absolute logit error of each case, root mean square of the error over the spread of the
    logits, and the share of positions with the same likeliest token. ``tolerance`` is None for a quantized file."""

    max_abs_error: float
    relative_error: float
    tolerance: float | None
    cases: dict[str, float]
    same_argmax: float
    onnxruntime: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def verify_onnx(
    session: OnnxSession, reference: LogitsFn, *, shape: ModelShape, quantized: bool = False, seed: int = 0
) -> Parity:
    """Compares a session with ``reference(ids_BT) -> logits_BTV`` on random tokens.

    Raises WrongGraphError above the tolerance, CheckpointError when the reference itself gives NaN or infinity.
    """
    length = min(shape.context, _LONGEST)
    ids_BT = np.random.default_rng(seed).integers(0, shape.vocab_size, (3, length), dtype=np.int64)
    wanted = reference(ids_BT)
    if not np.isfinite(wanted).all():
        raise CheckpointError("The model's logits are not finite numbers; export an earlier checkpoint.")
    cases: dict[str, float] = {}
    relative: dict[str, float] = {}
    same = []
    for name, got, expected in _cases(session, reference, ids_BT, wanted):
        cases[name] = _larger(cases.get(name), float(np.abs(got - expected).max()))
        relative[name] = _larger(relative.get(name), _relative(got, expected))
        same.append((got.argmax(-1) == expected.argmax(-1)).mean())
    _refuse(relative if quantized else cases, UNRELATED if quantized else TOLERANCE)
    return Parity(
        max_abs_error=max(cases.values()),
        relative_error=max(relative.values()),
        tolerance=None if quantized else TOLERANCE,
        cases=cases,
        same_argmax=float(np.mean(same)),
        onnxruntime=session.version,
    )


def _larger(known: float | None, new: float) -> float:
    """NaN stays NaN."""
    return new if known is None or not new <= known else known


def _relative(got: np.ndarray, wanted: np.ndarray) -> float:
    spread = float(wanted.std())
    return float(np.sqrt(np.mean((got - wanted) ** 2))) / spread if spread else 0.0


def _refuse(errors: dict[str, float], most: float) -> None:
    for name, error in errors.items():
        if not error <= most:  # so that NaN fails too
            raise WrongGraphError(
                f"The exported graph is wrong: {name} differs from the model by {error:.2g} (at most {most:.0e} is "
                "allowed); this is a fault of ondevice, please report it with the model's shape."
            )


_Case = tuple[str, np.ndarray, np.ndarray]


def _cases(session: OnnxSession, reference: LogitsFn, ids_BT: np.ndarray, wanted: np.ndarray) -> Iterator[_Case]:
    """Name, logits, wanted logits; a name may come several times."""
    yield "empty past, batch 3", _run(session, ids_BT), wanted
    one = ids_BT[:1]
    wanted_one = reference(one)
    yield "empty past, batch 1", _run(session, one), wanted_one
    length = ids_BT.shape[1]
    cuts = sorted({1, length // 3, length // 2} - {0, length})
    yield "prefill in pieces", _run(session, one, *cuts), wanted_one
    first = max(length - _DECODED, 1)
    if first < length:
        yield "decoding", _run(session, ids_BT, *range(first, length)), wanted
    yield from _padded_cases(session, reference, ids_BT, first)


def _run(session: OnnxSession, ids_BT: np.ndarray, *cuts: int) -> np.ndarray:
    """Logits of all positions, the tokens given in pieces that end at ``cuts``."""
    _start(session, *ids_BT.shape)
    return np.concatenate([session.run(piece) for piece in np.split(ids_BT, list(cuts), axis=1)], axis=1)


def _start(session: OnnxSession, batch: int, length: int) -> None:
    session.start(batch, capacity=min(length + _ROOM, session.context))


def _padded_cases(session: OnnxSession, reference: LogitsFn, ids_BT: np.ndarray, first: int) -> Iterator[_Case]:
    """Rows of three lengths, padded on the left with token 0, prefilled and then decoded."""
    length = ids_BT.shape[1]
    pads = [0, min(3, first - 1), min(7, first - 1)]
    mask_BT = np.arange(length) >= np.array(pads)[:, None]
    _start(session, 3, length)
    padded = np.where(mask_BT, ids_BT, 0)
    cuts = list(range(first, length))
    pieces = zip(np.split(padded, cuts, axis=1), np.split(mask_BT, cuts, axis=1), strict=True)
    got = np.concatenate([session.run(ids, mask_BT=mask) for ids, mask in pieces], axis=1)
    for row, pad in enumerate(pads):
        yield "left padding", got[row : row + 1, pad:], reference(ids_BT[row : row + 1, pad:])
