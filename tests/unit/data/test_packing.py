"""Packing: every example once an epoch, no row overfull, the same from any position, exposure that adds up."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data.build import build_dataset
from ondevice.data.cursor import BatchCursor
from ondevice.data.packed import IGNORE, PackedSource, cut_example, flattened
from ondevice.data.packing import best_fit, pack
from ondevice.errors import DataError
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig

CONTEXT = 64
END = 256


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("examples")
    for name, count in (("one", 60), ("two", 31)):
        rows = [
            {"prompt": f"{name}{i}" + "?" * (i * 7 % 40), "completion": "!" * (1 + i * 5 % 13)} for i in range(count)
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(
        sources=(SourceConfig(path="one.jsonl"), SourceConfig(path="two.jsonl")), split="hash:0.1", chunk_tokens=1024
    )
    return build_dataset(data, TokenizerConfig(kind="byte"), base=root, folder=root / "d")


def _cursor(dataset, **changes):
    return BatchCursor(dataset, **{"context": CONTEXT, "batch": 4, "order": "shuffled", "seed": 5, **changes})


def _examples(batch):
    """Inputs and labels of every example in a batch."""
    for x, y, lengths in zip(batch.x_BT, batch.y_BT, batch.lengths_B, strict=True):
        at = 0
        for length in lengths:
            yield x[at : at + length].tolist(), y[at : at + length].tolist()
            at += length
        assert (y[at:] == IGNORE).all() and lengths and at <= len(x)


@given(sizes=st.lists(st.integers(1, 50), max_size=80))
@settings(max_examples=60, deadline=None)
def test_best_fit_overfills_no_row_and_loses_nothing(sizes):
    sizes = sorted(sizes, reverse=True)
    rows = best_fit(list(range(len(sizes))), sizes, 50)
    assert sorted(member for row in rows for member in row) == list(range(len(sizes)))
    assert all(0 < sum(sizes[member] for member in row) <= 50 for row in rows)
    assert sum(sum(sizes[member] for member in row) <= 25 for row in rows) <= 1  # two half-empty rows would be one


def test_natural_lengths_fill_nearly_every_place():
    lengths = np.random.default_rng(1).integers(30, 300, 5000)
    plan = pack(lengths, np.zeros_like(lengths), context=512, seed=1, shuffled=True)
    assert plan.filled / (len(plan) * 512) > 0.97


def test_the_plan_is_decided_by_lengths_and_seed():
    lengths = np.full(60, 20)
    cuts = np.zeros_like(lengths)
    plans = [pack(lengths, cuts, context=64, seed=seed, shuffled=True) for seed in (1, 1, 2)]
    assert plans[0].members.tolist() == plans[1].members.tolist() != plans[2].members.tolist()
    in_order = pack(lengths, cuts, context=10_000, seed=1, shuffled=False)
    assert sorted(in_order.row(0).tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize("order", ["shuffled", "sequential", "proportional"])
def test_an_epoch_holds_every_example_once_with_its_mask(dataset, order):
    cursor = _cursor(dataset, batch=1, order=order)
    wanted = []
    for entry in dataset.sources:
        rows = dataset.example_rows(entry.name, "train")
        for index in range(len(rows)):
            ids, learned = rows.read(index)
            labels = np.where(learned[1:], ids[1:], IGNORE)
            wanted.append((ids[:-1].tolist(), labels.tolist()))
    found = []
    for _ in range(cursor.windows_per_epoch):
        found += _examples(cursor.next())
    assert sorted(found) == sorted(wanted)
    assert int(cursor.epochs) == 1


def test_resuming_anywhere_goes_on_exactly(dataset):
    whole = _cursor(dataset)
    batches = [whole.next() for _ in range(30)]
    for at in (1, 9, 28):
        first = _cursor(dataset)
        for _ in range(at):
            first.next()
        second = _cursor(dataset)
        second.load_state_dict(first.state_dict())
        now = second.next()
        assert (now.x_BT == batches[at].x_BT).all() and now.lengths_B == batches[at].lengths_B


def test_another_context_or_seed_is_another_order(dataset):
    hashes = [_cursor(dataset, **change).order_sha256 for change in ({}, {}, {"seed": 6}, {"context": 65})]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_exposure_counts_examples_and_what_was_learned(dataset):
    cursor = _cursor(dataset)
    examples = learned = 0
    for _ in range(33):
        batch = cursor.next()
        examples += sum(map(len, batch.lengths_B))
        learned += int((batch.y_BT != IGNORE).sum())
    exposure = cursor.exposure()
    assert sum(entry["examples"] for entry in exposure.values()) == examples
    assert sum(entry["learned_tokens"] for entry in exposure.values()) == learned
    assert sum(entry["tokens"] for entry in exposure.values()) == 33 * 4 * CONTEXT
    assert cursor.exposure(0)["one"]["examples"] == 0
    epoch = cursor.exposure(cursor.windows_per_epoch)
    assert [e["examples"] for e in epoch.values()] == [entry.train_documents for entry in dataset.sources]


def test_flattening_drops_padding_only(dataset):
    batch = _cursor(dataset).next()
    x_1N, y_1N, lengths = flattened(batch.x_BT, batch.y_BT, batch.lengths_B, lambda tokens, most: tokens)
    assert x_1N.shape == y_1N.shape == (1, sum(lengths)) and sum(lengths) < batch.x_BT.size
    assert (y_1N != IGNORE).sum() == (batch.y_BT != IGNORE).sum()


def test_flattening_fills_up_with_texts_that_are_not_learned(dataset):
    batch = _cursor(dataset).next()
    rows = batch.x_BT, batch.y_BT, batch.lengths_B
    bare_x, bare_y, bare = flattened(*rows, lambda tokens, most: tokens)
    x_1N, y_1N, lengths = flattened(*rows, lambda tokens, most: most + CONTEXT)
    tokens = bare_x.shape[1]
    assert x_1N.shape == y_1N.shape == (1, batch.x_BT.size + CONTEXT) == (1, sum(lengths))
    assert (x_1N[:, :tokens] == bare_x).all() and (y_1N[:, :tokens] == bare_y).all()
    assert (y_1N[:, tokens:] == IGNORE).all() and set(x_1N[0, tokens:]) == {bare_x[0, -1]}
    assert lengths[: len(bare)] == bare and max(lengths) <= CONTEXT


class _Rows:
    def __init__(self, examples):
        self._examples = examples
        self.lengths = np.array([len(ids) for ids, _ in examples])

    def read(self, index):
        ids, learned = self._examples[index]
        return np.array(ids), np.array(learned, dtype=bool)

    def learned_counts(self):
        return np.array([sum(learned) for _, learned in self._examples])


def test_what_is_too_long_loses_its_beginning_or_is_left_out():
    short = ([1, 2, 3], [0, 0, 1])
    prompt = ([*range(20), 77, 78], [0] * 20 + [1, 1])
    answer = ([1, *range(20)], [0] + [1] * 20)
    turns = ([*range(14)], [0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1])
    rows = _Rows([short, prompt, answer, turns])
    how = {"context": 10, "seed": 0, "shuffled": True}
    packed = PackedSource(rows, **how, too_long="keep_end")
    assert (packed.packing.truncated, packed.packing.dropped) == (3, 1)
    ids, learned = packed.example(1)
    assert ids.tolist() == [*range(11, 20), 77, 78] and learned.tolist() == [False] * 9 + [True] * 2
    ids, learned = packed.example(3)
    assert ids.tolist() == [*range(3, 14)] and learned.tolist() == [False] * 9 + [True] * 2
    assert int(packed.learned.sum()) == 1 + 2 + 2
    dropped = PackedSource(rows, **how, too_long="drop")
    assert dropped.packing.dropped == 3 and dropped.packing.members.tolist() == [0]


def test_an_answer_whose_question_was_cut_is_not_learned():
    ids, learned = cut_example(np.arange(6), np.array([0, 1, 1, 0, 1, 1], dtype=bool), 2)
    assert ids.tolist() == [2, 3, 4, 5] and learned.tolist() == [False, False, True, True]


def test_a_context_that_nothing_fits_in_is_refused(dataset):
    with pytest.raises(DataError, match="No example is short enough"):
        _cursor(dataset, context=1)
