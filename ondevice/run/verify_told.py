"""What the story says a run should be: checkpoints with their hashes, pins, limits, the hold, how it ended.

A fold of telemetry records like `ondevice.run.digest`, for those who compare a run with its own words. Each launch
states the settings and checkpoints it found; letters and saves after that change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Told", "apply_limits", "apply_pin"]


@dataclass
class Told:
    """``checkpoints``: by step the hash of those the story says are there, None where it does not say which.

    ``pins`` and ``limits`` are None where no launch stated them. ``made_room``: checkpoints may have been removed
    since the last save, of which only the next record will tell.
    """

    checkpoints: dict[int, str | None] = field(default_factory=dict)
    pins: dict[str, str] | None = None
    limits: dict[str, Any] | None = None
    asked_limits: bool = False
    launch: int = 0
    identity: dict[str, Any] | None = None
    hold: str = ""
    step: int = 0
    last_t: float | None = None
    has_steps: bool = False
    ended: dict[str, Any] | None = None
    ended_launch: int | None = None
    made_room: bool = False
    _held_in: int = 0
    _limits_lost: bool = False

    def fold(self, record: Mapping[str, Any]) -> None:
        """Takes a record into account; what it does not understand it leaves out."""
        self.last_t = record.get("t", self.last_t)
        handler = getattr(self, f"_on_{record['kind']}", None)
        if handler is not None:
            handler(record)

    def _on_launch(self, record: Mapping[str, Any]) -> None:
        number = record.get("launch")
        self.launch = number if isinstance(number, int) else self.launch + 1
        self.has_steps, self.ended, self.ended_launch, self.made_room = False, None, None, False
        resumed = record.get("resumed_step")
        resumed = resumed if type(resumed) is int else -1
        self.step = max(0, resumed)
        self.checkpoints = {step: sha256 for step, sha256 in self.checkpoints.items() if step <= resumed}
        there = record.get("checkpoints")
        if isinstance(there, list):
            self.checkpoints = {
                step: self.checkpoints.get(step) for step in there if _is_step(step) and step <= resumed
            }
        if isinstance(record.get("resumed_sha256"), str) and resumed >= 0:
            self.checkpoints[resumed] = record["resumed_sha256"]
        if isinstance(record.get("identity"), dict):
            self.identity = record["identity"]
        if isinstance(record.get("pins"), dict):
            self.pins = dict(record["pins"])
        if isinstance(record.get("limits"), dict):
            self.limits, self.asked_limits = dict(record["limits"]), False

    def _on_step(self, record: Mapping[str, Any]) -> None:
        self.step, self.has_steps = record["step"], True
        if self._held_in and self.launch > self._held_in:
            self.hold, self._held_in = "", 0  # a person started it again

    def _on_checkpoint(self, record: Mapping[str, Any]) -> None:
        self.made_room = False
        removed = record.get("removed")
        for step in removed if isinstance(removed, list) else ():
            self.checkpoints.pop(step, None)
        sha256 = record.get("sha256")
        self.checkpoints[record["step"]] = sha256 if isinstance(sha256, str) else None

    def _on_order(self, record: Mapping[str, Any]) -> None:
        self.made_room = True  # room was made before it was found too little

    def _on_note(self, record: Mapping[str, Any]) -> None:
        self._limits_lost = record.get("lost") == "limits"
        self.made_room = True  # it may tell of a save that failed

    def _on_control(self, record: Mapping[str, Any]) -> None:
        args, verb = record.get("args"), record.get("verb")
        if record.get("ok") is not True:
            return
        if verb in ("pause", "resume"):
            self.hold = f"paused by {record.get('from', '')}" if verb == "pause" else ""
            self._held_in = self.launch if self.hold else 0
        elif verb == "pin" and isinstance(args, dict) and self.pins is not None:
            self.pins = apply_pin(self.pins, args)
        elif verb == "limit" and isinstance(args, dict):
            if self.limits is not None and not self._limits_lost:
                self.limits, self.asked_limits = apply_limits(self.limits, args), True
            self._limits_lost = False

    def _on_end(self, record: Mapping[str, Any]) -> None:
        self.ended, self.ended_launch = dict(record), self.launch


def apply_pin(pins: Mapping[str, str], args: Mapping[str, Any]) -> dict[str, str]:
    """The pins after a ``pin`` letter with these arguments."""
    reason = args.get("reason", "asked for")
    kept = {step: why for step, why in pins.items() if step != str(args.get("step"))}
    return kept if reason is None else {**kept, str(args.get("step")): str(reason)}


def apply_limits(limits: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The limits after a ``limit`` letter with these arguments."""
    return {**limits, **args}


def _is_step(value: Any) -> bool:
    return type(value) is int and value >= 0
