"""A build is a pure function of its inputs; a repeated one does nothing; a changed source rebuilds its own chunks."""

import gzip
import json
import os
import shutil

import numpy as np
import pytest

from ondevice.data.build import build_dataset, train_from_sources
from ondevice.data.dataset import Dataset
from ondevice.data.inventory import take_inventory
from ondevice.data.tokenizer import load_tokenizer
from ondevice.errors import DataError
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig

TEXT = "the kâr of a cat is not the kar of a dog but İstanbul was a city on two sides ğ ş ç"


def paragraphs(count, seed):
    dice = np.random.default_rng(seed)
    return [" ".join(dice.choice(TEXT.split(), size=int(dice.integers(5, 40)))) + f" {seed}-{i}." for i in range(count)]


class Corpus:
    """Three sources in a folder: paragraphs, one long file, code."""

    def __init__(self, root):
        self.root = root
        self.folder = root / "dataset"
        self.write("a.txt", "\n\n".join(paragraphs(300, 1)))
        self.write("b.txt", "\n\n".join(paragraphs(200, 2)))
        self.write("c/x.py", "def f(x):\n    return x + 1\n" * 400)
        self.write("c/y.c", "int main() { return 0; }\n" * 300)
        self.sources = [
            SourceConfig(path="a.txt", name="alpha", language="en", document="paragraph"),
            SourceConfig(path="b.txt", name="beta", language="tr"),
            SourceConfig(path="c", name="code", format="code", weight=2.0),
        ]

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def build(self, folder=None, *, kind="byte", sources=None, retrain=False, progress=None, verify=True, **changes):
        data = DataConfig(sources=tuple(sources or self.sources), **{"chunk_tokens": 2048, **changes})
        tokenizer = kind if isinstance(kind, TokenizerConfig) else TokenizerConfig(kind=kind, min_frequency=1)
        return build_dataset(
            data,
            tokenizer,
            base=self.root,
            folder=folder or self.folder,
            retrain=retrain,
            progress=progress,
            verify=verify,
        )

    def snapshot(self, *, times=True):
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(p.relative_to(self.folder)): p.stat().st_mtime_ns if times else p.read_bytes() for p in files}

    def chunk_inodes(self, dataset, source):
        paths = [dataset.folder / c["file"] for c in dataset.manifest["chunks"] if c["source"] == source]
        return [path.stat().st_ino for path in paths]


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


def texts(dataset, source, split):
    """The documents of a stream."""
    tokenizer = dataset.tokenizer()
    stream = dataset.stream(source, split)
    ids = stream.read(0, len(stream))
    return [
        tokenizer.decode(part[:-1].tolist()) for part in np.split(ids, np.flatnonzero(ids == tokenizer.eot_id) + 1)
    ][:-1]


def test_every_document_is_in_the_streams_once(corpus):
    dataset = corpus.build()
    expected = paragraphs(300, 1)
    train, val = texts(dataset, "alpha", "train"), texts(dataset, "alpha", "val")
    assert sorted([*train, *val]) == sorted(expected)
    assert len(val) == 15 and not set(train) & set(val)
    assert train == [text for text in expected if text in set(train)]  # in the order of the source
    entry = dataset.sources[0]
    assert (entry.name, entry.language, entry.documents, entry.train_documents) == ("alpha", "en", 300, 285)
    assert entry.train_bytes + entry.val_bytes == sum(len(text.encode()) for text in expected)
    assert entry.train_tokens == entry.train_bytes + 285 == len(dataset.stream("alpha", "train"))
    assert [e.name for e in dataset.sources] == ["alpha", "beta", "code.python", "code.c"]
    assert dataset.sources[2].weight == 2.0 and dataset.sources[2].language == "python"


def test_a_long_file_is_split_by_sections(corpus):
    dataset = corpus.build()
    whole = (corpus.root / "b.txt").read_text(encoding="utf-8")
    train, val = texts(dataset, "beta", "train"), texts(dataset, "beta", "val")
    assert sum(map(len, train)) + sum(map(len, val)) == len(whole)
    assert all(part in whole for part in [*train, *val])
    share = sum(map(len, val)) / len(whole)
    assert len(val) >= 1 and 0.01 < share < 0.15
    assert len(train) <= len(val) + 1  # neighbouring sections were joined


