"""Whether a run lives, asked anew only when something changed: of a dead run it means reading a file's end again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.liveness import read_liveness
from ondevice.run.postmortem import examine
from tui.fold import GARBAGE
from tui.snapshot import STATES
from tui.tail import Tail
from tui.values import text
from tui.words import printable

__all__ = ["Life", "Told"]

_EXAMINED = 4 << 20  # bytes of a story: what a post-mortem reads at once without holding up a screen


@dataclass(frozen=True)
class Told:
    """``left``: why it left for a while; ``death``: of what it probably died; ``trouble``: why nobody can tell."""

    state: str
    trouble: str = ""
    death: str = ""
    left: str = ""


class Life:
    """``tell(tail, status)`` after each look at the files."""

    def __init__(self, run: RunDir, *, clock: Callable[[], float]) -> None:
        self._run, self._clock = run, clock
        self._sign: Any = None
        self._told = Told("unknown")

    def tell(self, tail: Tail, status: dict[str, Any]) -> Told:
        """Never raises."""
        holder = lock_holder(self._run)
        sign = (holder, tail.files, status)
        if holder is None and sign == self._sign:
            return self._told
        self._sign = sign
        try:
            self._told = self._look(tail)
        except (OndeviceError, OSError, *GARBAGE) as error:
            self._told = Told("unknown", trouble=f"Its state cannot be told: {printable(str(error))}")
        return self._told

    def _look(self, tail: Tail) -> Told:
        found = read_liveness(self._run, now=self._clock())
        if found.state not in STATES:
            return Told("unknown", trouble=f"Its state is '{printable(found.state)}'.")
        left = printable(text(found.left, "why")) if found.left else ""
        death = self._death(tail) if found.state == "killed" else ""
        return Told(found.state, left=left, death=death)

    def _death(self, tail: Tail) -> str:
        if not tail.files or tail.files[-1][2] > _EXAMINED:
            return ""
        death = examine(self._run)
        return "" if death is None else printable(str(death))
