"""Parts of a chain: every window in exactly one, computed from a position alone, and free to change until begun."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data.order import Grid
from ondevice.data.parts import PartsOrder, StageText, plan_parts
from ondevice.errors import DataError, UsageError
from ondevice.run.recipe import PartRecipe, PartSource

NAMES = ("web", "wiki", "talk")


def grid_of(windows, context=4, seed=3):
    counts = np.array(windows, dtype=np.int64)
    return Grid(counts, counts * context + 1, context, seed)


def stages_of(windows, **more):
    web, wiki, talk = windows
    return [
        StageText(name="general", windows={"web": web, "wiki": wiki}, **more),
        StageText(name="talk", windows={"talk": talk}),
    ]


@settings(deadline=None, max_examples=60)
@given(
    windows=st.tuples(*[st.integers(20, 300)] * 3),
    parts=st.integers(2, 12),
    batch=st.integers(1, 7),
    safety=st.floats(1, 1.5),
)
def test_every_window_is_in_one_part_and_steps_follow_the_formula(windows, parts, batch, safety):
    planned = plan_parts(stages_of(windows), parts=parts, batch=batch, safety=safety)
    assert len(planned) == parts and [part.name for part in planned] == [f"{n:03d}" for n in range(1, parts + 1)]
    assert [part.stage for part in planned] == sorted(part.stage for part in planned)
    for name, count in zip(NAMES, windows, strict=True):
        slices = [source for part in planned for source in part.sources if source.name == name]
        assert slices[0].first == 0 and slices[-1].first + slices[-1].windows == count
        assert all(a.first + a.windows == b.first for a, b in pairwise(slices))
    for part in planned:
        own = sum(source.windows for source in part.sources)
        assert part.windows == math.ceil(safety * own / batch) * batch


@settings(deadline=None, max_examples=40)
@given(windows=st.tuples(*[st.integers(20, 120)] * 3), parts=st.integers(2, 9), seed=st.integers(0, 2**40))
def test_a_chain_reads_every_window_once_before_it_reads_any_again(windows, parts, seed):
    planned = plan_parts(stages_of(windows), parts=parts, batch=1, safety=1.0)
    order = PartsOrder(grid_of(windows, seed=seed), NAMES, planned)
    found = order.windows(np.arange(sum(windows)))
    assert (found.epochs == 0).all()
    for index, count in enumerate(windows):
        mine = found.starts[found.sources == index]
        assert sorted(mine.tolist()) == [4 * window for window in range(count)]


@settings(deadline=None, max_examples=40)
@given(position=st.integers(0, 400))
def test_a_position_is_computed_alone_and_counts_agree(position):
    planned = plan_parts(stages_of((60, 30, 50)), parts=5, batch=7, safety=1.2)
    order, other = (PartsOrder(grid_of((60, 30, 50)), NAMES, planned) for _ in range(2))
    whole, alone = order.windows(np.arange(position + 1)), other.windows(np.array([position]))
    assert (alone.sources[0], alone.starts[0], alone.epochs[0]) == (
        whole.sources[-1],
        whole.starts[-1],
        whole.epochs[-1],
    )
    assert other.counts(position).tolist() == np.bincount(whole.sources[:position], minlength=3).tolist()


def test_parts_not_begun_may_change_and_what_was_read_stays():
    planned = plan_parts(stages_of((60, 30, 50)), parts=6, batch=5, safety=1.0)
    changed = (*planned[:3], planned[5], planned[3], planned[4])
    end = sum(part.windows for part in planned[:3])
    one, two = (PartsOrder(grid_of((60, 30, 50)), NAMES, parts) for parts in (planned, changed))
    before, after = one.windows(np.arange(end)), two.windows(np.arange(end))
    assert (before.starts == after.starts).all() and (before.sources == after.sources).all()
    assert one.begun(end) == two.begun(end) == planned[:3] and one.digest(end) == two.digest(end)
    assert one.digest(end + 1) != two.digest(end + 1)
    assert one.begun(0) == () and [part.windows for part in one.begun(1)] == [1]


def test_replay_reads_what_earlier_stages_read():
    stages = [
        StageText(name="general", windows={"web": 400}),
        StageText(name="talk", windows={"talk": 200}, replay=0.25),
    ]
    planned = plan_parts(stages, parts=3, batch=1, safety=1.0)
    order = PartsOrder(grid_of((400, 0, 200)), NAMES, planned)
    late = order.windows(np.arange(400, 600)).sources
    assert (late == 0).mean() == pytest.approx(0.25, abs=0.02)


def test_slips_get_a_sentence():
    with pytest.raises(UsageError, match="too few for 2 stages"):
        plan_parts(stages_of((60, 30, 50)), parts=1, batch=1, safety=1.0)
    with pytest.raises(DataError, match="too few for"):
        plan_parts([StageText(name="small", windows={"web": 2})], parts=9, batch=1, safety=1.0)
    odd = PartRecipe(name="1", stage="x", windows=4, sources=(PartSource(name="wbe", first=0, windows=1, share=1.0),))
    with pytest.raises(UsageError, match="did you mean 'web'"):
        PartsOrder(grid_of((5, 5, 5)), NAMES, [odd])
    long = PartRecipe(name="1", stage="x", windows=4, sources=(PartSource(name="web", first=3, windows=9, share=1.0),))
    with pytest.raises(UsageError, match="reads windows 3 to 12 of 'web', which has 5"):
        PartsOrder(grid_of((5, 5, 5)), NAMES, [long])


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(0, 40), more=st.integers(0, 3), safety=st.floats(1, 2))
def test_a_part_cut_short_and_text_put_beside_it_change_nothing_before(cut, more, safety):
    stages = [
        StageText(name="general", windows={"web": 60, "wiki": 30}),
        StageText(name="talk", windows={"talk": 50}, replay=0.3),
    ]
    planned = plan_parts(stages, parts=4, batch=5, safety=safety)
    number = cut % 4
    begin = sum(part.windows for part in planned[:number])
    end = begin + min(cut, planned[number].windows)
    shorter = replace(planned[number], windows=end - begin, skipped="as asked")
    names, windows = [f"new{n}" for n in range(more)] + list(NAMES), [9] * more + [60, 30, 50]
    one = PartsOrder(grid_of((60, 30, 50)), NAMES, planned)
    two = PartsOrder(grid_of(windows), names, [*planned[:number], shorter, *planned[number + 1 :]])
    before, after = one.windows(np.arange(end)), two.windows(np.arange(end))
    assert [NAMES[index] for index in before.sources] == [names[index] for index in after.sources]
    assert (before.starts == after.starts).all() and (before.epochs == after.epochs).all()
    assert one.digest(end) == two.digest(end)
    assert [*one.counts(end)] == [*two.counts(end)][more:]


def test_a_part_that_was_left_out_is_not_read_and_the_texts_count():
    planned = plan_parts([StageText(name="all", windows={"web": 60})], parts=3, batch=5, safety=1.0)
    without = [planned[0], replace(planned[1], windows=0, skipped="dull"), planned[2]]
    order = PartsOrder(grid_of((60, 0, 0)), NAMES, without)
    assert sorted(order.windows(np.arange(40)).starts // 4) == [*range(20), *range(40, 60)]
    texts = [PartsOrder(grid_of((60, 0, 0)), NAMES, planned, texts={"web": text}) for text in "ab"]
    assert texts[0].digest(0) == texts[1].digest(0) and texts[0].digest(1) != texts[1].digest(1)
