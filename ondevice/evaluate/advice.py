"""Advice while a run trains, version 2: what its evaluations so far say, each piece told once when it becomes true.

- ``stop``, ``start the tail``: the best is older than the patience of `ondevice.evaluate.trajectory`, and the loss no
  longer falls. ``stop`` is withheld where sources are being forgotten while another has its best among the last three
  evaluations: then the order of the text lifts the mixture, and what is learned is not yet learned (version 1 told it).
- ``spike``: the loss rose as suddenly as that module calls a spike.
- ``forgetting`` of a source: at two evaluations in a row its loss was above its own best by 3 % more than the mixture
  is above its best; over once that is below 1.5 %.
- ``parting``: from the two evaluations before to the last two, the mean loss fell by 0.5 % or more while the mean share
  of repeated 4-grams in what the model writes rose by 0.05 or more.
- ``repeats``: a source was read more than four times.

Looks only backwards and remembers a bounded number of evaluations. Pure; knows no run and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ondevice.evaluate.trajectory import Point, advise, spikes

__all__ = ["ADVICE_VERSION", "Adviser", "Seen", "Told"]

ADVICE_VERSION = 2
_REMEMBERED = 200
_MOST_SOURCES = 200
_FORGOTTEN, _RECOVERED = 0.03, 0.015
_FELL, _REPEATED = 0.005, 0.05
_MANY_EPOCHS = 4.0
_LATELY = 3  # evaluations
_FOR_SPIKES = 7  # evaluations: the last change and the five before it


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One evaluation: losses in nats, epochs by source, and ``repeated``, the share of repeated 4-grams (None: nothing
    was written)."""

    step: int
    tokens: int
    mixed: float
    losses: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, float] = field(default_factory=dict)
    repeated: float | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """One piece of advice: ``what`` kind, about which ``source`` (empty: the whole run), and a sentence."""

    what: str
    source: str
    text: str


@dataclass
class _Source:
    best: float
    best_step: int
    above: int = 0  # evaluations in a row with too high a loss


class Adviser:
    """``see`` takes each evaluation and gives what is new; ``standing`` is all that holds now."""

    def __init__(self) -> None:
        self._points: list[tuple[int, int, float, float | None]] = []
        self._sources: dict[str, _Source] = {}
        self._standing: dict[str, str] = {}

    @property
    def standing(self) -> list[str]:
        """Sentences, the oldest first."""
        return list(self._standing.values())

    def see(self, seen: Seen, *, before_tail: bool = False) -> list[Told]:
        """What this evaluation makes true. ``before_tail``: a schedule whose decay is still to come."""
        self._points = [point for point in self._points if point[0] < seen.step]  # measured twice: as last measured
        self._points.append((seen.step, seen.tokens, seen.mixed, seen.repeated))
        self._forget_old()
        found = {f"{told.what}:{told.source}": told for told in self._all(seen, before_tail=before_tail)}
        new = [told for key, told in found.items() if key not in self._standing]
        self._standing = {key: told.text for key, told in found.items()}
        return new

    def _forget_old(self) -> None:
        """The oldest but the best."""
        if len(self._points) > _REMEMBERED:
            best = min(self._points, key=lambda point: (point[2], point[0]))
            del self._points[1 if self._points[0] is best else 0]

    def _all(self, seen: Seen, *, before_tail: bool) -> Iterator[Told]:
        points = [Point(step=step, tokens=tokens, loss=loss) for step, tokens, loss, _ in self._points]
        advice = advise(points, in_stable_phase_of_wsd=before_tail)
        forgetting = list(self._forgetting(seen, min(point.loss for point in points)))
        if advice.what != "go on" and not (advice.what == "stop" and forgetting and self._learns()):
            yield Told(what=advice.what, source="", text=advice.why)
        recent = [point.loss for point in points[-_FOR_SPIKES:]]
        if len(recent) - 1 in spikes(recent):
            rise = points[-1].loss - points[-2].loss
            yield Told(what="spike", source="", text=f"The validation loss jumped by {rise:.4f} at step {seen.step:,}.")
        yield from forgetting
        yield from self._parting()
        for source, epochs in seen.epochs.items():
            if epochs > _MANY_EPOCHS:
                text = f"{source} was read {epochs:.1f} times; more than {_MANY_EPOCHS:g} teach little that is new."
                yield Told(what="repeats", source=source, text=text)

    def _learns(self) -> bool:
        """Whether a source has its best among the last few evaluations."""
        since = self._points[-_LATELY:][0][0]
        return any(known.best_step >= since for known in self._sources.values())

    def _forgetting(self, seen: Seen, best_mixed: float) -> Iterator[Told]:
        """Of sources that do worse than the mixture does."""
        if len(seen.losses) < 2 or best_mixed <= 0:
            return
        everywhere = seen.mixed / best_mixed - 1
        for name, loss in list(seen.losses.items())[:_MOST_SOURCES]:
            known = self._sources.setdefault(name, _Source(best=loss, best_step=seen.step))
            if loss < known.best:
                known.best, known.best_step = loss, seen.step
            rise = loss / known.best - 1 - everywhere if known.best > 0 else 0.0
            key = f"forgetting:{name}"
            known.above = known.above + 1 if rise > (_RECOVERED if key in self._standing else _FORGOTTEN) else 0
            if known.above >= 2 or (known.above and key in self._standing):
                text = (
                    f"Source {name} is being forgotten: its loss is {loss:.4f}, at step {known.best_step:,} it was "
                    f"{known.best:.4f}."
                )
                yield Told(what="forgetting", source=name, text=text)

    def _parting(self) -> Iterator[Told]:
        four = [(loss, repeated) for _, _, loss, repeated in self._points[-4:] if repeated is not None]
        if len(four) < 4:
            return
        loss_then, loss_now = (four[0][0] + four[1][0]) / 2, (four[2][0] + four[3][0]) / 2
        then, now = (four[0][1] + four[1][1]) / 2, (four[2][1] + four[3][1]) / 2
        if loss_now < (1 - _FELL) * loss_then and now >= then + _REPEATED:
            text = (
                f"The loss still falls, but what the model writes repeats itself more: {now:.0%} of its 4-grams, "
                f"{then:.0%} two evaluations before."
            )
            yield Told(what="parting", source="", text=text)

    def state_dict(self) -> dict[str, Any]:
        return {
            "v": ADVICE_VERSION,
            "points": [list(point) for point in self._points],
            "sources": {name: asdict(known) for name, known in self._sources.items()},
            "standing": dict(self._standing),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What an earlier launch remembered; of another version nothing, since its rules were others."""
        if state.get("v") != ADVICE_VERSION:
            return
        self._points = [tuple(point) for point in state["points"]]
        self._sources = {name: _Source(**known) for name, known in state["sources"].items()}
        self._standing = dict(state["standing"])
