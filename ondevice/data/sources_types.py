"""What a file is, judged by its name alone (and, for scripts without an extension, by its first line)."""

from __future__ import annotations

import re

__all__ = [
    "CODE",
    "PROGRAMMING",
    "is_archive",
    "is_declared",
    "is_prose",
    "is_wrapped",
    "kind_of",
    "language_of",
    "without_gz",
]

_LANGUAGES = """
ada .adb .ads           assembly .asm .s       awk .awk               c .c .h
clojure .clj .cljs      cmake .cmake           cobol .cob .cbl        cpp .cc .cpp .cxx .hh .hpp .hxx .inl
csharp .cs              css .css .scss .less   d .d                   dart .dart
elixir .ex .exs         elm .elm               erlang .erl .hrl       fortran .f .f90 .f95 .for
fsharp .fs .fsx         go .go                 groovy .groovy .gradle haskell .hs
html .html .htm .xhtml  java .java             javascript .js .mjs .cjs .jsx
julia .jl               kotlin .kt .kts        lisp .lisp .el         lua .lua
make .mk                nim .nim               objective-c .m .mm     ocaml .ml .mli
pascal .pas .pp         perl .pl .pm           php .php               powershell .ps1 .psm1
prolog .pro             protobuf .proto        python .py .pyi .pyw   r .r
ruby .rb                rust .rs               scala .scala           scheme .scm .rkt
shell .sh .bash .zsh    solidity .sol          sql .sql               swift .swift
tcl .tcl                typescript .ts .tsx .mts .cts                 vim .vim
vue .vue                zig .zig
"""


def _table(text: str) -> dict[str, str]:
    """Extension -> language. A word without a dot names the language of the extensions after it."""
    table, language = {}, ""
    for word in text.split():
        if word.startswith("."):
            table[word] = language
        else:
            language = word
    return table


CODE = _table(_LANGUAGES)
PROGRAMMING = frozenset(CODE.values())
"""Extension (lower case, with its dot) -> programming language."""

_NAMES = {
    "makefile": "make",
    "gnumakefile": "make",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "jenkinsfile": "groovy",
}
_INTERPRETERS = {
    "awk": "awk",
    "bash": "shell",
    "dash": "shell",
    "gawk": "awk",
    "julia": "julia",
    "ksh": "shell",
    "lua": "lua",
    "node": "javascript",
    "perl": "perl",
    "php": "php",
    "pwsh": "powershell",
    "python": "python",
    "rscript": "r",
    "ruby": "ruby",
    "sh": "shell",
    "tclsh": "tcl",
    "zsh": "shell",
}
_SHEBANG = re.compile(rb"#![ \t]*(?:\S*/)?([^/\s]+)(?:[ \t]+(?:-S[ \t]+)?(\S+))?")

_JSONL = (".jsonl", ".ndjson")
_HTML = (".html", ".htm", ".xhtml")
_ARCHIVES = (".zip",)
_BOOKS = (".epub",)
_WRAPPED = (*_ARCHIVES, *_BOOKS, ".parquet")
# Read so only where the format is declared: by itself such a file is text, as it always was.
_DECLARED = {"csv": (".csv", ".tsv"), "markdown": (".md", ".markdown", ".mdx"), "parquet": (".parquet",)}
_PROSE = frozenset(
    re.findall(
        r"\.\w+",
        ".adoc .bib .csv .json .log .markdown .md .mdx .org .po .rst .srt .tex .text .tsv .txt .vtt .wiki .xml",
    )
)


def extension(name: str) -> str:
    """The last suffix in lower case with its dot; empty where there is none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def without_gz(name: str) -> str:
    return name[:-3] if name.lower().endswith(".gz") and len(name) > 3 else name


def is_archive(name: str) -> bool:
    return extension(name) in _ARCHIVES


def is_wrapped(name: str) -> bool:
    """Whether a file holds its text in a way that only works for a file on disk, not for a member of an archive."""
    return extension(name) in _WRAPPED


def is_declared(form: str, name: str) -> bool:
    """Whether a file of this name is read where this format is declared."""
    return extension(name) in _DECLARED.get(form, ()) or kind_of(name) == form


def language_of(name: str, first_line: bytes = b"") -> str:
    """The programming language of a file, or an empty string. ``first_line`` is looked at without an extension."""
    named = _NAMES.get(name.lower()) or CODE.get(extension(name), "")
    if named or extension(name):
        return named
    return _interpreter(first_line)


def _interpreter(first_line: bytes) -> str:
    match = _SHEBANG.match(first_line)
    if match is None:
        return ""
    program, argument = match[1], match[2] or b""
    word = (argument if program == b"env" else program).rpartition(b"/")[2].decode("ascii", "ignore")
    return _INTERPRETERS.get(re.sub(r"[\d.]+$", "", word.lower()), "")


def kind_of(name: str) -> str:
    """``jsonl``, ``html``, ``epub``, ``code``, or ``text`` for all else. HTML pages count as HTML, not as code."""
    suffix = extension(name)
    if suffix in _JSONL:
        return "jsonl"
    if suffix in _HTML:
        return "html"
    if suffix in _BOOKS:
        return "epub"
    return "code" if language_of(name) else "text"


def is_prose(name: str) -> bool:
    """Whether a file of kind ``text`` surely holds text: the extension says so, or there is none."""
    return extension(name) in _PROSE or not extension(name)
