"""Heat: every temperature that can be read is watched on its own, by an estimate for each body that it may be.

The battery of a phone that shows neither itself nor headroom is felt through its other parts in rests. How much work
all that allows is the business of `ondevice.governor.caps`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ondevice.device.readings import Reading
from ondevice.governor.control import LONG_S
from ondevice.governor.course import Course, continued, told
from ondevice.governor.node import (
    COARSE_C,
    Node,
    Traits,
    advanced,
    corrected,
    disturbed,
    doubted,
    first_seen,
    resolution,
)
from ondevice.governor.offset import Offset, compared
from ondevice.governor.signals import BATTERY, FELT_THROUGH, FINER, SIGNALS, Signal, age_s, feels
from ondevice.governor.sounding import AGAIN_S, Sounding, felt, sounded
from ondevice.governor.work import KEPT_S, Work, loads

__all__ = ["COLD_START_S", "Heat", "foretold", "likeliest", "likely", "possible", "surest", "watched", "without_course"]

# A body of which the whole course is known.
FITTED = replace(BATTERY.bodies[0], drift=0.004, idle_drift=0.004, sure=1.2)
SURFACE = 0.06  # share of its warmth above the air by which a battery may be warmer than the body
FADES_S = {"skin_c": 15.0, "cpu_c": 13.5}  # of what a part is warmer than the battery, in a rest
FELT_STEP_C, FELT_NOISE_C = 0.05, 0.4  # of a battery that is felt through another part
MUCH_LIKE = 0.05  # of a sample's misfit: bodies nearer to the best than this are as likely
UNTRIED = 0.3  # the same for a long piece, where no sample has told bodies apart yet
MOST_FINER = 16
WARM_C = 0.5  # above idling: a course that begins there begins warm
LATE_S = 2.0  # a sample from before another is compared with it all the same
COLD_START_S = 600.0  # unwatched for so long, what was learned of the temperature itself is worth nothing


@dataclass(frozen=True, kw_only=True)
class Heat:
    """What is remembered: an estimate for each signal, the peak being collected, and the last stop."""

    nodes: dict[str, tuple[Node, ...]] = field(default_factory=dict)  # of each signal one for each body
    peak: tuple[float, float] | None = None  # since when, degrees
    soundings: dict[str, Sounding] = field(default_factory=dict)  # through each part
    # The battery's course with what it tells, and samples (t, degrees) of the finer scale since: never in a file.
    course: Course | None = field(default=None, compare=False)
    fitted: tuple[Node, Traits] | None = field(default=None, compare=False)
    finer: tuple[tuple[float, float], ...] = field(default=(), compare=False)
    offset: Offset | None = None  # of the battery above Android's scale
    stopped_t: float | None = None
    surroundings: tuple[bool | None, str | None, bool | None] = (None, None, None)


def watched(heat: Heat, reading: Reading, work: Work, now: float, *, duty_now: float, handheld: bool) -> Heat:
    """What is known after a reading, where ``duty_now`` was ordered before."""
    surroundings = (reading.plugged, reading.charging, reading.screen_on)
    nodes = heat.nodes
    if _changed(heat.surroundings, surroundings):
        heat = without_course(heat)
        nodes = {signal.name: _disturbed(nodes[signal.name], signal) for signal in SIGNALS if signal.name in nodes}
    heat = _tied(replace(heat, nodes=nodes, surroundings=surroundings), reading, work, now, duty_now=duty_now)
    for signal in SIGNALS:
        value = signal.value(reading)
        if value is not None:
            heat = _sampled(heat, signal, value, reading, work, now, assumed=_assumed(signal, work, duty_now))
    return _felt(heat, reading, work, now) if handheld and feels(reading) else heat


def _tied(heat: Heat, reading: Reading, work: Work, now: float, *, duty_now: float) -> Heat:
    """A new sample of the battery says where it lies on Android's finer scale."""
    value, fine, known = BATTERY.value(reading), heat.nodes.get(FINER.name), heat.nodes.get(BATTERY.name)
    taken_t = min(now, reading.t - age_s(reading, BATTERY.name))
    if value is None or fine is None or (known is not None and taken_t - known[0].seen_t < BATTERY.every_s):
        return heat
    node, traits = likeliest(fine, FINER)
    if not node.t - LATE_S <= taken_t <= node.seen_t + FINER.stale_s:
        return heat
    ahead = foretold(node, traits, FINER, work, taken_t, duty_now=duty_now)
    offset = compared(
        heat.offset,
        value,
        taken_t,
        step_c=resolution(value, known[0].step_c if known is not None else COARSE_C),
        noise_c=BATTERY.bodies[0].noise_c,
        fine_c=ahead.temp_c,
        fine_var=ahead.tt,
    )
    return replace(heat, offset=offset)


