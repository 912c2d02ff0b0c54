"""How much work every temperature that is watched allows; the strictest counts.

In order of trust: Android's thermal status, the battery, Android's headroom, the body, the processor. A battery is
reckoned for a while without any sample. Where nothing at all was ever read, half the time is the most a battery device
works. What is known of each temperature is the business of `ondevice.governor.heat`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot

from ondevice.device.readings import Reading
from ondevice.governor.control import LONG_S, Cycle, duty_for, rest_before
from ondevice.governor.heat import Heat, foretold, likeliest, likely, possible, surest
from ondevice.governor.long_piece import is_long, parts, share, waited
from ondevice.governor.node import Node, Traits, in_unit
from ondevice.governor.offset import unsure_c
from ondevice.governor.presets import Policy
from ondevice.governor.signals import BATTERY, FELT_THROUGH, FINER, SIGNALS, Signal, age_s, feels
from ondevice.governor.sounding import REST_S
from ondevice.governor.work import PAUSE_S, Work, burst_s, clock_is_seen, mean_busy

__all__ = ["UNKNOWN_DUTY", "Cap", "bundled_s", "caps", "stopped"]

SEVERE, MODERATE = 3, 2
UNKNOWN_DUTY = 0.5
MODERATE_DUTY = 0.5
LEAST_PEAK_DUTY = 0.03  # a peak can be seen only while working, so it keeps nobody from beginning
BUNDLE_S = 15.0  # the shortest rest of a phone whose processor is far from its own limit,
CPU_ROOM_C = 10.0  # so many degrees or more,
BATTERY_ROOM_C = 8.0  # whose battery idles so far below its limit,
SKIN_ROOM_C = 10.0  # and whose body is so far below its own, since it swings with every bundle
RECKONED_S = 1800.0  # without any sample the last estimate is carried on for so long
COOLER_S = 12.0  # of full work: cores that rest more are slowed less, and one second of work then warms more
APPROACH_S = 40.0  # the same for duty yet to be given up, at full load: at first nobody knows by how much more,
CLOCKED = 0.5  # times as much where the clock of the processor tells part of it
SWING = 0.06  # of duty: less is no approach
ALONE_C = 0.2  # deviation of Android's scale where no battery was read beside it: its errors show nowhere else


@dataclass(frozen=True)
class Cap:
    """The most work that one signal allows, and the sentence for it. ``swings``: it follows every rest and piece;
    ``left_s``: seconds to rest before a long piece."""

    duty: float
    why: str
    swings: bool = False
    left_s: float | None = None
    parts: int = 1  # into which a long piece should be cut


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
            alone = signal is FINER and heat.offset is None
            allowed = view.allowed(heat, signal, signal.limit(policy), unsure_c=ALONE_C if alone else 0.0)
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
        found.append(Cap(duty, why, swings=signal.name in FELT_THROUGH, left_s=allowed.left_s, parts=allowed.parts))
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
        for node, traits in self._bodies(heat, signal):
            ahead = foretold(node, traits, signal, work, self.now, duty_now=duty_now)
            if not signal.peaks:
                ahead = in_unit(ahead, work.power_share)
            if not is_long(ahead, limit_c, cycle.piece_s, signal.much):
                cooler_s = 0.0 if signal.peaks else self._cooler_s(ahead, traits, limit_c)
                unsure = hypot(unsure_c, ahead.warming * cooler_s)
                duty = duty_for(ahead, traits, limit_c, cycle, duty_now=duty_now, unsure_c=unsure)
                found.append(_Allowed(duty, ahead.temp_c))
            else:
                left_s = rest_before(ahead, traits, limit_c, cycle, unsure_c=unsure_c)
                if left_s is None and found and work.piece_s >= LONG_S:
                    continue  # only the likeliest, which comes first, may forbid every piece
                left_s = waited(left_s, cycle)
                cut = parts(ahead, limit_c, cycle.piece_s)
                found.append(_Allowed(share(cycle, left_s), ahead.temp_c, left_s, cut))
        return min(found)

    def _cooler_s(self, node: Node, traits: Traits, limit_c: float) -> float:
        """Seconds of full work for which distance is kept while it works less than of late, or will have to soon."""
        if not self.duty_now > 0:
            return 0.0
        approach_s = APPROACH_S * (CLOCKED if clock_is_seen(self.work, self.now) else 1.0)
        of_late = mean_busy(self.work, self.now)
        in_the_end = max(0.0, limit_c - node.idle_c) / (node.warming * traits.tau_s)
        far = of_late - min(self.duty_now, in_the_end) - SWING
        return max(0.0, COOLER_S * (of_late - self.duty_now), approach_s * of_late * far)

    def _bodies(self, heat: Heat, signal: Signal) -> list[tuple[Node, Traits]]:
        """The strictest of the likely ones counts; in the end a long piece goes by one, or none might ever begin."""
        nodes, known = heat.nodes[signal.name], surest(heat, signal, clock=clock_is_seen(self.work, self.now))
        if known is not None:
            return [known]
        if not self.work.spans:
            return [(nodes[0], signal.bodies[0])]
        return possible(nodes, signal) if self.work.piece_s >= LONG_S else likely(nodes, signal)


def bundled_s(heat: Heat, reading: Reading, policy: Policy, work: Work) -> float:
    """How long a phone's rests should be at least; short pieces run together between them.

    A core that is warm is slowed by the kernel and does more for a joule, as long as neither it nor the body is near
    its own limit and a bundle warms the battery by a small part of its room; and where the battery can only be felt,
    that takes a longer rest.
    """
    if work.piece_s >= LONG_S:
        return 0.0
    if feels(reading):
        return REST_S
    peaks = heat.nodes.get("cpu_c")
    if peaks is None or reading.cpu_c is None:
        return 0.0
    far = (policy.max_cpu_c - peaks[0].temp_c) / CPU_ROOM_C
    rest_s = BUNDLE_S * min(far, _roomy(heat, policy), _cool_body(heat, reading, policy))
    return rest_s if rest_s > PAUSE_S else 0.0  # a shorter one is not told from a pause within a bundle


def _cool_body(heat: Heat, reading: Reading, policy: Policy) -> float:
    """From 0 to 1: how far the body is from its limit. A bundle shows there at once, and most of it fades as fast."""
    bodies = heat.nodes.get("skin_c")
    if bodies is None or reading.skin_c is None:
        return 1.0
    return min(1.0, (policy.max_skin_c - bodies[0].temp_c) / SKIN_ROOM_C)


def _roomy(heat: Heat, policy: Policy) -> float:
    """From 0 to 1: whether work has much room between where the battery idles and its limit."""
    watched = [(signal, heat.nodes[signal.name]) for signal in (BATTERY, FINER) if signal.name in heat.nodes]
    rooms_c = [signal.limit(policy) - likeliest(nodes, signal)[0].idle_c for signal, nodes in watched]
    return min([1.0, *(room_c / BATTERY_ROOM_C for room_c in rooms_c)])


def _cycle(work: Work, now: float, duty_now: float) -> Cycle:
    if work.end_t is None:
        return Cycle(work.piece_s, None, first=True)
    return Cycle(work.piece_s, now - work.end_t if duty_now > 0 else None)
