"""The generated support tickets: enough of them, held-out ones in other words, and no task for counting keywords."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ondevice.data.check import check_examples
from ondevice.data.contract import read_contract
from tools.ticket_prose import make_prose
from tools.ticket_report import Facts, page
from tools.ticket_words import SIDES
from tools.tickets import LABELS, LOOSE, WHEN, keyword_accuracy, make_rows, write_loose, write_task

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


@pytest.mark.parametrize("side", ["develop", "held_out"])
@pytest.mark.parametrize("seed", [1, 2])
def test_keywords_mislead(side, seed):
    assert 0.25 < keyword_accuracy(make_rows(side, 120, seed=seed)) < 0.7  # not the opposite either


def test_keywords_mislead_in_training_too():
    assert keyword_accuracy(make_rows("train", 640, seed=1)) < 0.75


def test_labels_are_even_and_urgency_is_not_told_by_them():
    rows = [json.loads(row["output"]) for row in make_rows("train", 640, seed=1)]
    assert Counter(row["label"] for row in rows) == dict.fromkeys(LABELS, 160)
    for label in LABELS:
        share = sum(row["when"] == WHEN[0] for row in rows if row["label"] == label) / 160
        assert 0.25 < share < 0.55


def test_many_training_tickets_differ_in_nothing_but_their_urgency():
    rows = [(row["input"], json.loads(row["output"])) for row in make_rows("train", 640, seed=1)]
    pairs = 0
    for (one, first), (two, second) in pairwise(rows):
        pairs += one[:35] == two[:35] and first["label"] == second["label"] and first["when"] != second["when"]
    assert pairs > 100


def test_no_training_ticket_ends_like_a_judged_one():
    tails = tuple(tail for side in ("develop", "held_out") for tail in (*SIDES[side].hurry, *SIDES[side].calm) if tail)
    assert not any("[" in tail for tail in tails)
    for seed in (1, 2):
        assert not [row["input"] for row in make_rows("train", 640, seed=seed) if row["input"].endswith(tails)]


def test_the_same_seed_gives_the_same_rows():
    assert make_rows("train", 50, seed=3) == make_rows("train", 50, seed=3) != make_rows("train", 50, seed=4)


def test_sides_share_no_slot_and_no_template():
    for kind in ("slots", "matters", "asides"):
        for key in getattr(SIDES["train"], kind):
            every = [word for side in SIDES.values() for word in getattr(side, kind)[key]]
            assert len(every) == len(set(every)), (kind, key)
    for kind in ("frames", "plain", "hurry", "calm"):
        every = [text for side in SIDES.values() for text in getattr(side, kind) if text]
        assert len(every) == len(set(every)), kind


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
    for seed in (1, 2):
        for row in make_rows("held_out", 300, seed=seed):
            assert not words_in_a_row(row["input"], 5) & told, row["input"]
    single = {word for (word,) in words_in_a_row(prose, 1)}
    for name in (
        "Lumina",
        "Torvik",
        "Leeds",
        "Kestral",
        "Vantor",
        "Drovan",
        "Malmo",
        "Sorbin",
        "Tartu",
        "json",
        "ticket",
        "label",
    ):
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
        assert row["output"].endswith((f", {answer['when']}", f'"{answer["when"]}"}}'))


def record(run, verdict, before, after):
    def score(value):
        return {"estimate": value, "low": value - 0.05, "high": value + 0.05}

    names = ("parse", "label:label", "label:when", "labels")
    return {
        "run": run,
        "verdict": verdict,
        "rows": 120,
        "step": 40,
        "baseline": {name: score(before) for name in names},
        "tuned": {name: score(after) for name in names},
        "compared": {name: {"difference": score(after - before)} for name in names},
    }


def test_the_page_tells_which_rows_were_judged_and_gives_intervals():
    facts = Facts(
        command="tools/demo_finetune FOLDER",
        side="held_out",
        seed=2,
        base="19.5 M parameters",
        train_rows=640,
        keywords=0.41,
        never_urgent=0.6,
    )
    text = page(facts, record("tickets", "keep", 0.1, 0.8), record("spoiled", "discard", 0.7, 0.2))
    assert "120 rows of side `held_out`, seed 2." in text and "before any score" in text
    assert "| both right | 10.0 % (5.0 to 15.0) | 80.0 % (75.0 to 85.0) | +70.0 (+65.0 to +75.0) | keep |" in text
    assert "| label | 70.0 % (65.0 to 75.0) | 20.0 % (15.0 to 25.0) | -50.0 (-55.0 to -45.0) | discard |" in text
    assert max(map(len, text.splitlines())) <= 120
    assert "flatter" in page(replace(facts, side="develop"), record("a", "keep", 0, 1), record("b", "discard", 1, 0))
