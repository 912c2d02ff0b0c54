"""Stages: lengths that sum to the training, shares with replay, and a sentence for every slip."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ondevice.data.mixture import Blend
from ondevice.data.stages import plan_stages
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import StageConfig

BLEND = Blend(names=("web", "wiki", "talk", "poems"), weights=(1, 1, 1, 1), groups=("general", "general", "", ""))
WINDOWS = np.array([300, 100, 100, 0])
GENERAL, TALK = StageConfig(name="one", groups=("general",)), StageConfig(name="two", groups=("talk",))


def test_lengths_follow_the_tokens_unless_a_share_is_given():
    assert [stage.windows for stage in plan_stages([GENERAL, TALK], BLEND, WINDOWS, 1000)] == [800, 200]
    half = StageConfig(name="two", groups=("talk",), share=0.5)
    assert [stage.windows for stage in plan_stages([GENERAL, half], BLEND, WINDOWS, 1000)] == [500, 500]


def test_replay_reads_the_groups_of_all_stages_before():
    third = StageConfig(name="three", groups=("poems",), replay=0.2)
    general, _, poems = plan_stages([GENERAL, TALK, third], BLEND, np.array([300, 100, 100, 10]), 1000)
    assert general.shares == pytest.approx({"web": 0.75, "wiki": 0.25})
    assert poems.shares == pytest.approx({"web": 0.12, "wiki": 0.04, "talk": 0.04, "poems": 0.8})


@example(shares=[0.25, None, None], total=6, windows=[1, 1, 4])  # the second one's end is rounded onto the first's
@given(
    shares=st.lists(st.one_of(st.none(), st.floats(0.01, 0.3)), min_size=1, max_size=3),
    total=st.integers(3, 10**7),
    windows=st.lists(st.integers(1, 10**6), min_size=3, max_size=3),
)
def test_lengths_sum_to_the_whole_and_no_stage_is_empty(shares, total, windows):
    blend = Blend(names=("a", "b", "c"), weights=(1, 1, 1))
    stages = [StageConfig(name=name, groups=(name,), share=share) for name, share in zip("abc", shares, strict=False)]
    lengths = [stage.windows for stage in plan_stages(stages, blend, np.array(windows), total)]
    assert sum(lengths) == total and min(lengths) >= 1


@pytest.mark.parametrize(
    ("stages", "kind", "words"),
    [
        ([], UsageError, "needs"),
        ([GENERAL, GENERAL], UsageError, "two stages are called 'one'"),
        ([GENERAL, StageConfig(name="two", groups=("genral",))], UsageError, "did you mean 'general'"),
        ([GENERAL, StageConfig(name="two", groups=("general",))], UsageError, "in 'one' and in 'two'"),
        ([GENERAL, StageConfig(name="two", groups=("poems",))], DataError, "no text for a whole window"),
        ([StageConfig(name="one", groups=("general",), replay=0.1)], UsageError, "nothing before it"),
        ([GENERAL, StageConfig(name="two", groups=())], UsageError, "name the groups"),
        ([StageConfig(name="one", groups=("general",), share=1.0), TALK], UsageError, "leave something"),
    ],
)
def test_slips_get_a_sentence(stages, kind, words):
    with pytest.raises(kind, match=words):
        plan_stages(stages, BLEND, WINDOWS, 100)
    with pytest.raises(DataError, match="2 stages, but only 1 windows"):
        plan_stages([GENERAL, TALK], BLEND, WINDOWS, 1)
