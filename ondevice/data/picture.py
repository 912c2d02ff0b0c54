"""What a model will read when: the mixture of sources along the training, and what is wrong with it.

Order decides what is learned: what comes late is remembered, what comes early only is forgotten. `look` samples an
order without reading a token; `warnings_about` says in sentences what a person should know before a night is spent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ondevice.data.cursor import BatchCursor

__all__ = ["MANY_REPEATS", "Picture", "look", "warnings_about"]

MANY_REPEATS = 4.0
_SAMPLED = 4096  # windows looked at in one stretch
_END = 0.1  # of the training: what counts as early or late
_ONE_SOURCE, _MIXED = 0.95, 0.8


@dataclass(frozen=True, kw_only=True)
class Picture:
    """``shares_PS``: of each stretch, the share of each source. ``tokens`` and ``epochs`` are exact, over the whole.

    ``difficulty_P`` is the mean length or score of each stretch, where the order ranks by that.
    """

    sources: tuple[str, ...]
    windows: int
    shares_PS: npt.NDArray[np.float64]  # noqa: N815
    early_S: npt.NDArray[np.float64]  # noqa: N815
    late_S: npt.NDArray[np.float64]  # noqa: N815
    tokens: tuple[int, ...]
    epochs: tuple[float, ...]
    difficulty_P: npt.NDArray[np.float64] | None = None  # noqa: N815


def look(cursor: BatchCursor, *, windows: int, stretches: int) -> Picture:
    """The picture of the first ``windows`` windows, at least 1, in at most ``stretches`` stretches of equal length."""
    bounds = np.linspace(0, windows, min(stretches, windows) + 1).astype(np.int64)
    spans = [(int(a), int(b)) for a, b in pairwise(bounds)]
    ranked = [cursor.difficulty(_sampled(a, b)) for a, b in spans]
    end = max(1, int(_END * windows))
    exposure = cursor.exposure(windows)
    return Picture(
        sources=tuple(exposure),
        windows=windows,
        shares_PS=np.stack([_shares(cursor, a, b) for a, b in spans]),
        early_S=_shares(cursor, 0, end),
        late_S=_shares(cursor, windows - end, windows),
        tokens=tuple(int(entry["tokens"]) for entry in exposure.values()),
        epochs=tuple(entry["epochs"] for entry in exposure.values()),
        difficulty_P=np.array([each.mean() for each in ranked if each is not None]) if ranked[0] is not None else None,
    )


def _sampled(start: int, end: int) -> npt.NDArray[np.int64]:
    """The positions of a stretch, or evenly spaced ones where there are many."""
    count = min(_SAMPLED, end - start)
    return start + (np.arange(count, dtype=np.int64) * (end - start)) // count


def _shares(cursor: BatchCursor, start: int, end: int) -> npt.NDArray[np.float64]:
    """Shares of the sources among the windows of a stretch."""
    found = np.bincount(cursor.places(_sampled(start, end)).sources, minlength=len(cursor.windows_by_source))
    shares: npt.NDArray[np.float64] = found / found.sum()
    return shares


def warnings_about(picture: Picture) -> Iterator[str]:
    """Sentences about early or late text of one source only, and about sources that are repeated too often."""
    means = picture.difficulty_P
    if means is not None and np.ptp(means) <= 1e-9 * max(1.0, float(np.abs(means).max())):
        yield (
            f"Every stretch has the same length or score ({means[0]:g}), so this curriculum is a shuffle; rank by "
            "something that differs (data.curriculum.by), or take another order."
        )
    overall = np.array(picture.tokens) / max(1, sum(picture.tokens))
    for part, shares in (("first", picture.early_S), ("last", picture.late_S)):
        top = int(np.argmax(shares))
        if shares[top] >= _ONE_SOURCE and overall[top] < _MIXED:
            effect = "is forgotten first" if part == "first" else "colours everything the model says"
            yield (
                f"The {part} tenth of the training is '{picture.sources[top]}' alone, which {effect}; data.order = "
                "'source_balanced' or 'proportional' mixes the sources."
            )
    for name, epochs in zip(picture.sources, picture.epochs, strict=True):
        if epochs > MANY_REPEATS and len(picture.sources) > 1:
            yield (
                f"'{name}' is read {epochs:.1f} times: beyond {MANY_REPEATS:g} a model recites it; give it less weight "
                "or more text."
            )
