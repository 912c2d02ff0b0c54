"""A pack carries files exactly, goes on where it was interrupted, and a crafted or damaged one changes nothing."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.errors import CheckpointError, DataError, ResourceError, RunBusy, UsageError
from ondevice.run import pack as pack_module
from ondevice.run.files import sealed_bytes
from ondevice.run.pack import BLOCK, Pack, header, is_member_name, list_members, write_pack
from ondevice.run.unpack import read_index, stage

SIZES = {"run/run.json": 10, "run/checkpoints/step-00000001/model.safetensors": 100_000, "data/x": 0, "data/y": 512}


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, Path, int | None]]:
    listed: list[tuple[str, Path, int | None]] = []
    for number, (name, size) in enumerate(SIZES.items()):
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes((number + place) % 251 for place in range(size)))
        listed.append((name, path, None))
    return listed


@pytest.fixture
def packed(files: Any, tmp_path: Path) -> tuple[Pack, Path]:
    pack = Pack({"run": "a"}, tuple(list_members(files)))
    assert write_pack(pack, files, tmp_path / "a.ondevice") == 0
    return pack, tmp_path / "a.ondevice"


def _staged(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_went_in_comes_out(files: Any, packed: tuple[Pack, Path], tmp_path: Path) -> None:
    pack, path = packed
    assert read_index(path) == pack and path.stat().st_size == pack.total_bytes
    assert stage(path, pack, tmp_path / "to") == 0
    assert _staged(tmp_path / "to") == {name: source.read_bytes() for name, source, _ in files}
    assert all(item.stat().st_mode & 0o077 == 0 for item in (tmp_path / "to").rglob("*"))
    assert not list(tmp_path.rglob("*.part"))


def test_any_tar_reads_it(files: Any, packed: tuple[Pack, Path]) -> None:
    with tarfile.open(packed[1]) as archive:
        assert archive.getnames() == ["pack.json", *SIZES]
        for name, source, _ in files:
            member = archive.extractfile(name)
            assert member is not None and member.read() == source.read_bytes()


@pytest.mark.parametrize(("name", "size"), [("run/" + "a" * 90 + "/" + "b" * 90, 3), ("data/x", 8**11 + 5)])
def test_long_names_and_large_files_have_headers_that_tar_understands(name: str, size: int) -> None:
    info = tarfile.TarInfo.frombuf(header(name, size), "utf-8", "strict")
    assert (info.name, info.size, info.mode) == (name, size, 0o600)


def test_the_same_files_give_the_same_bytes(files: Any, packed: tuple[Pack, Path], tmp_path: Path) -> None:
    write_pack(packed[0], files, tmp_path / "b.ondevice")
    assert (tmp_path / "b.ondevice").read_bytes() == packed[1].read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99, 1.0])
def test_an_interrupted_pack_goes_on(files: Any, packed: tuple[Pack, Path], tmp_path: Path, share: float) -> None:
    whole = packed[1].read_bytes()
    part = tmp_path / "b.ondevice.part"
    part.write_bytes(whole[: int(share * len(whole))])
    kept = write_pack(packed[0], files, tmp_path / "b.ondevice")
    assert (tmp_path / "b.ondevice").read_bytes() == whole
    assert kept <= share * len(whole) and (kept > 50_000) == (share > 0.98)


def test_a_part_of_other_or_damaged_content_is_not_believed(
    files: Any, packed: tuple[Pack, Path], tmp_path: Path
) -> None:
    whole = packed[1].read_bytes()
    for place in (3, BLOCK + 40, packed[0].offsets[1] + BLOCK + 5, packed[0].offsets[1] + 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "b.ondevice.part").write_bytes(damaged)
        write_pack(packed[0], files, tmp_path / "b.ondevice")
        assert (tmp_path / "b.ondevice").read_bytes() == whole
        (tmp_path / "b.ondevice").unlink()


def test_a_file_that_changes_meanwhile_is_noticed(files: Any, tmp_path: Path) -> None:
    pack = Pack({}, tuple(list_members(files)))
    files[1][1].write_bytes(b"x" * 100_000)
    with pytest.raises(DataError, match="changed while it was packed; repeat"):
        write_pack(pack, files, tmp_path / "a.ondevice")
    files[1][1].write_bytes(b"x")
    with pytest.raises(DataError, match="became shorter while it was packed"):
        write_pack(pack, files, tmp_path / "a.ondevice")
    assert not (tmp_path / "a.ondevice").exists()


def test_a_growing_file_is_taken_as_far_as_it_was(files: Any, tmp_path: Path) -> None:
    name, path, _ = files[1]
    listed = [(name, path, 1000)]
    pack = Pack({}, tuple(list_members(listed)))
    with open(path, "ab") as file:
        file.write(b"more")
    write_pack(pack, listed, tmp_path / "a.ondevice")
    stage(tmp_path / "a.ondevice", pack, tmp_path / "to")
    assert (tmp_path / "to" / name).read_bytes() == path.read_bytes()[:1000]


def test_a_full_disk_is_said_before_and_during(
    files: Any, packed: tuple[Pack, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(pack_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"the pack needs 0\.1 MB; free some space"):
        write_pack(packed[0], files, tmp_path / "b.ondevice")
    with pytest.raises(ResourceError, match="repeat the command, which goes on where it was"):
        stage(packed[1], packed[0], tmp_path / "to")


def test_nothing_is_overwritten(files: Any, packed: tuple[Pack, Path], tmp_path: Path) -> None:
    for content in (b"", b"mine", packed[1].read_bytes()[:-1] + b"x", packed[1].read_bytes() + b"x"):
        (tmp_path / "mine").write_bytes(content)
        with pytest.raises(UsageError, match="exists already; name another file with --out"):
            write_pack(packed[0], files, tmp_path / "mine")
        assert (tmp_path / "mine").read_bytes() == content
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        write_pack(packed[0], files, tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()


def test_a_pack_that_is_there_whole_is_left(files: Any, packed: tuple[Pack, Path]) -> None:
    """A kill may have come after the last rename."""
    inode = packed[1].stat().st_ino
    assert write_pack(packed[0], files, packed[1]) == packed[0].total_bytes
    assert packed[1].stat().st_ino == inode


@pytest.mark.parametrize("name", ["run/a b", "run/ü", "run/.hidden", "x", "run//a", "run/" + "a/" * 9 + "b"])
def test_odd_names_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(UsageError, match="a file of this name cannot be packed"):
        list_members([(name, tmp_path / "f", None)])


def test_a_path_that_no_header_can_hold_is_refused(tmp_path: Path) -> None:
    """USTAR keeps 155 bytes before a slash and 100 after it; one byte more would move all that follows."""
    (tmp_path / "f").touch()
    fits = "/".join(["run", "a" * 75, "b" * 75, "c" * 100])
    assert len(header(fits, 0)) == BLOCK and tarfile.TarInfo.frombuf(header(fits, 0), "utf-8", "strict").name == fits
    assert list_members([(fits, tmp_path / "f", None)])
    with pytest.raises(UsageError, match="a file of this name cannot be packed"):
        list_members([(fits.replace("/b", "/bb"), tmp_path / "f", None)])


@pytest.mark.parametrize("names", [["run/a", "run/a/b"], ["run/a/b/c", "run/x", "run/a"], ["run/a", "run/a"]])
def test_files_that_cannot_lie_side_by_side_are_refused(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(UsageError, match="two files of this name"):
        list_members([(name, tmp_path / "f", None) for name in names])
    _craft(tmp_path / "evil", [[name, 0, "0" * 64] for name in names])
    with pytest.raises(DataError, match="its index is damaged"):
        read_index(tmp_path / "evil")


def test_names_that_differ_only_in_case_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert len(list_members([("run/a", tmp_path / "f", None), ("run/A", tmp_path / "f", None)])) == 2


def test_two_at_once_do_not_write_the_same_file(files: Any, packed: tuple[Pack, Path], tmp_path: Path) -> None:
    with open(tmp_path / "b.ondevice.part", "wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(RunBusy, match="another `ondevice pack` writes this file"):
            write_pack(packed[0], files, tmp_path / "b.ondevice")
    write_pack(packed[0], files, tmp_path / "b.ondevice")


def test_a_folder_that_cannot_be_synced_is_no_failure(
    files: Any, packed: tuple[Pack, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EINVAL, "no such thing here")

    monkeypatch.setattr(pack_module, "fsync_folder", refuse)
    write_pack(packed[0], files, tmp_path / "b.ondevice")
    assert (tmp_path / "b.ondevice").read_bytes() == packed[1].read_bytes()


def test_an_index_that_nobody_would_read_is_not_written(
    files: Any, packed: tuple[Pack, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "MOST_INDEX", 100)
    with pytest.raises(UsageError, match="their names are too long"):
        write_pack(packed[0], files, tmp_path / "b.ondevice")
    monkeypatch.setattr(pack_module, "MOST_MEMBERS", 3)
    with pytest.raises(UsageError, match="4 files cannot be packed, at most 3"):
        list_members(files)


def test_progress_is_counted(files: Any, packed: tuple[Pack, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_pack(packed[0], files, tmp_path / "b.ondevice", lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == packed[0].offsets[:-1] and {total for _, total in seen} == {
        packed[0].total_bytes
    }


@pytest.mark.parametrize(
    "about", [{"step": "1"}, {"run": 5}, {"id": None}, {"exactness": []}, {"environment": "x"}, {"dataset": {}}, []]
)
def test_what_a_pack_tells_is_of_the_right_type(tmp_path: Path, about: Any) -> None:
    _craft(tmp_path / "evil", [], about=about)
    with pytest.raises(DataError, match="its index is damaged"):
        read_index(tmp_path / "evil")


@pytest.mark.parametrize(
    "name",
    ["../x", "run/../x", "/etc/passwd", "run/..", "run/a/../../../x", "data", "run/a\0b", "run/a\n", "etc", ""],
)
def test_a_pack_cannot_name_a_file_outside(packed: tuple[Pack, Path], tmp_path: Path, name: str) -> None:
    assert not is_member_name(name)
    _craft(tmp_path / "evil", [[name, 1, "0" * 64]])
    with pytest.raises(DataError, match=r"names a file that no run has|damaged"):
        read_index(tmp_path / "evil")


def _craft(path: Path, members: Any, v: int = 1, about: Any = None) -> None:
    index = sealed_bytes({"v": v, "about": {} if about is None else about, "members": members})
    path.write_bytes(header("pack.json", len(index)) + index + bytes(-len(index) % BLOCK) + bytes(2 * BLOCK))


@pytest.mark.parametrize(
    "members",
    [
        [["run/a", -1, "0" * 64]],
        [["run/a", 10**300, "0" * 64]],
        [["run/a", 1.5, "0" * 64]],
        [["run/a", True, "0" * 64]],
        [["run/a", 1, "0" * 63]],
        [["run/a", 1, None]],
        [["run/a", 1]],
        [[5, 1, "0" * 64]],
        [["run/a", 0, "0" * 64]] * 2,
        "x",
        5,
        None,
        [None],
    ],
)
def test_a_senseless_index_is_one_sentence(tmp_path: Path, members: Any) -> None:
    _craft(tmp_path / "evil", members)
    with pytest.raises(DataError) as caught:
        read_index(tmp_path / "evil")
    assert "\n" not in str(caught.value)


def test_a_crafted_index_takes_little_memory(tmp_path: Path) -> None:
    index = b'{"v":1,"about":{},"members":[' + b"[]," * 5_000_000 + b"[]]}"
    (tmp_path / "evil").write_bytes(header("pack.json", len(index)) + index + bytes(-len(index) % BLOCK))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="its index is damaged"):
            read_index(tmp_path / "evil")
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_a_newer_pack_and_an_incomplete_one_say_what_to_do(packed: tuple[Pack, Path], tmp_path: Path) -> None:
    _craft(tmp_path / "new", [], v=2)
    with pytest.raises(CheckpointError, match="pack format 2, this program reads 1; update ondevice"):
        read_index(tmp_path / "new")
    data = packed[1].read_bytes()
    for cut in (len(data) - 1, len(data) // 2, 3000):
        (tmp_path / "cut").write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"let the copy go on|ends within its index"):
            read_index(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(data + b"\0")
    with pytest.raises(DataError, match="1 bytes longer than its index says"):
        read_index(tmp_path / "cut")
    _craft(tmp_path / "huge", [["run/a", 10**15, "0" * 64]])
    with pytest.raises(DataError, match="let the copy go on"):
        read_index(tmp_path / "huge")


@pytest.mark.parametrize("content", [b"", b"x", b"pack.json\0" + bytes(600), b"\x1f\x8b" + bytes(2000)])
def test_other_files_are_no_packs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="not a run packed by"):
        read_index(tmp_path / "x")
    with pytest.raises(DataError, match="cannot be read"):
        read_index(tmp_path)


@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    (folder / "f").write_bytes(b"hello" * 50)
    listed: list[tuple[str, Path, int | None]] = [("run/f", folder / "f", None)]
    pack = Pack({"run": "a"}, tuple(list_members(listed)))
    write_pack(pack, listed, folder / "p")
    data = bytearray((folder / "p").read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / "p").write_bytes(data)
    try:
        found = read_index(folder / "p")
        stage(folder / "p", found, folder / "to")
    except (DataError, CheckpointError):
        return
    assert found == pack and _staged(folder / "to") == {"run/f": b"hello" * 50}  # padding or the end marker


def test_an_interrupted_unpack_goes_on_and_believes_nothing(packed: tuple[Pack, Path], tmp_path: Path) -> None:
    pack, path = packed
    stage(path, pack, tmp_path / "to")
    whole = _staged(tmp_path / "to")
    (tmp_path / "to/run/run.json").write_bytes(b"x" * 10)  # right size, wrong content
    (tmp_path / "to/data/y").unlink()
    (tmp_path / "to/data/.tmp-y").write_bytes(b"half")
    (tmp_path / "to/foreign").write_bytes(b"of another pack")
    (tmp_path / "to/run/control/inbox").mkdir(parents=True)  # an unpack that was killed at its very end
    (tmp_path / "to/run/loop").symlink_to(tmp_path)
    (tmp_path / "to/run/checkpoints/step-00000001/link").symlink_to(tmp_path / "a.ondevice")
    assert stage(path, pack, tmp_path / "to") == 100_000
    assert _staged(tmp_path / "to") == whole
    assert sorted(item.name for item in (tmp_path / "to/run").iterdir()) == ["checkpoints", "run.json"]
    assert (tmp_path / "a.ondevice").exists()


def test_a_link_in_the_way_is_not_followed(packed: tuple[Pack, Path], tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_bytes(b"precious")
    (tmp_path / "to/data").mkdir(parents=True)
    (tmp_path / "to/data/y").symlink_to(outside)
    (tmp_path / "to/data/.tmp-x").symlink_to(outside)
    stage(packed[1], packed[0], tmp_path / "to")
    assert outside.read_bytes() == b"precious" and not (tmp_path / "to/data/y").is_symlink()


def test_a_damaged_member_is_named_and_leaves_no_file(packed: tuple[Pack, Path], tmp_path: Path) -> None:
    pack, path = packed
    data = bytearray(path.read_bytes())
    data[pack.offsets[1] + BLOCK + 77] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"model\.safetensors is damaged in it; copy the pack again"):
        stage(path, read_index(path), tmp_path / "to")
    assert set(_staged(tmp_path / "to")) == {"run/run.json"}


def test_hashes_are_of_the_bytes(files: Any) -> None:
    for member, (_, path, _size) in zip(list_members(files), files, strict=True):
        assert member.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    os.remove(files[0][1])
    with pytest.raises(DataError, match="cannot be read"):
        list_members(files)
