"""Sources of every format become documents in a deterministic order; what is left out is counted."""

import gzip
import json
import os
import sysconfig
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import readers_units
from ondevice.data.documents import Document, Problems
from ondevice.data.sources import iter_documents, list_files, resolve
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import SourceConfig

DATA = Path(os.environ.get("ONDEVICE_TEST_DATA", Path(__file__).parents[3] / "../shared/data"))


def write(base: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def zip_of(path: Path, files: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def read(base: Path, path: str = ".", *, bad: str = "skip_line", **keys) -> tuple[list[Document], Problems]:
    problems = Problems()
    source = SourceConfig(path=path, name=keys.pop("name", "s"), **keys)
    return list(iter_documents(source, base=base, bad_utf8=bad, problems=problems)), problems


def origins(base: Path, path: str = ".", **keys) -> list[str]:
    return [document.origin for document in read(base, path, **keys)[0]]


# --- text -------------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    write(tmp_path, {"b.txt": "B", "a/z.md": "Z", "a.txt": "A", "a/b/c": "C", "ğ.txt": "G"})
    documents, problems = read(tmp_path, language="en")
    assert [(d.origin, d.text) for d in documents] == [
        ("a.txt", "A"),
        ("a/b/c", "C"),
        ("a/z.md", "Z"),
        ("b.txt", "B"),
        ("ğ.txt", "G"),
    ]
    assert {(d.source, d.language) for d in documents} == {("s", "en")}
    assert not problems


def test_hidden_files_and_caches_are_skipped(tmp_path):
    hidden = [".git/config", ".venv/lib/a.txt", "node_modules/x/a.txt", "a/__pycache__/b.txt", ".hidden.txt"]
    write(tmp_path, dict.fromkeys(hidden, "no") | {"a/yes.txt": "yes"})
    assert origins(tmp_path) == ["a/yes.txt"]


def test_include_and_exclude(tmp_path):
    write(tmp_path, dict.fromkeys(["a.md", "a.txt", "old/b.md", "old/deep/c.md", "d.min.md"], "x"))
    (tmp_path / "e.md.gz").write_bytes(gzip.compress(b"x"))
    zip_of(tmp_path / "z.zip", {"in.md": "x", "in.txt": "x", "old/in.md": "x"})
    assert origins(tmp_path, include=("*.md",), exclude=("old", "*.min.*")) == ["a.md", "e.md.gz", "z.zip!in.md"]
    assert origins(tmp_path, include=("old/*",)) == ["old/b.md", "old/deep/c.md", "z.zip!old/in.md"]


def test_links_stay_inside_and_never_loop(tmp_path):
    write(tmp_path, {"in/a.txt": "a", "in/.store/b.txt": "b", "in/sub/d.txt": "d", "out/c.txt": "c"})
    inside = tmp_path / "in"
    for name, target in {
        "loop": ".",
        "sub/up": "..",
        "self": "self",
        "copy.txt": "a.txt",
        "outside": "../out",
        "outside.txt": "../out/c.txt",
        "kept.txt": ".store/b.txt",
        "gone.txt": "nowhere",
        "zsub": "sub",
    }.items():
        (inside / name).symlink_to(target)
    documents, problems = read(tmp_path, "in")
    assert [d.origin for d in documents] == ["a.txt", "kept.txt", "sub/d.txt"]
    assert problems.examples("s", "symlink_outside") == ("outside", "outside.txt")
    assert problems.examples("s", "unreadable_file") == ("gone.txt", "self")
    (tmp_path / "link").symlink_to("in")
    assert origins(tmp_path, "link") == ["a.txt", "kept.txt", "sub/d.txt"]


def test_documents_may_be_paragraphs_or_lines(tmp_path):
    write(tmp_path, {"a.txt": "one\ntwo\r\n\r\n \n  three\n\nfour"})
    documents, _ = read(tmp_path, "a.txt", document="paragraph")
    assert [(d.origin, d.text) for d in documents] == [
        ("a.txt:1", "one\ntwo"),
        ("a.txt:5", "  three"),
        ("a.txt:7", "four"),
    ]
    documents, _ = read(tmp_path, "a.txt", document="line")
    assert [(d.origin, d.text) for d in documents][1:3] == [("a.txt:2", "two"), ("a.txt:5", "  three")]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=1))
