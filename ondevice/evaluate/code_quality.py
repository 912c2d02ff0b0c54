"""The code quality score, 0-100, version 1: deterministic, of one generation, with every component.

40 % parses in context; 20 % not degenerate (1 - rep-4, zero if looping); 20 % on language; 10 % continues the prompt's
open construct; 10 % novelty. The sum is multiplied by min(1, code tokens / 20). The generation is cut first, at its
last complete line at which no string or comment is open and every bracket that it opened is closed or leads to an open
block. Code tokens are those that are no comments; words in a row like prose count nothing, a line that is there twice
counts once, and so does a loop. Knows text and tokens, no models.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondevice.evaluate.code_lexer import Lexed, Token, lex
from ondevice.evaluate.degeneration import LONGEST_LOOP, loops, rep

__all__ = ["CODE_SCORE_VERSION", "CodeScore", "code_tokens", "cut", "parses", "score_code"]

CODE_SCORE_VERSION = 1
_ENOUGH_TOKENS = 20
_PROSE_WORDS = 6
_PROSE_GAP = re.compile(r"[,.;:!?]?\s+")
_KEYWORD_LIST = (
    "static const unsigned signed long short int char float double void struct class public private protected final "
    "extern inline volatile register typedef enum union return new function def async await export default abstract "
    "override virtual import package namespace using select from where order group by insert into values"
)
_KEYWORDS = frozenset(_KEYWORD_LIST.split())


@dataclass(frozen=True, kw_only=True)
class CodeScore:
    """The components, each 0 to 1, and the score, 0 to 100."""

    parses: float
    not_degenerate: float
    on_language: float
    continues: float
    novel: float
    code_tokens: int

    @property
    def score(self) -> float:
        parts = 0.4 * self.parses + 0.2 * self.not_degenerate + 0.2 * self.on_language
        parts += 0.1 * self.continues + 0.1 * self.novel
        return 100.0 * parts * min(1.0, self.code_tokens / _ENOUGH_TOKENS)

    def to_json(self) -> dict[str, Any]:
        return {"v": CODE_SCORE_VERSION, **asdict(self), "score": round(self.score, 6)}


def score_code(
    context: str,
    generation: str,
    ids: Sequence[int],
    *,
    language: str,
    guessed: str,
    copied: bool,
    ended: bool = False,
) -> CodeScore:
    """``context`` is all text before the generation, from the beginning of its file where that is known; ``ids`` are
    the generation's tokens, ``guessed`` the language a classifier says it is, ``ended`` whether it ended by itself."""
    kept = cut(context, generation, language, ended=ended)
    before, after = lex(context, language), lex(context + kept, language)
    new = [token for token in after.tokens if token.end > len(context)]
    return CodeScore(
        parses=float(bool(kept.strip()) and parses(context, kept, language)),
        not_degenerate=0.0 if loops(tuple(ids)) else 1.0 - rep(ids, 4),
        on_language=float(guessed == language),
        continues=float(bool(new) and _continues(context, kept, before, after, language)),
        novel=float(not copied),
        code_tokens=code_tokens(context + kept, new),
    )


def cut(context: str, generation: str, language: str, *, ended: bool) -> str:
    """The generation up to its last line end (or its own end) at which nothing is left half-said."""
    ends = [match.end() for match in re.finditer("\n", generation)]
    if ended or not ends:
        ends.append(len(generation))
    held = [(bracket, start) for bracket, start in lex(context, language).stack]
    tokens = lex(context + generation, language).tokens
    for end in reversed(ends):
        place = len(context) + end
        if any(token.start < place < token.end or (token.kind == "error" and token.end == place) for token in tokens):
            continue  # inside a string or comment
        stack = list(lex(context + generation[:end], language).stack)
        if not stack or stack[-1][0] == "{" or stack == held[: len(stack)]:
            return generation[:end]
    return generation[: ends[-1]]


def parses(context: str, kept: str, language: str) -> bool:
    """Python by its own parser, an incomplete block at the end allowed; other languages by their tokens: no error
    and no stray bracket in what was written, and no argument list left open."""
    if language == "python":
        return _python_parses(context + kept)
    before, after = lex(context, language), lex(context + kept, language)
    wrong = any(token.kind == "error" and token.end > len(context) for token in after.tokens)
    wrong |= any(place >= len(context) for place in after.stray)
    own = after.stack[len(_common(before.stack, after.stack)) :]
    return not wrong and (not own or own[-1][0] == "{")


