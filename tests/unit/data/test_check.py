"""The check of example files and the contract: what is an error, what a warning, and where it stands."""

import json

import pytest

from ondevice.data.build import build_dataset
from ondevice.data.check import check_examples
from ondevice.data.check_statistics import imbalance
from ondevice.data.contract import read_contract
from ondevice.data.look_alike import look_alikes
from ondevice.data.sensitive import sensitive_kinds
from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig

CONTRACT = """
task = "tickets"
instruction = "Sort it."
scope = "short tickets"
[input]
fields = ["instruction", "input"]
max_chars = 60
[output]
form = "json"
[output.fields]
label = ["billing", "bug"]
urgent = "boolean"
note = "string"
[files]
train = "train.jsonl"
held_out = "held.jsonl"
[decision]
primary = "labels"
guards = { parse = 0.01, "label:label" = 0.02 }
"""


def _row(text, *, field="output", **answer):
    value = {"label": "bug", "urgent": True, "note": "n"} | answer
    return {"instruction": "Sort it.", "input": text, field: value if field == "expected" else json.dumps(value)}


def _write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _contract(tmp_path, text=CONTRACT):
    (tmp_path / "contract.toml").write_text(text)
    return read_contract(tmp_path / "contract.toml")


def _check(tmp_path, rows, held=(), **keys):
    files = [_write(tmp_path / "held.jsonl", held)] if held else []
    return check_examples([_write(tmp_path / "train.jsonl", rows)], files, **keys)


def _told(report):
    return [
        (fault.level, fault.kind, int(fault.where.rpartition(":")[2]) if ":" in fault.where else None)
        for fault in report.faults
    ]


def test_sound_rows_have_no_fault(tmp_path):
    rows = [_row(f"ticket number {word}") for word in ("one", "two", "three", "four", "five", "six")]
    report = _check(tmp_path, rows, [_row("another thing", field="expected")], contract=_contract(tmp_path))
    assert report.errors == 0 and report.rows[str(tmp_path / "train.jsonl")] == 6
    assert report.lengths["unit"] == "letters"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (_row("x", label="biling"), 'label = "biling", which is none of the labels .did you mean .billing'),
        (_row("x", label=True), "none of the labels"),
        (_row("x", urgent="yes"), "wants a boolean"),
        (_row("x", urgent=1), "wants a boolean"),
        (_row("x", note=" "), "wants a string that is not empty"),
        (_row("x", extra=1), "has the key 'extra', which the contract does not name"),
        ({**_row("x"), "output": '{"label": "bug", "urgent": true}'}, "has no key 'note'"),
        ({**_row("x"), "output": "bug"}, "not valid JSON"),
        ({**_row("x"), "output": '["bug"]'}, "JSON but no object"),
        ({**_row("x"), "instruction": "Do it."}, "is not the one of the contract"),
        (_row(""), "wants the field 'input', which is empty"),
        ({k: v for k, v in _row("x").items() if k != "input"}, "'input', which is not there"),
        (_row("x" * 61), "61 letters, beyond the scope of 60"),
    ],
)
def test_a_row_that_breaks_the_contract_is_named(tmp_path, row, said):
    report = _check(tmp_path, [_row("fine"), row], contract=_contract(tmp_path))
    fault = next(fault for fault in report.faults if fault.kind == "contract")
    assert fault.where.endswith("train.jsonl:2") and fault.level == "error"
    import re

    assert re.search(said, fault.text)


