"""What is wrong with files of examples, row by row and between them, before anything is trained.

Errors are what a build or a contract refuses, and held-out questions that are trained on; warnings are for a person to
judge. Never repeats sensitive text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.data.check_statistics import Counts, imbalance
from ondevice.data.contract import Contract
from ondevice.data.duplicates import document_hash
from ondevice.data.examples import KINDS, Example, kind_of_row, parse_example, parse_row
from ondevice.data.examples_build import encode_example
from ondevice.data.examples_read import example_leaves
from ondevice.data.look_alike import look_alikes
from ondevice.data.readers import Unreadable, sniff
from ondevice.data.readers_jsonl import jsonl_rows
from ondevice.data.sensitive import sensitive_kinds
from ondevice.data.sources_find import find
from ondevice.data.special_tokens import SpecialTokens
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DataError
from ondevice.run.schema import SourceConfig

__all__ = ["ERROR", "WARNING", "CheckReport", "Fault", "check_examples"]

ERROR, WARNING = "error", "warning"
NEAR = 0.8  # likeness from which two questions count as nearly the same
_KEPT = 20  # faults of one kind that are told in full


@dataclass(frozen=True)
class Fault:
    """``where`` is FILE:LINE; ``kind`` names what is wrong in one word, for counting."""

    level: str
    kind: str
    where: str
    text: str


@dataclass
class CheckReport:
    """All that was found; of each kind the first `_KEPT` faults, and how many there were."""

    rows: dict[str, int] = field(default_factory=dict)
    kind: str = ""
    faults: list[Fault] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)

    def add(self, level: str, kind: str, where: str, text: str) -> None:
        self.counts[f"{level} {kind}"] = self.counts.get(f"{level} {kind}", 0) + 1
        if self.counts[f"{level} {kind}"] <= _KEPT:
            self.faults.append(Fault(level, kind, where, text))

    @property
    def errors(self) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith(ERROR))

    @property
    def warnings(self) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith(WARNING))


@dataclass(frozen=True)
class _Seen:
    """A sound row: where, whether it is held out, the question as asked, and what tells it from others."""

    where: str
    held_out: bool
    asked: str
    example: Example


def check_examples(
    train: Sequence[Path],
    held_out: Sequence[Path] = (),
    *,
    kind: str = "auto",
    contract: Contract | None = None,
    tokenizer: Tokenizer | None = None,
    context: int | None = None,
) -> CheckReport:
    """Reads every row of the files once. ``tokenizer`` makes lengths tokens, ``context`` says which are too long.

    Raises DataError for a file that cannot be read at all; what is wrong inside is in the report.
    """
    report = CheckReport(kind="" if kind == "auto" else kind)
    seen: list[_Seen] = []
    counts = Counts(tokenizer=tokenizer is not None)
    for path, held in [*((path, False) for path in train), *((path, True) for path in held_out)]:
        before = len(seen)
        for where, row in _rows(path, report):
            one = _row(row, where, report, contract, held_out=held)
            if one is None:
                continue
            seen.append(one)
            _sensitive(one, report, tokenizer)
            _run_together(one, report)
            counts.add(one.example, held_out=held, tokens=_tokens(one, report, tokenizer))
        report.rows[str(path)] = len(seen) - before
        if len(seen) == before and not report.errors:
            report.add(ERROR, "empty", str(path), "holds no example; write one JSON object a line.")
    _copies(seen, report, strict=contract is not None)
    _near(seen, report)
    report.lengths, report.labels = counts.lengths(context), counts.labels()
    for text in imbalance(report.labels, held_out=bool(held_out)):
        report.add(WARNING, "labels", str(train[0]), text)
    if long := report.lengths.get("too_long"):
        report.add(WARNING, "too_long", str(train[0]), f"{long:,} examples have more than {context:,} tokens.")
    return report


def _rows(path: Path, report: CheckReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands and its JSON object; lines that are none are reported."""
    for leaf in example_leaves(find(SourceConfig(path=str(path), format="jsonl"), Path.cwd())):
        try:
            if problem := sniff(leaf.head()):
                raise problem
            for number, line in jsonl_rows(leaf.blocks(), leaf.shown):
                where = f"{leaf.shown}:{number}"
                try:
                    yield where, parse_row(line, where)
                except UnicodeDecodeError as error:
                    report.add(ERROR, "utf8", where, f"not valid UTF-8 at byte {error.start} of the line; correct it.")
                except DataError as error:
                    report.add(ERROR, "json", where, _without(where, error))
        except Unreadable as error:
            raise DataError(f"{leaf.shown} {error.detail}; {error.advice}.") from error


