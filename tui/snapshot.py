"""What the feed knows of every run at one moment: frozen values that screens paint and tests compare.

Losses are nats a token, sizes MiB, temperatures degrees Celsius, times unix seconds, durations seconds; None means that
nobody knows. Text from files is printable already. Curves to zoom in are in ``run.plots`` (`tui.plots`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tui.plots import Plots

__all__ = [
    "ALIVE",
    "DEAD",
    "EVENT_GROUPS",
    "STATES",
    "Ask",
    "Event",
    "FeedSnapshot",
    "Heat",
    "Part",
    "Points",
    "RunSnapshot",
    "Sample",
    "Saved",
    "Sensor",
    "SourceLoss",
]

ALIVE = frozenset({"running", "resting", "waiting", "asleep"})
DEAD = frozenset({"new", "killed", "finished", "stopped", "failed"})
STATES = ALIVE | DEAD | {"gone", "newer", "damaged", "unknown"}
"""``newer``: of a later ondevice; ``damaged``: its papers cannot be read; ``gone``: deleted while it was watched;
``unknown``: no permission, or not a run."""

EVENT_GROUPS = ("launches", "kills", "orders", "evals", "saves", "letters", "notes")

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class SourceLoss:
    """Validation loss of one source: its last value and how it got there. The mixture's name is empty."""

    name: str
    last: float
    curve: Points


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Text the model wrote after a prompt; ``letter`` is the id of the letter that asked for it, else empty."""

    step: int
    prompt: str
    text: str
    t: float | None = None
    letter: str = ""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the log. ``kind`` is the record's, or ``killed`` for a launch that ended without a word.

    ``group`` is one of `EVENT_GROUPS`, for filters.
    """

    t: float | None
    kind: str
    step: int | None
    text: str
    group: str = "notes"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The last request of one verb.

    ``state``: ``asked`` while its letter lies there, then ``accepted`` or ``refused`` as the trainer answered, or
    ``expired`` where the run ended, or was launched again, before it was read. ``t`` is when it was asked or answered.
    """

    verb: str
    state: str
    t: float | None = None
    why: str = ""
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One thermometer and the limit that holds for it. ``name`` is ``battery_c``, ``skin_c`` or ``cpu_c``."""

    name: str
    label: str
    now_c: float | None
    limit_c: float | None

    @property
    def over_c(self) -> float | None:
        """Degrees above the limit; negative below it."""
        return None if self.now_c is None or self.limit_c is None else self.now_c - self.limit_c


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that is on disk. ``losses`` are of the evaluation at its step, the mixture under ``""``.

    ``pinned`` is the reason, or empty. ``light``: without its optimizer state, so nothing can be trained from it.
    """

    step: int
    t: float | None = None
    size_mb: float | None = None
    save_s: float | None = None
    losses: tuple[tuple[str, float], ...] = ()
    quality: float | None = None
    best: bool = False
    best_quality: bool = False
    pinned: str = ""
    light: bool = False

    @property
    def loss(self) -> float | None:
        """Of the mixture."""
        return dict(self.losses).get("")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a schedule: what is learned, in which stage, from where. ``state``: planned, active, failed, skipped
    or done; ``loss`` is the validation loss at its end, ``error`` why it failed or was skipped."""

    number: int
    name: str
    stage: str
    source: str
    steps: int | None
    tokens: int | None
    state: str
    loss: float | None = None
    tries: int = 0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One value of the last reading: key, words for a person, value with unit, or None where it is unknown."""

    name: str
    label: str
    value: float | str | bool | None
    unit: str = ""
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """One run as its files tell it. ``state`` is one of `STATES`.

    ``trouble`` holds sentences about what could not be read, ``share_read`` how much of the telemetry is folded in
    already (until it is 1, curves, events and checkpoints are of the part read so far; step and rates are of now).
    """

    name: str
    path: Path
    state: str
    # why it does not run, and until when
    hold: str = ""  # who paused it
    why: str = ""  # the governor's sentence, or the hold; empty where nothing keeps it
    until_t: float | None = None  # when it goes on, where that is known: waiting until 22:30
    silent_since_t: float | None = None
    death: str = ""  # of a killed run: what it probably died of
    phase: str = ""  # start, step, evaluate, sample or save
    recorded: str = ""  # a sentence where this is the replay of a recording: say it on screen
    simulated: str = ""  # the simulated device it trains on, as `--device` names it; empty on a real one
    # story
    launches: int = 0
    kills: int = 0
    began_t: float | None = None
    last_t: float | None = None
    outcome: str = ""
    last_error: str = ""
    parent: str = ""  # "notes at step 1200" for a fork
    # progress
    step: int = 0
    steps: int | None = None
    tokens: int = 0
    tokens_total: int | None = None
    epochs: float | None = None
    eta_s: float | None = None  # rests, closed hours and waits for the charger included where a forecast knows them
    done_t: float | None = None
    battery_s: float | None = None  # until the battery is at its floor
    wh_left: float | None = None
    price_left: float | None = None
    # learning
    loss: float | None = None
    loss_curve: Points = ()  # at most 256 points by step, for sparklines
    val: tuple[SourceLoss, ...] = ()
    best_step: int | None = None
    best_loss: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    # pace
    step_s: float | None = None
    tok_s: float | None = None  # burst: inside steps
    tok_s_sustained: float | None = None  # over the wall clock, rests and sleep included
    duty: float | None = None  # share of the time the governor lets it work now
    slept_s: float | None = None
    frozen_s: float | None = None
    threads: int | None = None
    # device
    heat: tuple[Heat, ...] = ()  # thermometers that can be read, the one nearest to its limit first
    cpu_c: float | None = None
    battery_c: float | None = None
    skin_c: float | None = None
    battery_percent: float | None = None
    battery_floor_percent: float | None = None
    plugged: bool | None = None
    charging: str = ""
    power_w: float | None = None
    rss_mb: float | None = None
    plan_mb: float | None = None  # memory that the plan foresaw
    max_rss_mb: float | None = None
    available_mb: float | None = None
    total_mb: float | None = None
    disk_free_mb: float | None = None
    min_free_disk_mb: float | None = None
    sensors: tuple[Sensor, ...] = ()
    written: dict[str, Any] = field(default_factory=dict)  # keys of [limits] that somebody wrote
    limits: dict[str, Any] = field(default_factory=dict)  # every key with the value that holds, by preset or written
    # what there is
    checkpoints: tuple[int, ...] = ()
    saved: tuple[Saved, ...] = ()  # the same with all that is known of them, oldest first
    samples: tuple[Sample, ...] = ()
    events: tuple[Event, ...] = ()
    asks: tuple[Ask, ...] = ()
    schedule: tuple[Part, ...] = ()
    plots: Plots = field(default_factory=Plots, compare=False)
    share_read: float = 1.0
    trouble: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether a trainer holds the run and may answer letters."""
        return self.state in ALIVE

    @property
    def share(self) -> float | None:
        """Progress between 0 and 1; None while the end is not known."""
        return min(1.0, max(0.0, self.step / self.steps)) if self.steps and self.steps > 0 else None

    @property
    def hottest(self) -> Heat | None:
        """The thermometer nearest to its limit."""
        return self.heat[0] if self.heat else None

    def asked(self, verb: str) -> Ask | None:
        """The last request of that verb in this launch."""
        return next((ask for ask in self.asks if ask.verb == verb), None)


@dataclass(frozen=True, kw_only=True)
class FeedSnapshot:
    """Every run, living ones first, then by last activity."""

    runs: tuple[RunSnapshot, ...] = ()
    trouble: tuple[str, ...] = ()

    @property
    def catching_up(self) -> bool:
        """Whether known telemetry waits to be read; ask again soon."""
        return any(run.share_read < 1 for run in self.runs)

    def find(self, path: Path) -> RunSnapshot | None:
        """The run at that path."""
        return next((run for run in self.runs if run.path == path), None)
