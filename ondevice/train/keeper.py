"""Keeps checkpoints: decides when one is due, commits it, reads it back, and only then prunes older ones.

Used by the loop alone. A save that fails leaves the older checkpoints untouched and is tried again later; for want of
room the loop waits. With ``limits.save_in_background`` one thread writes a copy of the state.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ondevice.device.host import existing_ancestor
from ondevice.device.memory import MIB
from ondevice.device.world import Readable
from ondevice.errors import CheckpointError, OndeviceError, ResourceError
from ondevice.run.directory import RunDir
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Limits
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train.checkpoint import Frozen, freeze, tensor_bytes, write
from ondevice.train.pruning import Pruned, Pruner
from ondevice.train.saving import SHARE, save_interval_s
from ondevice.train.state import TrainState

__all__ = ["Keeper", "Origin", "Saved", "Shortage"]

RETRY_S = 60.0
PAPERS_MB = 1.0  # state.json, manifest and headers, generously
SPARE_MB = 256.0  # memory that must remain beside a copy of the state


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the checkpoints of a launch come from; ``story`` is made durable before each of them."""

    story: TelemetryWriter
    recipe: Recipe
    fit: Fit
    launch: int


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A committed checkpoint: hash of its manifest, bytes it holds, steps removed and lightened since the last one.

    ``save_s`` is what it took, ``stall_s`` the part of it for which training stood still.
    """

    step: int
    sha256: str
    save_s: float
    stall_s: float
    bytes: int
    removed: list[int]
    lightened: list[int]
    trained_tokens: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """A disk without room for one more checkpoint. ``need_mb`` includes what must remain free.

    ``not_before`` (`time.monotonic`): when to try again where the system says full but counts enough free bytes.
    """

    need_mb: float
    free_mb: float
    not_before: float = 0.0

    def __str__(self) -> str:
        return f"disk full: needs {self.need_mb:,.0f} MB, {self.free_mb:,.0f} MB free"


@dataclass(frozen=True, kw_only=True)
class _Order:
    """A save that was begun, with what will be told of it. Seconds of `time.monotonic`."""

    need_mb: float
    trained_tokens: dict[str, int]
    began: float
    released: float  # when training went on; of a foreground save the end


@dataclass(frozen=True, kw_only=True)
class _Landed:
    checkpoint: Checkpoint
    pruned: Pruned
    ended: float


class Keeper:
    """The checkpoints of one launch. ``fault`` is the last failure, None after a success; ``shortage`` is set where it
    was for want of room."""

    def __init__(
        self,
        store: Store,
        sensors: Readable,
        *,
        saved_step: int,
        clock: Callable[[], float] | None = None,
        promoted: Collection[int] = (),
    ) -> None:
        """``clock``: seconds between saves go by it; by default `time.monotonic`. ``promoted``: steps whose checkpoints
        stay, which are the ends of a chain's parts."""
        self.store, self._sensors = store, sensors
        self._clock = clock or (lambda: time.monotonic())
        self.saved_step = saved_step
        self.save_s = 0.0
        self.fault: OndeviceError | None = None
        self.shortage: Shortage | None = None
        self._warnings: list[str] = []
        self._warned: set[str] = set()
        self._previous: Checkpoint | None = None
        with suppress(CheckpointError):
            self._previous = store.peek(saved_step)
        self._pruner = Pruner(store, RunDir(store.folder.parent).evals, sound={saved_step}, promoted=promoted)
        self._made_room = Pruned()
        self._tried_at = self._clock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._flight: tuple[_Order, Future[_Landed]] | None = None

    def is_due(self, step: int, *, best: bool, limits: Limits) -> bool:
        """Whether to save now. ``best``: the step just measured best, worth a save if the last one is paid off."""
        if step in (self.saved_step, 0):
            return False
        waited_s = self._clock() - self._tried_at
        if self.fault is not None:
            return waited_s >= RETRY_S
        if limits.save_every_steps is not None and step % limits.save_every_steps == 0:
            return True
        interval_s = save_interval_s(self.save_s, limits.save_every_s)
        return waited_s >= interval_s or (best and waited_s >= min(self.save_s / SHARE, interval_s))

    def save(self, state: TrainState, origin: Origin, *, limits: Limits, background: bool = False) -> Saved | None:
        """Makes the story durable, commits the state, reads it back and prunes; or sets `fault` and gives None.

        In the background it gives None as well, and `settle` gives the result. None may be in flight before.
        """
        assert self._flight is None, "settle the save in flight first"
        self._tried_at, began = self._clock(), time.monotonic()
        if not self.has_room(state, limits):
            return None
        last = self._previous
        previous = None if last is None else {"step": last.step, "sha256": last.sha256}
        freeze_now = partial(
            freeze,
            state,
            recipe=origin.recipe,
            fit=origin.fit,
            launch=origin.launch,
            previous=previous,
            telemetry=origin.story.position,
        )
        frozen = (self._copy(freeze_now, state, limits) if background else None) or freeze_now()
        work = partial(self._write, frozen, origin.story, dict(state.losses), limits)
        order = _Order(
            need_mb=_need_mb(state, limits),
            trained_tokens=state.cursor.tokens_by_source(),
            began=began,
            released=time.monotonic() if frozen.copied else float("inf"),
        )
        if frozen.copied:
            self._flight = order, self._thread.submit(work)
            return None
        return self._finish(order, work)

    @property
    def in_flight(self) -> bool:
        """Whether a background save was begun and not settled yet."""
        return self._flight is not None

    @property
    def landed(self) -> bool:
        """Whether a background save is done and waits to be settled."""
        return self._flight is not None and self._flight[1].done()

    def settle(self) -> Saved | None:
        """Waits for the background save; what it gives and sets is as for `save` in the foreground."""
        if self._flight is None:
            return None
        (order, future), self._flight = self._flight, None
        return self._finish(order, future.result)

    def close(self) -> None:
        """Waits until the thread writes no more, however the launch ends."""
        self._thread.shutdown(wait=True)

    def has_room(self, state: TrainState, limits: Limits) -> bool:
        """Whether one more checkpoint fits, if need be after pruning to the tightest policy; else sets `shortage`."""
        if self.shortage is not None and self.shortage.not_before:
            if time.monotonic() < self.shortage.not_before:
                return False
            self._make_room(state.step, state.losses, limits)  # one more at each attempt
        need_mb, free_mb = _need_mb(state, limits), self._free_mb()
        while free_mb is not None and free_mb < need_mb:
            if not self._make_room(state.step, state.losses, limits):
                self._fall_short(Shortage(need_mb=need_mb, free_mb=free_mb))
                return False
            free_mb = self._free_mb()
        self.shortage = None
        return True

    def take_warnings(self) -> list[str]:
        """What there is to tell that kept no checkpoint from being saved, each thing once a launch."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def _make_room(self, step: int, losses: Mapping[int, float], limits: Limits) -> bool:
        """Gives whether something went."""
        pruned = self._pruner.prune_one(step=step, losses=losses, limits=limits)
        self._warn(pruned.trouble)
        self._made_room.removed += pruned.removed
        self._made_room.lightened += pruned.lightened
        return bool(pruned.removed or pruned.lightened)

    def _fall_short(self, shortage: Shortage) -> None:
        total_mb = self._total_mb()
        if total_mb is not None and total_mb < shortage.need_mb:  # waiting would be for ever
            self.shortage = None
            self.fault = ResourceError(
                f"{self.store.folder}: a save needs {shortage.need_mb:,.0f} MB and the whole disk has "
                f"{total_mb:,.0f} MB; lower limits.min_free_disk_mb."
            )
            return
        self.shortage = shortage
        self.fault = ResourceError(
            f"{self.store.folder}: {shortage.free_mb:,.0f} MB are free and a save needs {shortage.need_mb:,.0f} MB; "
            "free some space, or lower limits.min_free_disk_mb or limits.keep_last."
        )

    def _copy(self, freeze_now: Callable[..., Frozen], state: TrainState, limits: Limits) -> Frozen | None:
        """A copy that training may leave behind, or None with a warning where memory does not allow it."""
        copy_mb = tensor_bytes(state) / MIB
        reading = self._sensors.read()
        why = ""
        if reading.available_mb is None:
            why = "the free memory of this machine is unknown"
        elif reading.available_mb < copy_mb + SPARE_MB:
            why = f"a copy takes {copy_mb:,.0f} MB of memory and {reading.available_mb:,.0f} MB are available"
        elif limits.max_rss_mb is not None and (reading.rss_mb or 0.0) + copy_mb > limits.max_rss_mb:
            why = f"a copy of {copy_mb:,.0f} MB would pass limits.max_rss_mb {limits.max_rss_mb:,.0f}"
        if not why:
            try:
                return freeze_now(copied=True)
            except (MemoryError, RuntimeError):  # torch tells of lacking memory by RuntimeError
                why = f"there is no memory for a copy of {copy_mb:,.0f} MB"
        self._warn(f"Not saved in the background: {why}. Training waits while it is written.")
        return None

    def _write(self, frozen: Frozen, story: TelemetryWriter, losses: dict[int, float], limits: Limits) -> _Landed:
        """The save itself, in whichever thread. Raises OndeviceError."""
        story.sync()
        checkpoint = write(self.store, frozen)
        self.store.open(frozen.step, from_disk=True)
        self._pruner.sound.add(frozen.step)
        pruned = self._pruner.prune(step=frozen.step, losses=losses, limits=limits)
        return _Landed(checkpoint=checkpoint, pruned=pruned, ended=time.monotonic())

    def _finish(self, order: _Order, work: Callable[[], _Landed]) -> Saved | None:
        try:
            landed = work()
        except OndeviceError as error:
            self._fail(error, order.need_mb)
            return None
        self.fault = self.shortage = None
        checkpoint, self._previous = landed.checkpoint, landed.checkpoint
        self.saved_step, self._tried_at = checkpoint.step, self._clock() - (time.monotonic() - landed.ended)
        self.save_s = landed.ended - order.began
        self._warn(landed.pruned.trouble)
        before, self._made_room = self._made_room, Pruned()
        return Saved(
            step=checkpoint.step,
            sha256=checkpoint.sha256,
            save_s=round(self.save_s, 3),
            stall_s=round(min(order.released, landed.ended) - order.began, 3),
            bytes=sum(entry["bytes"] for entry in checkpoint.files.values()),
            removed=before.removed + landed.pruned.removed,
            lightened=before.lightened + landed.pruned.lightened,
            trained_tokens=order.trained_tokens,
        )

    def _fail(self, error: OndeviceError, need_mb: float) -> None:
        self.fault, cause = error, error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            free_mb = self._free_mb() or 0.0
            wait_s = RETRY_S if free_mb >= need_mb else 0.0  # a quota: the free bytes are not ours
            self.shortage = Shortage(need_mb=need_mb, free_mb=free_mb, not_before=time.monotonic() + wait_s)

    def _free_mb(self) -> float | None:
        try:
            return shutil.disk_usage(existing_ancestor(self.store.folder)).free / MIB
        except OSError:
            return None

    def _total_mb(self) -> float | None:
        try:
            return shutil.disk_usage(existing_ancestor(self.store.folder)).total / MIB
        except OSError:
            return None

    def _warn(self, text: str) -> None:
        """Once a launch what differs in its reasons only."""
        kind = text.partition(":")[0]
        if text and kind not in self._warned:
            self._warned.add(kind)
            self._warnings.append(text)


def _need_mb(state: TrainState, limits: Limits) -> float:
    return tensor_bytes(state) / MIB + PAPERS_MB + limits.min_free_disk_mb