def test_a_file_is_its_text(text, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    (base / "any.txt").write_bytes(text.encode())
    if text.isspace():
        with pytest.raises(DataError, match="no text was found"):
            read(base, "any.txt")
    else:
        assert "".join(d.text for d in read(base, "any.txt")[0]) == text


def test_a_very_long_file_comes_in_numbered_pieces(tmp_path):
    text = "".join(f"paragraph {n}, ğüşiöç.\n\n" for n in range(250_000))
    write(tmp_path, {"big.txt": text})
    documents, _ = read(tmp_path, "big.txt")
    assert "".join(d.text for d in documents) == text
    assert [d.origin for d in documents] == ["big.txt#1", "big.txt#2"]
    assert len(documents[0].text) <= readers_units.PIECE_CHARS
    assert documents[0].text.endswith(".\n\n")


def test_line_ends_and_byte_order_marks(tmp_path):
    write(tmp_path, {"a.txt": b"\xef\xbb\xbfone\r\ntwo\rthree\n"})
    assert read(tmp_path, "a.txt")[0][0].text == "one\ntwo\rthree\n"


# --- invalid UTF-8 and binary -----------------------------------------------------------------------------------------

BROKEN = b"good \xc3\xa9\nbad \xff line\ngood again\n\nlast \xe9"


@pytest.mark.parametrize(
    ("document", "texts", "examples"),
    [
        ("file", ["good é\ngood again\n\n"], ("a.txt:2", "a.txt:5")),
        ("paragraph", ["good é\ngood again"], ("a.txt:2", "a.txt:5")),
        ("line", ["good é", "good again"], ("a.txt:2", "a.txt:5")),
    ],
)
def test_bad_lines_are_left_out_and_counted(tmp_path, document, texts, examples):
    write(tmp_path, {"a.txt": BROKEN})
    documents, problems = read(tmp_path, "a.txt", document=document)
    assert [d.text for d in documents] == texts
    assert problems.examples("s", "invalid_utf8_line") == examples


def test_bad_documents_are_left_out_and_counted(tmp_path):
    write(tmp_path, {"a.txt": BROKEN, "b.txt": "fine\n\nfine too"})
    documents, problems = read(tmp_path, bad="skip_document")
    assert [d.origin for d in documents] == ["b.txt"]
    assert problems.examples("s", "invalid_utf8_document") == ("a.txt:2",)
    documents, problems = read(tmp_path, bad="skip_document", document="line")
    assert [d.text for d in documents] == ["good é", "good again", "fine", "fine too"]
    assert problems.examples("s", "invalid_utf8_document") == ("a.txt:2", "a.txt:5")


def test_bad_bytes_may_be_refused(tmp_path):
    write(tmp_path, {"a.txt": BROKEN})
    with pytest.raises(DataError, match=r"a.txt:2: .*not valid UTF-8.*skip_line"):
        read(tmp_path, "a.txt", bad="refuse")


@pytest.mark.parametrize("bad", ["skip_line", "skip_document", "refuse"])
def test_jsonl_rows_with_bad_text(tmp_path, bad):
    write(tmp_path, {"r.jsonl": b'{"text": "a"}\n{"text": "\xff"}\n{"text": "\\ud800"}\n{"text": "\\ud83d\\ude00"}\n'})
    if bad == "refuse":
        with pytest.raises(DataError, match=r"r.jsonl:2: .*UTF-8"):
            read(tmp_path, "r.jsonl", bad=bad)
        return
    documents, problems = read(tmp_path, "r.jsonl", bad=bad)
    assert [(d.origin, d.text) for d in documents] == [("r.jsonl:1", "a"), ("r.jsonl:4", "😀")]
    assert problems.examples("s", "invalid_utf8_line") == ("r.jsonl:2",)
    assert problems.examples("s", "lone_surrogate") == ("r.jsonl:3",)


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"\x89PNG\r\n\0\0data", "binary_file", "is not text .*name a text file"),
        ("text".encode("utf-16"), "utf16_file", "is UTF-16.*iconv"),
        ("text".encode("utf-32"), "binary_file", "is UTF-32.*iconv -f UTF-32"),
    ],
)
def test_what_is_no_text_is_refused_by_name_and_counted_in_a_folder(tmp_path, content, reason, message):
    write(tmp_path, {"x.txt": content, "y.txt": "text"})
    with pytest.raises(DataError, match=rf"x.txt {message}"):
        read(tmp_path, "x.txt")
    documents, problems = read(tmp_path)
    assert [d.origin for d in documents] == ["y.txt"]
    assert problems.examples("s", reason) == ("x.txt",)


