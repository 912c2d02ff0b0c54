"""Paths and archives that cannot be read: one sentence, what to do, and nothing silently dropped."""

import gzip
import os
import zipfile
from pathlib import Path

import pytest

from ondevice.data import readers, sources_find, sources_walk
from ondevice.data.documents import Problems
from ondevice.data.sources import iter_documents, list_files, resolve
from ondevice.errors import DataError
from ondevice.run.schema import SourceConfig


def read(base: Path, path: str = ".", **keys) -> tuple[dict[str, str], Problems]:
    problems = Problems()
    source = SourceConfig(path=path, name="s", **keys)
    documents = iter_documents(source, base=base, bad_utf8="skip_line", problems=problems)
    return {document.origin: document.text for document in documents}, problems


def test_a_missing_path(tmp_path):
    for call in (resolve, lambda source, base: list_files(source, base)):
        with pytest.raises(DataError, match=r"gone: no such file or folder; check the path"):
            call(SourceConfig(path="gone"), base=tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path, "file/below")


def test_an_empty_folder_and_patterns_that_match_nothing(tmp_path):
    with pytest.raises(DataError, match=r"the folder holds no file; name one that holds text"):
        read(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="holds no file that matches include and exclude"):
        read(tmp_path, include=("*.md",))


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", r"1 documents without text"), (b"\n \n", r"1 documents without text"), (b"\xe9 ", r"1 lines with invalid")],
)
def test_a_source_without_text_says_why(tmp_path, content, why):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"no text was found \(.*{why}.*\); name a file or folder with text"):
        read(tmp_path, "a.txt")


