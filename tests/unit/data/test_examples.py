"""Example datasets: rows of every kind, what is learned, what is held out, and rows that are broken."""

import json

import numpy as np
import pytest

from ondevice.data.build import build_dataset
from ondevice.data.dataset import Dataset
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import CleanConfig, DataConfig, SourceConfig, TokenizerConfig

BYTE = TokenizerConfig(kind="byte")
END = 256


def _write(folder, rows, name="rows.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return SourceConfig(path=name)


def _build(folder, *sources, tokenizer=BYTE, **keys):
    return build_dataset(
        DataConfig(sources=sources, **{"split": "hash:0", **keys}), tokenizer, base=folder, folder=folder / "d"
    )


def _read(dataset, split="train", source="rows"):
    rows = dataset.example_rows(source, split)
    tokenizer = dataset.tokenizer()
    found = []
    for index in range(len(rows)):
        ids, learned = rows.read(index)
        found.append((tokenizer.decode(ids[ids != END]), tokenizer.decode(ids[learned & (ids != END)])))
        assert learned[-1] and ids[-1] == END and not learned[0]
    return found


INSTRUCTION = {"instruction": "Add", "input": "2 and 2", "output": "4"}
COMPLETION = {"prompt": "Once", "completion": " upon a time"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "So long"},
        {"role": "user", "content": "left unanswered"},
    ]
}


@pytest.mark.parametrize(
    ("row", "kind", "text", "learned"),
    [
        (INSTRUCTION, "instruction", "### User:\nAdd\n\n2 and 2\n\n### Assistant:\n4", "4"),
        ({"instruction": "Go", "output": "Gone"}, "instruction", "### User:\nGo\n\n### Assistant:\nGone", "Gone"),
        (COMPLETION, "completion", "Once upon a time", " upon a time"),
        (
            CHAT,
            "chat",
            "### System:\nBe brief.\n\n### User:\nHi\n\n### Assistant:\nHo"
            "\n\n### User:\nBye\n\n### Assistant:\nSo long",
            "HoSo long",
        ),
    ],
)
def test_the_kind_is_found_and_only_answers_are_learned(tmp_path, row, kind, text, learned):
    dataset = _build(tmp_path, _write(tmp_path, [row]))
    assert dataset.examples.kind == kind
    assert _read(dataset) == [(text, learned)]
    ends = 2 if kind == "chat" else 1
    assert dataset.examples.learned == {"rows": {"train": len(learned) + ends, "val": 0}}


def test_an_empty_prompt_still_has_something_before_what_is_learned(tmp_path):
    dataset = _build(tmp_path, _write(tmp_path, [{"prompt": "", "completion": "all"}]))
    ids, learned = dataset.example_rows("rows", "train").read(0)
    assert ids.tolist() == [END, *b"all", END] and learned.tolist() == [False, True, True, True, True]


def test_rows_with_a_text_stay_plain_text_unless_declared(tmp_path):
    source = _write(tmp_path, [{**INSTRUCTION, "text": "whole " * 40}] * 3)
    assert _build(tmp_path, source, deduplicate=False).examples is None
    assert _build(tmp_path, source, examples="instruction").examples.kind == "instruction"
    assert _build(tmp_path, source, examples="off", deduplicate=False).examples is None


def test_questions_are_held_out_whole_and_copies_left_out(tmp_path):
    rows = [{"prompt": f"q{i % 50}", "completion": f"a{i}"} for i in range(200)]
    rows += [rows[3], rows[9]]
    dataset = _build(tmp_path, _write(tmp_path, rows), split="hash:0.2")
    train, val = _read(dataset), _read(dataset, "val")
    asked = [{text.split("a")[0] for text, _ in side} for side in (train, val)]
    assert not asked[0] & asked[1] and len(asked[1]) == 10 and len(train) + len(val) == 200
    assert dataset.sources[0].duplicates == 2


def test_a_question_held_out_of_one_source_is_learned_from_no_other(tmp_path):
    one = _write(tmp_path, [{"prompt": f"q{i}", "completion": "one"} for i in range(40)], "one.jsonl")
    two = _write(tmp_path, [{"prompt": f"q{i}", "completion": "two"} for i in range(20, 60)], "two.jsonl")
    dataset = _build(tmp_path, one, two, split="hash:0.25")
    sides = [
        {text[:-3] for name in ("one", "two") for text, _ in _read(dataset, split, name)} for split in ("train", "val")
    ]
    assert not sides[0] & sides[1] and len(sides[1]) >= 10


