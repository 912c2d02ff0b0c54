"""``ondevice data`` and ``ondevice tokenizer``: text to tokens, what is in them, and what was left out."""

from __future__ import annotations

import json
import re

import pytest

from ondevice.data.tokenizer import load_tokenizer


@pytest.fixture
def built(place, call):
    """The folder of the dataset of tiny.toml."""
    return call("data", "build", "tiny.toml", "--json").json["path"]


def chunks_of(home):
    return sorted(home.glob("datasets/*/chunks/*/*.chunk"))


def test_build_says_what_it_made(place, call):
    result = call("data", "build", "tiny.toml")
    assert (result.code, result.err) == (0, "")
    assert "Tokens   byte, vocabulary 257" in result.out
    assert "Source   words: 240 documents" in result.out
    assert re.search(r"[\d,]+ covered \+ \d+ remainder = [\d,]+ tokens", result.out)
    as_json = call("data", "build", "tiny.toml", "--json").json
    inventory = as_json["inventory"]
    assert inventory["covered"] + inventory["remainder"] == as_json["totals"]["tokens"]


def test_a_second_build_does_nothing(place, call, built):
    before = {path: path.stat().st_mtime_ns for path in (place / "home").rglob("*.chunk")}
    manifest = next((place / "home").rglob("dataset.json")).read_bytes()
    assert call("data", "build", "tiny.toml", "--json").json["path"] == built
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert next((place / "home").rglob("dataset.json")).read_bytes() == manifest


def test_inspect_finds_a_dataset_by_name_and_by_path(place, call, built):
    name = built.rpartition("/")[2]
    by_name, by_path = (call("data", "inspect", word, "--json") for word in (name, built))
    assert by_name.code == 0
    assert by_name.json == by_path.json
    assert by_name.json["inventory"]["context"] == 256
    assert "Windows of 32 tokens:" in call("data", "inspect", name, "--context", 32).out


def test_inspect_offers_the_nearest_dataset(call, built):
    name = built.rpartition("/")[2]
    result = call("data", "inspect", name[:-1] + "x")
    assert result.code == 2
    assert f"no such dataset or run (did you mean '{name}'?); datasets: {name}." in result.error


def test_verify_finds_a_flipped_byte_and_build_repairs_it(place, call, built):
    chunk = chunks_of(place / "home")[0]
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    assert call("data", "inspect", built).code == 0  # reads headers only
    result = call("data", "inspect", built, "--verify")
    assert result.code == 3
    assert str(chunk) in result.error and "`ondevice data build` makes it again" in result.error
    assert call("data", "build", "tiny.toml").code == 0
    assert chunk.read_bytes() == whole
    assert call("data", "inspect", built, "--verify").code == 0


def test_what_is_left_out_is_counted_with_its_place(place, call):
    (place / "notes").mkdir()
    (place / "notes" / "one.txt").write_bytes(b"first line\nbad \xff\xfe line\nthe last line\n")
    (place / "notes" / "two.txt").write_bytes(b"another file\n")
    (place / "notes" / "copy.txt").write_bytes(b"another file\n")
    (place / "notes" / "image.txt").write_bytes(b"\x89PNG\0\0\0\rabc" * 9)
    result = call("data", "build", "--data", "notes", "--set", "tokenizer.kind=byte")
    assert result.code == 0
    left_out = [line for line in result.out.splitlines() if line.startswith("Left out")]
    assert any("invalid UTF-8" in line and "one.txt:2)" in line for line in left_out)  # the file and the line
    assert any("image.txt" in line for line in left_out)
    assert any("copy.txt" in line or "two.txt" in line for line in left_out)
    problems = call("data", "build", "--data", "notes", "--set", "tokenizer.kind=byte", "--json").json["problems"]
    assert "invalid_utf8_line" in json.dumps(problems)


