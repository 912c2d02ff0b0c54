"""Heat: every temperature that can be read is watched on its own, and the strictest says how much work there may be.

In order of trust: Android's thermal status, the battery, Android's headroom, the body, the processor. The battery of a
phone that shows neither itself nor headroom is felt through the others in rests, and for a while without any sample
it is reckoned. Where nothing at all was ever read, half the time is the most a battery device works.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import hypot

from ondevice.device.readings import Reading
from ondevice.governor.control import LONG_S, Cycle, duty_for, rest_before
from ondevice.governor.long_piece import parts, share, waited
from ondevice.governor.node import COARSE_C, Node, Traits, advanced, corrected, disturbed, first_seen, resolution
from ondevice.governor.offset import Offset, compared, unsure_c
from ondevice.governor.presets import Policy
from ondevice.governor.signals import BATTERY, FELT_THROUGH, FINER, SIGNALS, Signal, age_s, feels
from ondevice.governor.sounding import AGAIN_S, REST_S, Sounding, felt, sounded
from ondevice.governor.work import Work, burst_s, loads, mean_load

__all__ = [
    "COLD_START_S",
    "Cap",
    "Heat",
    "bundled_s",
    "caps",
    "stopped",
    "watched",
]

SEVERE, MODERATE = 3, 2
UNKNOWN_DUTY = 0.5
MODERATE_DUTY = 0.5
LEAST_PEAK_DUTY = 0.03  # a peak can be seen only while working, so it keeps nobody from beginning
BUNDLE_S = 10.0  # the shortest rest of a phone whose processor is far from its own limit,
CPU_ROOM_C = 10.0  # so many degrees or more
SURFACE = 0.06  # share of its warmth above the air by which a battery may be warmer than the body
FELT_STEP_C, FELT_NOISE_C = 0.05, 0.4  # of a battery that is felt through another part
RECKONED_S = 1800.0  # without any sample the last estimate is carried on for so long
MUCH_LIKE = 0.2  # of a sample's misfit: bodies nearer to the best than this are as likely
COOLER_S = 12.0  # of full work: cores that rest more are slowed less, and one second of work then warms more
APPROACH_S = 40.0  # the same for duty yet to be given up, at full load: at first nobody knows by how much more
SWING = 0.06  # of duty: less is no approach
LATE_S = 2.0  # a sample from before another is compared with it all the same
COLD_START_S = 600.0  # unwatched for so long, what was learned of the temperature itself is worth nothing


@dataclass(frozen=True, kw_only=True)
class Heat:
    """What is remembered: an estimate for each signal, the peak being collected, and the last stop."""

    nodes: dict[str, tuple[Node, ...]] = field(default_factory=dict)  # of each signal one for each body
    peak: tuple[float, float] | None = None  # since when, degrees
    soundings: dict[str, Sounding] = field(default_factory=dict)  # through each part
    offset: Offset | None = None  # of the battery above Android's scale
    stopped_t: float | None = None
    surroundings: tuple[bool | None, str | None, bool | None] = (None, None, None)


@dataclass(frozen=True)
class Cap:
    """The most work that one signal allows, and the sentence for it. ``swings``: it follows every rest and piece;
    ``left_s``: seconds to rest before a long piece."""

    duty: float
    why: str
    swings: bool = False
    left_s: float | None = None
    parts: int = 1  # into which a long piece should be cut


# --- watching ---------------------------------------------------------------------------------------------------------


def watched(heat: Heat, reading: Reading, work: Work, now: float, *, duty_now: float, handheld: bool) -> Heat:
    """What is known after a reading, where ``duty_now`` was ordered before."""
    surroundings = (reading.plugged, reading.charging, reading.screen_on)
    nodes = heat.nodes
    if _changed(heat.surroundings, surroundings):
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
    node, traits = _likeliest(fine, FINER)
    if not node.t - LATE_S <= taken_t <= node.seen_t + FINER.stale_s:
        return heat
    ahead = advanced(node, traits, loads(work, node.t, taken_t, _assumed(FINER, work, duty_now)))
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
            sounding = sounded(soundings.get(signal.name, Sounding()), value, taken_t, work.end_t)
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
    return SURFACE * max(0.0, base_c - _likeliest(nodes, BATTERY)[0].idle_c)


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
    nodes = heat.nodes.get(signal.name)
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
        pairs = zip(nodes, signal.bodies, strict=True)
        learned = tuple(corrected(advanced(node, traits, spans), traits, value) for node, traits in pairs)
    return replace(heat, nodes={**heat.nodes, signal.name: learned})


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
            step_c=min(old.step_c, new.step_c),
            misfit=old.misfit,
            misfit_before=old.misfit,
        )
        for new, old in zip(found, before, strict=True)
    )


def _likeliest(nodes: tuple[Node, ...], signal: Signal) -> tuple[Node, Traits]:
    return min(zip(nodes, signal.bodies, strict=True), key=lambda pair: pair[0].misfit_before)


def _likely(nodes: tuple[Node, ...], signal: Signal) -> list[tuple[Node, Traits]]:
    """The bodies that foretell the samples about as well as the best one."""
    least = min(node.misfit_before for node in nodes)
    pairs = zip(nodes, signal.bodies, strict=True)
    return [(node, traits) for node, traits in pairs if node.misfit_before <= least + MUCH_LIKE]


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


# --- judging ----------------------------------------------------------------------------------------------------------


def stopped(heat: Heat, reading: Reading, policy: Policy, now: float) -> tuple[Heat, str]:
    """Whether heat forbids all work, and since when; the sentence is empty where it does not."""
    why = _too_hot(reading, policy)
    if why:
        return replace(heat, stopped_t=now), f"Stopped: {why}"
    if heat.stopped_t is None:
        return heat, ""
    if 0 <= now - heat.stopped_t < policy.back_off_s:
        left = round(policy.back_off_s - (now - heat.stopped_t))
        return heat, f"Cooling down after it was too hot: at least {left} s more."
    if why := _still_warm(reading, policy):
        return heat, f"Cooling down after it was too hot: {why}"
    return replace(heat, stopped_t=None), ""


def _too_hot(reading: Reading, policy: Policy) -> str:
    status = _status(reading)
    if status is not None and status >= SEVERE:
        return f"Android says its heat is severe or worse (status {status})."
    for signal in SIGNALS:
        value = signal.value(reading)
        if value is not None and value >= signal.limit(policy) + signal.hard_over_c:
            return f"{_figures(signal, value, policy)}; no work until it has cooled down."
    return ""


def _still_warm(reading: Reading, policy: Policy) -> str:
    if reading.battery_c is not None and reading.battery_c > policy.resume_battery_c:
        return f"battery {reading.battery_c:g} C, work begins again at {policy.resume_battery_c:g}."
    for signal in SIGNALS[1:]:
        value = signal.value(reading)
        if value is not None and value >= signal.limit(policy):
            return f"{_figures(signal, value, policy)}."
    return ""


def _status(reading: Reading) -> int | None:
    return None if age_s(reading, "thermal_status") > 60.0 else reading.thermal_status


def _figures(signal: Signal, value: float, policy: Policy) -> str:
    limit, unit = signal.limit(policy) / signal.scale_c, " C" if signal.scale_c == 1.0 else ""
    shown = f"{value:.1f}" if unit else f"{value / signal.scale_c:.2f}"
    return f"{signal.words} {shown}{unit}, limit {limit:g}"


def caps(
    heat: Heat, reading: Reading, policy: Policy, work: Work, now: float, *, duty_now: float, handheld: bool
) -> list[Cap]:
    """What each signal that can be read allows, and of a phone what the battery does even where it cannot."""
    found: list[Cap] = []
    rest_s = bundled_s(heat, reading, policy, work) if handheld else 0.0
    status = _status(reading)
    if status is not None and status >= MODERATE:
        found.append(Cap(MODERATE_DUTY, "Android says its heat is moderate."))
    view = _View(work, now, duty_now, rest_s)
    for signal in SIGNALS:
        value, allowed = signal.value(reading), None
        if _is_watched(signal, heat, reading, now, handheld=handheld):
            allowed = view.allowed(heat, signal, signal.limit(policy))
        if signal is BATTERY and heat.offset is not None and FINER.value(reading) is not None:
            limit_c, unsure = policy.max_battery_c - heat.offset.mean_c, unsure_c(heat.offset, now)
            finer = view.allowed(heat, FINER, limit_c, unsure_c=unsure)
            if allowed is None or finer.duty > allowed.duty:
                allowed = replace(finer, temp_c=finer.temp_c + heat.offset.mean_c)
        if allowed is None:
            continue
        duty = allowed.duty
        if signal.peaks and value is not None and value < signal.limit(policy):
            duty = max(LEAST_PEAK_DUTY, duty) if duty_now > 0 else 1.0
        why = f"{_figures(signal, allowed.temp_c, policy)}."
        found.append(Cap(duty, why, swings=signal is not BATTERY, left_s=allowed.left_s, parts=allowed.parts))
    return found


def _is_watched(signal: Signal, heat: Heat, reading: Reading, now: float, *, handheld: bool) -> bool:
    """Whether there is an estimate worth steering by: of a phone's battery also for a while without any sample."""
    nodes = heat.nodes.get(signal.name)
    if nodes is None or signal.value(reading) is not None:
        return nodes is not None
    reckoned = signal is BATTERY and handheld and FINER.value(reading) is None
    return reckoned and now - nodes[0].seen_t < RECKONED_S


