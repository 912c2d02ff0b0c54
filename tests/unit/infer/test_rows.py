"""What lies where texts are to be written: an earlier work goes on, anything else is left as it is."""

from __future__ import annotations

import json

import pytest

from ondevice.errors import DataError
from ondevice.infer.rows import done_rows, read_rows, way_of
from ondevice.infer.sampling import Sampling

ROWS = [{"prompt": "a"}, {"prompt": "b", "id": 7}, {"prompt": "c", "text": "own"}]


WAY = way_of("notes, step 800", Sampling(), 64)


def written(row, text="x", way=WAY):
    return (
        json.dumps({**row, "text": text, "tokens": 1, "finish": "length", "written_by": way}, ensure_ascii=False) + "\n"
    )


WHOLE = "".join(written(row) for row in ROWS)


def test_any_cut_of_an_earlier_work_goes_on(tmp_path):
    path = tmp_path / "texts.jsonl"
    assert done_rows(path, ROWS, WAY) == 0
    data = WHOLE.encode()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        assert done_rows(path, ROWS, WAY) == data[:size].count(b"\n")
        assert path.read_bytes() == data[: data.rfind(b"\n", 0, size) + 1]


def test_a_text_with_odd_line_separators_is_one_row(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(written(ROWS[0], "one\u2028two\x85three"), "utf-8")
    assert done_rows(path, ROWS, WAY) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a note without a line end", "its last line is none that was written here"),
        ('{"prompt": "a"}', "its last line is none that was written here"),
        ('{"prompt": "a"}\n', "a row without a text that was written"),
        ('{"config": 1}\n', "mine.jsonl:1: no row that was written here; choose another file with --out"),
        ("notes of mine\n", "mine.jsonl:1: no row that was written here; choose another file with --out"),
        (written({"prompt": "z"}), "the text of another prompt"),
        (written(ROWS[0], way=way_of("notes, step 800", Sampling(temperature=0.1), 64)), "with other settings"),
        (written(ROWS[0], way=way_of("notes, step 900", Sampling(), 64)), "by another model or"),
        (WHOLE + "more", "has more rows than there are prompts"),
    ],
)
def test_a_file_of_anything_else_stays_as_it_is(tmp_path, content, says):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=says):
        done_rows(path, ROWS, WAY)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "b"', r":3: not valid JSON \(.* at column \d+\); correct or delete this line"),
        ("[" * 200_000, ":3: JSON that cannot be read"),
        ("[1]", r':3: expected an object such as {"prompt": "Once"}, found a list'),
        ('{"promt": "b"}', ":3: there is no field 'prompt'.*the fields are: promt"),
        ('{"prompt": null}', ":3: the field 'prompt' holds null, not text; correct this line"),
        ('{"prompt": "\\ud800"}', ":3: the field 'prompt' holds half of a surrogate pair"),
    ],
)
def test_a_broken_row_is_named_with_its_line_before_anything_is_written(tmp_path, line, says):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n\n{line}\n')
    with pytest.raises(DataError, match="rows.jsonl" + says):
        read_rows(path)


def test_a_folder_is_told(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read .Is a directory.; choose another file with --out"):
        done_rows(tmp_path, ROWS, WAY)


def test_rows_of_earlier_versions_do_not_tell_by_what_they_were_written(tmp_path):
    path = tmp_path / "texts.jsonl"
    row = json.loads(written(ROWS[0]))
    del row["written_by"]
    path.write_text(json.dumps(row) + "\n")
    assert done_rows(path, ROWS, WAY) == 1
