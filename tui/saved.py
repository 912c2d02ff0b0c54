"""What is known of each checkpoint of a run: from its story, and from the small files beside the checkpoints.

Which of them exist is the digest's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.quality import QUALITY_FILE, read_quality
from ondevice.run.store import Store
from ondevice.run.telemetry import as_numbers
from tui.snapshot import Saved
from tui.values import number, text, when, whole
from tui.words import printable

__all__ = ["Marks", "Shelf", "shelved"]

_MIB = 1 << 20
_MOST = 5000


class Shelf:
    """Checkpoints and evaluations by step, as records told of them; a later record of a step replaces the earlier.

    ``changes`` counts up with each of them.
    """

    def __init__(self) -> None:
        self.saved: dict[int, Saved] = {}
        self.losses: dict[int, tuple[tuple[str, float], ...]] = {}
        self.changes = 0

    def fold(self, record: dict[str, Any]) -> None:
        kind, step = text(record, "kind"), whole(record, "step")
        self.changes += kind in ("checkpoint", "eval")
        if kind == "checkpoint" and step is not None:
            self._fold_checkpoint(record, step)
        elif kind == "eval" and step is not None:
            found = as_numbers({"": record.get("val_loss_mixed")}) | as_numbers(record.get("val_loss"))
            told = tuple((printable(name), loss) for name, loss in found.items())
            _put(self.losses, step, told[:200])

    def _fold_checkpoint(self, record: dict[str, Any], step: int) -> None:
        size = number(record, "bytes")
        size_mb = None if size is None else size / _MIB
        saved = Saved(step=step, t=when(record), size_mb=size_mb, save_s=number(record, "save_s"))
        _put(self.saved, step, saved)
        lightened = record.get("lightened")
        for light in lightened if isinstance(lightened, list) else ():
            if light in self.saved:
                self.saved[light] = replace(self.saved[light], light=True)


def _put(kept: dict[int, Any], step: int, value: Any) -> None:
    """As the newest, dropping the oldest where there are too many."""
    kept.pop(step, None)
    kept[step] = value
    if len(kept) > _MOST:
        del kept[next(iter(kept))]


@dataclass(frozen=True)
class Marks:
    """What people and judges said of checkpoints. ``trouble``: sentences about what could not be read."""

    pins: dict[int, str] = field(default_factory=dict)
    quality: dict[int, float] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()

    @classmethod
    def read(cls, run: RunDir) -> Marks:
        """Never raises."""
        pins, quality, trouble = {}, {}, []
        try:
            pins = {step: printable(reason) for step, reason in Store(run.checkpoints).pins().items()}
        except (OndeviceError, OSError) as error:
            trouble.append(str(error))
        try:
            quality = read_quality(run.evals)
        except (OndeviceError, OSError) as error:
            trouble.append(str(error))
        return cls(pins, quality, tuple(trouble))

    @staticmethod
    def files(run: RunDir) -> tuple[Any, ...]:
        """What they are read from, to see whether they changed."""
        return run.checkpoints / "pins.json", run.evals / QUALITY_FILE


def shelved(steps: Sequence[int], shelf: Shelf, marks: Marks) -> tuple[Saved, ...]:
    """The checkpoints that exist, with the best of them marked."""
    known = [_known(step, shelf, marks) for step in steps]
    losses = {saved.step: saved.loss for saved in known if saved.loss is not None}
    best = min(losses, key=lambda step: (losses[step], step), default=None)
    scores = {saved.step: saved.quality for saved in known if saved.quality is not None}
    judged = max(scores, key=lambda step: (scores[step], -step), default=None)
    return tuple(replace(saved, best=saved.step == best, best_quality=saved.step == judged) for saved in known)


def _known(step: int, shelf: Shelf, marks: Marks) -> Saved:
    saved = shelf.saved.get(step) or Saved(step=step)
    return replace(
        saved, losses=shelf.losses.get(step, ()), quality=marks.quality.get(step), pinned=marks.pins.get(step, "")
    )