def _felt(heat: Heat, reading: Reading, work: Work, now: float) -> Heat:
    """What the other parts tell of the battery: the coolest of them is still no cooler than it."""
    soundings, bases, nodes = dict(heat.soundings), [], heat.nodes.get(BATTERY.name)
    for signal in SIGNALS:
        value = signal.value(reading) if signal.name in FELT_THROUGH else None
        if value is None:
            continue
        base: float | None = value
        if work.end_t is not None and nodes is not None:
            taken_t = min(now, reading.t - age_s(reading, signal.name))
            sounding = sounded(
                soundings.get(signal.name, Sounding()), value, taken_t, work.end_t, fade_s=FADES_S[signal.name]
            )
            base, soundings[signal.name] = felt(sounding)
            if base is None and _is_cooler(value, nodes[0], work, taken_t):
                base = value
        if base is not None:
            bases.append(base + _hidden(signal, heat, base))
    heat = replace(heat, soundings=soundings)
    if not bases or (nodes is not None and now - nodes[0].seen_t < BATTERY.every_s):
        return heat
    if nodes is None:
        found = tuple(first_seen(min(bases), now, traits, 0.0) for traits in BATTERY.bodies)
    else:
        pairs = zip(nodes, BATTERY.bodies, strict=True)
        found = tuple(_heard(node, traits, work, now, min(bases)) for node, traits in pairs)
    return replace(heat, nodes={**heat.nodes, BATTERY.name: found})


def _is_cooler(value: float, node: Node, work: Work, taken_t: float) -> bool:
    """Whether even a part that has not cooled down yet is cooler than the battery was thought to be."""
    if taken_t - node.seen_t < AGAIN_S:
        return False
    return value < advanced(node, BATTERY.bodies[0], loads(work, node.t, taken_t, 0.0)).temp_c - 1.0


def _hidden(signal: Signal, heat: Heat, base_c: float) -> float:
    """How much warmer than its surface a battery may be, in degrees: some of what both are above the air."""
    nodes = heat.nodes.get(BATTERY.name)
    if nodes is None or signal.name != "skin_c":
        return 0.0
    return SURFACE * max(0.0, base_c - likeliest(nodes, BATTERY)[0].idle_c)


def _heard(node: Node, traits: Traits, work: Work, now: float, base_c: float) -> Node:
    ahead = advanced(replace(node, step_c=FELT_STEP_C), traits, loads(work, node.t, now, 0.0))
    return replace(corrected(ahead, replace(traits, noise_c=FELT_NOISE_C), base_c), step_c=node.step_c)


def _changed(before: tuple[object, ...], after: tuple[object, ...]) -> bool:
    return any(a is not None and b is not None and a != b for a, b in zip(before, after, strict=True))


def _disturbed(nodes: tuple[Node, ...], signal: Signal) -> tuple[Node, ...]:
    return tuple(disturbed(node, traits) for node, traits in zip(nodes, signal.bodies, strict=True))


def _sampled(
    heat: Heat, signal: Signal, value: float, reading: Reading, work: Work, now: float, *, assumed: float
) -> Heat:
    taken_t = min(now, reading.t - age_s(reading, signal.name))
    nodes, apart = heat.nodes.get(signal.name), work.piece_s >= LONG_S
    if nodes is not None and apart:
        nodes = tuple(doubted(node, traits) for node, traits in zip(nodes, signal.bodies, strict=True))
    if signal.peaks:
        heat, peak_c = _peak(heat, signal, value, work, now)
        if peak_c is None:
            return heat
        value, taken_t = peak_c, now
    if nodes is None or taken_t - nodes[0].t > COLD_START_S or nodes[0].t - taken_t > signal.every_s:
        learned = _begun(signal, value, taken_t, nodes, load=assumed)
    elif taken_t - nodes[0].seen_t < signal.every_s:
        return heat
    else:
        spans = tuple(_loads(signal, work, nodes[0].t, taken_t, assumed))
        pairs, tells = zip(nodes, signal.bodies, strict=True), _has_worked(work, taken_t, assumed)
        learned = tuple(
            corrected(advanced(node, traits, spans), traits, value, tells=tells, apart=apart) for node, traits in pairs
        )
    if signal is FINER:
        heat = replace(heat, finer=(*heat.finer, (taken_t, value))[-MOST_FINER:])
    if signal is BATTERY:
        counts = FINER.value(reading) is not None or reading.freq_share is not None
        heat = _fitted(heat, learned[0], value, taken_t, work, assumed=assumed, counts=counts)
    return replace(heat, nodes={**heat.nodes, signal.name: learned})


def without_course(heat: Heat) -> Heat:
    """The same, but for the battery's course, which then begins anew."""
    return replace(heat, course=None, fitted=None, finer=())


