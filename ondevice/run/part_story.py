"""What the story tells of the part of a chain that is trained now: steps, losses, heat and energy since the last one.

The trainer reads its own story for it, so that a part that ended in a kill is told as any other. `Tail` reads on where
it was; both know nothing of schedules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ondevice.errors import DataError
from ondevice.run.telemetry import as_number, launch_files, parse_line
from ondevice.run.usage import Usage

__all__ = ["PartStory", "Tail"]

_PLENTY = tuple(b'"kind":"%s"' % kind for kind in (b"step", b"reading", b"sample"))
_HEAD = 80  # bytes of a line within which its kind stands
_HEAT = {"battery_c": "max_battery_c", "cpu_c": "max_cpu_c"}


class Tail:
    """The records of a run's story, each once, in order. Of parts that are over only the few that matter later."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self._offset = folder, Path(), 0

    def news(self) -> Iterator[dict[str, Any]]:
        """What was written since the last time. Raises DataError for a newer version or an unreadable file."""
        kept: list[tuple[bytes, str]] = []
        fresh: list[tuple[bytes, str]] = []
        for line, where in self._lines():
            if b'"kind":"part"' in line[:_HEAD] and b'"outcome":"done"' in line:
                kept += [each for each in fresh if not _is_plenty(each[0])]
                fresh = []
            fresh.append((line, where))
        for line, where in [*kept, *fresh]:
            record = parse_line(line, where=where)
            if record is not None:
                yield record

    def _lines(self) -> Iterator[tuple[bytes, str]]:
        files = launch_files(self._folder)
        with suppress(ValueError):
            files = files[files.index(self._path) :]
        for path in files:
            start = self._offset if path == self._path else 0
            try:
                with open(path, "rb") as file:
                    file.seek(start)
                    for line in file:
                        if line.endswith(b"\n") or path != files[-1]:
                            start += len(line)
                            yield line, str(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
            self._path, self._offset = path, start


def _is_plenty(line: bytes) -> bool:
    return any(kind in line[:_HEAD] for kind in _PLENTY)


class PartStory:
    """A fold of records; a `part` record that is done begins it anew."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._begin()

    def _begin(self) -> None:
        self._steps: dict[int, tuple[float | None, float]] = {}  # loss and seconds
        self._evaluation: dict[str, Any] = {}
        self._heat: dict[str, float] = {}
        self._wh, self._energy_s = self._usage.energy_wh, self._usage.energy_s

    def see(self, record: dict[str, Any]) -> None:
        """Takes a record into account."""
        self._usage.fold(record)
        kind, step = record["kind"], record["step"]
        if kind == "step":
            self._steps[step] = (as_number(record.get("loss")), as_number(record.get("step_s")) or 0.0)
        elif kind == "eval":
            self._evaluation = record
        elif kind == "reading":
            self._feel(record)
        elif kind == "launch":  # what came later is done again
            self._steps = {done: told for done, told in self._steps.items() if done <= step}
        elif kind == "part" and record.get("outcome") == "done":
            self._begin()

    def _feel(self, record: dict[str, Any]) -> None:
        for key, name in _HEAT.items():
            if (value := as_number(record.get(key))) is not None:
                self._heat[name] = max(value, self._heat.get(name, value))

    def facts(self, first: int, last: int) -> dict[str, Any]:
        """Of the part from ``first`` to ``last`` step: ``train_s``, losses, the evaluation at its end, the highest
        temperatures and the energy in Wh, each where it is known."""
        steps = {step: told for step, told in self._steps.items() if first < step <= last}
        losses = [steps[step][0] for step in sorted(steps) if steps[step][0] is not None]
        facts: dict[str, Any] = {"train_s": round(sum(seconds for _, seconds in steps.values()), 3)}
        if losses:
            facts |= {"loss_first": losses[0], "loss": losses[-1]}
        if self._evaluation.get("step") == last:
            facts |= {key: self._evaluation.get(key) for key in ("val_loss", "val_loss_mixed")}
        if self._usage.energy_s > self._energy_s:
            facts["wh"] = round(self._usage.energy_wh - self._wh, 4)
        return facts | self._heat
