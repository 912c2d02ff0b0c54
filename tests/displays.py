"""Displays for launches that a test makes: they show nothing, remember what they were told, and may end it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Silent:
    """Remembers what was said and the last status."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.last: Mapping[str, Any] = {}

    def status(self, status: Mapping[str, Any]) -> None:
        self.last = status

    def say(self, text: str) -> None:
        self.said.append(text)


class Crash(BaseException):
    """Stands for SIGKILL: nothing after it runs but what the kernel does."""


class DiesAt(Silent):
    """Dies at the first status of ``step`` or later."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def status(self, status: Mapping[str, Any]) -> None:
        super().status(status)
        if status.get("step", 0) >= self._step:
            raise Crash
