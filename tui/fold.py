"""The story of one run as far as it was read: records folded into the digest, curves, events, checkpoints and answers.

Takes blocks of lines; what is damaged is counted and told, what is of a newer version ends the reading.
"""

from __future__ import annotations

from typing import Any

from ondevice.errors import DataError
from ondevice.run.digest import Digest
from ondevice.run.telemetry import parse_line
from tui.curves import Curves
from tui.events import Asked, EventLog
from tui.rows import Steps, cut
from tui.saved import Shelf
from tui.tail import Block
from tui.values import number

__all__ = ["GARBAGE", "Fold"]

GARBAGE = (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError)
_FREQUENT = ("step", "reading")  # that neither the log nor the checkpoints want


class Fold:
    """``refusal`` and ``damage`` are sentences, empty where nothing is wrong."""

    def __init__(self) -> None:
        self.digest, self.curves, self.log = Digest(), Curves(), EventLog()
        self.shelf, self.asked = Shelf(), Asked()
        self.launch: dict[str, Any] = {}
        self.reading: dict[str, Any] = {}
        self.began_t: float | None = None
        self.refusal = ""
        self._bad, self._first_bad = 0, ""

    @property
    def damage(self) -> str:
        if not self._bad:
            return ""
        lines = "1 damaged line" if self._bad == 1 else f"{self._bad:,} damaged lines"
        return f"{lines} skipped, the first at {self._first_bad}."

    def take(self, block: Block) -> None:
        """Folds one block. After a record of a newer version nothing more is understood."""
        if block.data is None and not self.refusal:
            self._note(f"{block.file}:{block.number}")
        for part in cut(block):
            if self.refusal:
                return
            if isinstance(part, Steps):
                self.digest.fold(part.whole)
                self.curves.fold_steps(part)
                self.began_t = part.whole["t"] if self.began_t is None else self.began_t
                continue
            for place, line in enumerate(part.lines, part.number):
                self._take_line(line, f"{block.file}:{place}")

    def _take_line(self, line: bytes, where: str) -> None:
        if self.refusal or not line.strip():
            return
        try:
            record = parse_line(line, where=where)
        except DataError as error:
            self.refusal = str(error)
            return
        if record is None:
            self._note(where)
        else:
            self._take_record(record, where)

    def _take_record(self, record: dict[str, Any], where: str) -> None:
        if self.began_t is None:
            self.began_t = number(record, "t")
        if record["kind"] == "reading":
            self.reading = record
        elif record["kind"] == "launch":
            self.launch = record
        is_frequent = record["kind"] in _FREQUENT
        for folding in (self.digest, self.curves, *(() if is_frequent else (self.log, self.shelf, self.asked))):
            try:
                folding.fold(record)
            except GARBAGE as error:
                self._note(f"{where} ({type(error).__name__})")
                return

    def _note(self, where: str) -> None:
        self._bad += 1
        self._first_bad = self._first_bad or where
