"""What a long measurement has found so far, a line each, so that it goes on after a kill instead of beginning again.

Belongs to one question: lines under another key are not read. Removed once the whole result is written.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ondevice.run.files import fsync_folder, json_bytes, make_folder, write_all, write_error

__all__ = ["Journal"]


class Journal:
    """>>> journal = Journal(Path("evals/panel-1.part"), key="ab12")  # doctest: +SKIP
    >>> journal.get("losses notes") or journal.put("losses notes", 2.5)  # doctest: +SKIP
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self._path, self._key = path, key
        self._found = dict(_lines(path, key))

    def get(self, name: str) -> Any:
        """What was put under a name, now or before a kill; None for nothing."""
        return self._found.get(name)

    def put(self, name: str, value: Any) -> None:
        """Durable when it returns. Raises ResourceError on a full disk, DataError where nothing can be written."""
        try:
            make_folder(self._path.parent)
            new = not self._path.exists()
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:  # a line that a kill tore ends here, so that the next one stands alone
                write_all(fd, (b"" if new else b"\n") + json_bytes({"key": self._key, "name": name, "value": value}))
                os.fsync(fd)
            finally:
                os.close(fd)
            if new:
                fsync_folder(self._path.parent)
        except OSError as error:
            raise write_error(self._path, error) from error
        self._found[name] = value

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()


def _lines(path: Path, key: str) -> list[tuple[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and row.get("key") == key and isinstance(row.get("name"), str):
                found.append((row["name"], row.get("value")))
    return found
