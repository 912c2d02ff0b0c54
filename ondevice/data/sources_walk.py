"""Which files of a folder belong to a source: one walk, sorted, that follows no link out of the folder.

Knows names, sizes and times; opens no file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ondevice.data.sources_types import is_archive, without_gz
from ondevice.run.directory import home

__all__ = ["FileEntry", "Listing", "Rules", "label", "list_folder"]

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a source. ``relative`` is its POSIX path inside the source; ``size`` in bytes."""

    path: Path
    relative: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The include and exclude patterns of a source, and the rule that hidden names are skipped."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def enters(self, relative: str) -> bool:
        """Whether a folder is looked into."""
        name = PurePosixPath(relative).name
        return not (name.startswith(".") or name in _SKIPPED_FOLDERS or self._excluded(relative))

    def takes(self, relative: str) -> bool:
        """Whether a file is read. An archive is, for the sake of its members, to which ``include`` applies."""
        name = PurePosixPath(relative).name
        if name.startswith(".") or self._excluded(relative):
            return False
        return not self.include or is_archive(name) or self._included(relative)

    def takes_member(self, relative: str) -> bool:
        """Whether a member of an archive is read: its folders are judged like folders on disk."""
        folders = [str(folder) for folder in PurePosixPath(relative).parents][:-1]
        return all(self.enters(folder) for folder in folders) and self.takes(relative)

    def _included(self, relative: str) -> bool:
        name = PurePosixPath(relative).name
        candidates = (name, without_gz(name), relative)
        return any(fnmatchcase(candidate, pattern) for pattern in self.include for candidate in candidates)

    def _excluded(self, relative: str) -> bool:
        name = PurePosixPath(relative).name
        return any(
            fnmatchcase(candidate, pattern.rstrip("/")) for pattern in self.exclude for candidate in (name, relative)
        )


@dataclass(slots=True)
class Listing:
    """The files to read in order, and what was passed over as (reason, relative path)."""

    files: list[FileEntry] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def label(path: str) -> str:
    """A path as text that is valid UTF-8 even where the file name is not."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def list_folder(root: Path, rules: Rules) -> Listing:
    """Every file under ``root`` that the rules take, each real file once, sorted by relative path.

    A link is followed when it stays inside the folder and leads to something not listed yet. Raises OSError when
    ``root`` itself cannot be opened.
    """
    return _Walk(root, rules).run()


class _Walk:
    def __init__(self, root: Path, rules: Rules) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._rules = rules
        self._listing = Listing()
        self._links: list[tuple[str, str]] = []
        self._real_folders: set[str] = set()
        self._real_files: set[tuple[int, int]] = set()
        # What ondevice writes is not what anyone wrote: `--data ~` must not read runs and half-made datasets.
        self._own = {os.path.realpath(home() / name) for name in ("runs", "datasets", "logs")}

    def run(self) -> Listing:
        with os.scandir(self._root):
            pass
        self._folders(str(self._root), "")
        while self._links:
            # Links come after everything real, so a file is listed under its own name where it has one.
            links, self._links = sorted(self._links, key=lambda link: link[1]), []
            for path, relative in links:
                self._link(path, relative)
        self._listing.files.sort(key=lambda entry: entry.relative)
        self._listing.skipped.sort()
        return self._listing

    def _folders(self, path: str, relative: str) -> None:
        """A folder and everything under it, without recursion: depth is bounded by the disk, not by Python."""
        todo = [(path, relative)]
        while todo:
            folder, prefix = todo.pop()
            real = os.path.realpath(folder)
            if real in self._own and prefix:
                continue
            if real not in self._real_folders:
                self._real_folders.add(real)
                todo += self._folder(folder, prefix)

    def _folder(self, path: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Notes the files of one folder; yields the folders inside."""
        try:
            with os.scandir(path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            self._listing.skipped.append(("unreadable_folder", label(prefix or ".")))
            return
        for entry in entries:
            relative = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_symlink():
                if self._rules.enters(relative):
                    self._links.append((entry.path, relative))
            elif entry.is_dir(follow_symlinks=False):
                if self._rules.enters(relative):
                    yield entry.path, relative
            else:
                self._file(entry.path, relative)

    def _file(self, path: str, relative: str) -> None:
        if not self._rules.takes(relative):
            return
        try:
            facts = os.stat(path)
        except OSError:
            self._listing.skipped.append(("unreadable_file", label(relative)))
            return
        if not stat.S_ISREG(facts.st_mode):
            self._listing.skipped.append(("unsupported_file", label(relative)))
            return
        self._real_files.add((facts.st_dev, facts.st_ino))
        self._listing.files.append(FileEntry(Path(path), label(relative), facts.st_size, facts.st_mtime_ns))

    def _link(self, path: str, relative: str) -> None:
        try:
            real = os.path.realpath(path, strict=True)
            facts = os.stat(real)
        except OSError:  # leads nowhere, or to itself
            self._listing.skipped.append(("unreadable_file", label(relative)))
            return
        if os.path.commonpath([real, self._real_root]) != self._real_root:
            self._listing.skipped.append(("symlink_outside", label(relative)))
        elif stat.S_ISDIR(facts.st_mode):
            self._folders(path, relative)
        elif (facts.st_dev, facts.st_ino) not in self._real_files:
            self._file(path, relative)