def _fitted(heat: Heat, node: Node, value: float, taken_t: float, work: Work, *, assumed: float, counts: bool) -> Heat:
    """With the course of the battery's own samples; ``node`` knows their steps and how often they come. None is begun
    where `surest` would not take it, so that it never ``counts``."""
    before = heat.course
    if before is None and not counts:
        return heat
    if before is not None and not 0.0 <= taken_t - before.t <= COLD_START_S:
        before = None
    course = continued(
        before,
        value,
        taken_t,
        node.step_c,
        lambda start, until: loads(work, start, until, assumed),
        heat.finer,
        warm=node.temp_c > node.idle_c + WARM_C,
    )
    later = tuple(pair for pair in heat.finer if pair[0] > taken_t)
    return replace(heat, course=course, fitted=told(course, FITTED, node.every_s, node.step_c), finer=later)


def _has_worked(work: Work, t: float, assumed: float) -> bool:
    """Whether there was work of late: how idling cools says nothing of how work warms, and slow bodies, which work
    hardly warms, foretell it best."""
    return any(load > 0.0 for _, load in loads(work, t - KEPT_S, t, assumed))


def _begun(signal: Signal, value: float, t: float, before: tuple[Node, ...] | None, *, load: float) -> tuple[Node, ...]:
    """Estimates from one sample; how work warms stays known. A peak holds the warmth of the work that made it."""
    found = tuple(first_seen(value, t, traits, load) for traits in signal.bodies)
    if signal.peaks:
        pairs = zip(found, signal.bodies, strict=True)
        found = tuple(replace(n, idle_c=value - 0.5 * load * traits.warming * traits.tau_s) for n, traits in pairs)
    if before is None:
        return found
    return tuple(
        replace(
            new,
            warming=old.warming,
            bb=old.bb,
            lag_s=old.lag_s,
            ll=old.ll,
            step_c=min(old.step_c, new.step_c),
            misfit=old.misfit,
            misfit_before=old.misfit,
            tried=old.tried,
        )
        for new, old in zip(found, before, strict=True)
    )


def surest(heat: Heat, signal: Signal, *, clock: bool = False) -> tuple[Node, Traits] | None:
    """The battery as its course tells it, where that is surer than what was filtered from sample to sample.

    Only where the finer scale is heard, or the ``clock`` of the processor is seen: a phone that works most of the time
    is slowed, and warms less for a second of work than later; whole degrees alone show that too late (0.3 C over the
    limit for a quarter of an hour, at 15 C).
    """
    if signal is not BATTERY or heat.fitted is None or heat.course is None or not (clock or heat.course.tied):
        return None
    node, _ = likeliest(heat.nodes[signal.name], signal)
    return heat.fitted if heat.fitted[0].t >= node.t and heat.fitted[0].tt < node.tt else None


def likeliest(nodes: tuple[Node, ...], signal: Signal) -> tuple[Node, Traits]:
    return min(zip(nodes, signal.bodies, strict=True), key=lambda pair: pair[0].misfit_before)


def likely(nodes: tuple[Node, ...], signal: Signal) -> list[tuple[Node, Traits]]:
    """The bodies that foretell the samples about as well as the best one."""
    return _as_likely(nodes, signal, MUCH_LIKE)


def possible(nodes: tuple[Node, ...], signal: Signal) -> list[tuple[Node, Traits]]:
    """The bodies that the samples have not ruled out: first all, in the end the best one alone."""
    return _as_likely(nodes, signal, UNTRIED * (1.0 - nodes[0].tried))


def _as_likely(nodes: tuple[Node, ...], signal: Signal, much_like: float) -> list[tuple[Node, Traits]]:
    least = min(node.misfit_before for node in nodes)
    pairs = zip(nodes, signal.bodies, strict=True)
    found = [(node, traits) for node, traits in pairs if node.misfit_before <= least + much_like]
    return sorted(found, key=lambda pair: pair[0].misfit_before)


def foretold(node: Node, traits: Traits, signal: Signal, work: Work, until: float, *, duty_now: float) -> Node:
    """The state at ``until`` unix seconds, after the work that was seen."""
    return advanced(node, traits, _loads(signal, work, node.t, until, _assumed(signal, work, duty_now)))


def _assumed(signal: Signal, work: Work, duty_now: float) -> float:
    """The load of time that no piece of work was told of; peaks know duties only."""
    return duty_now if work.begin_t is None or signal.peaks else 0.0


def _loads(signal: Signal, work: Work, start: float, until: float, assumed: float) -> Iterable[tuple[float, float]]:
    return [(until - start, assumed)] if signal.peaks else loads(work, start, until, assumed)


def _peak(heat: Heat, signal: Signal, value: float, work: Work, now: float) -> tuple[Heat, float | None]:
    """The highest value of a stretch in which there was work, when the stretch is over."""
    since, highest = heat.peak or (now, value)
    highest = max(highest, value)
    if now - since < signal.every_s and now >= since:
        return replace(heat, peak=(since, highest)), None
    worked = work.end_t is None or work.end_t > since
    return replace(heat, peak=None), highest if worked else None
