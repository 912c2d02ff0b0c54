"""What the feed knows of every run at one moment: frozen values that screens paint and tests compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALIVE", "Ask", "Event", "FeedSnapshot", "Points", "RunSnapshot", "Sample", "SourceLoss"]

ALIVE = frozenset({"running", "resting", "waiting", "asleep"})

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class SourceLoss:
    """Validation loss of one source: its last value and how it got there. The mixture's name is empty."""

    name: str
    last: float
    curve: Points


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Text the model wrote after a prompt."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the log. ``kind`` is the record's, or ``killed`` for a launch that ended without a word."""

    t: float | None
    kind: str
    step: int | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The last request of one verb: ``asked`` while its letter lies there, then ``accepted`` or ``refused``."""

    verb: str
    state: str
    t: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """One run as its files tell it. ``state`` is of `ondevice.run.liveness`, or ``gone`` or ``unknown``.

    Losses are nats a token, sizes MiB, temperatures degrees Celsius; None means that nobody knows. ``trouble`` holds
    sentences about what could not be read, ``share_read`` how much of the telemetry is folded in already.
    """

    name: str
    path: Path
    state: str
    hold: str = ""
    silent_since_t: float | None = None
    launches: int = 0
    kills: int = 0
    step: int = 0
    steps: int | None = None
    tokens: int = 0
    loss: float | None = None
    loss_curve: Points = ()
    val: tuple[SourceLoss, ...] = ()
    best_step: int | None = None
    best_loss: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    step_s: float | None = None
    tok_s: float | None = None
    tok_s_sustained: float | None = None
    eta_s: float | None = None
    rss_mb: float | None = None
    available_mb: float | None = None
    disk_free_mb: float | None = None
    cpu_c: float | None = None
    battery_percent: float | None = None
    plugged: bool | None = None
    checkpoints: tuple[int, ...] = ()
    samples: tuple[Sample, ...] = ()
    events: tuple[Event, ...] = ()
    asks: tuple[Ask, ...] = ()
    outcome: str = ""
    last_error: str = ""
    last_t: float | None = None
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