@dataclass(frozen=True, order=True)
class _Allowed:
    duty: float
    temp_c: float  # of now
    left_s: float | None = None  # of rest before a long piece
    parts: int = 1


@dataclass(frozen=True)
class _View:
    """One moment of the work, to ask what each signal allows."""

    work: Work
    now: float
    duty_now: float
    rest_s: float

    def allowed(self, heat: Heat, signal: Signal, limit_c: float, *, unsure_c: float = 0.0) -> _Allowed:
        """On the signal's own scale, where the limit is known to ``unsure_c``."""
        work, duty_now = self.work, self.duty_now
        cycle = Cycle(0.0, 0.0) if signal.peaks else _cycle(work, self.now, duty_now)
        if self.rest_s and not signal.peaks:
            cycle = replace(cycle, rest_s=self.rest_s, burst_s=burst_s(work) if cycle.rested_s is not None else 0.0)
        found = []
        for node, traits in self._bodies(heat.nodes[signal.name], signal):
            ahead = advanced(node, traits, _loads(signal, work, node.t, self.now, _assumed(signal, work, duty_now)))
            if cycle.piece_s < LONG_S:
                cooler_s = 0.0 if signal.peaks else self._cooler_s(ahead, traits, limit_c)
                unsure = hypot(unsure_c, ahead.warming * cooler_s)
                duty = duty_for(ahead, traits, limit_c, cycle, duty_now=duty_now, unsure_c=unsure)
                found.append(_Allowed(duty, ahead.temp_c))
            else:
                left_s = waited(rest_before(ahead, traits, limit_c, cycle, unsure_c=unsure_c), cycle)
                cut = parts(ahead, limit_c, cycle.piece_s)
                found.append(_Allowed(share(cycle, left_s), ahead.temp_c, left_s, cut))
        return min(found)

    def _cooler_s(self, node: Node, traits: Traits, limit_c: float) -> float:
        """Seconds of full work for which distance is kept while it works less than of late, or will have to soon."""
        if not self.duty_now > 0:
            return 0.0
        of_late = mean_load(self.work, self.now)
        in_the_end = max(0.0, limit_c - node.idle_c) / (node.warming * traits.tau_s)
        far = of_late - min(self.duty_now, in_the_end) - SWING
        return max(0.0, COOLER_S * (of_late - self.duty_now), APPROACH_S * of_late * far)

    def _bodies(self, nodes: tuple[Node, ...], signal: Signal) -> list[tuple[Node, Traits]]:
        """The strictest of the likely ones counts; a long piece goes by one alone, or none might ever begin."""
        if not self.work.spans:
            return [(nodes[0], signal.bodies[0])]
        return [_likeliest(nodes, signal)] if self.work.piece_s >= LONG_S else _likely(nodes, signal)


def bundled_s(heat: Heat, reading: Reading, policy: Policy, work: Work) -> float:
    """How long a phone's rests should be at least; short pieces run together between them.

    A core that is warm is slowed by the kernel and does more for a joule, as long as it is not near its own limit; and
    where the battery can only be felt, that takes a longer rest.
    """
    if work.piece_s >= LONG_S:
        return 0.0
    if feels(reading):
        return REST_S
    peaks = heat.nodes.get("cpu_c")
    if peaks is None or reading.cpu_c is None:
        return 0.0
    return BUNDLE_S * min(1.0, max(0.0, (policy.max_cpu_c - peaks[0].temp_c) / CPU_ROOM_C))


def _cycle(work: Work, now: float, duty_now: float) -> Cycle:
    if work.end_t is None:
        return Cycle(work.piece_s, None, first=True)
    return Cycle(work.piece_s, now - work.end_t if duty_now > 0 else None)
