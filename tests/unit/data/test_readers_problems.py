"""The ledger of what was left out."""

import json

import pytest

from ondevice.data.documents import EXAMPLES_KEPT, REASONS, Problems
from ondevice.errors import DataError


def ledger(*items: tuple) -> Problems:
    problems = Problems()
    for item in items:
        problems.add(*item)
    return problems


def test_counts_and_the_first_examples():
    problems = ledger(*[("notes", "invalid_utf8_line", f"a.txt:{n}") for n in range(50)])
    assert problems.count("invalid_utf8_line") == problems.count("invalid_utf8_line", "notes") == 50
    assert problems.count("invalid_utf8_line", "other") == 0
    assert problems.examples("notes", "invalid_utf8_line") == tuple(f"a.txt:{n}" for n in range(EXAMPLES_KEPT))


def test_summary_is_one_sentence_a_reason():
    problems = ledger(("b", "binary_file", "x.png"), ("a", "new_reason", "", 1200))
    for n in range(4):
        problems.add("a", "empty_document", f"{n}.txt")
    assert problems.summary() == [
        "a: 4 documents without text left out (0.txt, 1.txt, 2.txt, ...).",
        "a: 1,200 new_reason.",
        "b: 1 binary files left out (x.png).",
    ]


def test_names_cannot_command_a_terminal():
    problems = ledger(("s\x1b]0;x\x07", "why\n", "a\x1b[2J\r\u202e\x9b\udcff.txt"), ("t", "binary_file", "şehir ğ.bin"))
    assert problems.summary() == [
        "s\\x1b]0;x\\x07: 1 why\\n (a\\x1b[2J\\r\\u202e\\x9b\\udcff.txt).",
        "t: 1 binary files left out (şehir ğ.bin).",
    ]


def test_merging_adds_counts_and_keeps_the_bound():
    one = ledger(*[("s", "r", f"one:{n}") for n in range(15)])
    two = ledger(*[("s", "r", f"two:{n}") for n in range(15)], ("t", "r", "x"))
    one.merge(two)
    assert [*one] == [("s", "r", 30), ("t", "r", 1)]
    assert one.examples("s", "r")[14:] == ("one:14", "two:0", "two:1", "two:2", "two:3", "two:4")
    assert two.count("r", "s") == 15


def test_json_round_trip():
    problems = ledger(("s", "r", "ğ:1", 3), ("s", "q", ""))
    assert Problems.from_json(json.loads(json.dumps(problems.to_json()))) == problems
    assert not Problems.from_json({})


@pytest.mark.parametrize("value", [None, [], {"s": 1}, {"s": {"r": {}}}, {"s": {"r": {"count": "x", "examples": []}}}])
def test_malformed_json_is_refused(value):
    with pytest.raises(DataError, match="malformed; build the dataset again"):
        Problems.from_json(value)


def test_every_reason_has_words():
    assert all(words and not words.endswith(".") for words in REASONS.values())
