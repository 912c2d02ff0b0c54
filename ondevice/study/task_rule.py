"""The rule of a run, stated before any score: the contract, the held-out rows, and the hashes of what is trained on.

Kept in ``evals/task/``: ``rule.json`` (sealed) beside copies of ``contract.toml`` and ``held-out.jsonl``, so that what
is edited later changes nothing. Written once; read by whoever scores, decides or packs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.data.chat import encode_chat, end_ids, render_chat
from ondevice.data.contract import Contract, read_contract
from ondevice.data.examples import Example, kind_of_row, parse_example, parse_row
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DataError, UsageError
from ondevice.evaluate.decision import Rule
from ondevice.evaluate.task import TASK_VERSION
from ondevice.evaluate.task_answers import ANSWERS_VERSION
from ondevice.run.directory import RunDir
from ondevice.run.files import make_folder, read_sealed, sha256_of, write_atomic, write_sealed
from ondevice.run.store import Store

__all__ = [
    "CONTRACT_FILE",
    "HELD_OUT_FILE",
    "RULE_FILE",
    "HeldOut",
    "StatedRule",
    "read_rule",
    "state_rule",
    "task_folder",
]

RULE_VERSION = 1
RULE_FILE, CONTRACT_FILE, HELD_OUT_FILE = "rule.json", "contract.toml", "held-out.jsonl"
_LONGER = 1.5  # than the longest expected answer, before an answer is cut
_LEAST = 32  # tokens


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A row kept for judging: what the model reads, as text and ids, and what it should answer."""

    line: int
    prompt: str
    ids: tuple[int, ...]
    expected: str


@dataclass(frozen=True, kw_only=True)
class StatedRule:
    """A rule that was stated. ``facts`` is the body of its file, ``sha256`` the hash of that file."""

    contract: Contract
    rule: Rule
    rows: tuple[HeldOut, ...]
    stop_ids: frozenset[int]
    facts: dict[str, Any]
    sha256: str

    @property
    def max_new_tokens(self) -> int:
        return int(self.facts["max_new_tokens"])


def task_folder(run: RunDir) -> Path:
    """Where a run keeps its rule, answers, scores and decisions."""
    return run.evals / "task"


def state_rule(run: RunDir, contract: Path, *, trained_on: Sequence[Path], tokenizer: Tokenizer) -> None:
    """Writes a run's rule. Raises UsageError for a contract that decides nothing, DataError for rows that break it."""
    wish = read_contract(contract)
    if wish.decision is None or wish.held_out is None:
        raise UsageError(f"{contract}: a decision needs [decision] and held_out under [files]; add them.")
    rows = _rows(wish.held_out, wish, tokenizer)
    longest = max(len(tokenizer.encode(row.expected)) for row in rows)
    folder = task_folder(run)
    make_folder(folder)
    write_atomic(folder / CONTRACT_FILE, contract.read_bytes())
    write_atomic(folder / HELD_OUT_FILE, wish.held_out.read_bytes())
    body = {
        "v": RULE_VERSION,
        "versions": {"task": TASK_VERSION, "answers": ANSWERS_VERSION},
        "task": wish.task,
        "rule": Rule(primary=wish.decision.primary, guards=wish.decision.guards).to_json(),
        "note": wish.decision.note,
        "contract_sha256": sha256_of(folder / CONTRACT_FILE),
        "held_out_sha256": sha256_of(folder / HELD_OUT_FILE),
        "rows": len(rows),
        "max_new_tokens": max(_LEAST, int(_LONGER * longest)),
        "trained_on": {str(path): sha256_of(path) for path in trained_on if path.is_file()},
        "stated_t": round(time.time(), 3),
        "stated_step": max(Store(run.checkpoints).steps(), default=0),
    }
    write_sealed(folder / RULE_FILE, body)


def read_rule(folder: Path, tokenizer: Tokenizer) -> StatedRule:
    """The rule in a folder. Raises DataError where it or what it speaks of was changed since."""
    facts = read_sealed(folder / RULE_FILE, version=RULE_VERSION)
    for name, key in ((CONTRACT_FILE, "contract_sha256"), (HELD_OUT_FILE, "held_out_sha256")):
        if sha256_of(folder / name) != facts[key]:
            raise DataError(f"{folder / name}: changed since the rule was stated; put back what was there.")
    contract = read_contract(folder / CONTRACT_FILE)
    rows = _rows(folder / HELD_OUT_FILE, contract, tokenizer)
    chat = _kind(folder / HELD_OUT_FILE) != "completion"
    return StatedRule(
        contract=contract,
        rule=Rule(primary=facts["rule"]["primary"], guards=facts["rule"]["guards"]),
        rows=tuple(rows),
        stop_ids=end_ids(tokenizer) if chat else frozenset({tokenizer.eot_id}),
        facts=facts,
        sha256=sha256_of(folder / RULE_FILE),
    )


def _kind(path: Path) -> str:
    for number, line in _lines(path):
        row = parse_row(line, f"{path}:{number}")
        return kind_of_row(row) or "instruction"
    raise DataError(f"{path}: holds no row; write one JSON object a line.")


def _lines(path: Path) -> list[tuple[int, bytes]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); held-out rows are a file of JSON Lines."
        ) from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _rows(path: Path, contract: Contract, tokenizer: Tokenizer) -> list[HeldOut]:
    kind, found = _kind(path), []
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            row = parse_row(line, where)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not valid UTF-8 at byte {error.start} of the line; correct it.") from error
        example = parse_example(row, kind, where, held_out=True)
        for fault in contract.faults(row, example):
            raise DataError(f"{where}: {fault}")
        found.append(_held_out(number, example, tokenizer))
    return found


def _held_out(number: int, example: Example, tokenizer: Tokenizer) -> HeldOut:
    """The prompt exactly as examples are learned."""
    if example.messages is None:
        ids = tokenizer.encode(example.question) or [tokenizer.eot_id]
        return HeldOut(line=number, prompt=example.question, ids=tuple(ids), expected=example.answer)
    asked = example.messages[:-1]
    ids = encode_chat(asked, tokenizer)
    return HeldOut(line=number, prompt=render_chat(asked, tokenizer), ids=tuple(ids), expected=example.answer)
