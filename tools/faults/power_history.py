"""What a victim of a power cut told, and whether the disk kept it.

``done`` must be there, ``begin`` without ``done`` may: the history holds for each thing the value that was durable and
the one that was on its way.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, OndeviceError
from ondevice.run.audit import audit_file
from ondevice.run.config import read_limits
from ondevice.run.directory import RunDir, list_runs
from ondevice.run.liveness import read_status
from ondevice.run.papers import changed_papers
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files, launch_number, read_file

from .victim_power import loss_of
from .victim_state import Verdict, differences

__all__ = ["History"]


@dataclass
class History:
    """Promises so far. ``going`` and ``lightened`` are steps that may be gone or light."""

    saved: dict[int, str] = field(default_factory=dict)
    going: set[int] = field(default_factory=set)
    lightened: set[int] = field(default_factory=set)
    pins: list[dict[int, str]] = field(default_factory=lambda: [{}])
    status: list[Any] = field(default_factory=lambda: [None])
    limits: list[Any] = field(default_factory=lambda: [None])
    positions: dict[int, dict[str, Any]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    saving: set[int] = field(default_factory=set)
    act: str = "between acts"

    def heard(self, line: bytes, *, cut_ns: float = math.inf) -> None:
        """One line of the victim. What it calls done after the cut is only on its way.

        For ext4 may still answer 0 to an fsync that met the shutdown halfway; a real cut lets nobody hear that.
        """
        words = json.loads(line)
        if "begin" in words:
            self.act = words["begin"]
            getattr(self, f"_begin_{self.act}")(words)
        elif words["t"] < cut_ns:
            self.act = "between acts"
            getattr(self, f"_done_{words['done']}")(words)

    def _begin_sync(self, words: dict[str, Any]) -> None:
        """Nothing is risked."""

    def _done_sync(self, words: dict[str, Any]) -> None:
        self.positions[words["position"]["launch"]] = words["position"]

    def _begin_save(self, words: dict[str, Any]) -> None:
        self.saving.add(words["step"])

    def _done_save(self, words: dict[str, Any]) -> None:
        self.saving.discard(words["step"])
        self.saved[words["step"]] = words["sha256"]

    def _begin_prune(self, words: dict[str, Any]) -> None:
        self.going |= set(words["steps"])

    def _done_prune(self, words: dict[str, Any]) -> None:
        """What is gone stays allowed to be gone."""

    def _begin_lighten(self, words: dict[str, Any]) -> None:
        self.lightened.add(words["step"])

    def _done_lighten(self, words: dict[str, Any]) -> None:
        """What is light stays allowed to be light."""

    def _begin_pin(self, words: dict[str, Any]) -> None:
        pins = {**self.pins[-1], words["step"]: words["reason"]}
        self.pins.append({step: reason for step, reason in pins.items() if reason is not None})

    def _done_pin(self, words: dict[str, Any]) -> None:
        del self.pins[:-1]

    def _begin_status(self, words: dict[str, Any]) -> None:
        self.status.append(words["turn"])

    def _done_status(self, words: dict[str, Any]) -> None:
        del self.status[:-1]

    def _begin_limits(self, words: dict[str, Any]) -> None:
        self.limits.append(words["keep"])

    def _done_limits(self, words: dict[str, Any]) -> None:
        del self.limits[:-1]

    def _begin_create(self, words: dict[str, Any]) -> None:
        self.unsure.add(words["name"])

    def _done_create(self, words: dict[str, Any]) -> None:
        self.unsure.discard(words["name"])
        self.others.add(words["name"])

    def _begin_remove(self, words: dict[str, Any]) -> None:
        self.others.discard(words["name"])
        self.unsure.add(words["name"])

    def _done_remove(self, words: dict[str, Any]) -> None:
        self.unsure.discard(words["name"])

    def kept(self, run: RunDir) -> Verdict:
        """Compares the promises with what is there after the restart, then takes that as the new start."""
        verdict = Verdict()
        try:
            self._check_papers(run, verdict)
            self._check_checkpoints(Store(run.checkpoints), verdict)
            self._check_small_files(run, verdict)
            self._check_story(run, verdict)
            self._check_others(run.path.parent, verdict)
        except OndeviceError as error:
            verdict.losses.append(f"unreadable: {error}")
        return verdict

    def _check_papers(self, run: RunDir, verdict: Verdict) -> None:
        verdict.losses += changed_papers(run, run.read_identity())
        run.read_recipe()

    def _check_checkpoints(self, store: Store, verdict: Verdict) -> None:
        found: dict[int, str] = {}
        for step in store.steps():
            try:
                checkpoint = store.open(step)
            except CheckpointError as error:
                verdict.losses.append(f"a broken checkpoint looks whole: {error}")
                continue
            found[step] = checkpoint.sha256
            verdict.silent += differences(checkpoint)
            if not checkpoint.complete and step not in self.lightened:
                verdict.losses.append(f"checkpoint {step} lost its optimizer state")
        for step, sha256 in self.saved.items():
            gone_as_wanted = step not in found and step in self.going
            if found.get(step) != sha256 and not gone_as_wanted:
                verdict.losses.append(f"checkpoint {step} was durable and is {'another' if step in found else 'gone'}")
        for step in found.keys() - self.saved.keys() - self.saving:
            verdict.losses.append(f"checkpoint {step} was never saved")
        if len(self.saved) >= 2 and len(store.complete_steps()) < 2:
            verdict.losses.append("fewer than two complete checkpoints are left")
        self.saved, self.going, self.saving = found, set(), set()

    def _check_small_files(self, run: RunDir, verdict: Verdict) -> None:
        pins = Store(run.checkpoints).pins()
        status = read_status(run).get("turn")
        limits = read_limits(run.limits).keep_last if run.limits.exists() else None
        for name, value in (("pins", pins), ("status", status), ("limits", limits)):
            if value not in getattr(self, name):
                verdict.losses.append(f"{name}: {value!r}, and durable or on the way were {getattr(self, name)}")
        self.pins, self.status, self.limits = [pins], [status], [limits]

    def _check_story(self, run: RunDir, verdict: Verdict) -> None:
        paths = {launch_number(path): path for path in launch_files(run.telemetry)}
        for launch, position in self.positions.items():
            if launch not in paths or not audit_file(paths[launch], [position["bytes"]]).covers(position):
                verdict.losses.append(f"launch {launch}: less of the story than was synced ({position})")
        for launch, path in paths.items():
            verdict.losses += audit_file(path).faults
            told = [(record["step"], record["loss"]) for record in read_file(path)]
            if told != [(number, loss_of(launch, number)) for number in range(len(told))]:
                verdict.silent.append(f"{path}: tells what was not written")

    def _check_others(self, folder: Path, verdict: Verdict) -> None:
        found = {run.name for run in list_runs(folder)}
        for name in sorted(self.others - found):
            verdict.losses.append(f"{name}: a durable run is gone")
        for name in sorted(name for name in found if name.startswith("other-")):
            other = RunDir(folder / name)
            verdict.losses += changed_papers(other, other.read_identity())
            if name not in self.others | self.unsure:
                verdict.losses.append(f"{name}: a removed run is back")
        self.others, self.unsure = {name for name in found if name.startswith("other-")}, set()