def test_a_name_with_spaces_and_accents_is_text_like_any_other(place, call):
    folder = place / "My Nötes ☕"
    folder.mkdir()
    (folder / "a b.txt").write_text("some words to learn " * 30)
    result = call("data", "build", "--data", folder.name, "--set", "tokenizer.kind=byte", "--json")
    assert result.code == 0
    assert re.fullmatch(r"[a-z0-9._-]+", result.json["sources"][0]["name"])


@pytest.mark.parametrize("kind", ["char", "bpe", "sentencepiece-bpe"])
def test_tokenizer_train_writes_one_that_a_build_can_use(place, call, kind):
    pytest.importorskip({"bpe": "tokenizers", "sentencepiece-bpe": "sentencepiece"}.get(kind, "json"))
    size = [] if kind == "char" else ["--set", "tokenizer.vocab_size=300"]
    made = call("tokenizer", "train", "--data", "words.txt", "--out", "tok", "--set", f"tokenizer.kind={kind}", *size)
    assert made.code == 0
    tokenizer = load_tokenizer(place / "tok")
    assert tokenizer.kind == kind
    assert made.out == f"{place / 'tok'}: {kind}, vocabulary {tokenizer.vocab_size}.\n"
    assert tokenizer.decode(tokenizer.encode("the naïve cat")) == "the naïve cat"
    used = call("data", "build", "--data", "words.txt", "--set", "tokenizer.path=tok", "--json").json
    assert used["tokenizer"]["sha256"] == tokenizer.sha256


@pytest.mark.parametrize("words", [("data", "build"), ("tokenizer", "train", "--out", "tok")])
@pytest.mark.parametrize("flag", [("--name", "x"), ("--minutes", "3"), ("--memory", "800")])
def test_flags_of_a_run_are_not_offered_where_there_is_none(place, call, words, flag):
    result = call(*words, "--data", "words.txt", "--set", "tokenizer.kind=byte", *flag)
    assert result.code == 2 and f"unknown argument '{flag[0]}'" in result.error
    assert not (place / "home").exists() and not (place / "tok").exists()


def test_tokenizer_train_refuses_a_finished_tokenizer(place, call):
    words = ("tokenizer", "train", "--data", "words.txt", "--set", "tokenizer.kind=char")
    assert call(*words, "--out", "first").code == 0
    result = call(*words, "--out", "second", "--set", "tokenizer.path=first")
    assert result.code == 2
    assert f"tokenizer.path names a finished tokenizer, {place / 'first'}" in result.error
    assert not (place / "second").exists()
    (place / "my.toml").write_text('[tokenizer]\npath = "first"\nkind = "char"\n')
    again = ("tokenizer", "train", "my.toml", "--data", "words.txt", "--out", "second")
    assert call(*again).code == 2
    assert call(*again, "--set", "tokenizer.path=").code == 0


def test_a_tokenizer_named_on_the_command_line_counts_from_the_current_folder(place, call):
    assert call("tokenizer", "train", "--data", "words.txt", "--out", "tok", "--set", "tokenizer.kind=char").code == 0
    (place / "below").mkdir()
    (place / "below" / "my.toml").write_text('[[data.sources]]\npath = "../words.txt"\n')
    built = call("data", "build", "below/my.toml", "--set", "tokenizer.path=tok", "--json")
    assert built.code == 0 and built.json["tokenizer"]["kind"] == "char"


def test_folders_of_one_name_are_told_apart(place, call):
    for parent in ("one", "two", "three"):
        (place / parent / "notes").mkdir(parents=True)
        (place / parent / "notes" / "a.txt").write_text(f"words of {parent} to learn " * 30)
    words = [word for parent in ("one", "two", "three") for word in ("--data", f"{parent}/notes")]
    result = call("data", "build", *words, "--data", "words.txt", "--set", "tokenizer.kind=byte", "--json")
    assert result.code == 0
    assert [source["name"] for source in result.json["sources"]] == ["one-notes", "two-notes", "three-notes", "words"]
    (place / "x" / "one" / "notes").mkdir(parents=True)
    (place / "x" / "one" / "notes" / "a.txt").write_text("another text " * 30)
    more = call("data", "build", *words, "--data", "x/one/notes", "--set", "tokenizer.kind=byte", "--json").json
    names = [source["name"] for source in more["sources"]]
    assert names[1:3] == ["two-notes", "three-notes"] and names[3] == "x-one-notes" and names[0].endswith("-one-notes")


