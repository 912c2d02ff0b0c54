"""The one judgement: a reading, the limits and what happened before become an order and a new history.

Pure: the same arguments give the same answer. First what forbids work altogether (heat, hours, charge, screen; a full
disk is the business of who saves), then how much of it heat allows. Unknown is never taken for cool.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import tzinfo

from ondevice.device.readings import Reading
from ondevice.errors import UsageError
from ondevice.governor.caps import UNKNOWN_DUTY, Cap, bundled_s, caps, stopped
from ondevice.governor.control import LONG_S, least_duty
from ondevice.governor.heat import watched, without_course
from ondevice.governor.history import History
from ondevice.governor.hours import civil, is_open, next_open, parse_hours
from ondevice.governor.order import Order
from ondevice.governor.pace import allowed, crowding, heat_slowdown, slowdown
from ondevice.governor.power import judged
from ondevice.governor.presets import Policy, resolve
from ondevice.governor.room import memory_is_low
from ondevice.governor.signals import NAMES, age_s, feels, is_known
from ondevice.governor.steady import Steady, evened
from ondevice.governor.threads import Binding, bound, wanted
from ondevice.governor.work import clocked
from ondevice.run.schema import Limits

__all__ = ["decide"]

THINK_EVERY_S = 1.0  # between two computations of the duty; stops are looked for every time
OLD_S = 5.0
SCREEN_S = 60.0
TOLD_OVER_S = 300.0
LEAVE_AFTER_S = 20 * 60.0
FELT_DUTY = 0.95
LEAST_DUTY, RESTART_DUTY = 0.02, 0.03
FREE_FREQUENCY = 0.95
UNKNOWN_SLOWDOWN = 1.15  # where step times are the only thermometer they are taken seriously


def decide(
    reading: Reading, limits: Limits, history: History, now: float, *, zone: tzinfo | None = None
) -> tuple[Order, History]:
    """What to do from ``now`` (unix seconds) on. ``zone`` is where clocks are read; None: where the machine is."""
    reading, policy = _aged(reading, now), resolve(limits, handheld=history.handheld)
    history = _awake(_with_battery(history, reading), now)
    history, why_not, until_t, kind = _forbidden(reading, limits, policy, history, now, zone)
    if why_not:
        return _given(history, _parted(Order(kind=kind, duty=0.0, reason=why_not, until_t=until_t), history, now), now)
    if _is_fresh(history, now) and history.order is not None:
        return history.order, history
    return _working(reading, policy, history, now)


def _aged(reading: Reading, now: float) -> Reading:
    """A reading that was not taken just now is older than it says."""
    late_s = now - reading.t
    if late_s <= OLD_S:
        return reading
    ages_s = {name: reading.ages_s.get(name, 0.0) + late_s for name in (*NAMES, "freq_share")}
    return replace(reading, ages_s={**reading.ages_s, **ages_s}, t=now)


def _with_battery(history: History, reading: Reading) -> History:
    seen = reading.battery_percent is not None or reading.battery_c is not None or reading.plugged is False
    return replace(history, battery=True) if seen and not history.battery else history


def _awake(history: History, now: float) -> History:
    """After the clock was set back, times that were remembered mean nothing."""
    if history.decided_t is None or now >= history.decided_t - 1.0:
        return history
    stopped_t = now if history.heat.stopped_t is not None else None
    return replace(
        history,
        heat=replace(without_course(history.heat), nodes={}, peak=None, stopped_t=stopped_t),
        work=replace(history.work, begin_t=None, spans=()),
        since_t=now,
        screen_t=now if history.screen_t is not None else None,
        decided_t=None,
    )


def _is_fresh(history: History, now: float) -> bool:
    order, thought_t = history.order, history.decided_t
    return order is not None and order.kind == "run" and thought_t is not None and now - thought_t < THINK_EVERY_S


# --- what forbids work ------------------------------------------------------------------------------------------------


def _forbidden(
    reading: Reading, limits: Limits, policy: Policy, history: History, now: float, zone: tzinfo | None
) -> tuple[History, str, float | None, str]:
    """(history, sentence or "", until when, kind of order)."""
    heat, hot = stopped(history.heat, reading, policy, now)
    power, empty = judged(history.power, reading, policy, battery=history.battery)
    screen_t = now if reading.screen_on else history.screen_t
    history = replace(history, heat=heat, power=power, screen_t=screen_t)
    if hot:
        return history, hot, (heat.stopped_t or now) + policy.back_off_s, "rest"
    closed, opens_t = _closed(policy, now, zone)
    if closed:
        return history, closed, opens_t, "wait"
    if empty:
        return history, empty, None, "wait"
    if policy.pause_when_screen_on and screen_t is not None and 0 <= now - screen_t < SCREEN_S:
        return history, "Waiting while the screen is on.", None, "wait"
    return history, "", None, "run"


def _closed(policy: Policy, now: float, zone: tzinfo | None) -> tuple[str, float | None]:
    try:
        windows = parse_hours(policy.hours)
    except UsageError as error:
        return f"Waiting: {error}", None
    if is_open(windows, civil(now, zone)):
        return "", None
    opens_t = next_open(windows, now, zone)
    return f"Waiting for its hours: {policy.hours}; opens {civil(opens_t, zone):%a %H:%M}.", opens_t


def _parted(order: Order, history: History, now: float) -> Order:
    """A long wait is spent outside, where something starts the run again."""
    if order.kind != "wait" or not history.relaunched:
        return order
    before, since_t = history.order, history.since_t
    waited_s = now - since_t if before is not None and before.kind in ("wait", "leave") and since_t is not None else 0.0
    ahead_s = order.until_t - now if order.until_t is not None else waited_s
    if max(ahead_s, waited_s if order.until_t is None else 0.0) <= LEAVE_AFTER_S:
        return order
    return replace(order, kind="leave", reason=f"Leaving, to be started again later. {order.reason}")


# --- how much work ----------------------------------------------------------------------------------------------------


def _working(reading: Reading, policy: Policy, history: History, now: float) -> tuple[Order, History]:
    duty_now = _duty_now(history)
    history = _clocked(history, reading)
    heat = watched(history.heat, reading, history.work, now, duty_now=duty_now, handheld=history.handheld)
    known = is_known(reading)
    slowed = reading.freq_share is not None and reading.freq_share < FREE_FREQUENCY
    blind = not known and history.battery  # a machine on the mains looks after itself: its steps wait for others
    accepted = min(policy.max_slowdown, UNKNOWN_SLOWDOWN) if blind else policy.max_slowdown
    pace = allowed(history.pace, accepted, now, trusted=blind or slowed, blind=blind)
    history = replace(history, heat=heat, pace=pace)
    by_heat = caps(heat, reading, policy, history.work, now, duty_now=duty_now, handheld=history.handheld)
    if history.handheld and feels(reading):
        by_heat.append(Cap(FELT_DUTY, "its battery can be felt only in rests."))
    by_heat += _unknown_caps(history, known, plugged=bool(reading.plugged))
    history, by_heat = _evened(history, by_heat, now)
    tightest = min([Cap(policy.duty_max, ""), *by_heat], key=lambda cap: cap.duty)
    history = replace(
        history,
        binding=_bound(history, tightest, now, known=known, slowed=slowed),
        memory_low=memory_is_low(history.memory_low, reading, policy.min_available_share),
    )
    order = _order_of(tightest, by_heat, policy, history, now)
    if order.kind == "run" and history.handheld:
        order = replace(order, rest_s=round(bundled_s(heat, reading, policy, history.work), 1))
    order, history = _calm(history, order, now)
    return _given(history, order, now)


def _clocked(history: History, reading: Reading) -> History:
    """With the clock of the processor. Long pieces are all alike, from rest on: their last second says nothing more."""
    if history.work.piece_s >= LONG_S:
        return history
    clock_t = reading.t - age_s(reading, "freq_share")
    return replace(history, work=clocked(history.work, reading.freq_share, clock_t))


def _duty_now(history: History) -> float:
    """As ordered; of the rest before a first long piece nothing, since nobody works yet."""
    order = history.order
    waits = order is not None and order.left_s is not None and history.work.end_t is None
    return 0.0 if order is None or waits else order.duty


def _calm(history: History, order: Order, now: float) -> tuple[Order, History]:
    """What is told of a long piece's share of the time is its mean: the rest before it is judged anew all the while."""
    if order.left_s is None or order.kind != "run" or history.work.piece_s < LONG_S:
        return order, history
    steady = evened(history.steady, order.duty, now, over_s=TOLD_OVER_S, step=1.0)
    return replace(order, duty=order.duty if steady.duty is None else steady.duty), replace(history, steady=steady)


