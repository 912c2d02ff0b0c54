"""CSV and Parquet: each row a document with its title, and every fault named with its file and line."""

import csv
import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import readers, readers_csv
from ondevice.data.documents import Problems
from ondevice.data.readers_csv import csv_texts
from ondevice.data.readers_utf8 import Chunk
from ondevice.data.sources import iter_documents, resolve
from ondevice.errors import DataError, DeviceError
from ondevice.run.schema import SourceConfig


def read(base, path, bad_utf8="skip_line", **keys):
    problems = Problems()
    source = SourceConfig(path=path, name="s", **keys)
    documents = iter_documents(source, base=base, bad_utf8=bad_utf8, problems=problems)
    return [(document.origin, document.text) for document in documents], problems


def rows_of(text, title_field=""):
    rows = csv_texts([Chunk(text, 1)], "t.csv", text_field="text", title_field=title_field)
    return [(line, text) for line, text, _ in rows]


def test_rows_with_titles_quotations_and_blank_lines(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        b'\xef\xbb\xbfid,title,text\r\n1,One,"a, b"\r\n\r\n2,,"two\r\nlines ""quoted"""\r\n3,Only a title,\r\n4,,\r\n'
    )
    found, problems = read(tmp_path, "a.csv", format="csv", title_field="title")
    assert found == [
        ("a.csv:2", "One\n\na, b"),
        ("a.csv:4", 'two\nlines "quoted"'),
        ("a.csv:6", "Only a title"),
    ]
    assert problems.examples("s", "empty_document") == ("a.csv:7",)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_header(mark):
    assert rows_of(f"id{mark}text\n1{mark}x y\n") == [(2, "x y")]


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))),
    size=st.integers(1, 9),
)
def test_what_a_writer_wrote_comes_back_whatever_the_chunks(texts, size):
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([["text", "id"], *([text, number] for number, text in enumerate(texts))])
    whole = file.getvalue()
    parts, line = [], 1
    for start in range(0, len(whole), size):
        parts.append(Chunk(whole[start : start + size], line))
        line += parts[-1].text.count("\n")
    found = [(line, text) for line, text, _ in csv_texts(parts, "t.csv", text_field="text", title_field="")]
    assert [text for _, text in found] == texts
    lines = [2]
    for text in texts:
        lines.append(lines[-1] + 1 + text.count("\n"))
    assert [line for line, _ in found] == lines[:-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("txt,id\nx,1\n", r"t.csv:2: there is no field 'text' \(did you mean 'txt'\?\); the fields are: txt, id"),
        ("text,id\nx,1\ny\n", r"t.csv:3: this row has 1 fields where the header has 2"),
        ("text,id\nx,1\ny,2,3\n", r"t.csv:3: this row has 3 fields"),
        ('text,id\nx,1\n"y,2\nz,3\n', r"t.csv:3: the row that begins here is not CSV"),
        ('text,id\nx,1\n"y"z,2\n', r"t.csv:3: the row that begins here is not CSV"),
    ],
)
def test_a_broken_row_is_named(text, message):
    with pytest.raises(DataError, match=message):
        rows_of(text)


def test_a_quotation_without_end_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr(readers_csv, "FIELD_CHARS", 1000)
    taken = []

    def chunks():
        yield Chunk('text\n"never ends\n', 1)
        for line in range(3, 10**6):
            taken.append(line)
            yield Chunk("more and more text\n", line)

    with pytest.raises(DataError, match=r"t.csv:2: the row that begins here is not CSV \(field larger than"):
        list(csv_texts(chunks(), "t.csv", text_field="text", title_field=""))
    assert len(taken) < 200


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(readers_csv, "FIELD_CHARS", 1000)
    with pytest.raises(DataError, match=r"t.csv:2: this line is longer"):
        list(csv_texts([Chunk("text\n", 1), Chunk("x" * 1001, 2)], "t.csv", text_field="text", title_field=""))


def test_lines_that_are_no_utf8_are_left_out_and_the_numbers_stay(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text\none\n\xff\xff\nthree\n")
    found, problems = read(tmp_path, "a.csv", format="csv")
    assert found == [("a.csv:2", "one"), ("a.csv:4", "three")] and problems.count("invalid_utf8_line") == 1


def test_a_table_is_text_unless_it_is_declared(tmp_path):
    (tmp_path / "a.csv").write_text("text,id\nx,1\n")
    assert read(tmp_path, "a.csv")[0] == [("a.csv", "text,id\nx,1\n")]
    (tmp_path / "b.txt").write_text("other")
    found, problems = read(tmp_path, ".", format="csv")
    assert found == [("a.csv:2", "x")] and problems.examples("s", "unsupported_file") == ("b.txt",)


@pytest.fixture
def table(tmp_path):
    """Writes a Parquet file of columns."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(name="a.parquet", **columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / name, row_group_size=700)

    return write


def test_parquet_rows_are_documents(tmp_path, table):
    texts = [f"text {i}" for i in range(1500)]
    texts[3:5] = [None, "a\r\nb"]
    table(text=texts, title=["T", None, *[""] * 1498], n=list(range(1500)))
    assert resolve(SourceConfig(path="a.parquet"), base=tmp_path).format == "parquet"
    found, problems = read(tmp_path, "a.parquet", title_field="title")
    assert found[:4] == [
        ("a.parquet:1", "T\n\ntext 0"),
        ("a.parquet:2", "text 1"),
        ("a.parquet:3", "text 2"),
        ("a.parquet:5", "a\nb"),
    ]
    assert len(found) == 1499 and found[-1] == ("a.parquet:1500", "text 1499")
    assert problems.examples("s", "empty_document") == ("a.parquet:4",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"txt": ["a"]}, r"a.parquet: there is no field 'text' \(did you mean 'txt'\?\)"),
        ({"text": [1, 2]}, r"a.parquet: the field 'text' holds int64, not text; set text_field to another"),
    ],
)
def test_a_field_that_is_no_text_is_named(tmp_path, table, columns, message):
    table(**columns)
    with pytest.raises(DataError, match=message):
        read(tmp_path, "a.parquet")


def test_damaged_parquet_is_one_sentence(tmp_path, table):
    table(text=[f"some text {i}" for i in range(3000)])
    data = (tmp_path / "a.parquet").read_bytes()
    for damaged in (
        data[:-9],
        b"PAR1" + data[4:200] + b"\xff" * 3000 + data[3200:],
        b"no parquet",
        data[: len(data) // 2],
    ):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.parquet: .*fetch it again"):
            read(tmp_path, "a.parquet")


def test_a_parquet_bomb_is_refused(tmp_path, table, monkeypatch):
    monkeypatch.setattr(readers, "BOMB_BYTES", 1000)
    monkeypatch.setattr(readers, "BOMB_RATIO", 2)
    table(text=["x" * 100_000 + str(i) for i in range(8)])
    with pytest.raises(DataError, match="compressed bytes swell to more than"):
        read(tmp_path, "a.parquet")


def test_without_the_package_the_command_that_installs_it(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DeviceError, match="pip install pyarrow"):
        read(tmp_path, "a.parquet")


def test_reading_text_does_not_load_the_package():
    code = "import sys, ondevice.data.build; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
