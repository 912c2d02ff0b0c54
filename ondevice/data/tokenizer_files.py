"""The folder a tokenizer lives in: its files and ``tokenizer_meta.json`` with their hashes, written last.

Written by `train_tokenizer` and the dataset build, read by `load_tokenizer`. Knows nothing of vocabularies.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

from ondevice.data.chat_template import CHAT_FILE, ChatFormat
from ondevice.errors import DataError
from ondevice.run.files import json_bytes, read_json, write_atomic, write_json

__all__ = ["META", "META_VERSION", "read_meta", "read_tokenizer_file", "save_tokenizer"]

META = "tokenizer_meta.json"
META_VERSION = 1
_KEYS = ("kind", "vocab_size", "eot_id", "files")


class _Saveable(Protocol):
    kind: str
    eot_id: int
    chat: ChatFormat | None

    @property
    def vocab_size(self) -> int: ...
    def files(self) -> dict[str, bytes]: ...


def save_tokenizer(tokenizer: _Saveable, folder: Path) -> None:
    """Writes a tokenizer's files, then the meta file. Raises ResourceError when the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    files = tokenizer.files()
    if tokenizer.chat is not None:
        files = {**files, CHAT_FILE: json_bytes(tokenizer.chat.to_json(), indent=1)}
    for name, data in files.items():
        write_atomic(folder / name, data)
    meta = {
        "v": META_VERSION,
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "eot_id": tokenizer.eot_id,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    write_json(folder / META, meta)


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta file, with every file it names verified. Raises DataError naming the damaged file."""
    path = folder / META
    meta = read_json(path)
    if not isinstance(meta, dict) or not isinstance(meta.get("v"), int):
        raise DataError(f"{path}: not a tokenizer's meta file; train the tokenizer again.")
    if meta["v"] > META_VERSION:
        raise DataError(f"{path}: tokenizer format {meta['v']}, this program reads {META_VERSION}; update ondevice.")
    if any(key not in meta for key in _KEYS) or not isinstance(meta["files"], dict):
        raise DataError(f"{path}: incomplete; train the tokenizer again.")
    for name in meta["files"]:
        read_tokenizer_file(folder, name, meta)
    return meta


def read_tokenizer_file(folder: Path, name: str, meta: dict[str, Any]) -> bytes:
    """A file of the tokenizer, compared with the hash in the meta file."""
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); train the tokenizer again.") from error
    if hashlib.sha256(data).hexdigest() != meta["files"][name]:
        raise DataError(f"{path}: damaged, its hash is not the one in {META}; train the tokenizer again.")
    return data
