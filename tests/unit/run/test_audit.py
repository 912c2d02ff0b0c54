"""The story re-checked: every change of a telemetry file is found, and what a kill or a full disk leaves is not."""

import errno
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.errors import DataError
from ondevice.run import telemetry
from ondevice.run.audit import audit_file, story_end
from ondevice.run.telemetry import TelemetryWriter, read_file


def _story(folder, launch=1, steps=20):
    """A file of one launch, and the positions after each line."""
    writer = TelemetryWriter(folder, launch)
    positions = [writer.position]
    for step in range(steps):
        writer.write("step", step, loss=1.0 / (step + 1), text=f"\u00fc{step}")
        positions.append(writer.position)
    writer.close()
    return writer.path, positions


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    return _story(tmp_path_factory.mktemp("story"))


def test_an_untouched_file_is_sound_and_covers_every_position(story):
    path, positions = story
    audit = audit_file(path, wanted=[position["bytes"] for position in positions])
    assert (audit.faults, audit.torn, audit.lines) == ([], 0, 20)
    assert all(audit.covers(position) for position in positions)
    assert story_end(path) == positions[-1]
    assert len(list(read_file(path))) == 20  # the chain does not disturb readers


def _is_noticed(path, positions):
    audit = audit_file(path, wanted=[positions[-1]["bytes"]])
    return bool(audit.faults) or not audit.covers(positions[-1])


@given(seed=st.integers(0, 10**9))
def test_every_flipped_bit_is_noticed(story, seed):
    path, positions = story
    dice, data = random.Random(seed), bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    damaged = path.parent / "damaged" / path.name
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(data)
    assert _is_noticed(damaged, positions)


def _rewrite(path, edit):
    lines = path.read_bytes().splitlines(keepends=True)
    edit(lines)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines.pop(5),
        lambda lines: lines.pop(0),
        lambda lines: lines.pop(),
        lambda lines: lines.insert(7, lines[3]),
        lambda lines: lines.append(lines[3]),
        lambda lines: lines.insert(0, lines[-1]),
        lambda lines: lines.reverse(),
        lambda lines: lines.__setitem__(slice(3, 5), reversed(lines[3:5])),
        lambda lines: lines.insert(4, b'{"v":1,"t":1,"kind":"note","step":3}\n'),
        lambda lines: lines.clear(),
    ],
)
def test_lines_removed_added_or_moved_are_noticed(tmp_path, edit):
    path, positions = _story(tmp_path)
    _rewrite(path, edit)
    assert _is_noticed(path, positions)


def test_files_that_traded_places_are_noticed(tmp_path):
    first, _ = _story(tmp_path, launch=1)
    second, _ = _story(tmp_path, launch=2)
    spare = tmp_path / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    assert audit_file(first).faults and audit_file(second).faults


@pytest.mark.parametrize("torn_bytes", [0, 1, 40, -1])
def test_a_line_torn_by_a_full_disk_is_no_fault(tmp_path, monkeypatch, torn_bytes):
    writer = TelemetryWriter(tmp_path, 1)
    writer.write("step", 1)
    real = telemetry.write_all

    def tear(fd, data):
        real(fd, data[:torn_bytes])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(telemetry, "write_all", tear)
    writer.write("step", 2)
    monkeypatch.setattr(telemetry, "write_all", real)
    writer.write("step", 3)
    end = writer.position
    writer.close()
    audit = audit_file(writer.path, wanted=[end["bytes"]])
    assert audit.faults == []
    assert audit.torn == 1
    assert audit.covers(end)


@given(cut=st.integers(0, 10**6))
def test_a_kill_tears_the_tail_and_only_that(story, cut):
    path, positions = story
    data = path.read_bytes()
    cut %= len(data) + 1
    folder = path.parent / "cut"
    folder.mkdir(exist_ok=True)
    (folder / "0001.jsonl").write_bytes(data[:cut])
    whole = [position for position in positions if position["bytes"] <= cut]
    audit = audit_file(folder / "0001.jsonl", wanted=[position["bytes"] for position in positions])
    assert audit.faults == []
    assert [position for position in positions if audit.covers(position)] == whole


def test_a_file_that_is_gone_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        audit_file(tmp_path / "0001.jsonl")


def test_many_foreign_lines_are_one_fault(tmp_path):
    path, _ = _story(tmp_path, steps=3)
    foreign = b'{"v":1,"t":1,"kind":"note","step":3}\n'
    _rewrite(path, lambda lines: lines.__setitem__(slice(1, 1), [foreign] * 500))
    faults = audit_file(path).faults
    assert faults == [f"{path}:2: 500 lines from here on were not written by the trainer."]


def test_a_line_without_end_takes_bounded_memory(tmp_path):
    path, positions = _story(tmp_path, steps=3)
    with open(path, "ab") as file:
        file.truncate(path.stat().st_size + (300 << 20))  # a hole
    tracemalloc.start()
    try:
        audit = audit_file(path, [positions[-1]["bytes"]])
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert audit.lines == 3 and audit.covers(positions[-1])
