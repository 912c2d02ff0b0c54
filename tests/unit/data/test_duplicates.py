"""Exact duplicates: the same answers as a Python set, in bounded memory."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import duplicates
from ondevice.data.duplicates import DocumentHashes, document_hash, document_hashes
from ondevice.errors import ResourceError

EDGES = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1, 2**64 - 2])
BATCHES = st.lists(st.lists(st.one_of(EDGES, st.integers(0, 300), st.integers(0, 2**64 - 1)), max_size=60), max_size=30)


def plain(batches: list[list[int]]) -> list[list[bool]]:
    seen: set[int] = set()
    result = []
    for batch in batches:
        result.append([value in seen or value in batch[:place] for place, value in enumerate(batch)])
        seen.update(batch)
    return result


@given(batches=BATCHES, held=st.sampled_from([1, 3, 16, 1000]))
def test_the_same_answers_as_a_set(batches, held):
    with tempfile.TemporaryDirectory() as folder, DocumentHashes(Path(folder), held=held) as hashes:
        found = [hashes.seen_batch(np.array(batch, dtype=np.uint64)).tolist() for batch in batches]
        assert len(hashes) == len({value for batch in batches for value in batch})
    assert found == plain(batches)


@pytest.mark.parametrize("spread", [2**64 - 1, 60_000])
def test_large_batches_through_many_spills_and_merges(tmp_path, spread):
    random = np.random.default_rng(1)
    seen = np.empty(0, dtype=np.uint64)
    with DocumentHashes(tmp_path, held=3000) as hashes:
        for _ in range(12):
            batch = random.integers(0, spread, 20_000, dtype=np.uint64)
            batch[::7] = random.choice(seen, len(batch[::7])) if len(seen) else batch[0]
            expected = np.ones(len(batch), dtype=bool)
            first = np.unique(batch, return_index=True)[1]
            expected[first] = np.isin(batch[first], seen)
            assert (hashes.seen_batch(batch) == expected).all()
            seen = np.union1d(seen, batch)
        assert len(hashes) == len(seen)


def test_scratch_files_are_gone_after_close(tmp_path):
    with DocumentHashes(tmp_path / "new", held=10) as hashes:
        hashes.seen_batch(np.arange(1000, dtype=np.uint64))
    assert list((tmp_path / "new").iterdir()) == []
    hashes.close()
    assert len(hashes) == 0


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(self, parts):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(duplicates._Run, "_write", full)
    with (
        DocumentHashes(tmp_path, held=10) as hashes,
        pytest.raises(ResourceError, match="the disk is full; free some space"),
    ):
        hashes.seen_batch(np.arange(100, dtype=np.uint64))


def test_document_hash_depends_on_every_character_and_on_nothing_else():
    long = "çok uzun 😀 " * 50_000
    assert document_hash(long) == document_hash(str(long.encode(), "utf-8"))
    assert len({document_hash(text) for text in ("", "a", "b", long, long + "x", "x" + long)}) == 6
    # fixed for ever: datasets on disk hold these numbers
    assert document_hash("ondevice") == 0x9E778AC467AFD0CF
    assert document_hashes(["a", "ondevice"]).tolist() == [document_hash("a"), document_hash("ondevice")]


MEMORY = '''
import resource, sys, tempfile
import numpy as np
from pathlib import Path
from ondevice.data.duplicates import DocumentHashes

def peak_mb():
    """Of this program alone: ru_maxrss would start with what the process that forked it had in use."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

random, before = np.random.default_rng(0), peak_mb()
with tempfile.TemporaryDirectory() as folder, DocumentHashes(Path(folder)) as hashes:
    for _ in range(int(sys.argv[1]) // 8192):
        assert not hashes.seen_batch(random.integers(0, 2**64, 8192, dtype=np.uint64)).any()
print(peak_mb() - before)
'''


@pytest.mark.parametrize(("count", "most"), [(3_000_000, 40), pytest.param(20_000_000, 64, marks=pytest.mark.slow)])
def test_memory_is_bounded(count, most):
    run = subprocess.run([sys.executable, "-c", MEMORY, str(count)], capture_output=True, text=True, check=True)
    assert float(run.stdout) <= most
