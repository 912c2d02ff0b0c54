"""Control letters: how anyone asks something of a live trainer. Clients drop a file, the trainer answers and deletes.

A letter is ``{"v", "id", "t", "verb", "args", "from"}`` in ``control/inbox``, written by temp and rename. The answer is
a ``control`` record in telemetry. This module only carries letters; what they mean is the loop's business.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from ondevice.errors import UsageError, nearest
from ondevice.run.directory import RunDir
from ondevice.run.files import write_atomic

__all__ = ["EXPIRING", "VERBS", "VERSION", "Letter", "discard", "pending", "send"]

VERSION = 1
VERBS = ("pause", "resume", "stop", "save", "eval", "sample", "limit", "pin")
EXPIRING = frozenset(VERBS) - {"limit", "pin"}  # letters of these verbs from before a launch mean nothing any more


@dataclass(frozen=True)
class Letter:
    """One request. ``fault`` says why it cannot be understood; such letters are answered and deleted too."""

    file: str
    id: str
    t: float
    verb: str
    args: dict[str, Any] = field(default_factory=dict)
    sender: str = ""
    fault: str = ""


def send(run: RunDir, verb: str, args: dict[str, Any] | None = None, *, sender: str) -> str:
    """Drops a letter and gives its id. Raises UsageError for an unknown verb."""
    if verb not in VERBS:
        raise UsageError(f"'{verb}': not a control verb{nearest(verb, VERBS)}; known: {', '.join(VERBS)}.")
    letter_id = secrets.token_hex(4)
    body = {"v": VERSION, "id": letter_id, "t": time.time(), "verb": verb, "args": args or {}, "from": sender}
    write_atomic(run.inbox / f"{time.time_ns():020d}-{letter_id}.json", json.dumps(body).encode())
    return letter_id


def pending(run: RunDir) -> list[Letter]:
    """Letters in the order they were written; a malformed one carries its fault."""
    try:
        names = sorted(name for name in os.listdir(run.inbox) if name.endswith(".json") and name[0] != ".")
    except FileNotFoundError:
        return []
    return [_read(run, name) for name in names]


def _read(run: RunDir, name: str) -> Letter:
    try:
        raw = json.loads((run.inbox / name).read_bytes())
        if raw["v"] != VERSION:
            return Letter(name, str(raw.get("id")), 0.0, "", fault=f"letter version {raw['v']}, expected {VERSION}")
        verb = str(raw["verb"])
        fault = "" if verb in VERBS else f"unknown verb '{verb}'{nearest(verb, VERBS)}"
        return Letter(name, str(raw["id"]), float(raw["t"]), verb, dict(raw.get("args", {})), str(raw["from"]), fault)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Letter(name, name, 0.0, "", fault=f"unreadable letter ({type(error).__name__})")


def discard(run: RunDir, letter: Letter) -> None:
    """Deletes an answered letter."""
    (run.inbox / letter.file).unlink(missing_ok=True)