def _evened(history: History, caps: list[Cap], now: float) -> tuple[History, list[Cap]]:
    """The tightest cap that swings with every rest is evened out; a battery is slow and exact, and stays as it is."""
    swinging = [cap for cap in caps if cap.swings]
    if not swinging or history.work.piece_s >= LONG_S:
        return (history if history.work.piece_s >= LONG_S else replace(history, steady=Steady())), caps
    tightest = min(swinging, key=lambda cap: cap.duty)
    steady = evened(history.steady, tightest.duty, now)
    calm = replace(tightest, duty=tightest.duty if steady.duty is None else steady.duty)
    return replace(history, steady=steady), [calm, *(cap for cap in caps if not cap.swings)]


def _bound(history: History, tightest: Cap, now: float, *, known: bool, slowed: bool) -> Binding:
    """What speaks for another fit. Where nothing can overheat a battery, heat is not asked for."""
    hot = bool(tightest.why) if known else None if history.battery else False
    slow = crowding(history.pace) if hot is None else slowdown(history.pace) if not (hot or slowed) else None
    return bound(history.binding, tightest.duty, now, by_heat=hot, slow=slow, parts=tightest.parts)


def _unknown_caps(history: History, known: bool, *, plugged: bool) -> list[Cap]:
    """A laptop on the mains may run freely; a phone may not, since charging warms it too."""
    found = []
    slow = heat_slowdown(history.pace)
    if history.pace.duty < 1.0 and slow is not None:
        found.append(Cap(history.pace.duty, f"a step takes {slow:.2f} times what it took when cold."))
    if not known and history.battery and (history.handheld or not plugged):
        found.append(Cap(UNKNOWN_DUTY, "no temperature can be read, so half the time is the most."))
    return found


