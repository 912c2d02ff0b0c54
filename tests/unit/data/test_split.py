"""Validation splits are exact, disjoint and independent of order; cuts join to the text exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.split import (
    Split,
    cut_sections,
    cut_tail,
    is_validation,
    parse_split,
    validation_count,
    validation_mask,
    validation_threshold,
)
from ondevice.errors import UsageError

HASHES = st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=200).map(lambda v: np.array(v, dtype=np.uint64))
SHARES = st.floats(0, 0.99)


def test_splits_a_person_may_write():
    assert parse_split("hash:0.05") == Split("hash", 0.05)
    assert parse_split("tail:0.1") == Split("tail", 0.1)
    assert parse_split("hash:0") == Split("hash", 0.0)


@pytest.mark.parametrize(
    "text", ["", "hash", "hash:", "0.1", "random:0.1", "hash:1", "hash:-0.1", "tail:nan", "hash:5%", "tail:inf"]
)
def test_other_splits_are_refused_with_what_is_allowed(text):
    with pytest.raises(UsageError, match=r"hash:F .* tail:F .*such as hash:0.05"):
        parse_split(text)


@given(hashes=HASHES, share=SHARES)
def test_exactly_the_share_is_validation(hashes, share):
    mask = validation_mask(hashes, validation_threshold(hashes, share))
    assert mask.sum() == validation_count(len(hashes), share)


@pytest.mark.parametrize(
    ("documents", "share", "count"),
    [(0, 0.1, 0), (1, 0.1, 0), (2, 0.01, 1), (100, 0.05, 5), (100, 0, 0), (2, 0.99, 1), (1000, 0.0001, 1)],
)
def test_at_least_one_and_never_all(documents, share, count):
    assert validation_count(documents, share) == count


@given(hashes=HASHES, share=SHARES, seed=st.integers(0, 99))
def test_the_order_of_documents_does_not_matter(hashes, share, seed):
    shuffled = np.random.default_rng(seed).permutation(hashes)
    assert validation_threshold(hashes, share) == validation_threshold(shuffled, share)


@given(hashes=HASHES, share=SHARES)
def test_one_document_is_judged_like_many(hashes, share):
    threshold = validation_threshold(hashes, share)
    assert [is_validation(int(value), threshold) for value in hashes] == validation_mask(hashes, threshold).tolist()


def test_share_zero_marks_nothing_and_the_highest_threshold_everything():
    hashes = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert not validation_mask(hashes, 0).any()
    assert validation_mask(hashes, 2**64).all()


def test_copies_of_a_document_fall_on_one_side():
    hashes = np.repeat(np.arange(50, dtype=np.uint64), 3)
    mask = validation_mask(hashes, validation_threshold(hashes, 0.1)).reshape(50, 3)
    assert (mask.all(axis=1) == mask.any(axis=1)).all()


def test_appended_documents_move_few_of_the_old_ones():
    hashes = np.random.default_rng(0).integers(0, 2**64, 11_000, dtype=np.uint64)
    old = validation_mask(hashes[:10_000], validation_threshold(hashes[:10_000], 0.05))
    new = validation_mask(hashes, validation_threshold(hashes, 0.05))[:10_000]
    assert (old != new).sum() < 30


def test_the_split_is_not_the_order_of_the_hashes_themselves():
    hashes = np.arange(10_000, dtype=np.uint64) << np.uint64(40)
    chosen = np.flatnonzero(validation_mask(hashes, validation_threshold(hashes, 0.1)))
    assert 4000 < chosen.mean() < 6000


TEXT = st.text(alphabet="ab ğ\n\n#df", max_size=400)


@given(text=TEXT, target=st.integers(1, 60))
def test_sections_join_to_the_text(text, target):
    sections = cut_sections(text, target)
    assert "".join(sections) == text
    assert all(sections)
    assert all(len(section) <= max(1, target + target // 2) for section in sections)
    assert all(len(section) >= max(1, target // 2) for section in sections[:-1])


def test_sections_end_at_the_best_border():
    prose = "aaaa bbbb cccc\n\ndddd eeee ffff"
    assert cut_sections(prose, 18) == ["aaaa bbbb cccc\n\n", "dddd eeee ffff"]
    code = "def f():\n    a = 1\n\n    return a\ndef g():\n    pass\n"
    assert cut_sections(code, 30) == ["def f():\n    a = 1\n\n    return a\n", "def g():\n    pass\n"]
    assert cut_sections("# One\ntext text\n# Two\ntext text\n", 17) == ["# One\ntext text\n", "# Two\ntext text\n"]
    assert cut_sections("aaaaaaaaa\nbbbbbbbbb", 10) == ["aaaaaaaaa\n", "bbbbbbbbb"]
    assert cut_sections("aaaa bbbb cccc", 5) == ["aaaa ", "bbbb ", "cccc"]
    assert cut_sections("abcdefgh", 3) == ["abc", "def", "gh"]
    assert cut_sections("", 10) == []


def test_sections_of_a_large_text_take_time_in_proportion():
    text = "word " * 1_000_000
    assert len(cut_sections(text, 20_000)) == pytest.approx(250, rel=0.05)


@given(text=TEXT, share=SHARES)
def test_the_tail_begins_at_exactly_its_character(text, share):
    head, tail = cut_tail(text, share)
    assert head + tail == text
    assert len(head) == int(len(text) * (1 - share))


def test_a_text_that_repeats_itself_stays_to_be_learned():
    """Hundreds of equal sections are one document: they may not all become validation text."""
    rare = np.arange(1, 11, dtype=np.uint64) * np.uint64(0x1234567890ABCD)
    hashes = np.concatenate([np.full(990, 77, np.uint64), rare])
    mask = validation_mask(hashes, validation_threshold(hashes, 0.05))
    assert mask.sum() <= 100
    assert len(set(mask[:990].tolist())) == 1
    assert validation_mask(np.full(50, 9, np.uint64), validation_threshold(np.full(50, 9, np.uint64), 0.1)).sum() == 0
