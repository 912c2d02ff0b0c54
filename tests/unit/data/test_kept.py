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
            source.add(batch, [len(document.text.encode()) for document in batch])
    return source


def _kept(source):
    """Text (or None), origin and ids (or []) of all that is kept."""
    found = []
    for block in source.blocks():
        ids = np.split(block.ids, np.cumsum(block.lengths.astype(np.int64))[:-1])
        for (text, origin), own in zip(block.texts_and_origins(), ids, strict=True):
            found.append((text, origin, own.tolist()))
    return found


def _texts(source):
    return [text for text, _, _ in _kept(source)]


def test_documents_come_back_as_their_ids_or_as_text(tmp_path, tokenizer):
    file = KeptFile(tmp_path, tokenizer=tokenizer, unencoded=3)
    one, other = _documents(10), _documents(4, "other")
    first, second = _keep(file, one[:6], one[6:]), _keep(file, [*other, *_documents(1)])
    encoded = [[*tokenizer.encode(document.text), tokenizer.eot_id] for document in one]
    assert _kept(first) == [(d.text, d.origin, []) for d in one[:3]] + [
        (None, d.origin, ids) for d, ids in zip(one[3:], encoded[3:], strict=True)
    ]
    assert [block.bytes.tolist() for block in first.blocks()] == [
        [len(d.text.encode()) for d in batch] for batch in (one[:6], one[6:])
    ]
    assert _texts(second) == [other[0].text, other[1].text, other[2].text, None, _documents(1)[0].text]
    assert first.count == 10 and second.count == 5
    assert first.encoded == {"s"} and second.encoded == {"other"}
    file.close()
    assert not [path for path in tmp_path.iterdir() if path.name != "tokenizer"]


def test_without_a_tokenizer_only_texts_are_kept(tmp_path):
    file = KeptFile(tmp_path, tokenizer=None, unencoded=0)
    source = _keep(file, _documents(5))
    assert _texts(source) == [document.text for document in _documents(5)] and not source.encoded
    assert all(not len(block.ids) for block in source.blocks())
    file.close()


def test_the_file_is_bounded_and_what_is_kept_is_the_beginning(tmp_path):
    file = KeptFile(tmp_path, tokenizer=None, unencoded=0, limit_bytes=10_000)
    batches = [_documents(4) for _ in range(9)]
    first, second = _keep(file, *batches), _keep(file, _documents(1))
    assert 0 < first.count < 36 and first.count % 4 == 0 and second.count == 0
    assert len(_kept(first)) == first.count
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
    assert _texts(first) == [document.text for document in _documents(4)]
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


def test_text_that_was_only_encoded_is_read_again_where_it_must_be_cut(tmp_path, tokenizer):
    """More than a hundred documents are seen, but fewer are left without the copies: they are cut into sections."""
    rows = [f"line {i % 60} " + "words and more words " * 40 for i in range(150)]
    (tmp_path / "a.txt").write_text("\n".join(rows), encoding="utf-8")
    data = DataConfig(sources=(SourceConfig(path="a.txt", document="line"),), split="hash:0.2")
    known, new = TokenizerConfig(path=str(tmp_path / "tokenizer")), TokenizerConfig(kind="byte")
    one, other = (build_dataset(data, wish, base=tmp_path, folder=tmp_path / wish.kind) for wish in (known, new))
    assert one.sha256 == other.sha256 and one.sources[0].documents == 60
    assert one.manifest["totals"]["val_documents"] > 0
    assert one.manifest["problems"] == other.manifest["problems"]


def _bounded(limit):
    return lambda folder, **settings: KeptFile(folder, **settings, limit_bytes=limit)
