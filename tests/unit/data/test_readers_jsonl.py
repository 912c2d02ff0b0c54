"""JSON Lines: every broken line or field is named with its file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import readers_jsonl
from ondevice.data.readers import Leaf
from ondevice.data.readers_jsonl import jsonl_rows, jsonl_texts
from ondevice.errors import DataError


def texts(data: bytes, title_field: str = "") -> list:
    leaf = Leaf("rows.jsonl", "/x/rows.jsonl", "rows.jsonl", len(data), lambda: iter([data] if data else []))
    return [(line, text) for line, text, _ in jsonl_texts(leaf, text_field="text", title_field=title_field)]


def test_rows_titles_blank_lines_and_a_byte_order_mark():
    data = b'\xef\xbb\xbf{"text": "one"}\r\n\n  \n{"text": "a\\r\\nb", "title": "T"}\n{"text": "", "title": null}'
    data = data.replace(b'"one"', b'"one", "title": ""')
    assert texts(data, "title") == [(1, "one"), (4, "T\n\na\nb"), (5, "")]


@given(
    rows=st.lists(st.one_of(st.just(b""), st.text().map(lambda t: json.dumps({"text": t}).encode())), max_size=20),
    block=st.integers(1, 50),
)
def test_every_row_has_its_line_number_whatever_the_blocks(rows, block):
    data = b"\n".join(rows)
    found = jsonl_rows((data[start : start + block] for start in range(0, len(data), block)), "x")
    assert list(found) == [(number, row) for number, row in enumerate(rows, 1) if row]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "x"', r"rows.jsonl:2: not valid JSON \(.* at column \d+\); correct"),
        (b'{"txt": 1, "id": 2}', r"rows.jsonl:2: there is no field 'text' \(did you mean 'txt'\?\); .*: txt, id; "),
        (b"{}", r"rows.jsonl:2: there is no field 'text'; the fields are: none"),
        (b'{"text": 5}', r"rows.jsonl:2: the field 'text' holds a number, not text"),
        (b'{"text": null}', r"rows.jsonl:2: the field 'text' holds null"),
        (b'{"text": ["a"]}', r"holds a list"),
        (b'["text"]', r'rows.jsonl:2: expected an object such as \{"text": "..."\}, found a list'),
        (b"[" * 200_000, r"rows.jsonl:2: JSON that cannot be read"),
        (b'{"text": ' + b"9" * 5000 + b"}", r"rows.jsonl:2: "),
    ],
)  # fmt: skip
def test_a_broken_line_names_file_line_and_cure(line, message):
    with pytest.raises(DataError, match=message):
        texts(b'{"text": "fine"}\n' + line + b"\n")


@pytest.mark.slow
def test_line_seven_million_is_named():
    block = b'{"text": "fine"}\n' * 1000

    def blocks():
        for _ in range(6999):
            yield block
        yield block[:-17] + b'{"text": "bro\n'

    leaf = Leaf("rows.jsonl", "/x/rows.jsonl", "rows.jsonl", 1, blocks)
    with pytest.raises(DataError, match=r"rows.jsonl:7000000: not valid JSON"):
        for _ in jsonl_texts(leaf, text_field="text", title_field=""):
            pass


def test_line_7000_is_named():
    data = b'{"text": "fine"}\n' * 6999 + b'{"text": "bro\n' + b'{"text": "fine"}\n'
    with pytest.raises(DataError, match=r"rows.jsonl:7000: "):
        texts(data)


def test_a_missing_or_wrong_title_is_an_error():
    with pytest.raises(DataError, match=r":1: there is no field 'title'.*title_field"):
        texts(b'{"text": "x"}', "title")
    with pytest.raises(DataError, match=r":1: the field 'title' holds true or false"):
        texts(b'{"text": "x", "title": true}', "title")


def test_a_line_longer_than_the_limit_is_refused_before_it_is_held(monkeypatch):
    monkeypatch.setattr(readers_jsonl, "LINE_BYTES", 1000)

    def blocks():
        yield b'{"text": "x"}\n{"text": "'
        for _ in range(20):
            yield b"y" * 100
        raise AssertionError("read past the limit")

    with pytest.raises(DataError, match=r"^/x:2: this line is longer"):
        list(jsonl_rows(blocks(), "/x"))


def test_invalid_utf8_comes_as_bytes():
    assert texts(b'{"text": "a"}\n{"text": "\xff"}') == [(1, "a"), (2, b'{"text": "\xff"}')]