def test_the_tail_is_the_last_part_of_every_source(corpus):
    dataset = corpus.build(split="tail:0.1")
    whole = (corpus.root / "b.txt").read_text(encoding="utf-8")
    cut = int(len(whole) * 0.9)
    assert texts(dataset, "beta", "train") == [whole[:cut]] and texts(dataset, "beta", "val") == [whole[cut:]]
    joined = "".join(paragraphs(300, 1))
    assert "".join(texts(dataset, "alpha", "train")) == joined[: int(len(joined) * 0.9)]
    assert "".join(texts(dataset, "alpha", "val")) == joined[int(len(joined) * 0.9) :]


def test_without_a_split_all_is_for_training(corpus):
    dataset = corpus.build(split="hash:0")
    assert all(entry.val_tokens == 0 for entry in dataset.sources)
    assert texts(dataset, "alpha", "train") == paragraphs(300, 1)


def test_the_inventory_is_exact(corpus):
    dataset = corpus.build()
    for context in (2, 64, 1000, 10**6):
        inventory = take_inventory(dataset.sources, context)
        assert inventory.tokens == inventory.covered + inventory.remainder == dataset.manifest["totals"]["tokens"]
        assert sum(row.tokens for row in inventory.rows) == inventory.tokens
        assert all(row.tokens == row.covered + row.remainder and row.remainder >= 0 for row in inventory.rows)
    assert dataset.unigram_counts().sum() == sum(entry.train_tokens for entry in dataset.sources)
    assert dataset.unigram_counts("beta")[ord("a")] == "".join(texts(dataset, "beta", "train")).count("a")


def test_a_second_build_writes_nothing(corpus):
    first = corpus.build()
    before = corpus.snapshot()
    again = corpus.build()
    assert corpus.snapshot() == before
    assert (again.id, again.sha256) == (first.id, first.sha256)


def test_the_result_depends_on_the_inputs_alone(corpus, tmp_path):
    one = corpus.build(kind="bpe")
    other = Corpus(tmp_path / "elsewhere" if (tmp_path / "elsewhere").mkdir() is None else tmp_path).build(kind="bpe")
    assert one.sha256 == other.sha256 and one.id != other.id


def test_a_touched_file_rebuilds_nothing(corpus):
    first = corpus.build()
    os.utime(corpus.root / "a.txt", ns=(1, 1))
    again = corpus.build()
    assert again.id == first.id


def test_a_changed_source_rebuilds_only_its_own_chunks(corpus):
    first = corpus.build()
    kept = {name: corpus.chunk_inodes(first, name) for name in ("alpha", "beta", "code.python")}
    corpus.write("b.txt", "\n\n".join(paragraphs(210, 3)))
    del first
    second = corpus.build()
    assert corpus.chunk_inodes(second, "alpha") == kept["alpha"]
    assert corpus.chunk_inodes(second, "code.python") == kept["code.python"]
    assert corpus.chunk_inodes(second, "beta") != kept["beta"]
    fresh = corpus.build(corpus.root / "fresh")
    assert fresh.sha256 == second.sha256
    assert sorted(os.listdir(fresh.folder / "chunks")) == sorted(
        os.listdir(second.folder / "chunks")
    )  # old ones are gone
    assert sorted(os.listdir(fresh.folder / "scan")) == sorted(os.listdir(second.folder / "scan"))


def test_a_changed_weight_rewrites_the_manifest_alone(corpus):
    first = corpus.build()
    before = corpus.snapshot()
    sources = [corpus.sources[0], SourceConfig(path="b.txt", name="beta", language="tr", weight=3.0), corpus.sources[2]]
    second = corpus.build(sources=sources)
    changed = {name for name, time in corpus.snapshot().items() if before.get(name) != time}
    assert changed == {"dataset.json"} and second.sha256 == first.sha256
    assert second.sources[1].weight == 3.0


