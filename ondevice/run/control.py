"""Control letters: how anyone asks something of a live trainer. Clients drop a file, the trainer answers and deletes.

A letter is ``{"v", "id", "t", "verb", "args", "from"}`` in ``control/inbox``, written by temp and rename. The answer is
a ``control`` record in telemetry. This module only carries letters; what they mean is the loop's business.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ondevice.errors import UsageError, nearest
from ondevice.run.directory import RunDir
from ondevice.run.files import json_bytes, make_folder, read_regular, write_atomic, write_error
from ondevice.run.telemetry import as_number

__all__ = ["EXPIRING", "VERBS", "VERSION", "Letter", "discard", "pending", "send"]

VERSION = 1
VERBS = ("pause", "resume", "stop", "save", "eval", "sample", "limit", "pin")
EXPIRING = frozenset(VERBS) - {"limit", "pin"}  # letters of these verbs from before a launch mean nothing any more
_NAME = re.compile(r"([0-9]{20})-[0-9a-f]{8}\.json")
_LAST = 10**19  # a stamp beyond this is not a time, and nobody counts on from it
_LIMIT = 1 << 16
_undeleted: set[Path] = set()  # answered by this process, still there


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
    """Drops a letter and gives its id.

    Raises UsageError for an unknown verb, ResourceError or DataError when the letter cannot be written.
    """
    if verb not in VERBS:
        raise UsageError(f"'{verb}': not a control verb{nearest(verb, VERBS)}; known: {', '.join(VERBS)}.")
    letter_id = secrets.token_hex(4)
    body = {"v": VERSION, "id": letter_id, "t": time.time(), "verb": verb, "args": args or {}, "from": sender}
    data = json_bytes(body)
    if len(data) > _LIMIT:
        raise UsageError(f"'{verb}': a letter holds at most {_LIMIT:,} bytes; make its text shorter.")
    try:
        make_folder(run.inbox)
    except OSError as error:
        raise write_error(run.inbox, error) from error
    write_atomic(run.inbox / f"{_stamp(run):020d}-{letter_id}.json", data)
    return letter_id


def _stamp(run: RunDir) -> int:
    """The time in nanoseconds, later than every waiting letter even where the clock was set back."""
    waiting = (_NAME.fullmatch(name) for name in _names(run))
    return max([time.time_ns(), *(int(match[1]) + 1 for match in waiting if match and int(match[1]) < _LAST)])


def _names(run: RunDir) -> list[str]:
    """Letters in order; other files, such as one still being written, are not letters."""
    try:
        with os.scandir(run.inbox) as entries:
            files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(name for name in files if name.endswith(".json") and not name.startswith("."))


def pending(run: RunDir) -> list[Letter]:
    """Letters in the order they were written; a malformed one carries its fault. Never raises.

    A letter that this process discarded but the system would not delete is not given again.
    """
    for path in [path for path in _undeleted if path.parent == run.inbox]:
        _delete(path)  # by now it may be possible
    return [_read(run, name) for name in _names(run) if run.inbox / name not in _undeleted]


def _read(run: RunDir, name: str) -> Letter:
    try:
        raw = json.loads(read_regular(run.inbox / name, limit=_LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        return Letter(name, name, 0.0, "", fault=f"unreadable letter ({type(error).__name__})")
    if not isinstance(raw, dict):
        return Letter(name, name, 0.0, "", fault="unreadable letter (not a JSON object)")
    letter_id, verb, sender, args = (raw.get(key) for key in ("id", "verb", "from", "args"))
    letter = Letter(
        name,
        letter_id if isinstance(letter_id, str) else name,
        float(as_number(raw.get("t")) or 0.0),
        verb if verb in VERBS else "",
        args if isinstance(args, dict) else {},
        sender if isinstance(sender, str) else "",
    )
    return replace(letter, fault=_fault(raw), args={} if _fault(raw) else letter.args)


def _fault(raw: dict[str, Any]) -> str:
    """What is wrong with a letter's content; empty where nothing is."""
    version, verb, args = raw.get("v"), raw.get("verb"), raw.get("args", {})
    if type(version) is not int or version != VERSION:
        return f"letter version {str(version)[:20]}, expected {VERSION}"
    if not isinstance(verb, str) or verb not in VERBS:
        word = str(verb)[:40]
        return f"unknown verb '{word}'{nearest(word, VERBS)}"
    if not all(isinstance(raw.get(key), str) for key in ("id", "from")) or as_number(raw.get("t")) is None:
        return "unreadable letter (id, t or from is missing or of the wrong type)"
    if not isinstance(args, dict) or not all(_is_plain(value) for value in args.values()):
        return "unreadable letter (args must be an object of plain values)"
    return ""


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or as_number(value) is not None


def discard(run: RunDir, letter: Letter) -> None:
    """Deletes an answered letter. Never raises: where the system will not, `pending` leaves the letter out.

    A letter that cannot be deleted must neither end a run nor be answered again and again.
    """
    _delete(run.inbox / letter.file)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        _undeleted.add(path)
    else:
        _undeleted.discard(path)
