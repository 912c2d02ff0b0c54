"""The story: whole lines in order, whatever a kill, a full disk or a stranger left in the files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import DataError, ResourceError
from ondevice.run.telemetry import KINDS, TelemetryWriter, as_number, launch_files, read_end, read_file, read_records


def line(**fields: Any) -> bytes:
    return json.dumps({"v": 1, "t": 5.0, "kind": "step", "step": 3, **fields}).encode() + b"\n"


def unchained(record: dict[str, Any]) -> dict[str, Any]:
    """What was written, without what ties it to the lines before."""
    return {key: value for key, value in record.items() if key != "chain"}


def test_records_come_back_in_order_over_launches(tmp_path: Path) -> None:
    for launch in (2, 1, 10):
        writer = TelemetryWriter(tmp_path / "telemetry", launch)
        writer.write("launch", 0, launch=launch)
        writer.write("step", 1, loss=2.5)
        writer.sync()
        writer.close()
    records = list(read_records(tmp_path / "telemetry"))
    assert [r["launch"] for r in records if r["kind"] == "launch"] == [1, 2, 10]
    assert list(records[1]) == ["v", "t", "kind", "step", "loss", "chain"]
    assert list(read_records(tmp_path / "nothing")) == []


def test_the_end_of_a_long_file_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "0001.jsonl"
    lines = [line(step=n, text="x" * 100) for n in range(5000)]
    path.write_bytes(b"".join(lines) + line(kind="end") + b'{"v": 1, "t": 5.0, "ki')
    found = list(read_end(path))
    assert found[-1]["kind"] == "end" and found == list(read_file(path))[-len(found) :]
    assert 100 < len(found) < 3000
    path.write_bytes(b"".join(lines[:3]))
    assert list(read_end(path)) == list(read_file(path))
    path.write_bytes(line(v=2))
    with pytest.raises(DataError, match="telemetry version 2"):
        list(read_end(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_end(tmp_path / "none"))


def test_numbers_are_finite_or_null_and_text_is_any_text(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path, 1)
    nan, inf = float("nan"), float("inf")
    written = writer.write("sample", 1, loss=nan, val={"a": inf, "b": [1.0, -inf, (nan,)]}, text="ü \udcff \n\x00")
    writer.close()
    assert written["loss"] is None and written["val"] == {"a": None, "b": [1.0, None, [None]]}
    assert [unchained(record) for record in read_file(writer.path)] == [written]
    assert writer.path.read_bytes().count(b"\n") == 1


def test_a_launch_never_writes_into_another_launchs_file(tmp_path: Path) -> None:
    TelemetryWriter(tmp_path, 1).close()
    with pytest.raises(DataError, match=r"0001\.jsonl: cannot be written \(File exists\)\.$"):
        TelemetryWriter(tmp_path, 1)


@pytest.mark.parametrize("partial", [0, 7])
def test_a_full_disk_loses_lines_but_never_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: int
) -> None:
    writer = TelemetryWriter(tmp_path, 1)
    real, room = os.write, [partial]

    def full(fd: int, data: bytes) -> int:
        if not room.pop():
            raise OSError(errno.ENOSPC, "No space left on device")
        room.append(0)
        return real(fd, bytes(data)[:partial])

    writer.write("step", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        writer.write("step", 2)
        room[:] = [0]
        writer.write("step", 3)
    writer.write("step", 4)
    writer.write("step", 5)
    writer.close()
    assert writer.lost_lines == 2
    assert [record["step"] for record in read_file(writer.path)] == [1, 4, 5]


def test_short_writes_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, real = TelemetryWriter(tmp_path, 1), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:5]))
    writer.write("step", 1)
    writer.write("step", 2)
    writer.close()
    assert writer.lost_lines == 0
    assert [record["step"] for record in read_file(writer.path)] == [1, 2]


def test_a_story_that_cannot_be_made_durable_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TelemetryWriter(tmp_path, 1)

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceError, match="the disk is full"):
        writer.sync()
    writer.close()


ODD_LINES = [
    b"",
    b"\n",
    b"\x00" * 40 + b"\n",
    b'{"v":1,"t":1,"kind":"step","st',
    b"[1,2]\n",
    b'"text"\n',
    b"\xff\xfe\n",
    b"[" * 5000 + b"\n",
    b'{"v":1,"t":1,"kind":5,"step":1}\n',
    b'{"v":1,"t":"x","kind":"step","step":1}\n',
    b'{"v":1,"t":1,"kind":"step","step":"1"}\n',
    b'{"v":1,"t":1,"kind":"step"}\n',
    b'{"v":"1","t":1,"kind":"step","step":1}\n',
    b'{"t":1,"kind":"step","step":1}\n',
    b'{"v":1,"t":1e999,"kind":"step","step":1}\n',
    b'{"v":1,"t":' + b"9" * 500 + b',"kind":"step","step":1}\n',
    b'{"v":1,"t":1,"kind":"step","step":' + b"9" * 5000 + b"}\n",
]


@pytest.mark.parametrize("odd", ODD_LINES)
def test_lines_that_are_no_records_are_skipped(tmp_path: Path, odd: bytes) -> None:
    (tmp_path / "0001.jsonl").write_bytes(line() + odd.rstrip(b"\n") + b"\n" + line())
    (tmp_path / "0002.jsonl").write_bytes(line() + odd)
    assert len(list(read_records(tmp_path))) == 3


def test_unknown_kinds_and_keys_pass_and_nan_is_null(tmp_path: Path) -> None:
    (tmp_path / "0001.jsonl").write_bytes(line(kind="aurora", glow=5) + b'{"v":1,"t":1,"kind":"x","step":1,"y":NaN}\n')
    assert [(r["kind"], r.get("y", 0)) for r in read_records(tmp_path)] == [("aurora", 0), ("x", None)]


@pytest.mark.parametrize("version", [2, 2.5, 10**30])
def test_a_newer_version_is_refused_with_its_line(tmp_path: Path, version: float) -> None:
    (tmp_path / "0001.jsonl").write_bytes(line() + line(v=version))
    with pytest.raises(DataError) as caught:
        list(read_records(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/0001.jsonl:2: telemetry version {version}, this program reads 1; update ondevice."
    )


def test_other_files_in_the_folder_are_not_ours(tmp_path: Path) -> None:
    for name in ("0002.jsonl", "0010.jsonl", "1 (1).jsonl", "0001.jsonl~", "x.jsonl", "².jsonl", "0001-copy.jsonl"):
        (tmp_path / name).write_bytes(line())
    assert [path.name for path in launch_files(tmp_path)] == ["0002.jsonl", "0010.jsonl"]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "0001.jsonl").mkdir()
    with pytest.raises(DataError, match=r"0001\.jsonl: cannot be read \(Is a directory\)\.$"):
        list(read_records(tmp_path))


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), (0.5, 0.5), (True, None), ("5", None), (None, None), (float("inf"), None), (10**400, None), ([], None)],
)
def test_numbers_from_strangers(value: Any, number: float | None) -> None:
    assert as_number(value) == number


def test_kinds_are_those_of_the_design() -> None:
    assert " ".join(KINDS) == "launch fit step eval advice sample reading order checkpoint part control note end"
    with pytest.raises(AssertionError):
        TelemetryWriter.write(object(), "weather", 1)  # type: ignore[arg-type]