def _row(
    row: dict[str, Any], where: str, report: CheckReport, contract: Contract | None, *, held_out: bool
) -> _Seen | None:
    if not report.kind:
        report.kind = kind_of_row(row) or ("instruction" if "instruction" in row else "")
    if not report.kind:
        names = ", ".join(list(row)[:12])
        known = f"instruction and output, messages, or prompt and completion ({', '.join(KINDS)})"
        report.add(ERROR, "fields", where, f"is no example: it has {names or 'no field'}, and should have {known}.")
        return None
    try:
        example = parse_example(row, report.kind, where, held_out=held_out)
    except DataError as error:
        report.add(ERROR, "fields", where, _without(where, error))
        return None
    for fault in contract.faults(row, example) if contract else ():
        report.add(ERROR, "contract", where, fault)
    given = row.get("input")
    return _Seen(where, held_out, given if isinstance(given, str) and given.strip() else example.question, example)


def _without(where: str, error: Exception) -> str:
    """The sentence without its place, which the report gives by itself."""
    return str(error).removeprefix(where).lstrip(": ")


def _sensitive(one: _Seen, report: CheckReport, tokenizer: Tokenizer | None) -> None:
    text = f"{one.example.question}\n{one.example.answer}"
    for kind in sensitive_kinds(text):
        report.add(
            WARNING, "sensitive", one.where, f"holds what looks like {kind}: a model may recite it; take it out."
        )
    if tokenizer is not None and (name := SpecialTokens(tokenizer).named_in(text)):
        report.add(
            WARNING, "special", one.where, f"holds {name}, which stays ordinary text here; other programs differ."
        )


def _run_together(one: _Seen, report: CheckReport) -> None:
    """A prompt and a completion stand side by side as they are written, without a template between them."""
    question, answer = one.example.question, one.example.answer
    if one.example.messages is None and question[-1:].isalnum() and answer[:1].isalnum():
        text = "its prompt runs into its completion, as one word; end prompts with a space or a new line."
        report.add(WARNING, "run_together", one.where, text)


def _tokens(one: _Seen, report: CheckReport, tokenizer: Tokenizer | None) -> tuple[int, int] | None:
    """How many ids the example has, and how many of them are learned."""
    if tokenizer is None:
        return None
    try:
        lesson = encode_example(one.example, tokenizer)
    except DataError as error:
        report.add(ERROR, "template", one.where, str(error))
        return None
    return len(lesson.ids), sum(lesson.learned)


def _copies(seen: Sequence[_Seen], report: CheckReport, *, strict: bool) -> None:
    """Questions asked before: in the held-out rows always an error, else one where a contract says so."""
    first: dict[int, _Seen] = {}
    for one in seen:
        earlier = first.setdefault(document_hash(one.example.question), one)
        if earlier is one:
            continue
        same = one.example.answer == earlier.example.answer
        if one.held_out != earlier.held_out:
            text = f"is held out and asks what is trained on at {earlier.where}; take one of them out."
            report.add(ERROR, "leak", one.where, text)
        else:
            what = "is a copy of" if same else "asks the same, with another answer, as"
            report.add(
                ERROR if strict else WARNING, "copy" if same else "contradiction", one.where, f"{what} {earlier.where}."
            )


def _near(seen: Sequence[_Seen], report: CheckReport) -> None:
    first: dict[int, _Seen] = {}
    for one in seen:
        first.setdefault(document_hash(one.example.question), one)
    if len(first) < 2:
        return
    unique = list(first.values())
    for later, (earlier, alike) in sorted(look_alikes([one.asked for one in unique], threshold=NEAR).items()):
        one, other = unique[later], unique[earlier]
        crosses = one.held_out != other.held_out
        why = "so its score says little" if crosses else "so it teaches little that is new"
        text = f"asks nearly the same ({alike:.0%} alike) as {other.where}, {why}."
        report.add(WARNING, "near_leak" if crosses else "near_copy", one.where, text)
