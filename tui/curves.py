"""The curves of one run while its story is read: step records, evaluations and readings become `tui.plots.Plots`.

Time is the story's own: a clock that was set makes neither a gap nor a loop, and on a simulated device its own counts.
What a restart lost is cut off by step; readings and duty stay, they happened.
"""

from __future__ import annotations

from array import array
from typing import Any

from ondevice.run.series import Series
from ondevice.run.telemetry import as_numbers
from tui.plots import BY_STEP, BY_TIME, SMOOTH, VAL, Plots
from tui.rows import Steps
from tui.values import number, text, when, whole

__all__ = ["Curves"]

STEP_POINTS = 1 << 15  # of a curve: half a MiB
TIME_POINTS = 1 << 12
EVAL_POINTS = 1 << 11
SKETCH_POINTS = 256
_MOST_SOURCES = 200
_BACK_S = 300.0  # records of one block come out of order by less; a clock that goes back further was set
_FURTHEST = 1e12  # nobody's loss is a trillion, and beyond that differences overflow


class Curves:
    """``fold`` takes records, ``fold_steps`` many step records at once, ``plots()`` gives what there is."""

    def __init__(self) -> None:
        self._by_step = {name: Series(STEP_POINTS) for name in BY_STEP if name != "tok_s"}
        self._smooth = Series(STEP_POINTS, keep="mean")
        self._sketch = Series(SKETCH_POINTS)
        self._val: dict[str, Series] = {}
        self._by_time = {name: Series(TIME_POINTS) for name in BY_TIME}
        self._times, self._tokens = Series(STEP_POINTS), Series(STEP_POINTS)
        self._tokens_a_step: float | None = None
        self._began_t: float | None = None
        self._last_t, self._step_t_last, self._shift_s = 0.0, 0.0, 0.0
        self._duty = 1.0
        self._working_duty = 1.0

    @property
    def loss(self) -> Series:
        """In few points, for a sparkline."""
        return self._sketch

    def plots(self) -> Plots:
        """Frozen: it stays as it is while more is folded."""
        by_step = {name: series.curve() for name, series in self._by_step.items()}
        val = {VAL + name: series.curve() for name, series in self._val.items()}
        return Plots(
            by_step={**by_step, SMOOTH: self._smooth.curve(), **val},
            by_time={name: series.curve() for name, series in self._by_time.items()},
            times=self._times.curve(),
            tokens=self._tokens.curve(),
            began_t=self._began_t or 0.0,
            tokens_a_step=self._tokens_a_step,
        )

    def fold_steps(self, rows: Steps) -> None:
        """Many step records at once."""
        self._by_step["loss"].extend(rows.steps, rows.losses)
        self._by_step["lr"].extend(rows.marked, rows.lrs)
        self._by_step["grad_norm"].extend(rows.steps, rows.grad_norms)
        self._by_step["step_s"].extend(rows.steps, rows.steps_s)
        self._smooth.extend(rows.steps, rows.losses)
        self._sketch.extend(rows.steps, rows.losses)
        self._times.extend(rows.marked, array("d", map(self._step_t, rows.ts)))
        self._tokens.extend(rows.marked, rows.tokens)
        self._tokens_a_step = rows.tokens_a_step

    def fold(self, record: dict[str, Any]) -> None:
        """One record of any kind."""
        kind, step = text(record, "kind"), whole(record, "step")
        if kind == "note":
            self._shift_s -= number(record, "clock_jumped_s") or 0.0
        t = self._story_t(when(record) or 0.0)
        if kind == "step" and step is not None:
            self._fold_step(record, step)
        elif kind == "eval" and step is not None:
            self._fold_eval(record, step)
        elif kind == "reading":
            self._fold_reading(record, t)
        elif kind == "order":
            self._fold_order(record, t)
        elif kind == "launch":
            self._fold_launch(whole(record, "resumed_step"), t)
        elif kind == "end":
            self._set_duty(0.0, t)

    def _fold_step(self, record: dict[str, Any], step: int) -> None:
        for name, series in self._by_step.items():
            _add(series, step, number(record, name))
        for series in (self._smooth, self._sketch):
            _add(series, step, number(record, "loss"))
        self._times.add(step, self._step_t(when(record) or 0.0))
        tokens, step_s, tok_s = (number(record, name) for name in ("tokens", "step_s", "tok_s"))
        self._tokens.add(step, tokens)
        if step_s and tok_s:
            self._tokens_a_step = step_s * tok_s
        elif tokens and step > 0:
            self._tokens_a_step = tokens / step

    def _fold_eval(self, record: dict[str, Any], step: int) -> None:
        for name, loss in {**as_numbers(record.get("val_loss")), "": number(record, "val_loss_mixed")}.items():
            if name in self._val or len(self._val) < _MOST_SOURCES:
                _add(self._val.setdefault(name, Series(EVAL_POINTS)), step, loss)

    def _fold_reading(self, record: dict[str, Any], t: float) -> None:
        for name in record.keys() & self._by_time.keys():
            _add(self._by_time[name], t, number(record, name))
        self._by_time["duty"].add(t, self._duty)

    def _fold_order(self, record: dict[str, Any], t: float) -> None:
        order, duty = text(record, "order"), number(record, "duty")
        if order == "run" and duty is not None:
            self._working_duty = min(1.0, max(0.0, duty))
        self._set_duty(self._working_duty if order in ("run", "go") else 0.0, t)

    def _fold_launch(self, resumed_step: int | None, t: float) -> None:
        """Back to the checkpoint: what came later is lost and will happen again."""
        kept = -1 if resumed_step is None else resumed_step
        of_steps = (*self._by_step.values(), self._smooth, self._sketch, self._times, self._tokens)
        for series in (*of_steps, *self._val.values()):
            series.cut_after(kept)
        self._set_duty(0.0, self._last_t)
        self._working_duty = 1.0
        self._set_duty(1.0, t)

    def _set_duty(self, duty: float, t: float) -> None:
        """As a stair: what held until now, then what holds from now on."""
        series = self._by_time["duty"]
        if len(series):
            series.add(t, self._duty)
        self._duty = duty
        series.add(t + 0.001, duty)

    def _step_t(self, t: float) -> float:
        """Of steps, which are told by the hundred, after the readings between them."""
        self._step_t_last = max(self._step_t_last, self._story_t(t))
        return self._step_t_last

    def _story_t(self, t: float) -> float:
        """A time of the clock as a time of the story, which goes on where the clock was set back."""
        if self._began_t is None:
            self._began_t = self._last_t = t
        if t + self._shift_s < self._last_t - _BACK_S:
            self._shift_s = self._last_t - t
        self._last_t = max(self._last_t, t + self._shift_s)
        return t + self._shift_s


def _add(series: Series, x: float, y: float | None) -> None:
    if y is not None and abs(y) < _FURTHEST and x < 1e15:
        series.add(x, y)
