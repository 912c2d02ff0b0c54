"""The battery's whole course of late, fitted at once: what samples say together is far more than one by one.

The body is that of `ondevice.governor.node`: ``dT/dt = (E + s t - T) / tau + b heat``, where heat follows the load with
a lag. For one tau and one lag every temperature of the course is linear in five unknowns: where it began, E, b, the
slope s, and how far a finer scale is off that measures the same. A sample says that the temperature lay within half a
step of it, but for noise; the likeliest course and its doubt are found at once (`ondevice.governor.course_fit`). That
is done for a few dozen pairs of tau and lag, for steady and for restless weather, and each counts by how well it
explains the samples. Old samples fade. Of whole degrees alone the fit knows the battery to 0.03 to 0.06 C, where a
filter that keeps a mean and a deviation, and so rounds off what each edge cuts away, knows it to 0.1 C (tools/LOG.md,
2026-11-22).

A sample that nobody expected ends the course: something else changed, and the samples before tell no more. A finer
scale that does not follow the battery is left aside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

from ondevice.governor.course_fit import NOISE_C, Fit
from ondevice.governor.node import Node, Traits

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Course", "continued", "told"]

TAUS_S = (150.0, 185.0, 225.0, 270.0, 330.0, 400.0, 500.0, 650.0, 850.0, 1150.0)
SHORT_S, SHORT_LAGS_S, LAG_SHARES = 450.0, (8.0, 11.0, 14.0, 18.0), (0.06, 0.09, 0.12, 0.16)  # below, and of tau above
WEATHER = ((1e-4, 0.4), (1e-3, 0.6))  # C/s: how steep a day may be, and how likely that is before any sample
FULL_C, FULL_SD_C = 30.0, 15.0  # what full work would warm in the end
START_SD_C, AGAIN_SD_C, IDLE_SD_C = 2.0, 6.0, 3.0  # AGAIN: where a course begins while the device is warm from work
HALF_S = 1800.0  # of what a sample counts
KEPT, ENOUGH, LEAST_S = 200, 8, 120.0
FAR = 4.0  # deviations beyond an edge
FINER_NOISE_C, OFF_SD_C = 0.13, 0.7
HEARD_S = 60.0  # of late, for the finer scale
MISFIT, MISFIT_SHARE = 4.0, 0.1  # from there on the finer scale does not follow the battery
UNSURE_C, UNSURE_SHARE = 0.02, 0.008  # at least, and of its warmth above idling: no phone is quite one body

Loads = Callable[[float, float], Iterable[tuple[float, float]]]  # from, until in unix seconds: (seconds, load)


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """Samples at ``times_s`` since ``began_t`` (unix seconds), the newest last, and for each model [model, ...] what
    its temperatures are linear in; ``state`` [model, 5] is that of ``now_s``, but for the load as it arrives, ``heat``.
    Samples of the finer scale are kept as their sums: ``squares`` [model, 5, 5] and ``pulls`` [model, 5].

    Nothing in it is ever changed in place.
    """

    began_t: float
    first_c: float
    times_s: tuple[float, ...]
    lows_c: tuple[float, ...]
    highs_c: tuple[float, ...]
    rows: np.ndarray  # [model, sample, 5]
    now_s: float
    state: np.ndarray
    heat: np.ndarray  # [model]
    theta: np.ndarray  # [model, 5]
    share: np.ndarray  # [model]: how likely it is
    spread: np.ndarray  # [model, 5, 5]: covariance of theta
    squares: np.ndarray
    pulls: np.ndarray
    start_sd_c: float = START_SD_C
    finer_s: float | None = None  # when the finer scale was last heard
    finer_c: float | None = None  # the finer scale where it is taken to be even with the first sample
    misfit: float = 1.0  # of the finer scale of late: squared errors over what was expected of them
    untied: bool = False  # it was found to measure something else

    @property
    def t(self) -> float:
        """Of the newest sample, unix seconds."""
        return self.began_t + self.now_s

    @property
    def tied(self) -> bool:
        """Whether the finer scale follows the battery and was heard of late."""
        return self.finer_s is not None and not self.untied and self.now_s - self.finer_s < HEARD_S


def continued(
    course: Course | None,
    sample_c: float,
    t: float,
    step_c: float,
    loads: Loads,
    finer: Iterable[tuple[float, float]] = (),
    *,
    warm: bool = False,
) -> Course:
    """With a sample of ``t`` (unix seconds), in steps of ``step_c``, and those of the finer scale (t, degrees) since
    the one before. ``warm``: where none is given, the new one begins while the device is warm from work."""
    if course is None:
        return _begun(sample_c, t, step_c, start_sd_c=AGAIN_SD_C if warm else START_SD_C)
    for at, finer_c in finer:
        if course.t < at <= t and not course.untied:
            course = _finer(_until(course, at, loads), finer_c)
    course = _until(course, t, loads)
    if course.misfit > MISFIT or _is_far(course, sample_c, step_c):
        untied = course.untied or course.misfit > MISFIT
        return _begun(sample_c, t, step_c, start_sd_c=AGAIN_SD_C, untied=untied)
    return _with(course, sample_c, step_c)


def told(course: Course, traits: Traits, every_s: float, step_c: float) -> tuple[Node, Traits] | None:
    """The state at the newest sample as one body, and what that body is like; None while too little is known."""
    import numpy as np

    if len(course.times_s) < ENOUGH or course.times_s[-1] - course.times_s[0] < LEAST_S:
        return None
    tau, lag, _, _ = _models()
    view = np.zeros((len(tau), 3, 5))
    view[:, 0] = course.state
    view[:, 1, 1], view[:, 1, 3] = 1.0, course.now_s
    view[:, 2, 2] = 1.0
    mean, covariance = _seen(course, view)  # temperature, idle, warming
    if not np.all(np.isfinite(covariance)) or mean[2] <= 0:
        return None
    tau_s, lag_s = float(course.share @ tau), float(course.share @ lag)
    node = Node(
        t=course.t,
        temp_c=float(mean[0]),
        idle_c=float(mean[1]),
        warming=float(mean[2]),
        lag_s=lag_s,
        heat=float(course.share @ course.heat),
        tt=float(covariance[0, 0]) + UNSURE_C**2 + (UNSURE_SHARE * max(0.0, float(mean[0] - mean[1]))) ** 2,
        te=float(covariance[0, 1]),
        tb=float(covariance[0, 2]),
        ee=float(covariance[1, 1]),
        eb=float(covariance[1, 2]),
        bb=float(covariance[2, 2]),
        step_c=step_c,
        seen_t=course.t,
        every_s=every_s,
        tried=1.0,
        ll=float(course.share @ (lag - lag_s) ** 2),
        slope=float(course.share @ course.theta[:, 3]),
    )
    return node, replace(traits, tau_s=tau_s, lag_s=lag_s)


@functools.cache
def _models() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """[model]: tau and lag in seconds, the deviation of the slope, how likely it is before any sample."""
    import numpy as np

    pairs = [
        (tau, lag)
        for tau in TAUS_S
        for lag in (SHORT_LAGS_S if tau < SHORT_S else [share * tau for share in LAG_SHARES])
    ]
    found = np.array([(*pair, *weather) for weather in WEATHER for pair in pairs])
    found.setflags(write=False)  # everyone has the same
    return found[:, 0], found[:, 1], found[:, 2], found[:, 3]


def _prior(first_c: float, start_sd_c: float) -> tuple[np.ndarray, np.ndarray]:
    """[model, 5]: means and deviations of how far it began from idling, E, b, the slope, and how far the finer scale
    is off."""
    import numpy as np

    tau, _, slope, _ = _models()
    one = np.ones_like(tau)
    mean = np.stack([0 * one, first_c * one, FULL_C / tau, 0 * one, 0 * one], axis=1)
    return mean, np.stack([start_sd_c * one, IDLE_SD_C * one, FULL_SD_C / tau, slope, OFF_SD_C * one], axis=1)


def _begun(sample_c: float, t: float, step_c: float, *, start_sd_c: float, untied: bool = False) -> Course:
    import numpy as np

    tau, _, _, share = _models()
    count, (mean, _) = len(tau), _prior(sample_c, start_sd_c)
    empty = Course(
        began_t=t,
        first_c=sample_c,
        times_s=(),
        lows_c=(),
        highs_c=(),
        rows=np.zeros((count, 0, 5)),
        now_s=0.0,
        state=np.tile([1.0, 1.0, 0.0, 0.0, 0.0], (count, 1)),
        heat=np.zeros(count),
        theta=mean,
        share=share,
        spread=np.zeros((count, 5, 5)),
        squares=np.zeros((count, 5, 5)),
        pulls=np.zeros((count, 5)),
        start_sd_c=start_sd_c,
        untied=untied,
    )
    return _with(empty, sample_c, step_c)


def _until(course: Course, t: float, loads: Loads) -> Course:
    """The state at ``t`` unix seconds."""
    import numpy as np

    tau, lag, _, _ = _models()
    start, _, warmth, ramp, _ = course.state.T
    heat, now_s = course.heat, course.now_s
    for seconds, load in loads(course.began_t + now_s, t):
        if seconds <= 0:
            continue
        keeps, settles, ahead = np.exp(-seconds / tau), np.exp(-seconds / lag), heat - load
        warmth = warmth * keeps + load * tau * (1 - keeps) + ahead * (settles - keeps) / (1 / tau - 1 / lag)
        heat = load + ahead * settles
        start = start * keeps
        ramp = (now_s + seconds - tau) + (ramp - (now_s - tau)) * keeps
        now_s += seconds
    state = np.stack([start, course.state[:, 1], warmth, ramp, course.state[:, 4]], axis=1)
    fades = 0.5 ** ((now_s - course.now_s) / HALF_S)
    return replace(
        course, now_s=now_s, state=state, heat=heat, squares=fades * course.squares, pulls=fades * course.pulls
    )


def _finer(course: Course, finer_c: float) -> Course:
    """With a sample of the finer scale, of now."""
    import numpy as np

    zero_c = finer_c if course.finer_c is None else course.finer_c
    value_c, row = finer_c - zero_c + course.first_c, course.state.copy()
    row[:, 4] = -1.0
    misfit = course.misfit
    if len(course.times_s) >= ENOUGH:
        mean, var = _expected(course, row)
        misfit += MISFIT_SHARE * ((value_c - mean) ** 2 / (var + FINER_NOISE_C**2) - misfit)
    precision = FINER_NOISE_C**-2
    return replace(
        course,
        finer_s=course.now_s,
        finer_c=zero_c,
        misfit=misfit,
        squares=course.squares + precision * np.einsum("ki,kj->kij", row, row),
        pulls=course.pulls + precision * value_c * row,
    )


def _is_far(course: Course, sample_c: float, step_c: float) -> bool:
    """Whether a sample lies where all that is known does not let it be."""
    if len(course.times_s) < ENOUGH:
        return False
    mean, var = _expected(course, course.state)
    return abs(sample_c - mean) > step_c / 2 + FAR * sqrt(var + NOISE_C**2)


def _expected(course: Course, row: np.ndarray) -> tuple[float, float]:
    """Mean and variance of what is linear in the unknowns by ``row`` [model, 5]."""
    mean, covariance = _seen(course, row[:, None])
    return float(mean[0]), float(covariance[0, 0])


def _seen(course: Course, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [value] and covariance [value, value] over all models of what is linear in their unknowns by ``view``
    [model, value, 5]."""
    import numpy as np

    each = np.einsum("kij,kj->ki", view, course.theta)
    mean = course.share @ each
    apart = each - mean
    within = np.einsum("k,kia,kab,kjb->ij", course.share, view, course.spread, view, optimize=True)
    return mean, within + np.einsum("k,ki,kj->ij", course.share, apart, apart)


def _with(course: Course, sample_c: float, step_c: float) -> Course:
    import numpy as np

    at_s = course.now_s
    times_s = (*course.times_s, at_s)[-KEPT:]
    lows_c, highs_c = (*course.lows_c, sample_c - step_c / 2)[-KEPT:], (*course.highs_c, sample_c + step_c / 2)[-KEPT:]
    rows = np.concatenate([course.rows, course.state[:, None, :]], axis=1)[:, -KEPT:]
    course = replace(course, times_s=times_s, lows_c=lows_c, highs_c=highs_c, rows=rows)
    counts = 0.5 ** ((at_s - np.array(times_s)) / HALF_S)
    fit = Fit(
        rows,
        np.array(lows_c),
        np.array(highs_c),
        counts,
        course.squares,
        course.pulls,
        *_prior(course.first_c, course.start_sd_c),
    )
    theta, spread, evidence = fit.likeliest(course.theta)
    evidence = evidence + np.log(_models()[3])
    share = np.exp(evidence - evidence.max())
    return replace(course, theta=theta, spread=spread, share=share / share.sum())