@pytest.mark.parametrize(("out", "says"), [("words.txt", "is a file"), ("full", "exists and is not empty")])
def test_tokenizer_train_writes_over_nothing(place, call, out, says):
    (place / "full").mkdir()
    (place / "full" / "precious").write_text("x")
    before = (place / "words.txt").read_bytes()
    result = call("tokenizer", "train", "--data", "words.txt", "--out", out, "--set", "tokenizer.kind=char")
    assert result.code == 2
    assert says in result.error and "--out" in result.error
    assert (place / "words.txt").read_bytes() == before
    assert [path.name for path in (place / "full").iterdir()] == ["precious"]


def test_examples_are_built_and_shown_without_windows(place, call):
    rows = [{"prompt": f"What is {i}?", "completion": f" It is {i}."} for i in range(40)]
    (place / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("data", "build", "--data", "qa.jsonl", "--set", "tokenizer.kind=byte")
    shown = call(*words)
    assert "Examples completion: only the answers are learned" in shown.out and "Windows" not in shown.out
    assert call(*words, "--json").json["examples"]["kind"] == "completion"


def test_check_tells_every_fault_by_file_and_line(place, call):
    (place / "rows.jsonl").write_text('{"prompt": "a ", "completion": "b"}\n{"prompt": "c"}\nnonsense\n')
    result = call("data", "check", "rows.jsonl")
    assert result.code == 3
    assert "rows.jsonl:2: there is no field 'completion'" in result.out and "rows.jsonl:3: not valid JSON" in result.out
    assert "2 errors, 0 warnings." in result.out
    found = call("data", "check", "rows.jsonl", "--json")
    assert (found.code, found.json["errors"], found.json["kind"]) == (3, 2, "completion")
    (place / "rows.jsonl").write_text('{"prompt": "a ", "completion": "b"}\n')
    good = call("data", "check", "rows.jsonl")
    assert good.code == 0 and "Nothing is wrong." in good.out


def test_check_reads_a_contract_and_a_config(place, call):
    (place / "train.jsonl").write_text('{"prompt": "a ", "completion": "yes"}\n{"prompt": "b", "completion": "may"}\n')
    (place / "contract.toml").write_text(
        'task = "t"\n[output]\nform = "label"\nlabels = ["yes", "no"]\n[files]\ntrain = "train.jsonl"\n'
    )
    result = call("data", "check", "contract.toml")
    assert result.code == 3 and 'train.jsonl:2: its answer is "may", which is none of the labels' in result.out
    (place / "qa.toml").write_text('[data]\ncontract = "contract.toml"\n[[data.sources]]\npath = "train.jsonl"\n')
    assert call("data", "check", "qa.toml").out.splitlines()[0] == result.out.splitlines()[0]
    refused = call("data", "build", "qa.toml", "--set", "tokenizer.kind=byte")
    assert refused.code == 3 and "train.jsonl:2: its answer" in refused.error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nothing.jsonl",), "no such file"),
        (("words.txt", "--context", "64"), "needs --tokenizer"),
        (("words.txt", "--contract", "nothing.toml"), "cannot be read as a contract"),
        (("tiny.toml", "words.txt"), "name one config or contract"),
    ],
)
def test_check_refuses_in_one_sentence(place, call, words, says):
    result = call("data", "check", *words)
    assert result.code in (2, 3) and says in result.error


def test_the_name_of_a_run_stands_for_its_dataset(reading, call):
    of_run = call("data", "inspect", "tiny", "--json").json
    assert call("data", "inspect", of_run["path"], "--json").json == of_run