def test_a_tail_holds_out_only_questions_that_were_not_asked_before(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": "a"} for i in [*range(8), 3, 9]]
    rows[8]["completion"] = "b"
    dataset = _build(tmp_path, _write(tmp_path, rows), split="tail:0.2")
    assert [text for text, _ in _read(dataset, "val")] == ["q9a"]


def test_building_again_is_the_same_and_many_chunks_read_as_one(tmp_path):
    rows = [{"prompt": "p" * (i % 90), "completion": f"answer {i}"} for i in range(300)]
    source = _write(tmp_path, rows)
    first = _build(tmp_path, source, split="hash:0.1", chunk_tokens=1024)
    assert len(first.manifest["chunks"]) > 30
    first.verify()
    counts = first.example_rows("rows", "train").learned_counts()
    reader = first.example_rows("rows", "train")
    assert counts.tolist() == [int(reader.read(i)[1].sum()) for i in range(len(reader))]
    second = build_dataset(
        DataConfig(sources=(source,), split="hash:0.1", chunk_tokens=1024), BYTE, base=tmp_path, folder=tmp_path / "e"
    )
    assert second.sha256 == first.sha256
    assert _build(tmp_path, source, split="hash:0.1", chunk_tokens=1024).id == first.id
    _write(tmp_path, [*rows, COMPLETION])
    assert _build(tmp_path, source, split="hash:0.1", chunk_tokens=1024).sha256 != first.sha256


def test_a_damaged_mask_is_noticed_and_made_again(tmp_path):
    source = _write(tmp_path, [COMPLETION] * 2 + [{"prompt": "a", "completion": "b"}])
    dataset = _build(tmp_path, source)
    chunk = next(tmp_path / "d" / c["file"] for c in dataset.manifest["chunks"] if c["split"] == "train_learned")
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        Dataset.open(tmp_path / "d").verify()
    assert _build(tmp_path, source).sha256 == dataset.sha256
    Dataset.open(tmp_path / "d").verify()


def test_a_tokenizer_is_trained_on_examples(tmp_path):
    rows = [{"prompt": f"a question about {i}", "completion": f"an answer about {i}"} for i in range(50)]
    dataset = _build(tmp_path, _write(tmp_path, rows), tokenizer=TokenizerConfig(kind="char"))
    texts = [dataset.tokenizer().decode(dataset.example_rows("rows", "train").read(i)[0]) for i in range(50)]
    assert texts[7] == "a question about 7an answer about 7"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"prompt": "a", "completion": ', r"rows.jsonl:2: not valid JSON"),
        ("[1, 2]", r"rows.jsonl:2: expected an object .* found a list"),
        ({"prompt": "a", "complection": "b"}, r"rows.jsonl:2: there is no field 'completion' \(did you mean"),
        ({"prompt": "a", "completion": ""}, r"rows.jsonl:2: the field 'completion' is empty"),
        ({"prompt": "a", "completion": None}, r"rows.jsonl:2: .* holds null, not text"),
        ({"prompt": 1, "completion": "b"}, r"rows.jsonl:2: the field 'prompt' holds a number"),
        ({"prompt": "a", "completion": {"x": 1}}, r"rows.jsonl:2: .* an object, not text; write JSON as a string"),
        ({"prompt": "a", "completion": "b\ud800"}, r"rows.jsonl:2: .* half of a surrogate pair"),
        ('{"prompt": "a", "completion": "b", "prompt": "c"}', r"rows.jsonl:2: .* 'prompt' is there twice"),
        ("{" * 100_000, r"rows.jsonl:2: "),
    ],
)
def test_a_broken_row_is_named_with_its_line(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        _build(tmp_path, _write(tmp_path, [{"prompt": "a", "completion": "b"}, row]))


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hello", "must be a list of turns"),
        ([], "has no turn in it"),
        (["hi"], "message 1 is a string"),
        ([{"role": "user"}], "message 1: there is no field 'content'"),
        ([{"role": "asistant", "content": "x"}], "the role 'asistant' .did you mean"),
        ([{"role": "user", "content": "x"}], 'no message has the role "assistant"'),
        ([{"role": "assistant", "content": " "}], "message 1: the field 'content' is empty"),
    ],
)
def test_a_broken_conversation_is_named_with_its_line(tmp_path, messages, said):
    with pytest.raises(DataError, match=f"rows.jsonl:2: .*{said}|rows.jsonl:2: {said}"):
        _build(tmp_path, _write(tmp_path, [CHAT, {"messages": messages}]))


def test_lines_that_are_no_utf8_are_counted_or_refused(tmp_path):
    source = _write(tmp_path, [COMPLETION])
    with open(tmp_path / "rows.jsonl", "ab") as file:
        file.write(b'{"prompt": "\xff", "completion": "b"}\n')
    dataset = _build(tmp_path, source)
    assert dataset.problems.count("invalid_utf8_line") == 1 and len(_read(dataset)) == 1
    with pytest.raises(DataError, match=r"rows.jsonl:2: not valid UTF-8"):
        _build(tmp_path, source, bad_utf8="refuse")


def test_what_does_not_go_together_is_refused(tmp_path):
    (tmp_path / "prose.txt").write_text("once upon a time " * 100)
    source, prose = _write(tmp_path, [COMPLETION]), SourceConfig(path="prose.txt")
    with pytest.raises(UsageError, match="different things"):
        _build(tmp_path, source, prose)
    with pytest.raises(UsageError, match="needs files of JSON Lines"):
        _build(tmp_path, prose, examples="chat")
    with pytest.raises(UsageError, match="clean is for plain text"):
        _build(tmp_path, source, clean=CleanConfig(min_words=3))
    with pytest.raises(DataError, match="no field 'messages'"):
        _build(tmp_path, source, examples="chat")


def test_lengths_that_lie_are_noticed():
    from ondevice.data.examples_rows import ExampleRows

    class _Stream:
        def __init__(self, values):
            self._values = np.array(values)

        def __len__(self):
            return len(self._values)

        def blocks(self):
            yield self._values

    with pytest.raises(DataError, match="do not agree"):
        ExampleRows(_Stream([1, 2, 3]), _Stream([0, 1, 1]), _Stream([2]))
