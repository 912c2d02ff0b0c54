"""The duty that brings a temperature to its target: model-predictive on the estimate of `ondevice.governor.node`.

The target lies under the limit by as much as the estimate is uncertain, so a coarse sensor costs some work and no
overshoot. Short pieces of work are steered by their mean, or by the peaks of the bundles they run together to; of
long ones each is allowed only so early that its own peak stays at the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, log, sqrt

from ondevice.governor.node import Node, Traits, advanced, warmth

__all__ = ["LONG_S", "Cycle", "duty_for", "least_duty", "rest_before"]

AHEAD_S, FURTHEST_S = 45.0, 400.0
MOVE_C = 6.0  # what full work warms while one looks ahead, so that a tenth of a degree is a small matter
SPARE_SHARE, SPARE_S = 0.008, 20.0
SURE = 1.8  # deviations under the limit, for long pieces
SURE_UNTRIED = 0.4  # more, while no sample has told which body it is
SURE_FIRST = 0.85  # before a first one: nothing can be learned without it, but of a phone it may be too much
LONG_S = 6.0  # pieces from here on are steered one by one
PIECE_SHARE = 0.5  # of a piece: how far a bundle overshoots its length, on average
ROUNDS = 3
LEAST_BUNDLED, MOST_BUNDLED = 1.5, 4.0  # times the shortest rest
LEAST_SWING, MOST_DUTY = 1e-3, 0.99  # of duty, for which a swing is reckoned
LONGEST_REST_S = 450.0
PEAK_LAGS = 1.0  # after a long piece its peak comes about so much later


@dataclass(frozen=True)
class Cycle:
    """How work is cut: pieces of ``piece_s``; ``rested_s`` have passed since the last one; None: at rest for long."""

    piece_s: float
    rested_s: float | None
    first: bool = False  # nothing was worked yet, and without a piece nothing can be learned
    rest_s: float = 0.0  # rests are no shorter, and pieces are bundled between them
    burst_s: float = 0.0  # work since the last of those


@dataclass(frozen=True)
class _Limit:
    celsius: float
    unsure_c: float


def duty_for(
    node: Node, traits: Traits, limit_c: float, cycle: Cycle, *, duty_now: float, unsure_c: float = 0.0
) -> float:
    """The share of time for short pieces, 0 to 1, as of the time of the node. ``unsure_c``: deviation of the limit
    itself."""
    blind_s = _until_sample_s(node) + node.lag_s  # until an order could show that answers the next sample
    target_c = _target(node, traits, _Limit(limit_c, unsure_c), [(blind_s, duty_now)], sure=traits.sure)
    bundled = cycle.rest_s > 0.0
    duty = (
        _in_bundles(node, traits, target_c, cycle, duty_now) if bundled else _on_average(node, traits, target_c, cycle)
    )
    least = least_duty(cycle.piece_s) if node.temp_c < limit_c - _spare_c(node, traits, limit_c) else 0.0
    return min(1.0, max(least, duty))


def rest_before(node: Node, traits: Traits, limit_c: float, cycle: Cycle, *, unsure_c: float = 0.0) -> float | None:
    """Seconds of rest from the time of the node before a long piece; None where none would be long enough."""
    limit, rest_s = _Limit(limit_c, unsure_c), 0.0
    for _ in range(ROUNDS):  # the longer the rest, the less is known of its end
        ahead = [(rest_s, 0.0), (cycle.piece_s, 1.0), (PEAK_LAGS * node.lag_s, 0.0)]
        target_c = _target(node, traits, limit, ahead, sure=_sure(node, cycle))
        found = _rest(node, traits, target_c, cycle.piece_s)
        if found is None:
            return None
        rest_s = found
    return rest_s


def _sure(node: Node, cycle: Cycle) -> float:
    """Deviations to keep before a long piece."""
    return SURE_FIRST if cycle.first else SURE + SURE_UNTRIED * (1.0 - node.tried)


def least_duty(piece_s: float) -> float:
    """So little that its heat does not matter; between two pieces lies the longest rest that is not looked after."""
    return piece_s / (piece_s + LONGEST_REST_S)


def _target(node: Node, traits: Traits, limit: _Limit, ahead: list[tuple[float, float]], *, sure: float) -> float:
    later = advanced(node, traits, ahead)
    return limit.celsius - _spare_c(node, traits, limit.celsius) - sure * sqrt(max(0.0, later.tt) + limit.unsure_c**2)


def _spare_c(node: Node, traits: Traits, limit_c: float) -> float:
    """For what no estimate knows of: a share of the warmth that work may bring, and of how the day warms."""
    return min(traits.spare_c, SPARE_SHARE * max(0.0, limit_c - node.idle_c) + SPARE_S * abs(node.slope))


def _until_sample_s(node: Node) -> float:
    return max(1.0, min(60.0, node.seen_t + node.every_s - node.t))


def _on_average(node: Node, traits: Traits, target_c: float, cycle: Cycle) -> float:
    """The constant duty that leads to the target some seconds ahead. All terms are linear in it.

    Over one cycle the mean lies half a swing below the end of a piece, and heat on its way counts as arrived; ``flat``
    is how much of a swing the lag leaves over.
    """
    piece_s, b, lag_s = cycle.piece_s, node.warming, node.lag_s
    slow_s = min(FURTHEST_S, MOVE_C / b)
    kept = exp(-max(AHEAD_S, 3 * lag_s, slow_s) / traits.tau_s)
    flat = piece_s / (piece_s + lag_s)
    half = b * piece_s / 2
    settled = b * traits.tau_s * (1 - kept)
    if cycle.rested_s is None:
        start, per_duty = half, -half - b * lag_s
    else:
        start, per_duty = -half, half - b * lag_s + b * min(cycle.rested_s, 10 * piece_s)
    room = target_c - flat * half - node.idle_c * (1 - kept) - kept * (warmth(node) + start)
    slope = settled + kept * per_duty - flat * half
    return room / max(slope, 0.2 * settled)


def _in_bundles(node: Node, traits: Traits, target_c: float, cycle: Cycle, duty_now: float) -> float:
    """The constant duty whose peaks, a while after the end of a bundle, lie at the target some seconds ahead.

    What a bundle in progress, or the rest after it, has too much or too little of heat at that duty counts as settled;
    but for the swing, which is that of the duty found so far, all terms are linear in it.
    """
    b, lag_s, rested_s = node.warming, node.lag_s, min(cycle.rested_s or 0.0, LONGEST_REST_S)
    usual = min(MOST_BUNDLED, max(LEAST_BUNDLED, duty_now / max(1 - duty_now, 1e-3)))
    burst_s = min(cycle.burst_s, usual * cycle.rest_s)  # a longer one is no part of a steady course
    slow_s = min(FURTHEST_S, MOVE_C / b)
    kept = exp(-max(AHEAD_S, 3 * lag_s, 2 * cycle.rest_s, slow_s) / traits.tau_s)
    settled = b * traits.tau_s * (1 - kept)
    room = target_c - node.idle_c * (1 - kept) - kept * (warmth(node) - b * burst_s)
    swings = (1 + kept) / 2 * b
    duty = duty_now
    for _ in range(ROUNDS):
        rise_s, grows_s, sinks_s = _swing(cycle, lag_s, min(MOST_DUTY, max(LEAST_SWING, duty)))
        slope = settled + kept * b * (burst_s + rested_s - lag_s) + swings * grows_s - b * sinks_s
        duty = (room - swings * rise_s) / max(slope, 0.2 * settled)
    return duty


def _swing(cycle: Cycle, lag_s: float, duty: float) -> tuple[float, float, float]:
    """How far a bundle raises the warmth above where it began, in seconds of full work, as a line over the duty: (at
    0, slope); and for how long after its end the temperature still rises, while heat is on its way."""
    piece_s, over_s = cycle.piece_s, PIECE_SHARE * cycle.piece_s
    line = (over_s, cycle.rest_s - over_s)
    if line[0] + line[1] * duty < piece_s * (1 - duty):  # one piece is the bundle
        line = (piece_s, -piece_s)
    work_s = (line[0] + line[1] * duty) / (1 - duty)
    most = expm1(-work_s / lag_s) / expm1(-work_s / duty / lag_s)  # of the load as it arrives
    return *line, lag_s * log(most / duty)


def _rest(node: Node, traits: Traits, target_c: float, piece_s: float) -> float | None:
    """Seconds of rest before a long piece whose own peak is then the target; None where no rest is long enough."""
    b, a = node.warming, 1 / traits.tau_s
    room = target_c - node.idle_c
    if room <= 0:
        return None
    arriving = b * max(-expm1(-piece_s / node.lag_s), 1e-3)
    until_peak_s = node.lag_s * max(0.0, log(arriving / (a * room)))
    peak = room * (1 + a * (node.lag_s + until_peak_s))  # of the warmth, for that peak of the temperature
    before = peak + b * expm1(-a * piece_s) / a
    if before <= 0:
        return None
    excess = max(1e-9, warmth(node) - node.idle_c)
    return max(0.0, traits.tau_s * log(excess / before) - piece_s)