# --- jsonl, html, code, auto ------------------------------------------------------------------------------------------


def test_jsonl_with_declared_fields(tmp_path):
    rows = [{"id": 1, "head": "T", "body": "one"}, {"id": 2, "head": "", "body": "two"}, {"head": None, "body": " "}]
    write(tmp_path, {"rows.ndjson": "\n\n".join(map(json.dumps, rows)), "README.md": "no"})
    documents, problems = read(tmp_path, format="jsonl", text_field="body", title_field="head", language="en")
    assert documents == [Document("T\n\none", "s", "en", "rows.ndjson:1"), Document("two", "s", "en", "rows.ndjson:3")]
    assert problems.examples("s", "unsupported_file") == ("README.md",)
    assert problems.examples("s", "empty_document") == ("rows.ndjson:5",)


def test_a_folder_of_pages(tmp_path):
    write(tmp_path, {"a.html": "<title>T</title><p>caf&eacute;", "b.HTM": "<p>b", "c.css": "p {}", "d.html": "<p></p>"})
    documents, problems = read(tmp_path, format="html")
    assert [(d.origin, d.text) for d in documents] == [("a.html", "T\n\ncafé"), ("b.HTM", "b")]
    assert [reason for _, reason, _ in problems] == ["empty_document", "unsupported_file"]


def test_pages_read_as_text_keep_their_tags(tmp_path):
    write(tmp_path, {"a.html": "<p>x</p>"})
    assert read(tmp_path, "a.html", format="text")[0][0].text == "<p>x</p>"
    assert read(tmp_path, "a.html")[0][0].text == "x"


def test_a_page_that_never_ends_is_counted(tmp_path):
    write(tmp_path, {"a.html": "<p>x<!-- " + "y" * 9_000_000, "b.html": "<p>y"})
    documents, problems = read(tmp_path)
    assert "b.html" in [d.origin for d in documents]
    assert problems.count("broken_html") == 1
    with pytest.raises(DataError, match=r"a.html is not HTML .*never ends"):
        read(tmp_path, "a.html")


def test_code_is_named_after_its_language(tmp_path):
    files = {
        "a.py": "x = 1",
        "b/C.JAVA": "class C {}",
        "b/tool": "#!/usr/bin/env python3.11\nprint()",
        "run": "#!/bin/bash -e\necho",
        "Makefile": "all:",
        "CMakeLists.txt": "project(x)",
        "notes.txt": "no",
        "LICENSE": "no",
        "x.pyc": b"\0",
    }
    write(tmp_path, files)
    documents, problems = read(tmp_path, format="code")
    assert {d.origin: (d.source, d.language) for d in documents} == {
        "CMakeLists.txt": ("s.cmake", "cmake"),
        "Makefile": ("s.make", "make"),
        "a.py": ("s.python", "python"),
        "b/C.JAVA": ("s.java", "java"),
        "b/tool": ("s.python", "python"),
        "run": ("s.shell", "shell"),
    }
    assert sorted(problems.examples("s", "unsupported_file")) == ["LICENSE", "notes.txt", "x.pyc"]
    with pytest.raises(DataError, match=r"notes.txt is not of a programming language .*format = \"text\""):
        read(tmp_path, "notes.txt", format="code")


def test_auto_goes_by_the_extension_of_each_file(tmp_path):
    write(
        tmp_path,
        {"a.txt": "plain words", "b.html": "<p>page", "c.jsonl": '{"text": "row"}', "d.py": "x", "e.md": "# Title"},
    )
    (tmp_path / "f.html.gz").write_bytes(gzip.compress(b"<p>packed page"))
    zip_of(tmp_path / "g.zip", {"x.jsonl": '{"text": "packed row"}', "y.txt": "packed words"})
    resolved = resolve(SourceConfig(path="."), base=tmp_path)
    assert (resolved.format, resolved.reason) == ("mixed", "each file by its extension")
    documents, problems = read(tmp_path)
    assert {d.origin: d.text for d in documents} == {
        "a.txt": "plain words",
        "b.html": "page",
        "c.jsonl:1": "row",
        "d.py": "x",
        "e.md": "# Title",
        "f.html.gz": "packed page",
        "g.zip!x.jsonl:1": "packed row",
        "g.zip!y.txt": "packed words",
    }
    assert {d.source for d in documents} == {"s"}
    assert not problems


