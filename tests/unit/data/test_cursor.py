"""The cursor: right tokens, exact resume from one number, exposure that adds up, refusals in one sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data.build import build_dataset
from ondevice.data.cursor import BatchCursor
from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig

ORDERS = ["shuffled", "sequential", "proportional"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    sizes = {"small": 3_000, "middle": 9_000, "large": 21_000, "tiny": 20}
    for number, (name, size) in enumerate(sizes.items()):
        text = "".join(chr(97 + (i * i + number) % 26) for i in range(size))
        (root / f"{name}.txt").write_text(text)
    data = DataConfig(
        sources=tuple(SourceConfig(path=f"{name}.txt", name=name) for name in sizes),
        split="tail:0.1",
        chunk_tokens=1024,
    )
    return build_dataset(data, TokenizerConfig(kind="byte"), base=root, folder=root / "d")


def _cursor(dataset, **changes):
    return BatchCursor(dataset, **{"context": 64, "batch": 12, "order": "shuffled", "seed": 5, **changes})


@pytest.mark.parametrize("order", ORDERS)
def test_batches_hold_the_tokens_of_their_windows(dataset, order):
    cursor = _cursor(dataset, order=order, context=32)
    streams = {
        i: dataset.stream(e.name, "train").read(0, e.train_tokens).tolist() for i, e in enumerate(dataset.sources)
    }
    for _ in range(60):
        batch = cursor.next()
        assert batch.x_BT.shape == batch.y_BT.shape == (12, 32) and batch.x_BT.dtype == batch.y_BT.dtype == np.int64
        assert batch.x_BT.flags.c_contiguous and batch.y_BT.flags.c_contiguous
        assert (batch.x_BT[:, 1:] == batch.y_BT[:, :-1]).all()
        for row, source in enumerate(batch.sources_B.tolist()):
            window = [*batch.x_BT[row].tolist(), int(batch.y_BT[row, -1])]
            joined = streams[source]
            assert any(joined[i : i + 33] == window for i in range(len(joined) - 32) if joined[i] == window[0])


@pytest.mark.parametrize("order", ORDERS)
def test_resuming_anywhere_gives_the_same_batches(dataset, order):
    whole = _cursor(dataset, order=order)
    batches = [whole.next() for _ in range(250)]

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 249))
    def check(steps):
        cursor = _cursor(dataset, order=order)
        state = {"v": 1, "position": steps * 12, "order_sha256": cursor.order_sha256}
        cursor.load_state_dict(state)
        assert cursor.state_dict() == state
        for expected in batches[steps : steps + 3]:
            batch = cursor.next()
            assert (batch.x_BT == expected.x_BT).all() and (batch.y_BT == expected.y_BT).all()
            assert (batch.sources_B == expected.sources_B).all()

    check()


def test_going_back_a_step_gives_it_again(dataset):
    cursor = _cursor(dataset)
    cursor.next()
    state = cursor.state_dict()
    first = cursor.next()
    cursor.load_state_dict(state)
    assert (cursor.next().x_BT == first.x_BT).all()


@pytest.mark.parametrize("order", ORDERS)
def test_exposure_is_what_was_served(dataset, order):
    cursor = _cursor(dataset, order=order)
    served = np.zeros(4, dtype=int)
    for step in range(90):
        served += np.bincount(cursor.next().sources_B, minlength=4) * 64
        if step % 40 == 0:
            assert sum(cursor.tokens_by_source().values()) == served.sum()
    names = [entry.name for entry in dataset.sources]
    assert cursor.tokens_by_source() == dict(zip(names, served.tolist(), strict=True))
    assert sum(cursor.tokens_by_source(500 * 12).values()) == 500 * 12 * 64
    assert cursor.epochs == pytest.approx(90 * 12 / cursor.windows_per_epoch)
    assert cursor.tokens_by_source()["tiny"] == 0  # too short for one window


def test_an_epoch_covers_every_window(dataset):
    cursor = _cursor(dataset, batch=1)
    rows = {(cursor.next().x_BT.tobytes(), i)[0] for i in range(cursor.windows_per_epoch)}
    windows = sum((entry.train_tokens - 1) // 64 for entry in dataset.sources)
    assert cursor.windows_per_epoch == windows and int(cursor.epochs) == 1 and len(rows) > windows // 30


def test_unique_tokens_are_capped_in_proportion(dataset):
    cursor = _cursor(dataset, batch=1, context=16, max_unique_tokens=4_000)
    assert cursor.windows_per_epoch == 250
    exposure = cursor.tokens_by_source(250)
    shares = {entry.name: entry.train_tokens for entry in dataset.sources}
    for name in ("small", "middle", "large"):
        assert abs(exposure[name] / 4_000 - shares[name] / sum(shares.values())) < 0.01
    # Later epochs stay inside the same tokens.
    limits = {name: tokens + 1 for name, tokens in exposure.items()}
    windows = cursor._order.windows(np.arange(2_000))
    for index, entry in enumerate(dataset.sources):
        mine = windows.starts[windows.sources == index]
        assert not len(mine) or mine.max() + 17 <= limits[entry.name]
    with pytest.raises(DataError, match="less than one window"):
        _cursor(dataset, max_unique_tokens=63)
    assert _cursor(dataset, max_unique_tokens=10**9).windows_per_epoch == _cursor(dataset).windows_per_epoch


def test_weights_change_the_mix(dataset):
    plain = _cursor(dataset, order="proportional").tokens_by_source(10_000)
    heavy = _cursor(dataset, order="proportional", weights={"small": 4.0}).tokens_by_source(10_000)
    ratio = (heavy["small"] / heavy["large"]) / (plain["small"] / plain["large"])
    assert abs(ratio - 4) < 0.05
    with pytest.raises(UsageError, match="did you mean 'small'"):
        _cursor(dataset, weights={"smal": 1.0})
    with pytest.raises(UsageError, match="above 0"):
        _cursor(dataset, weights={"small": 0.0})


def test_the_identity_covers_what_decides_the_order(dataset):
    base = _cursor(dataset).order_sha256
    assert _cursor(dataset, batch=3).order_sha256 == base
    changes = [
        {"seed": 6},
        {"context": 65},
        {"order": "sequential"},
        {"weights": {"small": 2.0}},
        {"max_unique_tokens": 5_000},
    ]
    assert len({base, *(_cursor(dataset, **change).order_sha256 for change in changes)}) == 6


def test_foreign_states_are_refused(dataset):
    cursor = _cursor(dataset)
    state = cursor.state_dict()
    with pytest.raises(CheckpointError, match="another order"):
        cursor.load_state_dict({**state, "order_sha256": "0"})
    with pytest.raises(CheckpointError, match="update ondevice"):
        cursor.load_state_dict({**state, "v": 2})
    for position in (-1, None, 1.5):
        with pytest.raises(CheckpointError, match="no valid position"):
            cursor.load_state_dict({**state, "position": position})


def test_a_corpus_smaller_than_one_block_is_refused(dataset):
    with pytest.raises(DataError, match="smaller than one block"):
        _cursor(dataset, context=100_000)
