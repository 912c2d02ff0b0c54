"""Code as tokens, for some forty languages in six families: comments, strings, words, brackets, and what is none.

Not a parser: enough to tell whether quotes and brackets close, to count tokens that are no comments, and to know where
a text may be cut. Where a language is too free to be sure (quotes in Perl or shell), an odd quote is only punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

__all__ = ["LEXER_VERSION", "Lexed", "Token", "is_code", "lex"]

LEXER_VERSION = 1

_C = "c cpp objective-c"
_CURLY = "csharp css d dart go groovy java javascript kotlin php protobuf rust scala solidity swift typescript zig vue"
_SCRIPT = "perl ruby shell awk powershell elixir r julia make cmake dockerfile nim"
_FAMILY = {
    **dict.fromkeys(_C.split(), "c"),
    **dict.fromkeys(_CURLY.split(), "curly"),
    **dict.fromkeys(_SCRIPT.split(), "script"),
    "python": "python",
    "tcl": "tcl",
    **dict.fromkeys(["lua", "sql", "haskell", "elm", "ada"], "dash"),
}
_REGEX_LITERALS = frozenset(["javascript", "typescript", "vue", "perl", "ruby", "awk", "groovy"])
_OTHERS = "assembly clojure cobol erlang fortran fsharp html lisp ocaml pascal prolog scheme vim"

_STRING = r'(?!""")"(?:\\.|[^"\\\n])*"'
_CHARACTER = r"(?!''')'(?:\\.|[^'\\\n])*'"
_SPANNING = r'"(?:\\[\s\S]|[^"\\]){0,2000}"' + r"|'(?:\\[\s\S]|[^'\\]){0,2000}'"
_TRIPLE = r'"""[\s\S]*?"""|' + r"'''[\s\S]*?'''"
_HEREDOC = r"<<-?(?P<quote>['\"]?)(?P<word>[A-Za-z_]\w*)(?P=quote)[^\n]*\n(?:[\s\S]*?\n)?[ \t]*(?P=word)(?=\n|$)"
_BLOCK_COMMENT = r"/\*[\s\S]*?\*/"
_REGEX = r"(?<=[(,=~!&|?{};:\n])[ \t]*/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*"
_PERL_QUOTES = (
    r"\b(?:s|tr|y)(?P<slash>[/|!#])(?:\\.|(?!(?P=slash))[^\\\n])*(?P=slash)(?:\\.|(?!(?P=slash))[^\\\n])*(?P=slash)[a-z]*"
    r"|\b(?:m|qr|qq|qw|q)(?:/(?:\\.|[^/\\])*/|\{(?:\\.|[^}\\])*\}|\((?:\\.|[^)\\])*\)|\|(?:\\.|[^|\\])*\|)[a-z]*"
)
_UNCLOSED = {
    "c": r"/\*[\s\S]*",
    "curly": r"(?:/\*|`|\"\"\")[\s\S]*",
    "python": r"(?:\"\"\"|''')[\s\S]*",
}
_FAMILIES = {  # comments; strings; what may stay open only until the end of its line; never a token
    "c": (rf"//[^\n]*|{_BLOCK_COMMENT}", rf"{_STRING}|{_CHARACTER}", "\"'", r"[@$`]"),
    "curly": (rf"//[^\n]*|{_BLOCK_COMMENT}", rf"{_TRIPLE}|{_STRING}|{_CHARACTER}|`(?:\\[\s\S]|[^`\\])*`", '"', r"(?!)"),
    "script": (r"(?:(?<=\s)|^)#[^\n]*|(?m:^)=\w[\s\S]*?\n=cut", rf"{_HEREDOC}|{_SPANNING}", "", r"(?!)"),
    "python": (r"#[^\n]*", rf"{_TRIPLE}|{_STRING}|{_CHARACTER}", "\"'", r"[$?`]"),
    "tcl": (r"(?:(?<=[\s;])|^)#[^\n]*", r'"(?:\\[\s\S]|[^"\\]){0,2000}"', "", r"(?!)"),
    "dash": (
        rf"--\[\[[\s\S]*?\]\]|--[^\n]*|{_BLOCK_COMMENT}",
        rf"\[\[[\s\S]*?\]\]|{_STRING}|{_CHARACTER}",
        "",
        r"(?!)",
    ),
    "other": (r"(?m:^)[ \t]*[#;%][^\n]*|<!--[\s\S]*?-->", _STRING, "", r"(?!)"),
}
_BARE = r"\\[\s\S]|\$[#&\"'`;,.!@](?=[\s;,)])|\$\#|&\#\d+;"
_REST = r"(?P<space>\s+)|(?P<word_>[^\W\d]\w*)|(?P<number>\d[\w.]*)|(?P<open>[(\[{])|(?P<close>[)\]}])"
_OPERATOR = r"(?P<operator>==|!=|<=|>=|&&|\|\||->|=>|::|\+\+|--|[^\w\s\x00-\x1f\x7f-\x9f\ufffd])"
_PAIRS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class Token:
    """``kind`` is comment, string, word, number, open, close, operator or error; ``start`` and ``end`` are places."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Lexed:
    """The tokens of a text, spaces left out, and the brackets that are still open (with where they began)."""

    tokens: tuple[Token, ...]
    stack: tuple[tuple[str, int], ...]
    stray: tuple[int, ...]
    """Places of closing brackets that close nothing or the wrong thing."""

    @property
    def errors(self) -> int:
        return sum(token.kind == "error" for token in self.tokens)


def is_code(language: str) -> bool:
    """Whether a language is a programming language we know tokens of."""
    return language in _FAMILY or language in _OTHERS.split()


@cache
def _scanner(language: str) -> re.Pattern[str]:
    comment, string, _, never = _FAMILIES[_FAMILY.get(language, "other")]
    if language in ("php", "make"):
        comment += r"|#[^\n]*"
    if language == "perl":
        string = f"{_PERL_QUOTES}|{string}"
    if language == "rust":
        string = string.replace(_CHARACTER, r"'(?:\\[^'\n]+|[^'\\\n])'")
    if language in _REGEX_LITERALS:
        string = f"{string}|{_REGEX}"
    directive = r"(?m:^)[ \t]*\#[ \t]*\w+(?:\\\n|[^\n])*" if _FAMILY.get(language) == "c" else r"(?!)"
    never = r"(?P<never>" + never + ")"
    unclosed = _UNCLOSED.get(_FAMILY.get(language, "other"), "(?!)")
    parts = f"(?P<comment>{comment})|(?P<directive>{directive})|(?P<string>{string})|(?P<bare>{_BARE})"
    return re.compile(f"{parts}|(?P<unclosed>{unclosed})|{_REST}|{never}|{_OPERATOR}|(?P<error>[\\s\\S])")


def lex(text: str, language: str) -> Lexed:
    """The tokens of a text in a language; unknown languages are read with the loosest rules."""
    tokens = tuple(_tokens(text, language))
    stack: list[tuple[str, int]] = []
    stray = []
    for token in tokens:
        if token.kind == "open":
            stack.append((token.text, token.start))
        elif token.kind == "close":
            if stack and stack[-1][0] == _PAIRS[token.text]:
                stack.pop()
            elif not (language == "shell" and token.text == ")"):  # the patterns of its `case`
                stray.append(token.start)
    return Lexed(tokens, tuple(stack), tuple(stray))


_KINDS = {"word_": "word", "never": "error", "unclosed": "error", "bare": "operator"}
_GROUPS = (
    "comment",
    "directive",
    "string",
    "bare",
    "space",
    "word_",
    "number",
    "open",
    "close",
    "never",
    "unclosed",
    "operator",
)


def _tokens(text: str, language: str) -> Iterator[Token]:
    only_in_pairs = _FAMILIES[_FAMILY.get(language, "other")][2]
    for match in _scanner(language).finditer(text):
        kind = next((name for name in _GROUPS if match[name] is not None), "error")
        if kind == "space":
            continue
        if kind == "directive":
            yield from _directive(match)
            continue
        if kind == "operator" and match[0] in only_in_pairs:
            kind = "error"  # a quote that its line does not close
        yield Token(_KINDS.get(kind, kind), match[0], match.start(), match.end())


def _directive(match: re.Match[str]) -> Iterator[Token]:
    """A line of the C preprocessor: words count, brackets and quotes are its own business."""
    for part in re.finditer(r"[^\W\d]\w*|[^\w\s]+|\d\w*", match[0]):
        yield Token(
            "operator" if not part[0][0].isalnum() else "word", part[0], *(match.start() + p for p in part.span())
        )
