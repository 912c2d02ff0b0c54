"""A disk that may lose power or its process at any call: the model that the tests of crashes share.

Two models. *Kill*: the process ends at the Nth call, everything before it stays. *Power cut* (after SQLite's test6.c):
whatever was not fsynced before the Nth call may be there, gone or torn, each thing on its own; the survivors are built
as a real folder and opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")


class Crash(BaseException):
    """The end of the process: nothing catches it, and no call after it reaches the disk."""


@dataclass(eq=False)
class Node:
    """A file or folder. ``written`` holds a file's data since its last fsync, ``pending`` a folder's entry changes."""

    is_folder: bool
    data: bytes = b""
    written: bytes = b""
    entries: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[str, Node | None, str | None]] = field(default_factory=list)

    def change(self, name: str, node: Node | None, *, instead_of: str | None = None) -> None:
        """Puts or removes an entry; with ``instead_of`` it is a rename within the folder, which is one change."""
        self.pending.append((name, node, instead_of))
        _apply(self.entries, self.pending[-1])

    def sync(self) -> None:
        self.data, self.written = self.data + self.written, b""
        self.durable, self.pending = dict(self.entries), []

    def after_power_cut(self, choose: Callable[[], float], folder: Path) -> None:
        """Makes what survives: each unsynced change happened or not, unsynced data is whole, torn, zeroed or gone."""
        entries = dict(self.durable)
        for change in self.pending:
            if choose() < 0.5:
                _apply(entries, change)
        for name, node in entries.items():
            if node.is_folder:
                (folder / name).mkdir()
                node.after_power_cut(choose, folder / name)
            else:
                kept = node.written[: round(choose() * len(node.written))] if choose() < 0.6 else node.written
                kept = bytes(len(kept)) if choose() < 0.2 else kept
                (folder / name).write_bytes(node.data + (kept if choose() < 0.7 else b""))


def _apply(entries: dict[str, Node], change: tuple[str, Node | None, str | None]) -> None:
    name, node, instead_of = change
    if instead_of is not None:
        entries.pop(instead_of, None)
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


class Disk:
    """Follows the calls under ``root``. ``crash_at`` ends the process before that call; ``calls`` counts them."""

    def __init__(self, root: Path, *, crash_at: int | None = None) -> None:
        self.root, self.crash_at = root, crash_at
        self.calls: list[str] = []
        self.tree = self._load(root)
        self._real = {name: getattr(os, name) for name in CALLS}
        self._nodes: dict[int, tuple[Node, Path]] = {}

    def _load(self, path: Path) -> Node:
        if not path.is_dir():
            return Node(False, path.read_bytes())
        entries = {item.name: self._load(item) for item in path.iterdir()}
        return Node(True, entries=entries, durable=dict(entries))

    @contextmanager
    def following(self) -> Iterator[Disk]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, getattr(self, f"_{name}"))
            yield self

    def _count(self, name: str, path: Any) -> None:
        if self.crash_at is not None and len(self.calls) >= self.crash_at:
            raise Crash
        self.calls.append(f"{name} {path}")

    def _full(self, path: Any, dir_fd: int | None) -> Path:
        return (self._nodes[dir_fd][1] if dir_fd is not None else Path()) / os.fspath(path)

    def _find(self, path: Path) -> Node | None:
        node: Node | None = self.tree
        for part in path.relative_to(self.root).parts:
            node = node.entries.get(part) if node else None
        return node

    def _parent(self, path: Path) -> Node:
        parent = self._find(path.parent)
        assert parent is not None
        return parent

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        full = self._full(path, dir_fd)
        if not full.is_relative_to(self.root):
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        if flags & os.O_CREAT:
            self._count("create", full.name)
        fd = int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        node = self._find(full)
        if node is None:
            node = Node(False)
            self._parent(full).change(full.name, node)
        self._nodes[fd] = (node, full)
        return fd

    def _write(self, fd: int, data: Any) -> int:
        self._count("write", self._nodes[fd][1].name)
        done = int(self._real["write"](fd, data))
        self._nodes[fd][0].written += bytes(data)[:done]
        return done

    def _fsync(self, fd: int) -> None:
        self._count("fsync", self._nodes[fd][1].name)
        self._real["fsync"](fd)
        self._nodes[fd][0].sync()

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._count("mkdir", Path(path).name)
        self._real["mkdir"](path, mode)
        self._parent(Path(path)).change(Path(path).name, Node(True))

    def _rename(self, source: Any, target: Any) -> None:
        source, target = Path(source), Path(target)
        assert source.parent == target.parent
        self._count("rename", target.name)
        self._real["rename"](source, target)
        self._parent(target).change(target.name, self._find(source), instead_of=source.name)

    _replace = _rename

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        full = self._full(path, dir_fd)
        self._count("unlink", full.name)
        self._real["unlink"](path, dir_fd=dir_fd)
        self._parent(full).change(full.name, None)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        full = self._full(path, dir_fd)
        self._count("rmdir", full.name)
        self._real["rmdir"](path, dir_fd=dir_fd)
        self._parent(full).change(full.name, None)


@pytest.fixture
def crash_model() -> SimpleNamespace:
    """``Disk``, ``Crash`` and the names of the ``CALLS`` it follows."""
    return SimpleNamespace(Disk=Disk, Crash=Crash, CALLS=CALLS)
