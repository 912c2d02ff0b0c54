"""One temperature as a first-order body that work warms: estimated from coarse, late, noisy samples (a Kalman filter).

``dT/dt = (E - T) / tau + b * heat``: E is where it goes without work, b what full work adds in degrees a second, and
``heat`` follows the load with a lag, since heat is stored between the cores and the sensor. E wanders with the weather.
The lag differs from phone to phone; pieces that are long beside it tell it, and what is doubted of the heat on its way
is less from then on.
A sample in whole degrees says only between which edges the truth lies, and is taken as that. Knows no limits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import erf, exp, expm1, log, pi, sqrt

__all__ = [
    "COARSE_C",
    "Node",
    "Traits",
    "advanced",
    "between",
    "corrected",
    "disturbed",
    "doubted",
    "first_seen",
    "in_unit",
    "resolution",
    "warmth",
]

FAR = 4.0  # deviations; a hotter sample means that something else changed, a cooler one is believed step by step
COARSE_C = 1.0
FORGETTING = 0.03
LEAST_WARMING, MOST_WARMING = 0.4, 4.0  # times what was believed: else a steady course looks like one without work
SLOPE_S, SLOPE_KEPT_S = 600.0, 3600.0  # how long corrections must go one way, and how long their mean is believed
SLOPE_KNOWN_C = 1.5  # deviation of the idle temperature from which on corrections are mostly learning
STEEPEST = 0.01  # C/s: 36 C an hour
SHAKEN, LEAST_SHAKEN = 0.08, 0.02  # share of the heat on its way that is wrong: before the lag is known, and after
LEAST_LAG, MOST_LAG = 0.5, 2.0  # times what was believed
LAG_DRIFT = 0.05  # of its deviation, per sqrt(hour): what is forgotten of it


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What is believed of a kind of sensor before it was watched. Deviations end in ``_sd``; drifts are per sqrt(s)."""

    tau_s: float
    lag_s: float
    lag_sd: float  # seconds
    warming: float  # C/s of full work
    warming_sd: float
    idle_sd: float
    idle_drift: float
    drift: float
    noise_c: float
    spare_c: float  # kept under a limit even where the estimate is certain
    sure: float = 1.4  # deviations kept under it besides, while pieces are short


@dataclass(frozen=True, kw_only=True)
class Node:
    """The state at ``t`` unix seconds: temperature, idle temperature, warming and lag, with their covariances (t, e, b
    and l)."""

    t: float
    temp_c: float
    idle_c: float
    warming: float
    lag_s: float
    heat: float  # the load as it arrives at the sensor
    late: float = 0.0  # how that would differ if the lag were a second longer
    tt: float
    te: float
    tb: float
    tl: float = 0.0
    ee: float
    eb: float
    el: float = 0.0
    bb: float
    bl: float = 0.0
    ll: float = 0.0
    step_c: float = COARSE_C  # of the sensor
    seen_t: float = 0.0
    every_s: float = 20.0  # between samples
    misfit: float = 0.0  # how badly the samples were foretold of late; less is better
    misfit_before: float = 0.0  # the last sample, whose surprise shall not choose the body that judges it
    tried: float = 0.0  # how much of what tells which body it is was seen, to 1
    slope: float = 0.0  # C/s: how fast the idle temperature moves, as a warming day does


def first_seen(sample_c: float, t: float, traits: Traits, load: float) -> Node:
    """All that one sample says."""
    step_c = resolution(sample_c, COARSE_C)
    return Node(
        t=t,
        temp_c=sample_c,
        idle_c=sample_c,
        warming=traits.warming,
        lag_s=traits.lag_s,
        heat=load,
        tt=step_c**2 / 12 + traits.noise_c**2,
        te=0.0,
        tb=0.0,
        ee=traits.idle_sd**2,
        eb=0.0,
        bb=traits.warming_sd**2,
        step_c=step_c,
        seen_t=t,
    )


def doubted(node: Node, traits: Traits) -> Node:
    """With a lag that is to be learned; until then it is what was believed, and heat on its way is doubted at large."""
    return node if node.ll else replace(node, ll=traits.lag_sd**2)


def resolution(sample_c: float, known: float) -> float:
    """The sensor's step: as fine as the finest sample so far was written."""
    for step_c in (1.0, 0.5, 0.1):
        if abs(sample_c / step_c - round(sample_c / step_c)) < 1e-6:
            return min(known, step_c)
    return min(known, 0.05)