def _common(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    same = []
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        same.append(a)
    return same


def _python_parses(text: str) -> bool:
    closers = "".join({"(": ")", "[": "]", "{": "}"}[bracket] for bracket, _ in reversed(lex(text, "python").stack))
    lines = text.rstrip().splitlines() or [""]
    indent = re.match(r"[ \t]*", lines[-1])[0]  # type: ignore[index]
    for ending in ("", closers, f"{closers}\n{indent}    pass", f"\n{indent}def _(): pass"):
        if _with_finally(text.rstrip() + ending + "\n"):
            return True
    return False


def _with_finally(text: str) -> bool:
    """Parses, with a ``finally`` put after each ``try`` that the cut left without its end."""
    for _ in range(8):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(text)
            return True
        except SyntaxError as error:
            if "expected 'except' or 'finally'" not in str(error):
                return False
        except (ValueError, RecursionError, MemoryError):
            return False
        tries = re.findall(r"(?m)^([ \t]*)try[ \t]*:", text)
        done = re.findall(r"(?m)^([ \t]*)(?:except|finally)\b", text)
        left = [indent for indent in tries if tries.count(indent) > done.count(indent)]
        if not left:
            return False
        text += f"{left[-1]}finally:\n{left[-1]}    pass\n"
    return False


def _continues(context: str, kept: str, before: Lexed, after: Lexed, language: str) -> bool:
    """Whether the open construct of the prompt is gone on with: an argument list is closed or stays the place, a block
    header gets a deeper line, and nothing is closed that was not open."""
    if any(place >= len(context) for place in after.stray):
        return False
    if language == "python" and re.search(r":[ \t]*\n[ \t]*$", context):
        header = context.rstrip().splitlines()[-1]
        lines = [line for line in (context[context.rindex("\n") + 1 :] + kept).splitlines() if line.strip()]
        return bool(lines) and _indent(lines[0]) > _indent(header)
    if before.stack and before.stack[-1][0] in "([":
        return len(after.stack) < len(before.stack) or after.stack[: len(before.stack)] == before.stack
    return True


def _indent(line: str) -> int:
    return len(line.expandtabs(8)) - len(line.expandtabs(8).lstrip())


def code_tokens(text: str, tokens: Sequence[Token]) -> int:
    """How many of some tokens of a text are code, as this module's first lines say."""
    code = [token for token in tokens if token.kind not in ("comment", "error")]
    code = _without_prose(text, code)
    lines: dict[tuple[str, ...], None] = {}
    row: list[str] = []
    for index, token in enumerate(code):
        row.append(token.text)
        if index + 1 == len(code) or "\n" in text[token.end : code[index + 1].start]:
            lines.setdefault(tuple(_unlooped(row)))
            row = []
    return len(_unlooped([word for line in lines for word in line]))


def _without_prose(text: str, tokens: list[Token]) -> list[Token]:
    kept: list[Token] = []
    run: list[Token] = []
    words = 0

    def settle() -> None:
        nonlocal words
        plain = sum(token.kind == "word" and token.text.lower() not in _KEYWORDS for token in run)
        if not (words >= _PROSE_WORDS and plain > words / 2):
            kept.extend(run)
        run.clear()
        words = 0

    for token in tokens:
        plain = token.kind == "word" and token.text.isalpha()
        mark = token.kind == "operator" and token.text in ",.;:!?'’"
        if not (plain or (mark and run)) or (
            run and plain and run[-1].kind == "word" and not _PROSE_GAP.fullmatch(text[run[-1].end : token.start])
        ):
            settle()
        if plain or (mark and run):
            run.append(token)
            words += plain
        else:
            kept.append(token)
    settle()
    return kept


def _unlooped(words: list[str]) -> list[str]:
    """Words without the surplus of a loop, the first time of it left."""
    for k in range(1, min(LONGEST_LOOP, len(words) // 3) + 1):
        times = 1
        while words[len(words) - (times + 1) * k : len(words) - times * k] == words[len(words) - k :]:
            times += 1
        if times >= 3:
            return words[: len(words) - (times - 1) * k]
    return words
