"""A build that was killed or ran out of disk continues to the same dataset, and never shows half of anything."""

import errno
import fcntl
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from ondevice.data.build import build_dataset
from ondevice.data.dataset import Dataset
from ondevice.errors import DataError, ResourceError, RunBusy
from ondevice.run import files
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig

BUILD = """
import sys
from pathlib import Path
from ondevice.data.build import build_dataset
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig
root = Path(sys.argv[1])
sources = (SourceConfig(path="a.txt", document="line"), SourceConfig(path="b.txt", document="paragraph"))
data = DataConfig(sources=sources, chunk_tokens=4096)
print("begin", flush=True)
build_dataset(data, TokenizerConfig(kind=sys.argv[2]), base=root, folder=root / "dataset")
"""


def _corpus(root, lines=3000):
    dice = np.random.default_rng(0)
    words = [f"w{i}" for i in range(500)]
    rows = [" ".join(dice.choice(words, size=8)) for _ in range(lines)]
    (root / "a.txt").write_text("\n".join(rows), encoding="utf-8")
    (root / "b.txt").write_text("\n\n".join(row[::-1] for row in rows), encoding="utf-8")
    return DataConfig(
        sources=(SourceConfig(path="a.txt", document="line"), SourceConfig(path="b.txt", document="paragraph")),
        chunk_tokens=4096,
    )


def _build(root, data, folder="dataset", kind="byte"):
    return build_dataset(data, TokenizerConfig(kind=kind), base=root, folder=root / folder)


def _leftovers(folder):
    return [str(path) for path in folder.rglob("*") if path.name.startswith(".")]


def _kill_at(root, kind, files_wanted):
    """Starts a build and kills it when its folder holds that many files, or when it ends by itself."""
    with subprocess.Popen([sys.executable, "-c", BUILD, root, kind], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while process.poll() is None and _count_files(root / "dataset") < files_wanted:
            time.sleep(0.002)
        process.kill()


def _count_files(folder):
    """With os.walk, because folders vanish while we look, and glob would raise."""
    return sum(len(names) for _, _, names in os.walk(folder))


@pytest.mark.parametrize(("kind", "moments"), [("byte", [0, 2, 4, 5, 12, 40, 80]), ("bpe", [3, 6, 9, 30])])
def test_killed_at_any_moment_it_ends_the_same(tmp_path, kind, moments):
    data = _corpus(tmp_path)
    expected = _build(tmp_path, data, "undisturbed", kind).sha256
    for files_wanted in moments:
        _kill_at(tmp_path, kind, files_wanted)
        if (tmp_path / "dataset" / "dataset.json").exists():
            assert Dataset.open(tmp_path / "dataset").sha256 == expected  # visible means complete
    assert any((tmp_path / "dataset").rglob("*.chunk"))
    assert _build(tmp_path, data, kind=kind).sha256 == expected
    assert _leftovers(tmp_path / "dataset") == []


def test_finished_chunks_are_kept(tmp_path, monkeypatch):
    data = _corpus(tmp_path)
    expected = _build(tmp_path, data, "undisturbed").sha256
    real, count = files.write_all, [0]

    def fail(fd, content):
        count[0] += 1
        if count[0] == 30:
            raise KeyboardInterrupt
        real(fd, content)

    monkeypatch.setattr(files, "write_all", fail)
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path, data)
    monkeypatch.setattr(files, "write_all", real)
    before = {path: path.stat().st_ino for path in (tmp_path / "dataset" / "chunks").rglob("*.chunk")}
    assert len(before) > 10
    assert _build(tmp_path, data).sha256 == expected
    assert all(path.stat().st_ino == inode for path, inode in before.items())