def advanced(node: Node, traits: Traits, spans: Iterable[tuple[float, float]]) -> Node:
    """The state after spans of (seconds, load)."""
    kept, gained, heat, total_s, shaken = 1.0, 0.0, node.heat, 0.0, 0.0
    a, lag = 1 / traits.tau_s, 1 / node.lag_s
    late, delayed = node.late, 0.0  # what one second more of lag does to the heat, and to what is gained
    for seconds, load in spans:
        fade, settle = exp(-a * seconds), exp(-lag * seconds)
        ahead, arrives_s = heat - load, (fade - settle) / (lag - a)
        gained = fade * gained + load * -expm1(-a * seconds) / a + ahead * arrives_s
        delayed = fade * delayed + late * arrives_s + ahead * lag**2 * (arrives_s - seconds * settle) / (lag - a)
        kept *= fade
        shaken += ahead**2 * min(seconds, node.lag_s) * node.lag_s
        heat, late = load + ahead * settle, settle * (late + ahead * lag**2 * seconds)
        total_s += seconds
    if total_s <= 0:
        return node
    later = _spread(node, traits, kept, gained, delayed * node.warming, total_s)
    tt = later.tt + (_shaken(node, traits) * node.warming) ** 2 * shaken
    return replace(later, tt=tt, t=node.t + total_s, heat=heat, late=late)


def _shaken(node: Node, traits: Traits) -> float:
    """Share of the heat on its way that may be wrong: the better the lag is known, the less."""
    unknown = node.ll / traits.lag_sd**2 if node.ll else 1.0
    return sqrt(LEAST_SHAKEN**2 + (SHAKEN**2 - LEAST_SHAKEN**2) * unknown)


def _spread(node: Node, traits: Traits, kept: float, gained: float, delayed: float, total_s: float) -> Node:
    """Mean and covariance through a linear map: only the temperature moves, by [kept, 1 - kept, gained, delayed]."""
    lost = 1 - kept
    te = kept * node.te + lost * node.ee + gained * node.eb + delayed * node.el
    tb = kept * node.tb + lost * node.eb + gained * node.bb + delayed * node.bl
    tl = kept * node.tl + lost * node.el + gained * node.bl + delayed * node.ll
    own = kept * node.tt + lost * node.te + gained * node.tb + delayed * node.tl
    slope = node.slope
    return replace(
        node,
        temp_c=kept * node.temp_c
        + lost * node.idle_c
        + gained * node.warming
        + (total_s - lost * traits.tau_s) * slope,
        idle_c=node.idle_c + total_s * slope,
        slope=slope * exp(-total_s / SLOPE_KEPT_S),
        tt=kept * own + lost * te + gained * tb + delayed * tl + traits.drift**2 * total_s,
        te=te,
        tb=tb,
        tl=tl,
        ee=_grown(node.ee, traits.idle_drift**2 * total_s, (4 * traits.idle_sd) ** 2),
        bb=_grown(node.bb, (0.05 * traits.warming) ** 2 * total_s / 3600, (2 * traits.warming_sd) ** 2),
        ll=_grown(node.ll, (LAG_DRIFT * traits.lag_sd) ** 2 * total_s / 3600, traits.lag_sd**2) if node.ll else 0.0,
    )


def _grown(variance: float, more: float, most: float) -> float:
    """Stops growing at ``most`` and is never cut: its covariances would then be those of no possible body."""
    return max(variance, min(variance + more, most))


def corrected(node: Node, traits: Traits, sample_c: float, *, tells: bool = True, apart: bool = False) -> Node:
    """The state after a sample of now. ``tells``: whether it counts for which body this is. ``apart``: whether work and
    rest are so long that warming, lag and idling are told apart; else the lag is left alone, and a hotter sample makes
    nothing look cooler."""
    step_c = resolution(sample_c, node.step_c)
    noise = traits.noise_c**2
    deviation = sqrt(node.tt + noise)
    misfit = _misfit(sample_c - node.temp_c, node.tt + noise + step_c**2 / 12)
    node = replace(
        node,
        step_c=step_c,
        seen_t=node.t,
        every_s=_spacing(node),
        misfit=node.misfit + FORGETTING * (misfit - node.misfit) * tells,
        misfit_before=node.misfit,
        tried=node.tried + FORGETTING * (1.0 - node.tried) * tells,
    )
    far_c = FAR * deviation + step_c / 2
    if sample_c > node.temp_c + far_c:
        node = disturbed(node, traits)
        deviation = sqrt(node.tt + noise)
    sample_c = max(sample_c, node.temp_c - far_c)  # however cool it is: doubt must not make less of a cool sample
    mean, variance = between(sample_c - step_c / 2, sample_c + step_c / 2, node.temp_c, deviation)
    learned = 1 - variance / deviation**2
    if learned < 1e-6:
        return node
    found = _pulled(node, (mean - node.temp_c) / learned, deviation**2 / learned, traits, apart=apart)
    return replace(found, slope=_slope(node, found.idle_c - node.idle_c))


