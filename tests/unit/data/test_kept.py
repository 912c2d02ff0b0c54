"""What is kept between the passes is what was read; where it does not fit, the build is the same, only slower."""

import errno

import numpy as np
import pytest

from ondevice.data import build, kept
from ondevice.data.build import build_dataset, train_from_sources
from ondevice.data.documents import Document
from ondevice.data.kept import KeptFile, KeptSource
from ondevice.data.tokenizer import train_tokenizer
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig

TEXTS = ["plain words", "a\0b and Ünïcode 😀", "x" * 3000, " "]


@pytest.fixture
def tokenizer(tmp_path):
    return train_tokenizer(TokenizerConfig(kind="byte"), ["text"], tmp_path / "tokenizer", vocab_size=None)


def _documents(count, source="s"):
    return [Document(TEXTS[i % len(TEXTS)] + str(i), source, "en", f"f.txt:{i}") for i in range(count)]


def _keep(file, *batches):
    with KeptSource(file) as source:
        for batch in batches:
            source.add(batch)
    return source


def test_documents_come_back_with_their_ids(tmp_path, tokenizer):
    file = KeptFile(tmp_path, tokenizer=tokenizer, unencoded=3)
    one, other = _documents(10), _documents(4, "other")
    first, second = _keep(file, one[:6], one[6:]), _keep(file, [*other, *_documents(1)])
    assert [(d.text, d.origin) for d in first.documents()] == [(d.text, d.origin) for d in one]
    assert first.count == 10 and second.count == 5
    for index, document in enumerate(first.documents()):
        expected = [*tokenizer.encode(document.text), tokenizer.eot_id] if index >= 3 else None
        assert (None if document.ids is None else document.ids.tolist()) == expected
    assert [document.ids is None for document in second.documents()] == [True, True, True, False, True]
    file.close()
    assert not [path for path in tmp_path.iterdir() if path.name != "tokenizer"]


def test_without_a_tokenizer_only_texts_are_kept(tmp_path):
    file = KeptFile(tmp_path, tokenizer=None, unencoded=0)
    source = _keep(file, _documents(5))
    assert [document.text for document in source.documents()] == [document.text for document in _documents(5)]
    assert all(document.ids is None for document in source.documents())
    file.close()


def test_the_file_is_bounded_and_what_is_kept_is_the_beginning(tmp_path):
    file = KeptFile(tmp_path, tokenizer=None, unencoded=0, limit_bytes=10_000)
    batches = [_documents(4) for _ in range(9)]
    first, second = _keep(file, *batches), _keep(file, _documents(1))
    assert 0 < first.count < 36 and first.count % 4 == 0 and second.count == 0
    assert len(list(first.documents())) == first.count
    file.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_only_ends_the_keeping(tmp_path, monkeypatch, code):
    file = KeptFile(tmp_path, tokenizer=None, unencoded=0)
    first = _keep(file, _documents(4))

    def full(*_):
        raise OSError(code, "full")

    monkeypatch.setattr(kept, "write_all", full)
    assert _keep(file, _documents(4)).count == 0
    monkeypatch.undo()
    assert _keep(file, _documents(4)).count == 0
    assert [document.text for document in first.documents()] == [document.text for document in _documents(4)]
    file.close()


def test_an_error_of_the_thread_is_raised(tmp_path, monkeypatch):
    file = KeptFile(tmp_path, tokenizer=None, unencoded=0)
    monkeypatch.setattr(kept, "write_all", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _keep(file, _documents(4))
    file.close()


@pytest.mark.parametrize("split", ["hash:0.1", "hash:0", "tail:0.2"])
def test_a_build_is_the_same_whatever_is_kept(tmp_path, monkeypatch, split):
    dice = np.random.default_rng(0)
    rows = [" ".join(dice.choice(["one", "iki", "üç"], size=12)) + f" {i % 900}" for i in range(3000)]
    (tmp_path / "a.txt").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join(rows[:90]) + "\nlast", encoding="utf-8")
    sources = (SourceConfig(path="b.txt", document="line"), SourceConfig(path="a.txt", document="line"))
    data = DataConfig(sources=sources, split=split, chunk_tokens=4096)
    wish = TokenizerConfig(kind="bpe", vocab_size=320)
    train_from_sources(data, wish, base=tmp_path, folder=tmp_path / "trained")
    hashes = set()
    for name, limit in (("all", 1 << 27), ("some", 40_000), ("nothing", 0)):
        monkeypatch.setattr(build, "KeptFile", _bounded(limit))
        for kind, wanted in (("known", TokenizerConfig(path=str(tmp_path / "trained"))), ("new", wish)):
            dataset = build_dataset(data, wanted, base=tmp_path, folder=tmp_path / f"{name}-{kind}")
            hashes.add(dataset.sha256)
    assert len(hashes) == 1


def _bounded(limit):
    return lambda folder, **settings: KeptFile(folder, **settings, limit_bytes=limit)
