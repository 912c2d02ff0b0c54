"""Chunks: what is written is read; one flipped byte anywhere is noticed; a stream opens few files."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data.chunks import ChunkHeader, chunk_dtype, map_chunk, read_header, verify_chunk, write_chunk
from ondevice.data.stream import OpenMaps, TokenStream
from ondevice.errors import DataError


def _header(**changes):
    values = {
        "source": "notes",
        "language": "it",
        "split": "train",
        "index": 3,
        "dtype": "uint16",
        "tokens": 0,
        "first_document": 5,
        "last_document": 9,
        "end_offset": 17,
        "last_document_ends": False,
    }
    return ChunkHeader(**{**values, **changes})


@pytest.mark.parametrize(("vocab", "dtype"), [(257, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_what_is_written_is_read(vocab, dtype, tmp_path):
    assert chunk_dtype(vocab) == dtype
    ids = np.arange(1000) * (vocab - 1) // 999
    header = write_chunk(tmp_path / "c", ids, _header(dtype=dtype))
    assert header == read_header(tmp_path / "c") == verify_chunk(tmp_path / "c")
    assert header.tokens == 1000
    read = map_chunk(tmp_path / "c", verify=True)
    assert read.dtype == np.dtype(dtype) and (read == ids).all() and not read.flags.writeable
    assert ((tmp_path / "c").stat().st_size - ids.size * read.itemsize) % 64 == 0
    assert os.listdir(tmp_path) == ["c"]


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "c.chunk"
    write_chunk(path, np.arange(100), _header())
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        with pytest.raises(DataError, match=r"c\.chunk: this chunk .*`ondevice data build` makes it again"):
            verify_chunk(path)


@pytest.mark.parametrize("size", [0, 10, 63, 64, 100, -1, -64])
def test_a_chunk_cut_short_is_noticed(size, tmp_path):
    path = tmp_path / "c.chunk"
    write_chunk(path, np.arange(100), _header())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="makes it again"):
        read_header(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_header(tmp_path / "missing")


def _made(folder):
    folder.mkdir()
    return folder


def _stream(folder, sizes, vocab=300, maps=None):
    chunks, at = [], 0
    for index, size in enumerate(sizes):
        path = folder / f"{index}.chunk"
        header = write_chunk(path, np.arange(at, at + size) % vocab, _header(index=index))
        chunks.append((path, size, header.sha256))
        at += size
    return TokenStream(chunks, vocab_size=vocab, maps=maps)


def test_reading_crosses_chunks(tmp_path):
    sizes = [7, 1, 13, 20, 2]
    stream = _stream(tmp_path, sizes)
    whole = np.arange(sum(sizes)) % 300
    assert len(stream) == sum(sizes)
    assert np.concatenate(list(stream.blocks())).tolist() == whole.tolist()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, sum(sizes)), st.integers(0, sum(sizes)))
    def check(start, end):
        start, end = sorted((start, end))
        assert stream.read(start, end - start).tolist() == whole[start:end].tolist()

    check()
    for start, count in ((-1, 2), (0, sum(sizes) + 1), (sum(sizes), 1)):
        with pytest.raises(IndexError):
            stream.read(start, count)


def test_a_sound_chunk_of_another_dataset_is_refused(tmp_path):
    stream = _stream(tmp_path, [7, 7])
    (tmp_path / "1.chunk").write_bytes((tmp_path / "0.chunk").read_bytes())
    assert stream.read(0, 7).tolist() == list(range(7))
    with pytest.raises(DataError, match="not the one of this dataset"):
        stream.read(7, 1)


def test_an_empty_stream():
    stream = TokenStream([], vocab_size=300)
    assert len(stream) == 0 and stream.read(0, 0).size == 0


def test_many_chunks_open_few_files(tmp_path):
    stream = _stream(tmp_path, [4] * 300)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    total = sum(int(stream.read(i * 4, 4).sum()) for i in range(300))
    assert total == int((np.arange(1200) % 300).sum())
    if before:
        assert len(os.listdir("/proc/self/fd")) - before <= 40


def test_streams_that_share_their_maps_open_few_files_together(tmp_path):
    maps = OpenMaps(5)
    streams = [_stream(_made(tmp_path / str(number)), [4, 4], maps=maps) for number in range(20)]
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(2):
        assert [stream.read(2, 4).tolist() for stream in streams] == [[2, 3, 4, 5]] * 20
    if before:
        assert len(os.listdir("/proc/self/fd")) - before <= 5


def test_the_first_touch_verifies(tmp_path):
    stream = _stream(tmp_path, [50, 50])
    assert stream.read(0, 50).size == 50
    path = tmp_path / "1.chunk"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"1\.chunk"):
        stream.read(40, 20)
