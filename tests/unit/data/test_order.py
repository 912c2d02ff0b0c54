"""Orders: every window once an epoch, the right shares in any prefix, any position computed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data import mixture
from ondevice.data.mixture import Blend
from ondevice.data.order import Grid
from ondevice.data.permutation import permute
from ondevice.errors import UsageError
from ondevice.run.recipe import StageRecipe

SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any)
SEEDS = st.integers(0, 2**70)


def _grid(windows, context=8, seed=1, slack=3):
    windows = np.array(windows, dtype=np.int64)
    return Grid(windows, windows * context + 1 + slack, context, seed)


def make_order(policy, grid, weights, **more):
    names = more.pop("names", tuple(f"s{index}" for index in range(len(grid.windows))))
    return mixture.make_order(policy, grid, Blend(names=names, weights=tuple(weights), **more))


def _shares(order, sources, start, length):
    return np.bincount(order.windows(np.arange(start, start + length)).sources, minlength=sources) / length


def _keys(count, key):
    return np.full(count, key, dtype=np.uint64)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_the_permutation_is_a_bijection(size, key):
    out = permute(np.arange(size), np.full(size, size), _keys(size, key))
    assert sorted(out.tolist()) == list(range(size))


def test_the_permutation_scatters_and_depends_on_its_key():
    size = 10_000
    one = permute(np.arange(size), np.full(size, size), _keys(size, 1))
    two = permute(np.arange(size), np.full(size, size), _keys(size, 2))
    assert (one == two).mean() < 0.01 and (one == np.arange(size)).mean() < 0.01
    assert abs(np.corrcoef(np.arange(size), one)[0, 1]) < 0.05
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.05
    # The first tenth of an epoch looks into every tenth of the windows.
    assert np.bincount(one[:1000] * 10 // size, minlength=10).min() > 60


def test_the_permutation_of_a_trillion_is_computed_alone():
    size = 10**12
    at = np.array([0, 1, 10**11, size - 1])
    out = permute(at, np.full(4, size), _keys(4, 7))
    assert len(set(out.tolist())) == 4 and (out >= 0).all() and (out < size).all()
    assert permute(at[2:3], np.array([size]), _keys(1, 7))[0] == out[2]


@pytest.mark.parametrize("policy", ["shuffled", "sequential"])
@settings(deadline=None, max_examples=40)
@given(sizes=SIZES, seed=SEEDS)
def test_each_epoch_visits_every_window_once(policy, sizes, seed):
    grid = _grid(sizes, seed=seed)
    order = make_order(policy, grid, [1.0] * len(sizes))
    for epoch in (0, 1, 7):
        windows = order.windows(np.arange(grid.total) + epoch * grid.total)
        assert (windows.epochs == epoch).all()
        places = np.maximum(windows.starts, 0) // grid.context
        for source, count in enumerate(sizes):
            mine = windows.starts[windows.sources == source]
            assert len(mine) == len(set(mine.tolist())) == count
            assert count == 0 or (mine.min() >= 0 and mine.max() + grid.context + 1 <= grid.reach[source])
        if epoch == 0:
            assert sorted(zip(windows.sources.tolist(), places.tolist(), strict=True)) == [
                (source, i) for source, count in enumerate(sizes) for i in range(count)
            ]


def test_sequential_is_in_order():
    windows = make_order("sequential", _grid([2, 3]), [1, 1]).windows(np.arange(5))
    assert windows.sources.tolist() == [0, 0, 1, 1, 1] and windows.starts.tolist() == [0, 8, 0, 8, 16]


def test_cut_points_differ_between_epochs():
    grid = _grid([50], context=16, slack=15)
    starts = [grid.starts(np.array([0]), np.array([10]), np.array([e]))[0] % 16 for e in range(40)]
    assert starts[0] == 0 and len(set(starts)) > 10


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    weights=st.lists(st.floats(0.1, 10), min_size=6, max_size=6),
    stretch=st.tuples(st.integers(0, 200_000), st.integers(1, 5_000)),
)
def test_proportional_keeps_the_shares_in_any_stretch(sizes, weights, stretch):
    order = make_order("proportional", _grid(sizes), weights[: len(sizes)])
    start, length = stretch
    counts = np.bincount(order.windows(np.arange(start, start + length)).sources, minlength=len(sizes))
    shares = np.array(sizes) * weights[: len(sizes)]
    expected = shares / shares.sum() * length
    assert np.abs(counts - expected).max() <= 2 * len(sizes) + 2 + length * len(sizes) / 65_536


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.2, 5), min_size=4, max_size=4),
)
def test_proportional_visits_every_window_of_a_source_before_any_twice(sizes, weights):
    grid = _grid(sizes)
    windows = make_order("proportional", grid, weights[: len(sizes)]).windows(np.arange(grid.total * 4))
    for source, count in enumerate(sizes):
        mine = windows.sources == source
        starts, epochs = windows.starts[mine], windows.epochs[mine]
        assert epochs.tolist() == (np.arange(len(epochs)) // count).tolist()
        assert all(len(set(starts[epochs == e].tolist())) == (epochs == e).sum() for e in set(epochs.tolist()))


@pytest.mark.parametrize("policy", ["shuffled", "sequential", "proportional"])
@settings(deadline=None, max_examples=30)
@given(sizes=SIZES, seed=SEEDS, position=st.integers(0, 400))
def test_a_position_is_computed_alone_and_counts_agree(policy, sizes, seed, position):
    order = make_order(policy, _grid(sizes, seed=seed), [1.0, 2.0, 0.5, 1.0, 3.0, 1.0][: len(sizes)])
    whole = order.windows(np.arange(position + 1))
    alone = order.windows(np.array([position]))
    assert (alone.sources[0], alone.starts[0], alone.epochs[0]) == (
        whole.sources[position],
        whole.starts[position],
        whole.epochs[position],
    )
    counts = np.bincount(whole.sources[:position], minlength=len(sizes))
    assert order.counts(position).tolist() == counts.tolist()


def test_alphabetical_stands_in_line_by_name_whatever_the_config_says():
    order = make_order("alphabetical", _grid([2, 1, 3]), [1, 1, 1], names=("perl", "Agda", "c"))
    assert order.windows(np.arange(8)).sources.tolist() == [1, 2, 2, 2, 0, 0, 1, 2]
    assert order.counts(7).tolist() == [2, 2, 3]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("proportional", [3 * 900, 300, 300]),
        ("weighted", [3, 1, 1]),
        ("interleaved", [1, 1, 1]),
        ("source_balanced", [3 * 900 / 3000, 300 / 3000, 1]),
    ],
)
@settings(deadline=None, max_examples=15)
@given(start=st.integers(0, 10**6), length=st.integers(500, 4000))
def test_shares_are_within_binomial_tolerance_in_any_stretch(policy, expected, start, length):
    order = make_order(policy, _grid([900, 300, 300]), [3, 1, 1], groups=("web", "web", "wiki"))
    wanted = np.array(expected) / sum(expected)
    found = _shares(order, 3, start, length)
    assert (np.abs(found - wanted) <= 2 * np.sqrt(wanted * (1 - wanted) / length) + 4 / length).all()


def test_temperature_makes_sources_more_equal():
    plain = _shares(make_order("proportional", _grid([900, 100]), [1, 1]), 2, 0, 10_000)
    warm = _shares(make_order("proportional", _grid([900, 100]), [1, 1], temperature=2.0), 2, 0, 10_000)
    assert plain == pytest.approx([0.9, 0.1], abs=1e-3) and warm == pytest.approx([0.75, 0.25], abs=1e-3)


def test_interleaved_sources_take_turns():
    sources = make_order("interleaved", _grid([50, 9, 70]), [1, 1, 1]).windows(np.arange(30)).sources.tolist()
    assert all(len(set(sources[at : at + 3])) == 3 for at in range(0, 30, 3))


GOLDEN = (
    ("shuffled", [2, 0, 0, 0, 2, 2, 0, 2], [27731, 6645, 4149, 8773, 30451, 17827, 4421, 29059]),
    ("sequential", [0, 0, 0, 0, 0, 0, 0, 0], [2677, 2693, 2709, 2725, 2741, 2757, 2773, 2789]),
    ("proportional", [2, 0, 2, 0, 2, 0, 0, 1], [19040, 1704, 23648, 8968, 17696, 4584, 4360, 330]),
)

STAGES = (
    StageRecipe(name="general", windows=40, shares={"a": 2.0, "b": 1.0}),
    StageRecipe(name="talk", windows=30, shares={"c": 0.9, "a": 0.1}),
    StageRecipe(name="special", windows=20, shares={"d": 1.0}),
)


def test_stages_read_their_own_sources_and_a_source_that_comes_again_goes_on():
    grid = _grid([20, 50, 60, 5])
    order = make_order("staged", grid, [1] * 4, names=("a", "b", "c", "d"), stages=STAGES)
    windows = order.windows(np.arange(120))
    assert set(windows.sources[:40].tolist()) == {0, 1} and set(windows.sources[40:70].tolist()) == {0, 2}
    assert set(windows.sources[70:].tolist()) == {3}  # the last stage goes on for ever
    first = [window for window, source in zip(windows.starts[:70], windows.sources[:70], strict=True) if source == 0]
    served = len(first)
    assert served == 27 + 3 and len(set(first[:20])) == 20  # every window of its first epoch before any comes twice
    assert windows.epochs[windows.sources == 0].tolist() == (np.arange(served) // 20).tolist()


@settings(deadline=None, max_examples=40)
@given(position=st.integers(0, 200))
def test_a_staged_position_is_computed_alone_and_counts_agree(position):
    order = make_order("staged", _grid([20, 50, 60, 5]), [1] * 4, names=("a", "b", "c", "d"), stages=STAGES)
    whole, alone = order.windows(np.arange(position + 1)), order.windows(np.array([position]))
    assert (alone.sources[0], alone.starts[0]) == (whole.sources[position], whole.starts[position])
    assert order.counts(position).tolist() == np.bincount(whole.sources[:position], minlength=4).tolist()


def test_the_order_of_earlier_programs_is_still_the_same():
    """Recorded before mixtures had stages: a run that was begun then must read on where it was."""
    grid = Grid(np.array([700, 33, 2100]), np.array([700, 33, 2100]) * 16 + 5, 16, 12345)
    for policy, sources, starts in GOLDEN:
        windows = make_order(policy, grid, [1.0, 4.5, 0.25]).windows(np.arange(3000, 3008))
        assert (windows.sources.tolist(), windows.starts.tolist()) == (sources, starts), policy


def test_seeds_give_different_orders():
    for policy in ("shuffled", "proportional"):
        one, two = (make_order(policy, _grid([500, 300], seed=s), [1, 1]).windows(np.arange(200)) for s in (1, 2))
        assert (one.starts != two.starts).mean() > 0.9


def test_an_unknown_policy_is_refused():
    with pytest.raises(UsageError, match="did you mean 'shuffled'"):
        make_order("shufled", _grid([3]), [1])