@pytest.mark.parametrize("fatal", [1, 2, 5, 20])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path, monkeypatch, fatal):
    data = _corpus(tmp_path, lines=1200)
    expected = _build(tmp_path, data, "undisturbed").sha256
    real, count = files.write_all, [0]

    def full(fd, content):
        count[0] += 1
        if count[0] >= fatal:
            os.write(fd, bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, content)

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(ResourceError, match="disk is full"):
        _build(tmp_path, data)
    monkeypatch.setattr(files, "write_all", real)
    assert _leftovers(tmp_path / "dataset") == []
    with pytest.raises(DataError, match="no dataset here"):
        Dataset.open(tmp_path / "dataset")
    assert _build(tmp_path, data).sha256 == expected


def test_a_full_disk_during_the_scan(tmp_path, monkeypatch):
    data = _corpus(tmp_path, lines=100)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ondevice.data.build_scan._Tally.add", full)
    with pytest.raises(ResourceError, match="disk is full"):
        _build(tmp_path, data)
    assert _leftovers(tmp_path / "dataset") == []


def test_two_builds_cannot_meet(tmp_path):
    data = _corpus(tmp_path, lines=100)
    _build(tmp_path, data)
    descriptor = os.open(tmp_path / "dataset" / "build.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(RunBusy, match="another build"):
            _build(tmp_path, data)
    finally:
        os.close(descriptor)
    _build(tmp_path, data)


def test_chunks_in_use_outlive_a_rebuild(tmp_path):
    data = _corpus(tmp_path, lines=300)
    reader = _build(tmp_path, data)
    (tmp_path / "a.txt").write_text("other text\n" + (tmp_path / "a.txt").read_text(), encoding="utf-8")
    second = _build(tmp_path, data)
    assert second.sha256 != reader.sha256
    stream = reader.stream("a", "train")
    assert stream.read(0, len(stream)).size == len(stream)
    chunks = len(list((tmp_path / "dataset" / "chunks").iterdir()))
    del reader, second, stream
    (tmp_path / "a.txt").write_text("another text\n" + (tmp_path / "a.txt").read_text(), encoding="utf-8")
    third = _build(tmp_path, data)
    assert len(list((tmp_path / "dataset" / "chunks").iterdir())) == 2 < chunks
    third.verify()


class TestDamage:
    @pytest.fixture
    def built(self, tmp_path):
        data = _corpus(tmp_path, lines=300)
        dataset = _build(tmp_path, data)
        chunk = dataset.folder / dataset.manifest["chunks"][1]["file"]
        return tmp_path, data, dataset.sha256, chunk

    @staticmethod
    def _flip(path, at):
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    @pytest.mark.parametrize("at", [3, 70, -1])
    def test_a_flipped_byte_is_named_and_made_again(self, built, at):
        root, data, sha256, chunk = built
        self._flip(chunk, at)
        dataset = Dataset.open(root / "dataset")
        with pytest.raises(DataError, match=rf"{chunk.name}.*`ondevice data build` makes it again"):
            dataset.verify()
        del dataset
        again = _build(root, data)
        again.verify()
        assert again.sha256 == sha256

    def test_a_missing_or_short_chunk_is_made_again(self, built):
        root, data, sha256, chunk = built
        chunk.write_bytes(chunk.read_bytes()[:-2])
        with pytest.raises(DataError, match=f"{chunk.name}: this chunk has the wrong size"):
            Dataset.open(root / "dataset")
        assert _build(root, data).sha256 == sha256
        chunk.unlink()
        with pytest.raises(DataError, match=f"{chunk.name}: this chunk is missing"):
            Dataset.open(root / "dataset")
        assert _build(root, data).sha256 == sha256

    def test_a_damaged_tokenizer_is_made_again(self, tmp_path):
        data = _corpus(tmp_path, lines=300)
        sha256 = _build(tmp_path, data, kind="bpe").sha256
        path = next((tmp_path / "dataset").glob("tokenizer-*/tokenizer.json"))
        self._flip(path, 500)
        with pytest.raises(DataError, match=r"tokenizer\.json"):
            Dataset.open(tmp_path / "dataset").tokenizer()
        assert _build(tmp_path, data, kind="bpe").sha256 == sha256
