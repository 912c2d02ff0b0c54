"""One temperature as a first-order body that work warms: estimated from coarse, late, noisy samples (a Kalman filter).

``dT/dt = (E - T) / tau + b * heat``: E is where it goes without work, b what full work adds in degrees a second, and
``heat`` follows the load with a lag, since heat is stored between the cores and the sensor. E wanders with the weather.
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
    "first_seen",
    "resolution",
    "warmth",
]

FAR = 4.0  # deviations; a hotter sample means that something else changed, a cooler one is believed step by step
COARSE_C = 1.0
FORGETTING = 0.03
LEAST_WARMING, MOST_WARMING = 0.1, 4.0  # times what was believed: a sensor that lies must not teach anything
SLOPE_S, SLOPE_KEPT_S = 600.0, 3600.0  # how long corrections must go one way, and how long their mean is believed
SLOPE_KNOWN_C = 1.5  # deviation of the idle temperature from which on corrections are mostly learning
STEEPEST = 0.01  # C/s: 36 C an hour
SHAKEN = 0.08  # share of the heat on its way that one lag for all of it gets wrong


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What is believed of a kind of sensor before it was watched. Deviations end in ``_sd``; drifts are per sqrt(s)."""

    tau_s: float
    lag_s: float
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
    """The state at ``t`` unix seconds: temperature, idle temperature and warming, with their covariances."""

    t: float
    temp_c: float
    idle_c: float
    warming: float
    heat: float  # the load as it arrives at the sensor
    tt: float
    te: float
    tb: float
    ee: float
    eb: float
    bb: float
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


def resolution(sample_c: float, known: float) -> float:
    """The sensor's step: as fine as the finest sample so far was written."""
    for step_c in (1.0, 0.5, 0.1):
        if abs(sample_c / step_c - round(sample_c / step_c)) < 1e-6:
            return min(known, step_c)
    return min(known, 0.05)


def advanced(node: Node, traits: Traits, spans: Iterable[tuple[float, float]]) -> Node:
    """The state after spans of (seconds, load)."""
    kept, gained, heat, total_s, shaken = 1.0, 0.0, node.heat, 0.0, 0.0
    a, lag = 1 / traits.tau_s, 1 / traits.lag_s
    for seconds, load in spans:
        fade, settle = exp(-a * seconds), exp(-lag * seconds)
        gained = fade * gained + load * -expm1(-a * seconds) / a + (heat - load) * (fade - settle) / (lag - a)
        kept *= fade
        shaken += (heat - load) ** 2 * min(seconds, traits.lag_s) * traits.lag_s
        heat = load + (heat - load) * settle
        total_s += seconds
    if total_s <= 0:
        return node
    later = _spread(node, traits, kept, gained, total_s)
    return replace(later, tt=later.tt + (SHAKEN * node.warming) ** 2 * shaken, t=node.t + total_s, heat=heat)


def _spread(node: Node, traits: Traits, kept: float, gained: float, total_s: float) -> Node:
    """Mean and covariance through the linear map [[kept, 1 - kept, gained], [0, 1, 0], [0, 0, 1]]."""
    lost = 1 - kept
    te = kept * node.te + lost * node.ee + gained * node.eb
    tb = kept * node.tb + lost * node.eb + gained * node.bb
    tt = kept * (kept * node.tt + lost * node.te + gained * node.tb) + lost * te + gained * tb
    slope = node.slope
    return replace(
        node,
        temp_c=kept * node.temp_c
        + lost * node.idle_c
        + gained * node.warming
        + (total_s - lost * traits.tau_s) * slope,
        idle_c=node.idle_c + total_s * slope,
        slope=slope * exp(-total_s / SLOPE_KEPT_S),
        tt=tt + traits.drift**2 * total_s,
        te=te,
        tb=tb,
        ee=min(node.ee + traits.idle_drift**2 * total_s, (4 * traits.idle_sd) ** 2),
        bb=min(node.bb + (0.05 * traits.warming) ** 2 * total_s / 3600, (2 * traits.warming_sd) ** 2),
    )


def corrected(node: Node, traits: Traits, sample_c: float, *, tells: bool = True) -> Node:
    """The state after a sample of now. A hotter sample never makes the idle or the warming look cooler. ``tells``:
    whether it counts for which body this is."""
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
    found = _pulled(node, (mean - node.temp_c) / learned, deviation**2 / learned, traits)
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


def _pulled(node: Node, surprise: float, variance: float, traits: Traits) -> Node:
    """A measurement of the temperature whose surprise has that variance, in Joseph's form: right for any gain."""
    kt, ke, kb = node.tt / variance, max(0.0, node.te) / variance, max(0.0, node.tb) / variance
    lost = 1 - kt
    tt, te, tb = node.tt, node.te, node.tb
    noise = max(0.0, variance - tt)
    warming = node.warming + kb * surprise
    return replace(
        node,
        temp_c=node.temp_c + kt * surprise,
        idle_c=node.idle_c + ke * surprise,
        warming=min(MOST_WARMING * traits.warming, max(LEAST_WARMING * traits.warming, warming)),
        tt=lost * lost * tt + kt * kt * noise,
        te=lost * (te - ke * tt) + kt * ke * noise,
        tb=lost * (tb - kb * tt) + kt * kb * noise,
        ee=node.ee - 2 * ke * te + ke * ke * (tt + noise),
        eb=node.eb - kb * te - ke * tb + ke * kb * (tt + noise),
        bb=node.bb - 2 * kb * tb + kb * kb * (tt + noise),
    )


def warmth(node: Node, traits: Traits) -> float:
    """The temperature once the heat that is on its way has arrived, in degrees Celsius."""
    return node.temp_c + node.warming * traits.lag_s * node.heat
