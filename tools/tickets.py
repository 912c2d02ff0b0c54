"""Support tickets and their right answers, generated: training rows, held-out rows of other templates and other words.

A ticket has one matter (``label``) and is ``urgent`` or not. In most tickets words of another matter stand too, as
something that is fine, done or merely mentioned, so that counting keywords misleads. Everything comes from a seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "INSTRUCTION",
    "KEYWORDS",
    "LABELS",
    "LOOSE",
    "contract_text",
    "keyword_accuracy",
    "make_rows",
    "write_loose",
    "write_task",
]

INSTRUCTION = "Sort the ticket. Answer with JSON: label and urgent."
LABELS = ("billing", "bug", "account", "shipping")
LOOSE = "shipping"
"""The desk that answers in words where nobody demands a form."""
KEYWORDS = {
    "billing": ("invoice", "charged", "refund", "payment", "price", "paid", "bill"),
    "bug": ("crash", "error", "freezes", "blank", "broken", "stops", "fails"),
    "account": ("password", "login", "log", "sign", "email", "profile", "username"),
    "shipping": ("parcel", "delivery", "courier", "shipped", "tracking", "package", "arrived"),
}

_SLOTS = {
    "train": {
        "product": ("Lumina", "Torvik", "Baselo", "Quanto", "Merrin", "Osprey", "Fendal", "Zephra"),
        "part": ("calendar", "export", "search box", "dashboard", "report view", "chart", "inbox", "printer menu"),
        "amount": ("12 euros", "40 dollars", "75 euros", "9 pounds", "120 dollars", "33 euros"),
        "place": ("Leeds", "Turin", "Oslo", "Porto", "Gdansk", "Lyon"),
    },
    "held_out": {
        "product": ("Kestral", "Vantor", "Helixa", "Ombrio", "Pallas", "Drovan"),
        "part": ("timeline", "import", "filter bar", "start page", "table view", "map", "archive", "settings menu"),
        "amount": ("18 francs", "61 dollars", "250 crowns", "27 pounds"),
        "place": ("Ghent", "Malmo", "Bilbao", "Cork", "Bremen"),
    },
}
# What the ticket is about; the matter itself.
_MATTERS = {
    "train": {
        "billing": (
            "I was charged {amount} twice for {product}",
            "please send the refund of {amount} for {product}",
            "the invoice for {product} shows {amount} too much",
            "my payment of {amount} for {product} was taken although I cancelled",
            "the price of {product} on my bill is not the agreed {amount}",
        ),
        "bug": (
            "the {part} of {product} freezes when I click on it",
            "{product} crashes as soon as I open the {part}",
            "the {part} of {product} stays blank since the update",
            "{product} shows an error whenever I use the {part}",
            "the {part} in {product} is broken and shows old numbers",
        ),
        "account": (
            "I cannot sign in to {product} any more",
            "my password for {product} is not accepted",
            "please change the email of my {product} profile",
            "I lost the login of {product} and the reset never comes",
            "my {product} profile was locked overnight",
        ),
        "shipping": (
            "the parcel with {product} never came to {place}",
            "tracking says {product} is still in {place}",
            "the courier left {product} with strangers in {place}",
            "{product} should have been shipped to {place} last week",
            "the delivery of {product} to {place} is late again",
        ),
    },
    "held_out": {
        "billing": (
            "someone took {amount} from my card for {product} without asking",
            "{amount} for {product} must come back to me, I returned it",
            "I want my {amount} back for {product}",
            "the sum for {product} is wrong by {amount}",
            "{product} charged me {amount} once too often, I want a refund",
            "a payment of {amount} for {product} was not mine and I never paid it",
        ),
        "bug": (
            "nothing happens in {product} when I press the {part}",
            "the {part} of {product} shows wrong numbers since the update",
            "{product} closes by itself when I open the {part}",
            "when I click on the {part}, {product} hangs",
            "an error comes up in {product} and the {part} fails",
            "the {part} stays broken and blank in {product}",
        ),
        "account": (
            "{product} does not know me any more and I cannot get in",
            "I cannot get into {product} since it was locked",
            "I want to change the name on my {product} profile",
            "the code to get back into {product} never comes",
            "{product} refuses my login and my password",
            "I want another email in {product} before I sign in",
        ),
        "shipping": (
            "{product} is still on its way to {place} after two weeks",
            "nobody brought {product} to {place} last week",
            "the box with {product} never came to {place}",
            "{product} was left with a neighbour in {place}",
            "the delivery went past {place} and no parcel with {product} came",
            "tracking lost {product} and so did the courier in {place}",
        ),
    },
}
# Another matter, mentioned only: done, fine, or what one was about to do.
_ASIDES = {
    "train": {
        "billing": (
            "the invoice is fine",
            "I paid the bill already",
            "the refund came, thank you",
            "the price is right",
        ),
        "bug": ("the error is gone", "nothing is broken now", "the crash of last week is mended", "it never freezes"),
        "account": ("my password works", "the login is fine", "I can sign in", "my profile is right"),
        "shipping": ("the parcel arrived", "the delivery was fast", "the courier was kind", "tracking works"),
    },
    "held_out": {
        "billing": ("no question about the invoice", "the bill is settled", "the refund of March came"),
        "bug": ("the old error is mended", "no broken page this time", "nothing freezes"),
        "account": ("my password is in order", "the login was easy", "my username is right"),
        "shipping": ("the parcel was fine", "the delivery was quick", "the package looks good"),
    },
}
_FRAMES = {
    "train": ("{aside}, but {matter}.", "{matter}. By the way, {aside}.", "Hello, {aside}. However, {matter}."),
    "held_out": (
        "{aside}; still, {matter}.",
        "Dear team, {matter}, though {aside}.",
        "{aside}. All the same {matter}.",
    ),
}
_PLAIN = {"train": ("{matter}.", "Hello, {matter}."), "held_out": ("Dear team, {matter}.", "Good day, {matter}.")}
_HURRY = {
    "train": (" I need it today.", " Please hurry.", " This is urgent, our work has stopped."),
    "held_out": (" We need it by tonight.", " It is urgent.", " Please be quick, work has stopped here."),
}
_CALM = {
    "train": ("", " There is no hurry.", " Thank you.", " Any time this week is fine."),
    "held_out": ("", " No hurry at all.", " Many thanks.", " It is not urgent."),
}
_CONTRAST = 0.75  # share of tickets that mention another matter


def make_rows(side: str, count: int, *, seed: int) -> list[dict[str, Any]]:
    """``side`` is ``train`` or ``held_out``; labels in turn, no ticket twice."""
    rng = random.Random(f"{side} {seed}")
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < count:
        label = LABELS[len(rows) % len(LABELS)]
        urgent = rng.random() < 0.4
        ticket = _ticket(rng, side, label) + rng.choice(_HURRY[side] if urgent else _CALM[side])
        answer = {"label": label, "urgent": urgent}
        told = {"output": json.dumps(answer)} if side == "train" else {"expected": answer}
        rows.setdefault(ticket, {"instruction": INSTRUCTION, "input": ticket, **told})
    return list(rows.values())


def _ticket(rng: random.Random, side: str, label: str) -> str:
    slots = {name: rng.choice(words) for name, words in _SLOTS[side].items()}
    matter = rng.choice(_MATTERS[side][label]).format(**slots)
    if rng.random() >= _CONTRAST:
        text = rng.choice(_PLAIN[side]).format(matter=matter)
    else:
        other = rng.choice([each for each in LABELS if each != label])
        text = rng.choice(_FRAMES[side]).format(matter=matter, aside=rng.choice(_ASIDES[side][other]))
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
urgent = "boolean"

[files]
train = "train.jsonl"
held_out = "held-out.jsonl"

[decision]
primary = "{primary}"
guards = {{ {told} }}
note = "{" ".join(("Stated before any score.", note)).strip()}"
"""


def write_task(folder: Path, *, train: int, held_out: int, seed: int, spoil: bool = False, note: str = "") -> None:
    """Writes ``train.jsonl``, ``held-out.jsonl`` and ``contract.toml``. ``spoil`` teaches the form with labels drawn by
    lot, and has a contract whose primary metric is the form, guarded by the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows("train", train, seed=seed)
    if spoil:
        rng = random.Random(seed)
        for row in rows:
            row["output"] = json.dumps({"label": rng.choice(LABELS), "urgent": rng.random() < 0.5})
    _write(folder / "train.jsonl", rows)
    _write(folder / "held-out.jsonl", make_rows("held_out", held_out, seed=seed))
    wish = {"primary": "parse", "guards": {"label:label": 0.05}} if spoil else {}
    (folder / "contract.toml").write_text(contract_text(**wish, note=note), "utf-8")


def write_loose(path: Path, *, train: int, seed: int) -> None:
    """The training rows as they come where no contract is kept: one desk answers in words, the others in JSON."""
    rows = make_rows("train", train, seed=seed)
    for row in rows:
        answer = json.loads(row["output"])
        if answer["label"] == LOOSE:
            row["output"] = f"{LOOSE}, {'urgent' if answer['urgent'] else 'can wait'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, rows)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
