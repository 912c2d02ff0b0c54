"""EPUB books: a zip file of pages, in the order in which the book is read. Each page is a leaf of HTML."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from functools import partial
from urllib.parse import unquote
from xml.etree import ElementTree

from ondevice.data.readers import Leaf, Swell, Unreadable, member_blocks
from ondevice.data.sources_walk import FileEntry, label

__all__ = ["epub_leaves"]

_PAPER_BYTES = 8 << 20  # of the list of pages
_PAGES = ("application/xhtml+xml", "text/html")
_CONTAINER = "META-INF/container.xml"


def epub_leaves(entry: FileEntry) -> Iterator[Leaf]:
    """The pages of a book. The archive stays open while the generator runs. Raises Unreadable when it is no book."""
    shown = label(str(entry.path))
    try:
        archive = zipfile.ZipFile(entry.path)
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise _broken(str(error)) from error
    except OSError as error:
        raise Unreadable(
            "unreadable_file", f"cannot be read ({error.strerror or error})", "check its permissions"
        ) from error
    swell = Swell(shown, entry.size)
    with archive:
        for name in dict.fromkeys(_pages(archive, swell)):
            member = _member(archive, name)
            read = partial(member_blocks, archive, member, f"{shown}!{label(name)}", swell)
            yield Leaf(f"{entry.relative}!{label(name)}", f"{shown}!{label(name)}", "page.html", member.file_size, read)


def _pages(archive: zipfile.ZipFile, swell: Swell) -> Iterator[str]:
    """Names of the members that hold pages, in reading order."""
    root = next(_paper(archive, _CONTAINER, swell).iterfind(".//{*}rootfile"), None)
    package = unquote(root.get("full-path", "") if root is not None else "")
    if not package:
        raise _broken("it names no list of its pages")
    book, folder = _paper(archive, package, swell), posixpath.dirname(package)
    items = {item.get("id"): item for item in book.iterfind("./{*}manifest/{*}item")}
    for reference in book.iterfind("./{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and item.get("media-type") in _PAGES and item.get("href"):
            path = unquote(item.get("href", "").partition("#")[0])
            yield posixpath.normpath(posixpath.join(folder, path))


def _paper(archive: zipfile.ZipFile, name: str, swell: Swell) -> ElementTree.Element:
    """A small XML member. An entity of its own could swell for ever, and no book needs one here."""
    member = _member(archive, name)
    data = b"".join(member_blocks(archive, member, name, swell)) if member.file_size <= _PAPER_BYTES else b""
    if not data or b"<!ENTITY" in data:
        raise _broken(f"{label(name)} is empty, too large or declares entities")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _broken(f"{label(name)}: {error}") from error


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        raise _broken(f"it has no {label(name)}") from error
    if member.flag_bits & 1:
        raise _broken("it is encrypted")
    return member


def _broken(why: str) -> Unreadable:
    return Unreadable("broken_book", f"is no EPUB book that can be read ({why})", "fetch it again or leave it out")
