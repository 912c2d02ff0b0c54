"""Repetition counted by hand, probes against a table of logits, and the task score."""

import math

import numpy as np
import pytest

from ondevice.errors import CheckpointError, UsageError
from ondevice.evaluate.degeneration import Tokens, degeneration, distinct, diversity, loops, rep
from ondevice.evaluate.probes import measure_probes, score_probe
from ondevice.evaluate.task import compare, judge, task_score


def test_ngrams_by_hand():
    ids = [1, 2, 3, 1, 2, 3, 1]  # 2-grams: 12 23 31 12 23 31 -> 3 of 6; 4-grams: 1231 2312 3123 1231 -> 3 of 4
    assert distinct([ids], 1) == pytest.approx(3 / 7)
    assert rep(ids, 2) == pytest.approx(0.5)
    assert rep(ids, 3) == pytest.approx(1 - 3 / 5)
    assert rep(ids, 4) == pytest.approx(0.25)
    assert diversity(ids) == pytest.approx(0.5 * 0.6 * 0.75)
    assert distinct([[1, 2], [1, 2]], 2) == 0.5  # pooled over the group
    assert (distinct([[1]], 2), rep([1], 2)) == (None, 0.0)


@pytest.mark.parametrize(
    ("ids", "k"),
    [
        ([5, 5, 5], 1),
        ([9, 8, 1, 2, 1, 2, 1, 2], 2),
        ([1, 2, 1, 2, 1], 0),
        ([5, 5], 0),
        ([*range(16)] * 3, 16),
        ([*range(17)] * 3, 0),
        ([5, 5, 5, 6], 0),  # it went on
    ],
)
def test_loops_are_three_times_the_same_at_the_end(ids, k):
    assert loops(ids) == k


def test_a_group_by_hand():
    found = degeneration(
        [
            Tokens(ids=(1, 2, 3, 1, 2, 3, 1), finish="length"),
            Tokens(ids=(4, 4, 4, 4, 4, 4), finish="length"),  # loops: rep-4 = 1 - 1/3
            Tokens(ids=(7, 7, 7), finish="stop"),  # loops, yet ended by itself
            Tokens(ids=(), finish="stop"),
        ]
    )
    assert (found.n, found.loop_rate, found.completion_rate, found.repeated_4gram_any) == (4, 0.5, 0.75, 0.5)
    assert found.repeated_4gram_ratio == pytest.approx((0.25 + 2 / 3) / 4)
    assert found.distinct_1 == pytest.approx(5 / 16)
    assert found.diversity == pytest.approx((0.5 * 0.6 * 0.75 + 0.2 * 0.25 / 3 + 0.5 + 1) / 4)
    with pytest.raises(ValueError):
        degeneration([])


def test_a_probe_by_hand():
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    probe = score_probe(logits, [1, 2])
    assert (probe.rank, probe.tokens) == (2, 2)
    assert probe.probability == pytest.approx(0.3)
    assert probe.perplexity == pytest.approx(1 / math.sqrt(0.3 * 0.8))
    with pytest.raises(CheckpointError):
        score_probe(np.array([[math.nan, 0.0]]), [0])


class Table:
    """After a token the likeliest is the same token; context 4."""

    name, context, vocab_size = "table", 4, 10

    def logits(self, ids_BT):
        assert ids_BT.shape[1] <= self.context
        return np.eye(10)[ids_BT] * 5.0


def test_a_probe_reads_the_last_part_of_a_long_prompt():
    likely = math.exp(5) / (math.exp(5) + 9)
    probes = measure_probes(Table(), [([1, 2, 3, 4, 5, 6], [6, 6]), ([1], [2]), ([3], [3, 3])], batch=2)
    assert [probe.rank for probe in probes] == [1, 2, 1] and [probe.tokens for probe in probes] == [2, 1, 2]
    assert probes[0].probability == pytest.approx(likely) == probes[2].probability
    assert probes[1].probability == pytest.approx(1 / (math.exp(5) + 9))
    with pytest.raises(UsageError, match="context"):
        measure_probes(Table(), [([1], [1] * 5)])
    with pytest.raises(UsageError, match="at least one"):
        measure_probes(Table(), [([], [1])])


EXPECTED = {"label": "bug", "urgent": True}


def judged(*answers):
    return [judge(answer, EXPECTED, labels=["label", "urgent"]) for answer in answers]


def test_answers_are_judged_strictly():
    rows = judged(
        '{"label": "bug", "urgent": true}',
        '{"label": "bug", "urgent": 1}',  # 1 is not true
        '{"label": "bug", "urgent": true, "more": 0}',
        '["bug"]',
        'Sure! {"label": "bug"}',
        "[" * 100_000,
    )
    score = task_score(rows)
    assert [round(score[name].estimate * 6) for name in ("parse", "keys", "label:label", "labels")] == [3, 2, 3, 2]
    assert score["parse"].n == 6 and score["parse"].low < 0.5 < score["parse"].high


def test_tuned_against_baseline_on_the_same_rows():
    good, bad = '{"label": "bug", "urgent": true}', "no"
    found = compare(judged(bad, bad, bad, good), judged(good, good, good, good))["labels"]
    assert (found.difference.estimate, found.p) == (0.75, 0.25)
    assert task_score([]) == {} == compare([], [])
