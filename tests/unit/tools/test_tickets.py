"""The generated support tickets: enough of them, held-out ones in other words, and no task for counting keywords."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ondevice.data.check import check_examples
from ondevice.data.contract import read_contract
from tools.ticket_prose import make_prose
from tools.tickets import LABELS, LOOSE, keyword_accuracy, make_rows, write_loose, write_task

ROOT = Path(__file__).parents[3]


def test_rows_keep_the_contract_and_nothing_leaks(tmp_path):
    write_task(tmp_path, train=640, held_out=120, seed=1)
    contract = read_contract(tmp_path / "contract.toml")
    report = check_examples([tmp_path / "train.jsonl"], [tmp_path / "held-out.jsonl"], contract=contract)
    assert report.errors == 0 and not any("near_leak" in name for name in report.counts), report.faults[:3]
    assert list(report.rows.values()) == [640, 120]


@pytest.mark.slow
def test_the_demonstration_goes_through_every_command(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(row["input"] for row in make_rows("train", 600, seed=9)), "utf-8")
    command = [
        sys.executable,
        str(ROOT / "tools" / "demo_finetune"),
        str(text),
        "--size",
        "tiny",
        "--keep",
        str(tmp_path / "x"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "x" / "report" / "decision.md").read_text().startswith("# support tickets: ")
    assert (tmp_path / "x" / "package" / "adapter" / "adapter_config.json").exists()
    assert "12 of 12 answers are the same" in done.stdout


def test_keywords_mislead():
    assert 0.25 < keyword_accuracy(make_rows("held_out", 120, seed=1)) < 0.7  # not the opposite either
    assert keyword_accuracy(make_rows("train", 640, seed=1)) < 0.75


def test_labels_are_even_and_urgency_is_not_told_by_them():
    rows = [json.loads(row["output"]) for row in make_rows("train", 640, seed=1)]
    assert Counter(row["label"] for row in rows) == dict.fromkeys(LABELS, 160)
    for label in LABELS:
        share = sum(row["urgent"] for row in rows if row["label"] == label) / 160
        assert 0.25 < share < 0.55


def test_the_same_seed_gives_the_same_rows_and_slots_are_disjoint():
    assert make_rows("train", 50, seed=3) == make_rows("train", 50, seed=3) != make_rows("train", 50, seed=4)
    train, held = (" ".join(row["input"] for row in make_rows(side, 200, seed=3)) for side in ("train", "held_out"))
    for product in ("Lumina", "Torvik", "Zephra"):
        assert product in train and product not in held
    for product in ("Kestral", "Vantor", "Drovan"):
        assert product in held and product not in train


def test_spoiled_labels_are_drawn_by_lot(tmp_path):
    write_task(tmp_path, train=400, held_out=20, seed=1, spoil=True)
    true = [json.loads(row["output"])["label"] for row in make_rows("train", 400, seed=1)]
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    same = sum(json.loads(row["output"])["label"] == label for row, label in zip(rows, true, strict=True))
    assert 60 < same < 140
    assert read_contract(tmp_path / "contract.toml").decision.primary == "parse"


def words_in_a_row(text, count):
    words = "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()
    return {tuple(words[first : first + count]) for first in range(len(words) - count + 1)}


def test_the_prose_of_the_base_holds_no_ticket_and_no_answer():
    prose = make_prose(2000, seed=1)
    told = words_in_a_row(prose, 5)
    for row in make_rows("held_out", 300, seed=1):
        assert not words_in_a_row(row["input"], 5) & told, row["input"]
    single = {word for (word,) in words_in_a_row(prose, 1)}
    for name in ("Lumina", "Torvik", "Leeds", "Kestral", "Vantor", "Drovan", "Malmo", "json", "ticket", "label"):
        assert name.lower() not in single
    assert not set("{}:") & set(prose)


def test_the_prose_knows_the_words_of_both_sides_and_says_what_they_are_about():
    prose = make_prose(2000, seed=1).lower()
    for word in ("invoice", "refund", "freeze", "password", "courier", "closed itself", "neighbours", "box"):
        assert word in prose
    for topic in ("about billing", "about a bug", "about an account", "about shipping"):
        assert prose.count(topic) > 50
    assert make_prose(50, seed=2) == make_prose(50, seed=2) != make_prose(50, seed=3)


def test_loose_rows_have_the_true_answers_and_one_desk_in_words(tmp_path):
    write_loose(tmp_path / "loose.jsonl", train=80, seed=1)
    rows = [json.loads(line) for line in (tmp_path / "loose.jsonl").read_text().splitlines()]
    true = [json.loads(row["output"]) for row in make_rows("train", 80, seed=1)]
    assert [row["output"].startswith("{") for row in rows] == [answer["label"] != LOOSE for answer in true]
    for row, answer in zip(rows, true, strict=True):
        assert answer["label"] in row["output"]
        assert answer["urgent"] == (row["output"].endswith(", urgent") or '"urgent": true' in row["output"])
