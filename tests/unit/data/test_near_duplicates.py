"""Estimated likeness is the real one within its error, and what is found is what comparing all pairs finds."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import minhash, near_duplicates
from ondevice.data.build import build_dataset
from ondevice.data.minhash import PLACES, likeness, signatures, stretch_hashes
from ondevice.data.near_duplicates import band_places, find_near_duplicates
from ondevice.run.schema import CleanConfig, DataConfig, SourceConfig, TokenizerConfig

WORDS = [f"söz{i}" for i in range(400)]


def stretches(text):
    """What a text is a set of, by the book."""
    words = text.replace("A", "a").split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def real(one, other):
    a, b = stretches(one), stretches(other)
    return len(a & b) / len(a | b)


def edited(dice, text, share):
    words = [dice.choice(WORDS) if dice.random() < share else word for word in text.split()]
    return " ".join(words)


def written(path, texts):
    path.write_bytes(signatures(texts).astype("<u2").tobytes())
    return path


@given(st.lists(st.text(st.sampled_from("ab A\n\tü"), max_size=40), max_size=8))
def test_stretches_are_those_of_the_book(texts):
    hashes, owners = stretch_hashes([text.encode() for text in texts])
    for number, text in enumerate(texts):
        found = hashes[owners == number]
        assert len(set(found.tolist())) == (len(stretches(text)) if text.split() else 0)
    by_hash = {}
    for number in range(len(texts)):
        for value in hashes[owners == number].tolist():
            by_hash.setdefault(value, set()).add(number)
    for number, text in enumerate(texts):
        for other, another in enumerate(texts):
            if text.split() and another.split():
                shared = sum({number, other} <= owning for owning in by_hash.values())
                assert shared == len(stretches(text) & stretches(another))


def test_letters_without_spaces_are_words():
    hashes, _ = stretch_hashes(["犬は道を渡って走りました".encode()])
    assert len(hashes) == 12 - 4
    one, other = signatures(["犬は道を渡って走りました", "犬は道を渡って 走りました"])
    assert likeness(one, other) == 1


@pytest.mark.parametrize("words", [12, 60, 400, 9000])
def test_likeness_is_estimated_without_bias_and_within_its_error(words):
    dice = random.Random(words)
    errors = []
    for _ in range(40 if words < 1000 else 6):
        one = " ".join(dice.choices(WORDS, k=words))
        other = edited(dice, one, dice.choice([0, 0.02, 0.05, 0.15, 1]))
        a, b = signatures([one, other])
        errors.append(likeness(a, b) - real(one, other))
    assert abs(np.mean(errors)) < 0.04 and np.max(np.abs(errors)) < 0.2


def test_a_signature_depends_on_nothing_around_its_text():
    dice = random.Random(2)
    texts = [" ".join(dice.choices(WORDS, k=k)) for k in (1, 4, 5, 6, 300, 2000, 14_000, 3)]
    together = signatures(texts)
    for row, text in zip(together, texts, strict=True):
        assert (signatures([text])[0] == row).all()
    assert together.shape == (8, PLACES) and together.dtype == np.uint16


def test_long_texts_take_bounded_memory(monkeypatch):
    sizes = []
    monkeypatch.setattr(minhash, "stretch_hashes", lambda parts: (sizes.append(sum(map(len, parts))), EMPTY)[1])
    signatures(["x y " * 100_000, "z"])
    assert max(sizes) <= 1 << 16


EMPTY = (np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_few_at_the_threshold(threshold):
    places = band_places(threshold)
    assert (1 - threshold**places) ** (PLACES // places) <= 0.01 or places == 1


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_found_is_what_comparing_all_pairs_finds(tmp_path, threshold):
    dice = random.Random(5)
    texts = [" ".join(dice.choices(WORDS, k=dice.randrange(5, 120))) for _ in range(120)]
    texts += [edited(dice, dice.choice(texts), dice.choice([0, 0.01, 0.03, 0.1])) for _ in range(160)]
    dice.shuffle(texts)
    files = [written(tmp_path / "a.near", texts[:100]), written(tmp_path / "b.near", texts[100:])]
    dropped = np.zeros(len(texts), dtype=bool)
    dropped[::17] = True
    found = find_near_duplicates(files, dropped, threshold=threshold, scratch=tmp_path)
    rows, expected = signatures(texts), np.zeros(len(texts), dtype=bool)
    for later in range(len(texts)):
        for earlier in range(later):
            if not (dropped[later] or dropped[earlier] or expected[earlier]):
                expected[later] |= likeness(rows[later], rows[earlier]) >= threshold
    assert expected.sum() > 50 and not (found & dropped).any()
    assert (found != expected).sum() <= 2  # a band misses one in a hundred at the threshold
    for later in np.flatnonzero(found):  # and by the real likeness
        assert max(real(texts[later], texts[earlier]) for earlier in range(later)) >= threshold - 0.15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.near", "b.near"]


def test_a_thousand_copies_leave_one(tmp_path):
    dice = random.Random(6)
    page = " ".join(dice.choices(WORDS, k=200))
    texts = [f"{page} {i}" for i in range(1000)]
    found = find_near_duplicates(
        [written(tmp_path / "a.near", texts)], np.zeros(1000, dtype=bool), threshold=0.8, scratch=tmp_path
    )
    assert found.tolist() == [False] + [True] * 999


def test_blocks_and_batches_change_nothing(tmp_path, monkeypatch):
    dice = random.Random(7)
    texts = [" ".join(dice.choices(WORDS[:40], k=12)) for _ in range(60)] * 2
    path, none = written(tmp_path / "a.near", texts), np.zeros(120, dtype=bool)
    expected = find_near_duplicates([path], none, threshold=0.5, scratch=tmp_path)
    monkeypatch.setattr(near_duplicates, "_ROWS", 7)
    monkeypatch.setattr(near_duplicates, "_COMPARED", 3)
    assert (find_near_duplicates([path], none, threshold=0.5, scratch=tmp_path) == expected).all()
    assert expected[60:].all()


@pytest.fixture
def corpus(tmp_path):
    dice = random.Random(8)
    pages = [" ".join(dice.choices(WORDS, k=60)) for _ in range(300)]
    lines = [*pages, *(f"{page} more" for page in pages[:80]), *pages[:20]]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join([f"{pages[90]} again", "something of its own"]), encoding="utf-8")
    return tmp_path


def _build(corpus, name, tokenizer=None, **rules):
    sources = tuple(SourceConfig(path=f"{source}.txt", document="line") for source in "ab")
    data = DataConfig(sources=sources, clean=CleanConfig(**rules))
    wish = tokenizer or TokenizerConfig(kind="byte")
    return build_dataset(data, wish, base=corpus, folder=corpus / name)


def test_a_build_leaves_out_near_copies_and_tells_which(corpus):
    dataset = _build(corpus, "one", near_duplicates=0.8)
    assert [(source.documents, source.name) for source in dataset.sources] == [(300, "a"), (1, "b")]
    problems = dataset.problems
    assert problems.count("near_duplicate", "a") == 80 and problems.count("duplicate_document", "a") == 20
    assert problems.examples("a", "near_duplicate")[0] == "a.txt:301"
    assert problems.examples("b", "near_duplicate") == ("b.txt:1",)
    totals = dataset.manifest["totals"]
    assert (totals["duplicates"], totals["dropped"]) == (101, 0)


def test_a_second_build_does_nothing_and_another_threshold_is_another(corpus):
    first = _build(corpus, "one", near_duplicates=0.8)
    again = _build(corpus, "one", near_duplicates=0.8)
    assert first.manifest["created"] == again.manifest["created"] and first.sha256 == again.sha256
    strict = _build(corpus, "one", near_duplicates=0.99)
    assert 300 < strict.sources[0].documents <= 380  # 57 of 58 stretches are the same
    assert _build(corpus, "one").sources[0].documents == 380


def test_signatures_that_nobody_needs_go(corpus):
    _build(corpus, "one", near_duplicates=0.8)
    assert len(list((corpus / "one" / "scan").glob("*.near"))) == 2
    _build(corpus, "one")
    assert not list((corpus / "one" / "scan").glob("*.near"))


def test_encoded_ahead_or_read_again_it_is_the_same(corpus):
    new = _build(corpus, "one", near_duplicates=0.8)
    known = TokenizerConfig(path=str(corpus / "one" / new.manifest["tokenizer"]["folder"]))
    ahead = _build(corpus, "two", known, near_duplicates=0.8)
    assert ahead.sha256 == new.sha256 and ahead.manifest["problems"] == new.manifest["problems"]


def test_damaged_signatures_are_made_again(corpus):
    first = _build(corpus, "one", near_duplicates=0.8)
    for path in (corpus / "one" / "scan").glob("*.near"):
        path.write_bytes(bytes(path.stat().st_size))
    (corpus / "one" / "dataset.json").unlink()
    assert _build(corpus, "one", near_duplicates=0.8).sha256 == first.sha256
