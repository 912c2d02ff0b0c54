"""Looks at a run after every kill: is each checkpoint what it was in the uninterrupted run, and did none vanish?

Remembers what was intact before, so that a loss is noticed even where something else is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ondevice.errors import OndeviceError
from ondevice.run.audit import audit_file
from ondevice.run.directory import RunDir
from ondevice.run.liveness import read_status
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import launch_files, launch_number

from .truth import Truth

__all__ = ["Witness"]


@dataclass
class Witness:
    """One run, and the steps ``known`` to be intact (``complete`` ones with their optimizer state) at the last look.

    ``keep_last`` is its policy; ``silent`` counts checkpoints that verify and are wrong.
    """

    run: RunDir
    truth: Truth
    keep_last: int
    known: set[int] = field(default_factory=set)
    complete: set[int] = field(default_factory=set)
    silent: int = 0

    def look(self, committed: int | None) -> list[str]:
        """Faults, one sentence each. ``committed``: the newest step whose commit returned in the life that ended."""
        expected = self.known | ({committed} if committed is not None else set())
        found, faults = self._verify()
        faults += [
            f"step {step}: its checkpoint is gone" for step in expected - found.keys() - self._outdated(expected, found)
        ]
        complete = {step for step, checkpoint in found.items() if checkpoint.complete}
        if expected and not complete:
            faults.append("no complete checkpoint is left")
        lightened = self._pins() & self.complete & found.keys() - complete
        faults += [f"step {step}: pinned, and no longer complete" for step in lightened]
        self.known, self.complete = set(found), complete
        return [*faults, *self._story(found), *self._papers()]

    def _verify(self) -> tuple[dict[int, Checkpoint], list[str]]:
        """The checkpoints that are intact and right, and what is wrong with the others that have a manifest."""
        store, found, faults = Store(self.run.checkpoints), {}, []
        for step in store.steps():
            try:
                checkpoint = store.open(step)
                wrong = self.truth.differs(checkpoint)
            except OndeviceError as error:
                faults.append(f"step {step}: a kill damaged it: {error}")
                continue
            if wrong:
                self.silent += 1
                faults.append(f"step {step}: verifies, but {', '.join(wrong)} is not what it was without a kill")
            else:
                found[step] = checkpoint
        return found, faults

    def _outdated(self, steps: set[int], found: dict[int, Checkpoint]) -> set[int]:
        """Those that the policy lets go: enough newer ones are intact, and they are neither pinned nor the best."""
        newest = sorted(found)[-self.keep_last :]
        if len(newest) < self.keep_last:
            return set()
        spared = self._pins() | self.truth.best(steps | found.keys())
        return {step for step in steps if step < newest[0]} - spared

    def _pins(self) -> set[int]:
        return set(Store(self.run.checkpoints).pins())

    def _story(self, found: dict[int, Checkpoint]) -> Iterator[str]:
        """Telemetry is whole but for one torn line a launch, and no checkpoint is ahead of it."""
        positions = [checkpoint.facts.get("telemetry", {}) for checkpoint in found.values()]
        for path in launch_files(self.run.telemetry):
            number = launch_number(path)
            ours = [position for position in positions if position.get("launch") == number]
            audit = audit_file(path, [position["bytes"] for position in ours])
            yield from audit.faults
            if audit.torn > 1:
                yield f"launch {number}: {audit.torn} torn lines"
            if not all(audit.covers(position) for position in ours):
                yield f"launch {number}: a checkpoint is ahead of its telemetry"

    def _papers(self) -> Iterator[str]:
        if self.run.status.exists() and not read_status(self.run):
            yield "status.json cannot be read"