def test_a_folder_with_nothing_to_read_says_what_was_there(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\0\0")
    with pytest.raises(DataError, match=r"no text was found \(s: 1 binary files left out \(x.png\)\)"):
        read(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read(tmp_path, "pipe")
    (tmp_path / "a.txt").write_text("x")
    texts, problems = read(tmp_path)
    assert texts == {"a.txt": "x"}
    assert problems.examples("s", "unsupported_file") == ("pipe",)


def test_storage_without_permission_names_the_command(monkeypatch):
    def denied(self, **keys):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(DataError, match=r"^/sdcard/notes: .*Permission denied\); run termux-setup-storage"):
        sources_find.find(SourceConfig(path="/sdcard/notes"), Path("/"))
    with pytest.raises(DataError, match=r"^/data/notes: .*check its permissions"):
        sources_find.find(SourceConfig(path="/data/notes"), Path("/"))


def test_a_file_without_permission(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)

    def denied(path, *arguments, **keys):
        if Path(path).name == "a.txt":
            raise PermissionError(13, "Permission denied")
        return open(path, *arguments, **keys)

    monkeypatch.setattr(readers, "open", denied, raising=False)
    texts, problems = read(tmp_path)
    assert list(texts) == ["b.txt"]
    assert problems.examples("s", "unreadable_file") == ("a.txt",)
    with pytest.raises(DataError, match=r"a.txt cannot be read \(Permission denied\); check its permissions"):
        read(tmp_path, "a.txt")


def test_a_folder_inside_without_permission(tmp_path, monkeypatch):
    for name in ("in/a.txt", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    scandir = os.scandir

    def denied(path):
        if Path(path).name == "in":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(sources_walk.os, "scandir", denied)
    texts, problems = read(tmp_path)
    assert list(texts) == ["b.txt"]
    assert problems.examples("s", "unreadable_folder") == ("in",)


# --- archives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:60] + b"\xff\xff" + data[62:], lambda data: b"no"]
)
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):  # fmt: skip
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt.gz").write_bytes(damage(gzip.compress(os.urandom(200).hex().encode() * 3)))
    for path in (".", "b.txt.gz"):
        with pytest.raises(DataError, match=r"b.txt.gz: the gzip file is truncated or damaged .*fetch it again"):
            read(tmp_path, path)


def test_members_of_a_zip_file_follow_the_rules(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {
            "b/two.txt": b"two",
            "a.txt": b"one",
            ".git/x.txt": b"no",
            "__MACOSX/._a.txt": b"no",
            "c.txt.gz": gzip.compress(b"three"),
            "d.png": b"\0",
            "e.zip": b"no",
            "folder/": b"",
            "../up.txt": b"no",
        }.items():
            archive.writestr(name, content)
    texts, problems = read(tmp_path, "old.zip")
    assert texts == {
        "old.zip!a.txt": "one",
        "old.zip!b/two.txt": "two",
        "old.zip!c.txt.gz": "three",
    }
    assert [tuple(item) for item in problems] == [("s", "binary_file", 1), ("s", "unsupported_file", 1)]


def encrypted(path: Path) -> None:
    """Sets the flag "encrypted" of the member b.txt, in both of its headers."""
    data = bytearray(path.read_bytes())
    for signature, name_at, flag_at in ((b"PK\3\4", 30, 6), (b"PK\1\2", 46, 8)):
        start = data.find(signature)
        while start >= 0:
            if data[start + name_at : start + name_at + 5] == b"b.txt":
                data[start + flag_at] |= 1
            start = data.find(signature, start + 1)
    path.write_bytes(data)


def flipped(path: Path) -> None:
    """Changes one byte of the content of b.txt."""
    data = bytearray(path.read_bytes())
    data[data.find(b"secret")] ^= 1
    path.write_bytes(data)


def zstandard(path: Path) -> None:
    """Says that b.txt is packed with method 93, which Python knows from 3.14 on (its bytes are not what it knows)."""
    data = bytearray(path.read_bytes())
    for signature, name_at, method_at in ((b"PK\3\4", 30, 8), (b"PK\1\2", 46, 10)):
        start = data.find(signature)
        while start >= 0:
            if data[start + name_at : start + name_at + 5] == b"b.txt":
                data[start + method_at : start + method_at + 2] = (93).to_bytes(2, "little")
            start = data.find(signature, start + 1)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [encrypted, flipped, zstandard])
def test_an_encrypted_or_damaged_member_is_counted(tmp_path, damage):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.txt", "fine")
        archive.writestr("b.txt", "secret words")
    damage(tmp_path / "z.zip")
    texts, problems = read(tmp_path)
    assert texts == {"z.zip!a.txt": "fine"}
    assert problems.examples("s", "unreadable_member") == ("z.zip!b.txt",)


class ZstdErrorOfALaterPython(Exception):
    pass


@pytest.mark.parametrize(
    "error", [NotImplementedError("method 93"), RuntimeError("no module compression.zstd"), ZstdErrorOfALaterPython()]
)
@pytest.mark.parametrize("when", ["open", "read"])
def test_a_member_that_no_module_unpacks_is_named_whatever_is_raised(tmp_path, monkeypatch, error, when):
    def fail(*_):
        raise error

    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("b.txt", "words")
    monkeypatch.setattr(*((zipfile.ZipFile, "open") if when == "open" else (zipfile.ZipExtFile, "read")), fail)
    with pytest.raises(DataError, match=r"no text was found .*archive members .*\(z\.zip!b\.txt\)"):
        read(tmp_path)


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "z.zip").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"z.zip: not a zip file or a damaged one .*fetch it again"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "gz", "gz in zip"])
def test_a_compressed_bomb_is_refused_while_it_is_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(readers, "BOMB_BYTES", 1_000_000)
    text = b"0" * 3_000_000
    if kind == "gz":
        name = "bomb.txt.gz"
        (tmp_path / name).write_bytes(gzip.compress(text))
    else:
        name = "bomb.zip"
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            inner = ("a.txt", text) if kind == "zip" else ("a.txt.gz", gzip.compress(text))
            archive.writestr(*inner)
    with pytest.raises(DataError, match=r"compressed bytes swell to more than 1 MB.*leave this file out"):
        read(tmp_path, name)


def test_a_small_file_may_shrink_as_much_as_it_likes(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"0" * 3_000_000))
    assert len(read(tmp_path)[0]["a.txt.gz"]) == 3_000_000


def test_many_members_that_are_a_bomb_together_are_refused(tmp_path, monkeypatch):
    """Members that overlap in the file each swell to a little less than what is refused."""
    monkeypatch.setattr(readers, "BOMB_BYTES", 400_000)
    monkeypatch.setattr(readers, "BOMB_RATIO", 2)
    with zipfile.ZipFile(tmp_path / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(f"{number}.txt", f"text {number}\n" * 12_000)
    source = SourceConfig(path=str(tmp_path / "many.zip"))
    with pytest.raises(DataError, match=r"many\.zip: .* compressed bytes swell to more than 0 MB"):
        list(iter_documents(source, base=tmp_path, bad_utf8="skip_line", problems=Problems()))