def test_every_broken_line_is_told_not_only_the_first(tmp_path):
    rows = [_row("a"), "{", "[]", json.dumps({"instruction": "x"}), json.dumps({"foo": 1}), _row("b")]
    report = _check(tmp_path, rows)
    assert _told(report)[:4] == [
        ("error", kind, line) for kind, line in zip(("json", "json", "fields", "fields"), (2, 3, 4, 5), strict=True)
    ]
    (tmp_path / "train.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    assert check_examples([tmp_path / "train.jsonl"]).counts["error utf8"] == 1
    _write(tmp_path / "train.jsonl", [])
    assert check_examples([tmp_path / "train.jsonl"]).errors == 1


def test_a_file_in_another_encoding_is_one_sentence_not_one_a_line(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes((json.dumps(_row("a")) + "\n").encode("utf-16") * 50)
    with pytest.raises(DataError, match=r"train.jsonl is UTF-16, not UTF-8; convert it: iconv"):
        check_examples([path])


def test_a_chat_without_turns_is_not_called_no_list(tmp_path):
    (fault,) = _check(tmp_path, [{"messages": []}]).faults
    assert fault.text == "'messages' has no turn in it; give its turns with role and content."


def test_leaks_are_errors_and_copies_are_where_a_contract_says_so(tmp_path):
    rows = [_row("my card was charged twice last week"), _row("b"), _row("b"), _row("b", label="billing")]
    held = [_row("b", field="expected"), _row("my card was charged twice last week !", field="expected")]
    report = _check(tmp_path, rows, held)
    assert {name for name in report.counts if "labels" not in name} == {
        "error leak",
        "warning copy",
        "warning contradiction",
        "warning near_leak",
    }
    leak = next(fault for fault in report.faults if fault.kind == "leak")
    assert leak.where.endswith("held.jsonl:1") and "train.jsonl:2" in leak.text
    strict = _check(tmp_path, rows, contract=_contract(tmp_path))
    assert strict.counts["error copy"] == strict.counts["error contradiction"] == 1


def test_a_near_copy_is_the_later_row_though_the_earlier_is_asked_again(tmp_path):
    rows = [_row("my card was charged twice last week"), _row("my card was charged twice last week !")]
    report = _check(tmp_path, [*rows, rows[0]])
    near = next(fault for fault in report.faults if fault.kind == "near_copy")
    assert near.where.endswith("train.jsonl:2") and "train.jsonl:1" in near.text


def test_a_prompt_that_runs_into_its_completion_is_told(tmp_path):
    """As `does not work` and `bug`: what is learned would be `does not workbug`."""
    rows = [{"prompt": "does not work", "completion": "bug"}, {"prompt": "no money ", "completion": "billing"}]
    rows += [{"prompt": "", "completion": "bug"}, {"prompt": "late\n", "completion": "billing"}]
    report = _check(tmp_path, rows)
    assert report.counts["warning run_together"] == 1
    assert [fault.where.rpartition(":")[2] for fault in report.faults if fault.kind == "run_together"] == ["1"]


def test_lengths_are_tokens_where_there_is_a_tokenizer(tmp_path):
    rows = [{"prompt": "p" * n, "completion": "c"} for n in (5, 10, 98)]
    report = _check(tmp_path, rows, tokenizer=ByteTokenizer(), context=50)
    assert report.lengths["example"] == {"least": 7, "median": 12, "p95": 91, "most": 100, "total": 119}
    assert report.lengths["too_long"] == 1 and report.counts["warning too_long"] == 1
    assert report.lengths["learned_share"] == round(6 / 119, 4)


def test_labels_are_counted_and_imbalance_is_said(tmp_path):
    rows = [{"prompt": f"p{i}", "completion": "spam" if i < 2 else "ham"} for i in range(40)]
    report = _check(tmp_path, rows, [{"prompt": "q", "completion": "eggs"}])
    assert report.labels[""]["train"] == {"ham": 38, "spam": 2}
    said = " ".join(imbalance(report.labels, held_out=True))
    assert "few rows teach spam (2)" in said and "19 times" in said and "expect eggs, which no row" in said


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("pay with 4111 1111 1111 1111 now", ["the number of a payment card"]),
        ("pay with 4111-1111-1111-1112 now", []),
        ("order 1234567890123 of 2024-01-02 12:13:14.123456", []),
        ("id 5500005555555559", ["the number of a payment card"]),
        ("write ann.b+c@firm.co.uk", ["an e-mail address"]),
        ("write ann@example.com or bob@sub.example.org", []),
        ("AKIAIOSFODNN7EXAMPLE", ["an access key of AWS"]),
        ("-----BEGIN RSA PRIVATE KEY-----", ["a private key"]),
        ("ghp_" + "a1" * 18, ["a token of GitHub"]),
        ('api_key = "hunter2hunter2"', ["a password"]),
        ("the password is on the fridge", []),
    ],
)
def test_sensitive_text_is_recognised_by_kind(text, kinds):
    assert sensitive_kinds(text) == kinds


def test_the_report_never_repeats_a_secret(tmp_path):
    report = _check(tmp_path, [{"prompt": "mail ann@firm.org", "completion": "4111 1111 1111 1111"}])
    assert report.counts["warning sensitive"] == 2
    assert "firm.org" not in repr(report) and "4111" not in repr(report)


def test_texts_that_look_alike_are_paired_with_the_earlier_one():
    long = "the app stopped working after the last update and I cannot open any of my saved files now please help"
    texts = ["Reset it!", long, "something else entirely is written in this line here", "reset  IT", long + " me"]
    found = look_alikes(texts, threshold=0.8)
    assert found[3] == (0, 1.0) and found[4][0] == 1 and found[4][1] > 0.8 and set(found) == {3, 4}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("task =", "tusk ="), r"contract.toml:2: contract, 'tusk': unknown key"),
        (('task = "tickets"', ""), "'task': must be a text that is not empty"),
        (('form = "json"', 'form = "jsn"'), "'jsn' is no form .did you mean 'json'"),
        (('urgent = "boolean"', 'urgent = "bool"'), "'bool' is no type .did you mean 'boolean'"),
        (('primary = "labels"', 'primary = "label"'), "'label' is not measured"),
        (("parse = 0.01", "parse = -1"), "a tolerance of 0 or more"),
        (("parse = 0.01", "labels = 0.01"), "a guard is another metric"),
        (("max_chars = 60", 'max_chars = "60"'), "must be a whole number above 0"),
        (('form = "json"', 'form = "label"'), "belong together"),
        (("[decision]", "[decision"), "not valid TOML"),
        (("task =", "v = 2\ntask ="), "version 2"),
    ],
)
def test_a_bad_contract_is_one_sentence(tmp_path, change, said):
    with pytest.raises(UsageError, match=said):
        _contract(tmp_path, CONTRACT.replace(*change))


def test_a_build_keeps_the_contract(tmp_path):
    (tmp_path / "contract.toml").write_text(CONTRACT)
    _write(tmp_path / "held.jsonl", [_row("held", field="expected")])

    def build(rows):
        _write(tmp_path / "train.jsonl", rows)
        source = SourceConfig(path="train.jsonl")
        data = DataConfig(sources=(source,), contract=str(tmp_path / "contract.toml"))
        return build_dataset(data, TokenizerConfig(kind="byte"), base=tmp_path, folder=tmp_path / "d")

    dataset = build([_row("a"), _row("b"), _row("c")])
    assert dataset.examples.contract_sha256
    with pytest.raises(DataError, match=r"train.jsonl:2: its answer has label .* \(2 such faults"):
        build([_row("a"), _row("b", label="x"), _row("c", urgent=0)])
    with pytest.raises(DataError, match=r"held.jsonl:1: is held out and asks what is trained on at .*train.jsonl:2"):
        build([_row("a"), _row("held")])
    (tmp_path / "contract.toml").write_text(CONTRACT.replace('"bug"]', '"bogus"]'))
    with pytest.raises(DataError, match="none of the labels"):
        build([_row("a"), _row("b"), _row("c")])
