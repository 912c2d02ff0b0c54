"""Support tickets and their right answers, generated: rows to train on, rows of other templates and other words to
choose settings on, and rows of others again to judge on (tools/ticket_words.py).

A ticket has one matter (``label``), and is urgent or could wait (``when``). In most tickets words of another matter
stand too, as something that is fine, done or merely mentioned, so that counting keywords misleads. Everything comes
from a seed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.ticket_words import SIDES, Words

__all__ = [
    "INSTRUCTION",
    "KEYWORDS",
    "LABELS",
    "LOOSE",
    "WHEN",
    "contract_text",
    "keyword_accuracy",
    "make_rows",
    "write_loose",
    "write_task",
]

INSTRUCTION = "Sort the ticket. Answer with JSON: label and when."
LABELS = ("billing", "bug", "account", "shipping")
WHEN = ("urgent", "could wait")
"""Words, since a base that never read JSON knows no ``true``: it would have to learn the word with the matter."""
LOOSE = "shipping"
"""The desk that answers in words where nobody demands a form."""
KEYWORDS = {
    "billing": ("invoice", "charged", "refund", "payment", "price", "paid", "bill"),
    "bug": ("crash", "error", "freezes", "blank", "broken", "stops", "fails"),
    "account": ("password", "login", "log", "sign", "email", "profile", "username"),
    "shipping": ("parcel", "delivery", "courier", "shipped", "tracking", "package", "arrived"),
}
_CONTRAST = 0.75  # share of tickets that mention another matter
_URGENT = 0.4
_PAIRED = 0.4  # share of training tickets that come a second time and differ in nothing but whether they are urgent


def make_rows(side: str, count: int, *, seed: int) -> list[dict[str, Any]]:
    """``side`` is one of `SIDES`; as many of each label, no ticket twice."""
    rng, words = random.Random(f"{side} {seed}"), SIDES[side]
    rows: dict[str, dict[str, Any]] = {}
    told: Counter[str] = Counter()
    while len(rows) < count:
        label = min(LABELS, key=told.__getitem__)
        ticket, urgent = _ticket(rng, words, label), rng.random() < _URGENT
        paired = side == "train" and rng.random() < _PAIRED and told[label] + 2 <= count // len(LABELS)
        for tone in (urgent, not urgent) if paired else (urgent,):
            text = ticket + rng.choice(words.hurry if tone else words.calm)
            told[label] += text not in rows
            rows.setdefault(text, _row(side, text, {"label": label, "when": WHEN[not tone]}))
    return list(rows.values())


def _row(side: str, ticket: str, answer: dict[str, Any]) -> dict[str, Any]:
    told = {"output": json.dumps(answer)} if side == "train" else {"expected": answer}
    return {"instruction": INSTRUCTION, "input": ticket, **told}


def _ticket(rng: random.Random, words: Words, label: str) -> str:
    slots = {name: rng.choice(each) for name, each in words.slots.items()}
    matter = rng.choice(words.matters[label]).format(**slots)
    if rng.random() >= _CONTRAST:
        text = rng.choice(words.plain).format(matter=matter)
    else:
        other = rng.choice([each for each in LABELS if each != label])
        text = rng.choice(words.frames).format(matter=matter, aside=rng.choice(words.asides[other]))
    return text[0].upper() + text[1:]


def keyword_accuracy(rows: Sequence[dict[str, Any]]) -> float:
    """Share of labels that counting the words of `KEYWORDS` gets right; a tie takes the first of `LABELS`."""
    right = 0
    for row in rows:
        words = "".join(letter if letter.isalpha() else " " for letter in row["input"].lower()).split()
        counts = {label: sum(word in KEYWORDS[label] for word in words) for label in LABELS}
        answer = row.get("expected") or json.loads(row["output"])
        right += max(LABELS, key=lambda label: counts[label]) == answer["label"]
    return right / len(rows)


def contract_text(*, primary: str = "labels", guards: dict[str, float] | None = None, note: str = "") -> str:
    """The contract of the task; files are beside it. ``note`` stands in the decision."""
    told = ", ".join(f'"{name}" = {each}' for name, each in (guards or {"parse": 0.0}).items())
    return f"""task = "support tickets"
instruction = "{INSTRUCTION}"
scope = "one short ticket in English"

[input]
fields = ["instruction", "input"]
max_chars = 400

[output]
form = "json"

[output.fields]
label = {json.dumps(LABELS)}
when = {json.dumps(WHEN)}

[files]
train = "train.jsonl"
held_out = "held-out.jsonl"

[decision]
primary = "{primary}"
guards = {{ {told} }}
note = "{" ".join(("Stated before any score.", note)).strip()}"
"""


def write_task(
    folder: Path, *, train: int, held_out: int, seed: int, side: str = "held_out", spoil: bool = False, note: str = ""
) -> None:
    """Writes ``train.jsonl``, ``held-out.jsonl`` (rows of ``side``) and ``contract.toml``. ``spoil`` teaches the form
    with labels drawn by lot, and has a contract whose primary metric is the form, guarded by the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows("train", train, seed=seed)
    if spoil:
        rng = random.Random(seed)
        for row in rows:
            row["output"] = json.dumps({"label": rng.choice(LABELS), "when": rng.choice(WHEN)})
    _write(folder / "train.jsonl", rows)
    _write(folder / "held-out.jsonl", make_rows(side, held_out, seed=seed))
    wish = {"primary": "parse", "guards": {"label:label": 0.05}} if spoil else {}
    (folder / "contract.toml").write_text(contract_text(**wish, note=note), "utf-8")


def write_loose(path: Path, *, train: int, seed: int) -> None:
    """The training rows as they come where no contract is kept: one desk answers in words, the others in JSON."""
    rows = make_rows("train", train, seed=seed)
    for row in rows:
        answer = json.loads(row["output"])
        if answer["label"] == LOOSE:
            row["output"] = f"{LOOSE}, {answer['when']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, rows)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
