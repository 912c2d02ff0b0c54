"""What a source is: its files, its name and its format, decided from names and sizes alone."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ondevice.data.readers import Unreadable, zip_leaves
from ondevice.data.sources_types import is_archive, is_declared, is_prose, kind_of, language_of, without_gz
from ondevice.data.sources_walk import FileEntry, Listing, Rules, label, list_folder
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import SourceConfig

__all__ = ["Found", "ResolvedSource", "find", "fits", "slug"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """A source whose path, name and format are decided.

    ``format`` is one of the config's, or ``mixed`` (each file by its extension); ``reason`` says why, for people.
    """

    path: Path
    name: str
    format: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """A resolved source with its files. ``direct``: the source is one file, named by a person."""

    resolved: ResolvedSource
    files: list[FileEntry]
    skipped: list[tuple[str, str]]
    rules: Rules
    direct: bool


def find(source: SourceConfig, base: Path) -> Found:
    """The files of a source; relative paths count from ``base``. Raises DataError, or UsageError for the config."""
    path = Path(os.path.abspath(base / Path(os.path.expanduser(source.path))))
    rules = Rules(tuple(source.include), tuple(source.exclude))
    direct = not _is_folder(path)
    listing = _single(path) if direct else _only(source.files, _folder(path, rules), path)
    form, reason = _decide(source.format, listing.files, rules)
    resolved = ResolvedSource(path, _name(source, path, direct), form, reason)
    if direct:
        return Found(resolved, listing.files, [], rules, direct)
    files = [entry for entry in listing.files if is_archive(entry.path.name) or fits(form, entry.path.name)]
    taken = {entry.relative for entry in files}
    others = [("unsupported_file", entry.relative) for entry in listing.files if entry.relative not in taken]
    return Found(resolved, files, listing.skipped + others, rules, direct)


def _is_folder(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _no_access(path, error) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise DataError(f"{label(str(path))}: neither a file nor a folder; name one that holds text.")
    return stat.S_ISDIR(mode)


def _no_access(path: Path, error: OSError) -> DataError:
    shown = label(str(path))
    if shown.startswith(("/sdcard", "/storage")) and not isinstance(error, FileNotFoundError | NotADirectoryError):
        advice = "run termux-setup-storage, allow access to files, and repeat the command"
    elif isinstance(error, FileNotFoundError | NotADirectoryError):
        return DataError(f"{shown}: no such file or folder; check the path of this source.")
    else:
        advice = "check its permissions (ls -l)"
    return DataError(f"{shown}: cannot be read ({error.strerror or error}); {advice}.")


def _single(path: Path) -> Listing:
    facts = path.stat()
    return Listing([FileEntry(path, label(path.name), facts.st_size, facts.st_mtime_ns)])


def _folder(path: Path, rules: Rules) -> Listing:
    try:
        listing = list_folder(path, rules)
    except OSError as error:
        raise _no_access(path, error) from error
    if not listing.files:
        patterns = " that matches include and exclude" if rules.include or rules.exclude else ""
        raise DataError(f"{label(str(path))}: the folder holds no file{patterns}; name one that holds text.")
    return listing


def _only(wanted: tuple[str, ...], listing: Listing, path: Path) -> Listing:
    """The files that are wanted; all where none are named. Raises DataError for one that is not there any more."""
    if not wanted:
        return listing
    there = {entry.relative: entry for entry in listing.files}
    if gone := next((name for name in wanted if name not in there), None):
        raise DataError(f"{label(str(path))}: '{gone}' is not in this folder any more; put it back.")
    return Listing(sorted((there[name] for name in set(wanted)), key=lambda entry: entry.relative))


def _decide(wanted: str, files: list[FileEntry], rules: Rules) -> tuple[str, str]:
    """The format and why. For ``auto``, only file types that are known have a say."""
    if wanted != "auto":
        return wanted, f"format = {wanted}"
    if all(is_declared("parquet", entry.path.name) for entry in files):
        return "parquet", "every file is parquet"
    sizes: Counter[str] = Counter()
    for name, size in _names(files, rules):
        kind = kind_of(name)
        if kind != "text" or is_prose(name):
            sizes[kind] += size + 1
    total = sum(sizes.values())
    if sizes["code"] * 2 > total:
        return "code", f"{100 * sizes['code'] // total} % of its bytes are program code"
    kinds = sorted({kind_of(name) for name, _ in _names(files, rules)} - {"code"})
    if len(kinds) == 1:
        return kinds[0], f"every file is {kinds[0]}" if not sizes["code"] else f"most of it is {kinds[0]}"
    return "mixed", "each file by its extension"


def _names(files: list[FileEntry], rules: Rules) -> Iterator[tuple[str, int]]:
    """Name and size of every file and archive member."""
    for entry in files:
        if not is_archive(entry.path.name):
            yield without_gz(entry.path.name), entry.size
            continue
        try:
            for leaf in zip_leaves(entry, rules, lambda reason, origin: None):
                yield leaf.name, leaf.size
        except Unreadable:
            continue


def fits(form: str, name: str) -> bool:
    """Whether a source of this format reads a file of this name."""
    name = without_gz(name)
    if form in ("text", "mixed"):
        return True
    return _may_be_code(name) if form == "code" else is_declared(form, name)


def _may_be_code(name: str) -> bool:
    return bool(language_of(name)) or "." not in name.lstrip(".")


def _name(source: SourceConfig, path: Path, direct: bool) -> str:
    if not source.name:
        return slug(path, direct=direct)
    if not _NAME.fullmatch(source.name):
        raise UsageError(
            f"data.sources: name = '{source.name}' is not allowed: use small letters, digits, '.', '_' and '-', "
            f"starting with a letter or digit, at most 64, such as '{_clean(source.name)}'."
        )
    return source.name


def slug(path: Path, *, direct: bool) -> str:
    """A name made from the path of a file (``direct``) or folder: ``My Notes.txt.gz`` gives ``my-notes``."""
    name = Path(without_gz(path.name)).stem if direct else path.name
    return _clean(name)


def _clean(text: str) -> str:
    plain = unicodedata.normalize("NFKD", label(text).replace("ı", "i")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._")[:64].strip("-._") or "source"