class TestDuplicates:
    def test_copies_are_dropped_and_the_earlier_source_wins(self, corpus):
        shared = paragraphs(40, 9)
        corpus.write("a.txt", "\n\n".join([*paragraphs(300, 1), *shared, *shared[:5]]))
        corpus.write("b.txt", "\n\n".join([*shared, *paragraphs(150, 2)]))
        sources = [corpus.sources[0], SourceConfig(path="b.txt", name="beta", document="paragraph")]
        dataset = corpus.build(sources=sources)
        alpha, beta = dataset.sources
        assert (alpha.documents, alpha.duplicates) == (340, 5)
        assert (beta.documents, beta.duplicates) == (150, 40)
        assert dataset.problems.count("duplicate_document") == 45
        assert dataset.problems.examples("beta", "duplicate_document")[0].startswith("b.txt:1")
        assert not set(shared) & {*texts(dataset, "beta", "train"), *texts(dataset, "beta", "val")}

    def test_a_source_is_rebuilt_when_its_documents_collide_with_a_changed_one(self, corpus):
        sources = [corpus.sources[0], SourceConfig(path="b.txt", name="beta", document="paragraph"), corpus.sources[2]]
        first = corpus.build(sources=sources)
        beta, code = corpus.chunk_inodes(first, "beta"), corpus.chunk_inodes(first, "code.c")
        del first
        corpus.write("a.txt", "\n\n".join([*paragraphs(300, 1), paragraphs(200, 2)[7]]))
        second = corpus.build(sources=sources)
        assert second.sources[1].duplicates == 1
        assert corpus.chunk_inodes(second, "beta") != beta and corpus.chunk_inodes(second, "code.c") == code
        assert corpus.build(corpus.root / "fresh", sources=sources).sha256 == second.sha256

    def test_they_may_be_kept_and_still_fall_on_one_side(self, corpus):
        shared = paragraphs(150, 9)
        corpus.write("a.txt", "\n\n".join([*paragraphs(120, 1), *shared, *shared[:50]]))
        corpus.write("b.txt", "\n\n".join(shared))
        sources = [corpus.sources[0], SourceConfig(path="b.txt", name="beta", document="paragraph")]
        dataset = corpus.build(sources=sources, deduplicate=False, split="hash:0.2")
        assert [entry.documents for entry in dataset.sources] == [320, 150]
        train = {*texts(dataset, "alpha", "train"), *texts(dataset, "beta", "train")}
        assert not train & {*texts(dataset, "alpha", "val"), *texts(dataset, "beta", "val")}


class TestTokenizer:
    def test_it_is_kept_when_sources_change_and_trained_anew_when_asked(self, corpus):
        first = corpus.build(kind="bpe")
        pinned = first.tokenizer().sha256
        del first
        corpus.write("a.txt", "\n\n".join(paragraphs(400, 7)))
        assert corpus.build(kind="bpe").tokenizer().sha256 == pinned
        again = corpus.build(kind="bpe", retrain=True)
        assert again.tokenizer().sha256 != pinned
        assert len(list(corpus.folder.glob("tokenizer-*"))) == 1
        assert again.sha256 == corpus.build(corpus.root / "fresh", kind="bpe").sha256

    def test_another_wish_trains_another(self, corpus):
        first = corpus.build(kind="bpe").tokenizer().vocab_size
        config = TokenizerConfig(kind="bpe", min_frequency=1, vocab_size=290)
        assert corpus.build(kind=config).tokenizer().vocab_size == 290 != first

    def test_an_imported_one_is_copied(self, corpus):
        folder = corpus.root / "mine"
        train_from_sources(
            DataConfig(sources=tuple(corpus.sources)),
            TokenizerConfig(kind="bpe", vocab_size=280),
            base=corpus.root,
            folder=folder,
        )
        assert sorted(p.name for p in corpus.root.iterdir() if p.name.startswith(".")) == []
        dataset = corpus.build(kind=TokenizerConfig(path="mine"))
        assert dataset.tokenizer().sha256 == load_tokenizer(folder).sha256
        before = corpus.snapshot()
        corpus.build(kind=TokenizerConfig(path="mine"))
        assert corpus.snapshot() == before
        shutil.rmtree(folder)
        assert Dataset.open(corpus.folder).tokenizer().vocab_size == 280

    def test_it_learns_from_training_text_alone(self, corpus):
        secret = "zqx" * 100
        corpus.write("b.txt", "\n\n".join([*paragraphs(100, 2), secret]))
        sources = [SourceConfig(path="b.txt", name="beta", document="paragraph")]
        dataset = corpus.build(kind="bpe", sources=sources, split="tail:0.1")
        assert len(dataset.tokenizer().encode("zqx")) == 3

    def test_the_sample_is_spread_over_the_whole_corpus(self, corpus):
        from ondevice.data.build import _Build
        from ondevice.data.build_tokenizer import TrainingSample

        data = DataConfig(sources=tuple(corpus.sources[:2]))
        build = _Build(data, TokenizerConfig(), corpus.root, corpus.folder, lambda *_: None)
        corpus.folder.mkdir()
        with build._plans(None) as (plans, _):
            sample = TrainingSample(plans, limit=10_000, whole=False, advance=lambda _: None)
            taken = list(sample)
            assert taken == list(sample)
        assert 5_000 < sum(len(text.encode()) for text in taken) < 16_000
        numbers = [int(t.rsplit("-", 1)[1][:-1]) for t in taken if " 1-" in t and t.endswith(".")]
        assert min(numbers) < 60 and max(numbers) > 240

    def test_unknown_symbols_are_reported(self, corpus):
        first = corpus.build(kind="char")
        assert first.problems.count("unknown_symbol") == 0
        del first
        corpus.write("a.txt", "\n\n".join([*paragraphs(300, 1), "two new ones: 😀ж"]))
        dataset = corpus.build(kind="char")
        assert dataset.problems.count("unknown_symbol") == 2

    @pytest.mark.parametrize("kind", ["sentencepiece-bpe", "sentencepiece-unigram"])
    def test_sentencepiece_builds(self, corpus, kind):
        pytest.importorskip("sentencepiece")
        dataset = corpus.build(kind=kind)
        assert sorted([*texts(dataset, "alpha", "train"), *texts(dataset, "alpha", "val")]) == sorted(
            paragraphs(300, 1)
        )

    def test_a_large_vocabulary_takes_four_bytes(self, corpus, monkeypatch):
        monkeypatch.setattr("ondevice.data.build_tokens.chunk_dtype", lambda _: "uint32")
        assert corpus.build().stream("alpha", "train").read(0, 5).dtype == np.uint32


