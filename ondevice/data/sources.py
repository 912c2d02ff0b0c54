"""From the sources a person declared to a stream of documents, in a deterministic order.

Decides which reader a file gets; which files there are is decided in `sources_find`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from ondevice.data.clean import cleaned
from ondevice.data.documents import Document, Problems
from ondevice.data.readers import Leaf, Unreadable, file_leaf, sniff, zip_leaves
from ondevice.data.readers_csv import csv_texts
from ondevice.data.readers_epub import epub_leaves
from ondevice.data.readers_html import html_text
from ondevice.data.readers_jsonl import jsonl_texts
from ondevice.data.readers_markdown import markdown_text
from ondevice.data.readers_parquet import parquet_texts
from ondevice.data.readers_units import LINE, PARAGRAPH, Piece, cut_pieces, records
from ondevice.data.readers_utf8 import Chunk, first_invalid, lenient_text, lines_text, strict_text
from ondevice.data.sources_find import Found, ResolvedSource, find, fits
from ondevice.data.sources_types import is_archive, is_wrapped, kind_of, language_of
from ondevice.data.sources_walk import FileEntry, label
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import CleanConfig, SourceConfig

__all__ = ["FileEntry", "ResolvedSource", "iter_documents", "list_files", "resolve"]

_SURROGATE = re.compile("[\ud800-\udfff]")


def resolve(source: SourceConfig, *, base: Path) -> ResolvedSource:
    """Absolute path, name and format of a source; relative paths start at ``base``.

    >>> resolve(SourceConfig(path="notes"), base=Path("/home/me"))
    ResolvedSource(path=PosixPath('/home/me/notes'), name='notes', format='text', reason='every file is text')

    Raises DataError when there is nothing to read, UsageError for a name with characters that are not allowed.
    """
    return find(source, base).resolved


def list_files(source: SourceConfig, base: Path) -> list[FileEntry]:
    """The files that `iter_documents` would look into, sorted by relative path; an archive is one file."""
    return find(source, base).files


def iter_documents(
    source: SourceConfig, *, base: Path, bad_utf8: str, problems: Problems, clean: CleanConfig | None = None
) -> Iterator[Document]:
    """The documents of a source, always in the same order. What is left out is counted in ``problems``.

    ``bad_utf8`` is ``skip_line``, ``skip_document`` or ``refuse``. Raises DataError for damaged input, for a file that
    was named directly and cannot be read, and at the end when there was no document at all.
    """
    found = find(source, base)
    for reason, origin in found.skipped:
        problems.add(found.resolved.name, reason, origin)
    documents = cleaned(_Reader(source, found, bad_utf8, problems).documents(), clean or CleanConfig(), problems)
    first = next(documents, None)
    if first is None:
        raise DataError(_no_document(found.resolved, problems))
    yield first
    yield from documents


def _no_document(resolved: ResolvedSource, problems: Problems) -> str:
    names = {name for name, _, _ in problems if name == resolved.name or name.startswith(f"{resolved.name}.")}
    left_out = "; ".join(line.rstrip(".") for line in problems.summary() if line.partition(":")[0] in names)
    why = f" ({left_out})" if left_out else ""
    return f"{resolved.path}: no text was found{why}; name a file or folder with text, or change the format."


class _Reader:
    """Reads the files of one source one after another."""

    def __init__(self, source: SourceConfig, found: Found, bad_utf8: str, problems: Problems) -> None:
        self._source = source
        self._found = found
        self._name = found.resolved.name
        self._bad_utf8 = bad_utf8
        self._problems = problems

    def documents(self) -> Iterator[Document]:
        for entry in self._found.files:
            try:
                if is_archive(entry.path.name):
                    yield from self._archive(entry)
                elif self._kind(entry.path.name) == "epub":
                    yield from self._book(entry)
                elif self._kind(entry.path.name) == "parquet":
                    yield from self._parquet(entry)
                else:
                    yield from self._leaf(file_leaf(entry))
            except Unreadable as error:
                if self._found.direct:
                    raise DataError(f"{label(str(entry.path))} {error.detail}; {error.advice}.") from error
                self._problems.add(self._name, error.reason, entry.relative)

    def _archive(self, entry: FileEntry) -> Iterator[Document]:
        for leaf in zip_leaves(entry, self._found.rules, partial(self._problems.add, self._name)):
            try:
                if is_wrapped(leaf.name) or not fits(self._found.resolved.format, leaf.name):
                    self._problems.add(self._name, "unsupported_file", leaf.origin)
                else:
                    yield from self._leaf(leaf)
            except Unreadable as error:
                self._problems.add(self._name, error.reason, leaf.origin)

    def _kind(self, name: str) -> str:
        """How a file of this name is read."""
        form = self._found.resolved.format
        return kind_of(name) if form == "mixed" else form

    def _book(self, entry: FileEntry) -> Iterator[Document]:
        for leaf in epub_leaves(entry):
            try:
                if problem := sniff(leaf.head()):
                    raise problem
                self._refuse_scores(leaf.shown)
                yield from self._html(leaf)
            except Unreadable as error:
                self._problems.add(self._name, error.reason, leaf.origin)

    def _parquet(self, entry: FileEntry) -> Iterator[Document]:
        rows = parquet_texts(entry.path, label(str(entry.path)), **self._fields)
        return self._row_documents(rows, entry.relative)

    def _leaf(self, leaf: Leaf) -> Iterator[Document]:
        """Documents of one file. Raises Unreadable when it holds no text."""
        head = leaf.head()
        if problem := sniff(head):
            raise problem
        readers = {"jsonl": self._jsonl, "csv": self._csv, "html": self._html, "markdown": self._markdown}
        kind = self._kind(leaf.name)
        if kind not in ("jsonl", "csv"):
            self._refuse_scores(leaf.shown)
        if reader := readers.get(kind):
            return reader(leaf)
        return self._code(leaf, head) if self._found.resolved.format == "code" else self._text(leaf)

    def _refuse_scores(self, shown: str) -> None:
        """Raises UsageError where a field of rows is wanted of what has no rows."""
        if self._source.score_field:
            raise UsageError(
                f"{shown}: '{self._name}' has score_field = '{self._source.score_field}', and this file has no rows "
                "with fields; give the source one score for all of it (score = 2.0), or declare its format as jsonl, "
                "csv or parquet."
            )

    def _text(self, leaf: Leaf) -> Iterator[Document]:
        if self._source.document == "file":
            return self._whole(leaf, self._name, self._source.language)
        return self._records(leaf, PARAGRAPH if self._source.document == "paragraph" else LINE)

    def _code(self, leaf: Leaf, head: bytes) -> Iterator[Document]:
        language = language_of(leaf.name, head.partition(b"\n")[0])
        if not language:
            raise Unreadable(
                "unsupported_file", "is not of a programming language that is known", 'set format = "text" to read it'
            )
        return self._whole(leaf, f"{self._name}.{language}", language)

    def _html(self, leaf: Leaf) -> Iterator[Document]:
        chunks = self._chunks(leaf, self._name)
        pieces = cut_pieces(html_text(chunk.text for chunk in chunks))
        return self._emit(pieces, leaf.origin, self._name, self._source.language)

    def _markdown(self, leaf: Leaf) -> Iterator[Document]:
        pieces = cut_pieces(markdown_text(chunk.text for chunk in self._chunks(leaf, self._name)))
        return self._emit(pieces, leaf.origin, self._name, self._source.language)

    def _whole(self, leaf: Leaf, name: str, language: str) -> Iterator[Document]:
        pieces = cut_pieces(chunk.text for chunk in self._chunks(leaf, name))
        return self._emit(pieces, leaf.origin, name, language)

    def _chunks(self, leaf: Leaf, name: str) -> Iterator[Chunk]:
        """The text of a file that is one document, with the wish about invalid UTF-8 carried out."""
        if self._bad_utf8 == "skip_line":
            return lines_text(leaf, partial(self._bad_line, leaf, name))
        if self._bad_utf8 == "skip_document":
            line = first_invalid(leaf)
            if line is not None:
                self._problems.add(name, "invalid_utf8_document", f"{leaf.origin}:{line}")
                return iter(())
        return strict_text(leaf)

    def _bad_line(self, leaf: Leaf, name: str, line: int) -> None:
        self._problems.add(name, "invalid_utf8_line", f"{leaf.origin}:{line}")

    def _emit(
        self, pieces: Iterable[Piece], origin: str, name: str, language: str, score: float | None = None
    ) -> Iterator[Document]:
        """The pieces of one document. A document without a visible character is counted instead."""
        nothing = True
        for text, number, _ in pieces:
            if number or not text.isspace():
                nothing = False
                yield Document(text, name, language, f"{origin}#{number}" if number else origin, score)
        if nothing:
            self._problems.add(name, "empty_document", origin)

    def _records(self, leaf: Leaf, separator: re.Pattern[str]) -> Iterator[Document]:
        """Paragraphs or lines, each a document. Under ``skip_document`` each is judged by itself."""
        lenient = self._bad_utf8 == "skip_document"
        chunks = lenient_text(leaf) if lenient else self._chunks(leaf, self._name)
        name, language, where = self._name, self._source.language, leaf.origin
        for text, number, line in records(chunks, separator):
            origin = f"{where}:{line}#{number}" if number else f"{where}:{line}"
            if lenient and _SURROGATE.search(text):
                self._problems.add(name, "invalid_utf8_document", origin)
            else:
                yield Document(text, name, language, origin)

    @property
    def _fields(self) -> dict[str, str]:
        return {key: getattr(self._source, key) for key in ("text_field", "title_field", "score_field")}

    def _csv(self, leaf: Leaf) -> Iterator[Document]:
        rows = csv_texts(self._chunks(leaf, self._name), leaf.shown, **self._fields)
        return self._row_documents(rows, leaf.origin)

    def _row_documents(self, rows: Iterable[tuple[int, str, float | None]], origin: str) -> Iterator[Document]:
        for number, text, score in rows:
            yield from self._emit(cut_pieces([text]), f"{origin}:{number}", self._name, self._source.language, score)

    def _jsonl(self, leaf: Leaf) -> Iterator[Document]:
        for line, text, score in jsonl_texts(leaf, **self._fields):
            if isinstance(text, bytes) or _SURROGATE.search(text):
                self._bad_row(leaf, line, "invalid_utf8_line" if isinstance(text, bytes) else "lone_surrogate")
            else:
                origin = f"{leaf.origin}:{line}"
                yield from self._emit(cut_pieces([text]), origin, self._name, self._source.language, score)

    def _bad_row(self, leaf: Leaf, line: int, reason: str) -> None:
        if self._bad_utf8 == "refuse":
            raise DataError(
                f"{leaf.shown}:{line}: this line holds text that is not valid UTF-8; correct it, or set "
                'data.bad_utf8 = "skip_line" to leave such lines out.'
            )
        self._problems.add(self._name, reason, f"{leaf.origin}:{line}")