def _slope(node: Node, moved_c: float) -> float:
    """Corrections of a well known idle temperature that go one way are the weather's slope, and no error."""
    slope = node.slope + moved_c / SLOPE_S / (1.0 + (node.ee / SLOPE_KNOWN_C**2) ** 2)
    return min(STEEPEST, max(-STEEPEST, slope))


def _misfit(surprise: float, variance: float) -> float:
    """Of one sample: minus twice the logarithm of its likelihood, bounded."""
    return min(25.0, surprise**2 / variance) + log(variance)


def _spacing(node: Node) -> float:
    return node.every_s + 0.3 * (min(60.0, max(1.0, node.t - node.seen_t)) - node.every_s)


def disturbed(node: Node, traits: Traits) -> Node:
    """Something that is not work changed: a charger, a screen, the sun. What was learned of idling is worth less."""
    return replace(node, ee=node.ee + traits.idle_sd**2, tt=node.tt + 0.25, slope=0.0)


def between(low: float, high: float, mean: float, deviation: float) -> tuple[float, float]:
    """Mean and variance of a normal variable that is known to lie between two edges."""
    a, b = (low - mean) / deviation, (high - mean) / deviation
    mass = 0.5 * (erf(b / sqrt(2)) - erf(a / sqrt(2)))
    if mass < 1e-9:  # far away: at the nearer edge
        return (low if a > 0 else high), (0.05 * deviation) ** 2
    tall_a, tall_b = (exp(-0.5 * x * x) / sqrt(2 * pi) for x in (a, b))
    shift = (tall_a - tall_b) / mass
    variance = 1 + (a * tall_a - b * tall_b) / mass - shift**2
    return mean + deviation * shift, deviation**2 * min(1.0, max(1e-4, variance))


def _pulled(node: Node, surprise: float, variance: float, traits: Traits, *, apart: bool) -> Node:
    """A measurement of the temperature whose surprise has that variance, in Joseph's form: right for any gain."""
    kt, ke, kb, kl = node.tt / variance, node.te / variance, node.tb / variance, node.tl / variance
    if not apart:
        ke, kb, kl = max(0.0, ke), max(0.0, kb), 0.0
    tt, te, tb, tl = node.tt, node.te, node.tb, node.tl
    whole = max(variance, tt)
    warming = _within(node.warming + kb * surprise, traits.warming, LEAST_WARMING, MOST_WARMING)
    lag_s = _within(node.lag_s + kl * surprise, traits.lag_s, LEAST_LAG, MOST_LAG)
    return replace(
        node,
        temp_c=node.temp_c + kt * surprise,
        idle_c=node.idle_c + ke * surprise,
        warming=warming,
        lag_s=lag_s,
        heat=node.heat + node.late * (lag_s - node.lag_s),
        tt=tt - 2 * kt * tt + kt * kt * whole,
        te=te - kt * te - ke * tt + kt * ke * whole,
        tb=tb - kt * tb - kb * tt + kt * kb * whole,
        tl=tl - kt * tl - kl * tt + kt * kl * whole,
        ee=node.ee - 2 * ke * te + ke * ke * whole,
        eb=node.eb - kb * te - ke * tb + ke * kb * whole,
        el=node.el - kl * te - ke * tl + ke * kl * whole,
        bb=node.bb - 2 * kb * tb + kb * kb * whole,
        bl=node.bl - kl * tb - kb * tl + kb * kl * whole,
        ll=node.ll - 2 * kl * tl + kl * kl * whole,
    )


def in_unit(node: Node, factor: float) -> Node:
    """The same where a load of 1 stands for ``factor`` times as many watts."""
    return replace(
        node,
        warming=factor * node.warming,
        heat=node.heat / factor,
        late=node.late / factor,
        tb=factor * node.tb,
        eb=factor * node.eb,
        bl=factor * node.bl,
        bb=factor**2 * node.bb,
    )


def _within(value: float, believed: float, least: float, most: float) -> float:
    return min(most * believed, max(least * believed, value))


def warmth(node: Node) -> float:
    """The temperature once the heat that is on its way has arrived, in degrees Celsius."""
    return node.temp_c + node.warming * node.lag_s * node.heat