def test_compressed_sources_and_progress(corpus):
    seen = []
    with gzip.open(corpus.root / "z.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(paragraphs(300, 4)))
    sources = [SourceConfig(path="z.txt.gz", name="zipped", document="paragraph"), corpus.sources[0]]
    dataset = corpus.build(kind="bpe", sources=sources, progress=lambda *args: seen.append(args))
    assert dataset.sources[0].documents == 300
    assert {phase for _, _, phase in seen} == {"scan", "tokenizer", "tokens"}
    assert all(0 <= done <= total for done, total, _ in seen)
    assert seen[-1][0] == seen[-1][1]


class TestRefused:
    def test_no_sources(self, corpus):
        with pytest.raises(DataError, match="no sources"):
            build_dataset(DataConfig(), TokenizerConfig(), base=corpus.root, folder=corpus.folder)
        assert not corpus.folder.exists()

    def test_a_missing_path_leaves_nothing(self, corpus):
        with pytest.raises(DataError, match="nowhere"):
            corpus.build(sources=[SourceConfig(path="nowhere.txt")])
        assert not corpus.folder.exists()

    def test_an_empty_corpus(self, corpus):
        corpus.write("a.txt", "\n  \n")
        with pytest.raises(DataError, match=r"a\.txt"):
            corpus.build(sources=corpus.sources[:1])
        assert not [name for name in corpus.snapshot() if ".tmp" in name or name.endswith((".json", ".chunk"))]

    def test_two_sources_of_one_name(self, corpus):
        twice = [SourceConfig(path="a.txt", name="same"), SourceConfig(path="b.txt", name="same")]
        with pytest.raises(DataError, match="Two sources are called 'same'"):
            corpus.build(sources=twice)

    def test_a_vocabulary_beyond_the_corpus(self, corpus):
        with pytest.raises(DataError, match="at most"):
            corpus.build(kind=TokenizerConfig(kind="bpe", vocab_size=60_000))
        assert not (corpus.folder / "dataset.json").exists()

    def test_a_source_that_changes_while_it_is_read(self, corpus):
        def change(done, total, phase):
            if phase == "tokens":
                corpus.write("b.txt", "\n\n".join(paragraphs(10, 5)))

        corpus.build()
        with pytest.raises(DataError, match=r"b\.txt: changed while it was read"):
            corpus.build(kind="char", progress=change)  # the scan of the first build is still right, its text is gone
        assert corpus.build().sha256 == corpus.build(corpus.root / "fresh").sha256

    def test_what_was_scanned_is_what_is_built(self, corpus):
        expected = corpus.build(corpus.root / "undisturbed").sha256

        def change(done, total, phase):
            if phase == "tokens":
                corpus.write("b.txt", "\n\n".join(paragraphs(10, 5)))

        assert corpus.build(progress=change).sha256 == expected
        assert corpus.build().sha256 != expected


def test_the_manifest_is_plain(corpus):
    corpus.build()
    manifest = json.loads((corpus.folder / "dataset.json").read_text(encoding="utf-8"))
    assert manifest["v"] == 1 and manifest["tokenizer"]["kind"] == "byte"
    assert set(manifest["chunks"][0]) == {
        "file", "size", "source", "split", "tokens", "first_document", "last_document", "sha256"
    }  # fmt: skip
    assert str(corpus.root) not in json.dumps(manifest)
