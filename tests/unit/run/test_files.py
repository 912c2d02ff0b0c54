"""Durable writes: old or new, never a mixture, and every failure in one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import CheckpointError, DataError, OndeviceError, ResourceError
from ondevice.run.files import (
    HashedFile,
    json_bytes,
    make_folder,
    read_json,
    read_regular,
    read_sealed,
    remove_temporary,
    sha256_of,
    write_all,
    write_atomic,
    write_json,
    write_sealed,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_replace_and_leave_nothing_beside(tmp_path: Path) -> None:
    for data in (b"old", b"new", b""):
        write_atomic(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    write_json(tmp_path / "b.json", {"x": [1, None, "ü"]}, durable=False)
    assert read_json(tmp_path / "b.json") == {"x": [1, None, "ü"]}
    assert names(tmp_path) == ["a", "b.json"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    write_atomic(tmp_path / "a", b"0123456789")
    numbers = array("i", range(10))
    hashed = HashedFile(tmp_path / "b")
    hashed.write(memoryview(numbers))
    hashed.write(memoryview(array("f")))
    hashed.write(b"")
    hashed.close()
    assert (tmp_path / "a").read_bytes() == b"0123456789"
    assert (tmp_path / "b").read_bytes() == numbers.tobytes()
    assert (hashed.size, hashed.sha256) == (10 * numbers.itemsize, sha256_of(tmp_path / "b"))


def test_a_write_of_nothing_is_not_an_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(OSError, match="wrote nothing"):
        write_all(1, b"x")


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (errno.ENOSPC, ResourceError, "the disk is full; free some space and repeat the command."),
        (errno.EDQUOT, ResourceError, "the disk is full; free some space and repeat the command."),
        (errno.EFBIG, ResourceError, "larger than this system lets a file become"),
        (errno.EACCES, DataError, "cannot be written (Permission denied)."),
        (errno.EROFS, DataError, "cannot be written (Read-only file system)."),
        (errno.EIO, DataError, "cannot be written (Input/output error)."),
    ],
)
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: type[OndeviceError], words: str
) -> None:
    write_atomic(tmp_path / "a", b"old")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(error) as caught:
            write_atomic(tmp_path / "a", b"new")
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_an_interrupted_write_leaves_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"new")
    assert names(tmp_path) == []


def test_a_file_size_limit_of_the_system_is_one_sentence(tmp_path: Path) -> None:
    """A real short write, then EFBIG, in a process with RLIMIT_FSIZE."""
    program = """
import resource, sys
from pathlib import Path
from ondevice.errors import ResourceError
from ondevice.run.files import write_atomic
from ondevice.run.store import Store
folder = Path(sys.argv[1])
store = Store(folder / "checkpoints")
with store.draft(1) as draft:
    with draft.file("model.safetensors") as file:
        file.write(b"x" * 1000)
    draft.commit({})
write_atomic(folder / "a", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for attempt in range(2):
    try:
        if attempt:
            with store.draft(2) as draft, draft.file("model.safetensors") as file:
                file.write(b"x" * 9000)
        else:
            write_atomic(folder / "a", b"new" * 9000)
    except ResourceError as error:
        print(error)
assert (folder / "a").read_bytes() == b"old"
assert store.latest()[0].step == 1
print(sorted(path.name for path in folder.rglob("*")))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "larger than this system lets a file become" in said[0]
    assert said[1].endswith("no checkpoint was written (File too large); older checkpoints are untouched.")
    assert said[2] == "['a', 'checkpoints', 'manifest.json', 'model.safetensors', 'step-00000001']"


def test_json_is_finite_and_takes_any_text() -> None:
    assert json_bytes({"a": "ü", "b": 1.5}) == '{"a":"ü","b":1.5}\n'.encode()
    assert json_bytes("odd \udcff name") == b'"odd \\udcff name"\n'
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Out of range"):
            json_bytes(value)


MALFORMED = [b"", b"{", b"\x00" * 64, b"\xff\xfe{", b'{"a": NaN}', b"[" * 100_000, b"1" * 5000, b'{"a": 1}}']


@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_json_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    for read in (read_json, lambda path: read_sealed(path, version=1)):
        with pytest.raises(DataError, match=r"a\.json: not valid JSON \(.*\)\.$"):
            read(tmp_path / "a.json")


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for read in (read_json, lambda path: read_sealed(path, version=1)):
        with pytest.raises(DataError, match=r"a\.json: no such file\.$"):
            read(tmp_path / "a.json")
        with pytest.raises(DataError, match=r"cannot be read \(.*\)\.$"):
            read(tmp_path)


def test_files_others_may_have_put_there_are_plain_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    assert read_regular(tmp_path / "a", limit=5) == b"12345"
    for name, limit in (("a", 4), ("link", 9), ("pipe", 9), (".", 9)):
        with pytest.raises(OSError):
            read_regular(tmp_path / name, limit=limit)


def test_a_seal_notices_every_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "pins.json"
    body = {"v": 1, "pins": {"9": "ü"}, "x": 1e-05, "y": [True, None]}
    write_sealed(path, body)
    whole = path.read_bytes()
    assert read_sealed(path, version=1) == body
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises((DataError, CheckpointError), match=r"pins\.json"):
            read_sealed(path, version=1)
    for damaged in (whole + b"\n", whole[:-1], whole.replace(b"\n", b"\r\n"), b"[]", b"{}", b'{"v": true}'):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            read_sealed(path, version=1)


def test_a_newer_sealed_file_is_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a", {"v": 2})
    with pytest.raises(CheckpointError, match=r"a: format 2, this program reads 1; update ondevice\.$"):
        read_sealed(tmp_path / "a", version=1)


def test_folders_are_made_with_their_parents_for_this_user(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]


def test_left_over_temporary_files_are_removed(tmp_path: Path) -> None:
    for name in (".tmp-status.json-5-abcd", ".tmp-old", "keep", ".other"):
        (tmp_path / name).touch()
    (tmp_path / ".tmp-folder").mkdir()
    os.utime(tmp_path / ".tmp-old", (0, 0))
    remove_temporary(tmp_path, older_than_s=3600.0)
    assert names(tmp_path) == [".other", ".tmp-folder", ".tmp-status.json-5-abcd", "keep"]
    remove_temporary(tmp_path)
    remove_temporary(tmp_path / "missing")
    assert names(tmp_path) == [".other", ".tmp-folder", "keep"]


def test_hashes_are_of_all_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()