@pytest.mark.parametrize(
    ("files", "form", "reason"),
    [
        ({"a.py": "x" * 100, "README.md": "y" * 20, "x.png": b"\0" * 99}, "code", "82 % of its bytes are program code"),
        ({"a.py": "x" * 20, "README.md": "y" * 100}, "text", "most of it is text"),
        ({"a.txt": "x", "b.md": "y", "c": "z"}, "text", "every file is text"),
        ({"a.jsonl": "{}"}, "jsonl", "every file is jsonl"),
        ({"a.html": "x"}, "html", "every file is html"),
    ],
)  # fmt: skip
def test_auto_decides_and_says_why(tmp_path, files, form, reason):
    write(tmp_path, files)
    resolved = resolve(SourceConfig(path="."), base=tmp_path)
    assert (resolved.format, resolved.reason) == (form, reason)


def test_a_declared_format_is_kept(tmp_path):
    write(tmp_path, {"a.py": "x"})
    assert resolve(SourceConfig(path="a.py", format="text"), base=tmp_path).format == "text"
    assert [d.source for d in read(tmp_path, "a.py")[0]] == ["s.python"]


# --- names and lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("My Notes.txt.gz", "my-notes"),
        ("Işık Çağı.md", "isik-cagi"),
        ("v1.2.tar.txt", "v1.2.tar"),
        ("日本.txt", "source"),
        ("_-x-_.txt", "x"),
    ],
)
def test_names_are_derived_from_paths(tmp_path, path, name):
    (tmp_path / path).write_bytes(gzip.compress(b"x") if path.endswith(".gz") else b"x")
    resolved = resolve(SourceConfig(path=path), base=tmp_path)
    assert (resolved.name, resolved.path) == (name, tmp_path / path)


def test_a_folder_keeps_its_whole_name(tmp_path):
    write(tmp_path, {"python3.11/a.txt": "x"})
    assert resolve(SourceConfig(path="python3.11/"), base=tmp_path).name == "python3.11"


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    write(tmp_path, {"a.txt": "x"})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(SourceConfig(path="~/a.txt"), base=Path("/nowhere")).path == tmp_path / "a.txt"


@pytest.mark.parametrize("name", ["My Notes", "../x", ".x", "ğ", "x" * 65])
def test_a_name_with_other_characters_is_refused(tmp_path, name):
    write(tmp_path, {"a.txt": "x"})
    with pytest.raises(UsageError, match=r"name = .* is not allowed: .*such as '"):
        resolve(SourceConfig(path="a.txt", name=name), base=tmp_path)


def test_the_list_of_files_is_sorted_and_complete(tmp_path):
    write(tmp_path, {"b.py": "xx", "a/c.py": "x", "a/d.txt": "x"})
    zip_of(tmp_path / "z.zip", {"e.py": "x"})
    entries = list_files(SourceConfig(path=".", format="code"), tmp_path)
    assert [(entry.relative, entry.path) for entry in entries] == [
        ("a/c.py", tmp_path / "a/c.py"),
        ("b.py", tmp_path / "b.py"),
        ("z.zip", tmp_path / "z.zip"),
    ]
    facts = (tmp_path / "b.py").stat()
    assert (entries[1].size, entries[1].mtime_ns) == (2, facts.st_mtime_ns)


@pytest.mark.skipif(os.name != "posix", reason="file names are text on this system")
def test_a_file_name_that_is_not_utf8(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    documents, _ = read(tmp_path)
    assert documents[0].origin == "\\xff.txt"


# --- real text --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of test texts is not on this machine (ONDEVICE_TEST_DATA)")
@pytest.mark.parametrize("name", ["help_tr.txt", "help_it.txt", "tinyshakespeare.txt"])
def test_real_text_is_read_exactly(name):
    text = (DATA / name).read_bytes().decode()
    documents, problems = read(DATA, name)
    assert "".join(d.text for d in documents) == text
    paragraphs, _ = read(DATA, name, document="paragraph")
    assert "".join("".join(d.text for d in paragraphs).split()) == "".join(text.split())
    assert not problems


def test_the_standard_library_is_python_code():
    base = Path(sysconfig.get_paths()["stdlib"])
    documents, problems = read(base, "json", name="stdlib")
    assert {(d.source, d.language) for d in documents} == {("stdlib.python", "python")}
    assert "decoder.py" in [d.origin for d in documents]
    assert problems.count("invalid_utf8_line") == 0