def _order_of(tightest: Cap, by_heat: list[Cap], policy: Policy, history: History, now: float) -> Order:
    before, low = history.order, history.memory_low
    resting = before is not None and before.kind == "rest"
    least = _least_duty(history.work.piece_s, resting=resting) if resting or tightest.left_s is None else 0.0
    if tightest.duty <= 0.0 or tightest.duty < least:
        return Order(kind="rest", duty=0.0, reason=f"Resting: {tightest.why}", save=low, shrink=low)
    reason = _sentence(tightest, by_heat, policy)
    wish = wanted(history.binding)
    threads = wish.threads if wish is not None else None
    if wish is not None and threads is not None:
        reason = f"{reason} {threads} thread{'s' * (threads > 1)} would serve better, because {wish.why}."
    elif wish is not None and wish.kind == "shorter":
        reason = f"{reason} Smaller pieces would serve better, because {wish.why}."
    if low:
        reason = f"Memory runs out: saving, and a smaller fit is asked for. {reason}"
    return Order(duty=tightest.duty, left_s=tightest.left_s, threads=threads, reason=reason, save=low, shrink=low)


def _least_duty(piece_s: float, *, resting: bool) -> float:
    """Below this it is a rest, of which the end is looked for, and not a duty. A long piece begins when it may."""
    if not resting:
        return min(LEAST_DUTY, least_duty(piece_s))
    return RESTART_DUTY if piece_s < LONG_S else 0.95


def _sentence(tightest: Cap, by_heat: list[Cap], policy: Policy) -> str:
    rest = round(100 * (1 - tightest.duty))
    why = tightest.why
    if not why and policy.duty_max < 1.0:
        why = f"the limit duty_max is {policy.duty_max:g}."
    if not why:
        why = by_heat[0].why if by_heat else "nothing speaks against it."
    return f"Resting {rest} %: {why}" if rest else f"Working all the time: {why}"


def _given(history: History, order: Order, now: float) -> tuple[Order, History]:
    before = history.order
    same = before is not None and (before.kind == order.kind or {before.kind, order.kind} == {"wait", "leave"})
    since_t = history.since_t if same else now
    return order, replace(history, order=order, since_t=since_t, decided_t=now)
