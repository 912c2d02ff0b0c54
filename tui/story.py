"""What telemetry told, as fields of a snapshot. Pure functions over the fold."""

from __future__ import annotations

from typing import Any

from ondevice.run.digest import Digest
from ondevice.run.series import Curve, thinned
from tui.fold import Fold
from tui.plots import VAL, Plots
from tui.snapshot import Points, Sample, SourceLoss
from tui.values import text, when, whole
from tui.words import printable

__all__ = ["story"]

_SPARKLINE = 256


def story(fold: Fold) -> dict[str, Any]:
    """Fields of the whole story; those a status tells better while it is read are the feed's to replace."""
    digest, plots = fold.digest, fold.curves.plots()
    return {
        "launches": digest.launches,
        "kills": digest.kills,
        "began_t": fold.began_t,
        "last_t": digest.last_t,
        "step": digest.step,
        "steps": digest.steps,
        "tokens": digest.tokens,
        "loss": fold.curves.loss.last,
        "loss_curve": tuple(fold.curves.loss.points),
        "val": _sources(plots),
        "best_step": digest.best_step,
        "best_loss": digest.best_loss,
        "lr": digest.lr.last,
        "grad_norm": digest.grad_norm.last,
        "checkpoints": tuple(digest.checkpoints),
        "samples": _samples(digest),
        "events": fold.log.events(),
        "outcome": printable(text(digest.ended or {}, "why")),
        "plots": plots,
    }


def _sources(plots: Plots) -> tuple[SourceLoss, ...]:
    """In the order in which they were first measured."""
    curves = {name.removeprefix(VAL): curve for name, curve in plots.by_step.items() if name.startswith(VAL)}
    return tuple(
        SourceLoss(name=printable(name), last=curve.ys[curve.size - 1], curve=_points(curve))
        for name, curve in curves.items()
        if len(curve)
    )


def _samples(digest: Digest) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            step=whole(raw, "step") or 0,
            prompt=printable(text(raw, "prompt")),
            text=printable(text(raw, "text")),
            t=when(raw),
            letter=text(raw, "letter"),
        )
        for raw in digest.samples
    )


def _points(curve: Curve) -> Points:
    return tuple(zip(*thinned(curve.xs[: curve.size], curve.ys[: curve.size], _SPARKLINE), strict=True))
