"""What seeds say together: hand-made curves with known answers, scipy as the oracle of intervals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from ondevice.evaluate.intervals import effect_size, paired_difference
from ondevice.run.recipe import VocabularyRecipe
from ondevice.study.anova import repeated_measures
from ondevice.study.results import results_of
from ondevice.study.story import Interval, Story, loss_at

NOISE = {1: (0.0, 0.01, -0.02, 0.015), 2: (0.01, -0.01, 0.02, -0.02), 3: (-0.01, 0.02, 0.0, 0.01)}
OVER = (5.0, 3.0, 3.4, 3.9)
FALLING = (5.0, 3.0, 2.6, 2.4)


def story(losses, *, seed=None, trained=None, tokens=1000, first=0, quality=None):
    noise = NOISE.get(seed, (0.0,) * len(losses))
    intervals = tuple(
        Interval(
            step=first + 10 * k,
            tokens=first * 100 + tokens * k,
            losses={"": loss + noise[k], "en": loss + noise[k] - 0.5, "it": loss + noise[k] + 0.5},
            trained=trained[k] if trained else {"en": 500.0 * k, "it": 500.0 * k},
            epochs={"en": 2.0, "it": 1.0},
        )
        for k, loss in enumerate(losses)
    )
    return Story(intervals=intervals, worked_s=30.0, quality=quality or {})


def arms(**curves):
    return {name: {seed: story(losses, seed=seed) for seed in NOISE} for name, losses in curves.items()}


def test_the_over_trained_arm_is_best_early_and_surely_worse_at_its_end():
    found = results_of(arms(over=OVER, falling=FALLING), reference=None, planned=3)
    over, falling = found["arms"]["over"], found["arms"]["falling"]
    assert (over["best"]["interval"], over["end"]["interval"], over["tokens_after_best"]) == (1, 3, 2000)
    assert over["end_minus_best"]["surely"] and over["end_minus_best"]["estimate"] == pytest.approx(0.9, abs=0.05)
    assert falling["best"]["interval"] == 3 and falling["tokens_after_best"] == 0
    assert not falling["end_minus_best"]["surely"]
    assert over["cost"]["after_best_s"] == pytest.approx(20.0)
    assert over["exposure"]["unique_tokens"] == 750 + 1500
    assert found["cannot"] == []


def test_spread_perplexity_and_anova_are_those_of_the_table():
    found = results_of(arms(over=OVER), reference=None, planned=3)["arms"]["over"]
    table = np.array([[loss + NOISE[seed][k] for k, loss in enumerate(OVER)] for seed in NOISE])
    assert [each["mean"] for each in found["loss"][""]] == pytest.approx(table.mean(axis=0))
    assert [each["standard_deviation"] for each in found["loss"][""]] == pytest.approx(table.std(axis=0, ddof=1))
    assert found["perplexity"] == pytest.approx(np.exp(table).mean(axis=0))
    assert found["anova"] == repeated_measures(table).to_json()
    assert found["anova"]["partial_eta_squared"] > 0.99


def test_arms_are_compared_in_pairs_of_seeds_at_an_adjusted_level():
    found = results_of(arms(a=OVER, b=FALLING, c=FALLING), reference="b", planned=3)
    assert [(each["first"], each["second"]) for each in found["comparisons"]] == [("b", "a"), ("b", "c")]
    assert found["level"] == pytest.approx(1 - 0.05 / 2)
    same = found["comparisons"][1]["loss"][""]
    assert (same["estimate"], same["surely"], same["effect_size"]) == (0.0, False, None)
    assert found["comparisons"][0]["loss"]["en"]["estimate"] == pytest.approx(1.5)


def test_losses_over_different_tokens_are_told_once():
    done = arms(whole=FALLING, trimmed=FALLING, other=OVER)
    kept = {"trimmed": VocabularyRecipe(kept=278, sha256="aa"), "other": VocabularyRecipe(kept=300, sha256="bb")}
    for name, vocabulary in kept.items():
        done[name] = {seed: dataclasses.replace(each, vocabulary=vocabulary) for seed, each in done[name].items()}
    said = results_of(done, reference=None, planned=3)["cannot"]
    assert said == [
        "The arms' losses are over different tokens (model.vocabulary; whole: all; trimmed, other: those each keeps), "
        "so their differences do not say which learned more; `ondevice eval` measures each over all."
    ]
    assert "over different tokens" in results_of({**done, "whole": {}}, reference=None, planned=3)["cannot"][-1]
    assert results_of({"trimmed": done["trimmed"]}, reference=None, planned=3)["cannot"] == []


def test_paired_interval_is_students():
    values = [0.3, 0.5, 0.2, 0.45]
    found = paired_difference(values, level=0.99)
    oracle = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.99)
    assert (found["low"], found["high"]) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
    factor = math.gamma(3 / 2) / (math.sqrt(3 / 2) * math.gamma(1.0))  # Hedges 1981, three degrees of freedom
    assert found["effect_size"] == pytest.approx(factor * np.mean(values) / np.std(values, ddof=1))


def test_the_effect_size_has_no_bias_and_two_seeds_have_none():
    """Of three normal differences with a true effect of 1 the mean estimate is 1; Cohen's d would be 1.77."""
    draws = np.random.default_rng(3).normal(1.0, 1.0, (40_000, 3))
    sizes = 0.5641895835 * draws.mean(axis=1) / draws.std(axis=1, ddof=1)
    assert np.mean(sizes) == pytest.approx(1.0, abs=0.05)
    assert effect_size(draws[0].tolist()) == pytest.approx(sizes[0])
    assert effect_size([0.3, 0.5]) is None and effect_size([0.3, 0.3, 0.3]) is None
    assert paired_difference([0.3, 0.5])["low"] is not None


def test_two_seeds_say_that_there_is_no_effect_size():
    done = {name: {seed: stories[seed] for seed in (1, 2)} for name, stories in arms(a=OVER, b=FALLING).items()}
    found = results_of(done, reference=None, planned=2)
    assert any(sentence.startswith("Two seeds:") and "three or more" in sentence for sentence in found["cannot"])
    assert found["comparisons"][0]["loss"][""]["effect_size"] is None


def test_one_seed_says_what_cannot_be_computed():
    done = {name: {1: stories[1]} for name, stories in arms(a=OVER, b=FALLING).items()}
    found = results_of(done, reference=None, planned=1)
    assert any("one seed" in sentence and "analysis of variance" in sentence for sentence in found["cannot"])
    assert "skipped" in found["arms"]["a"]["anova"]
    only = found["comparisons"][0]["loss"][""]
    assert only["estimate"] == pytest.approx(FALLING[-1] - OVER[-1])
    assert (only["low"], only["effect_size"], only["surely"]) == (None, None, False)
    assert found["arms"]["a"]["loss"][""][0]["standard_deviation"] is None


def test_a_missing_seed_is_named_and_the_others_count():
    done = arms(a=OVER, b=FALLING)
    del done["b"][3]
    found = results_of(done, reference=None, planned=3)
    assert found["cannot"][0] == "b: 2 of 3 seeds are finished; figures are of these."
    assert found["comparisons"][0]["seeds"] == [1, 2]


def test_a_tail_and_its_control_are_compared_whatever_the_reference():
    done = arms(trunk=FALLING, tail=FALLING, control=OVER)
    found = results_of(done, reference="trunk", planned=3, tails=[("control", "tail")])
    assert [(each["first"], each["second"]) for each in found["comparisons"]] == [
        ("control", "tail"),
        ("trunk", "tail"),
        ("trunk", "control"),
    ]


def test_a_fork_from_the_end_is_not_compared_with_its_parent():
    done = arms(trunk=(5.0, 3.0)) | {
        name: {seed: story(losses, seed=seed, first=10) for seed in NOISE}
        for name, losses in (("tail", (3.0, 2.5)), ("control", (3.0, 2.8)))
    }
    found = results_of(done, reference="trunk", planned=3, tails=[("control", "tail")])
    assert [(each["first"], each["second"]) for each in found["comparisons"]] == [("control", "tail")]
    assert found["level"] == 0.95


def test_losses_between_evaluations_lie_on_a_line():
    intervals = story((4.0, 3.0, 2.0)).intervals
    assert loss_at(intervals, 1000, "") == 3.0
    assert loss_at(intervals, 1500, "") == pytest.approx(2.5)
    assert loss_at(intervals, 2001, "") is None


def test_shorter_arms_are_compared_where_both_have_been():
    done = arms(long=FALLING) | {"short": {seed: story((5.0, 4.0), seed=seed, tokens=1500) for seed in NOISE}}
    found = results_of(done, reference=None, planned=3)["comparisons"][0]
    assert (found["tokens"], found["interpolated"]) == (1500, True)
    assert found["loss"][""]["estimate"] == pytest.approx(4.0 - 2.8, abs=0.03)


def test_quality_and_loss_may_name_different_steps():
    quality = {10: {"": 60.0, "en": 60.0}, 20: {"": 52.0, "en": 52.0}}
    done = {"a": {seed: story((5.0, 3.0, 2.5), seed=seed, quality=quality) for seed in NOISE}}
    found = results_of(done, reference=None, planned=3)["arms"]["a"]["quality"]
    assert set(found["best_steps"].values()) == {10}
    assert set(found["lowest_loss_steps"].values()) == {20}
    assert found["best_minus_lowest_loss"]["estimate"] == pytest.approx(8.0)


# Early and late


def staged(first, second, *, late_loss=0.0, seed=1):
    """Two sources, one after the other; the second's loss is better at the end by ``late_loss``."""
    trained = [{first: 0.0, second: 0.0}, {first: 1000.0, second: 0.0}, {first: 1000.0, second: 1000.0}]
    losses = [{first: 5.0, second: 5.0}, {first: 3.0, second: 4.5}, {first: 3.4, second: 3.0 - late_loss}]
    return Story(
        intervals=tuple(
            Interval(
                step=10 * k,
                tokens=1000 * k,
                losses={"": sum(losses[k].values()) / 2}
                | {name: value + 0.01 * seed for name, value in losses[k].items()},
                trained=trained[k],
                epochs={first: 1.0, second: 1.0},
            )
            for k in range(3)
        )
    )


def test_order_effects_find_recency_and_the_gap():
    done = {
        "staged": {seed: staged("a", "b", late_loss=0.1 * seed, seed=seed) for seed in (1, 2, 3)},
        "mixed": {
            seed: story(
                (5.0, 4.0, 3.2),
                seed=seed,
                trained=[{"en": 0.0, "it": 0.0}] + [{"en": 500.0 * k, "it": 500.0 * k} for k in (1, 2)],
            )
            for seed in (1, 2, 3)
        },
    }
    found = results_of(done, reference=None, planned=3)["order_effects"]
    assert (found["staged"]["early"], found["staged"]["late"]) == (["a"], ["b"])
    assert found["staged"]["centres"] == pytest.approx({"a": 0.25, "b": 0.75})
    gap = found["staged"]["gap"]["end"]
    assert gap["estimate"] == pytest.approx(3.0 - 3.4 - 0.2) and gap["high"] < 0  # what was read last is ahead
    sources = found["staged"]["recency"]["sources"]
    assert sources["a"]["since_read"] == pytest.approx(0.5) and sources["b"]["since_read"] == 0.0
    assert sources["a"]["forgotten"]["estimate"] == pytest.approx(0.4)
    slope = found["staged"]["recency"]["nats_forgotten_over_whole_training"]
    assert slope["estimate"] == pytest.approx(0.8)
    assert found["mixed"]["early"] is None and found["mixed"]["gap"] is None


def test_the_reference_takes_out_how_hard_a_source_is():
    def harder(seed):
        plain = staged("a", "b", seed=seed)
        evenly = [{"a": 0.0, "b": 0.0}, {"a": 500.0, "b": 500.0}, {"a": 1000.0, "b": 1000.0}]
        return Story(
            intervals=tuple(
                Interval(step=each.step, tokens=each.tokens, losses=each.losses, trained=row, epochs=each.epochs)
                for each, row in zip(plain.intervals, evenly, strict=True)
            )
        )

    done = {"staged": {s: staged("a", "b", seed=s) for s in (1, 2)}, "even": {s: harder(s) for s in (1, 2)}}
    found = results_of(done, reference="even", planned=2)["order_effects"]["staged"]
    assert found["against_reference"] and found["gap"]["end"]["estimate"] == pytest.approx(0.0, abs=1e-12)
    assert not any(math.isnan(value) for value in found["gap"]["curve"])


def test_a_source_that_is_never_read_is_neither_early_nor_late():
    done = {"only": {s: staged("a", "b", seed=s) for s in (1, 2, 3)}}
    unread = [{"a": 1000.0 * k, "b": 1000.0 * k, "outside": 0.0} for k in range(3)]
    done["even"] = {s: story((5.0, 4.0, 3.0), seed=s, trained=unread) for s in (1, 2, 3)}
    for each in done["even"].values():
        for interval in each.intervals:
            interval.losses.update({"a": 3.0, "b": 3.0, "outside": 6.0})
    found = results_of(done, reference=None, planned=3)["order_effects"]["even"]
    assert set(found["centres"]) == {"a", "b"}
    assert found["gap"] is None and set(found["recency"]["sources"]) == {"a", "b"}


def test_a_fork_is_held_against_its_reference_at_equal_tokens_or_not_at_all():
    def shifted(plain, tokens):
        return Story(
            intervals=tuple(
                Interval(
                    step=each.step + tokens // 100,
                    tokens=each.tokens + tokens,
                    losses={name: loss - 1.0 for name, loss in each.losses.items()},
                    trained=each.trained,
                    epochs=each.epochs,
                )
                for each in plain.intervals
            )
        )

    long = {
        seed: Story(
            intervals=(
                *staged("a", "b", seed=seed).intervals,
                *shifted(staged("a", "b", seed=seed), 4000).intervals,
            )
        )
        for seed in (1, 2, 3)
    }
    done = {
        "trunk": long,
        "inside": {seed: shifted(staged("a", "b", seed=seed), 4000) for seed in long},
        "beyond": {seed: shifted(staged("a", "b", seed=seed), 6000) for seed in long},
    }
    found = results_of(done, reference="trunk", planned=3)["order_effects"]
    assert found["inside"]["against_reference"] and found["inside"]["gap"]["curve"] == pytest.approx([0.0] * 3)
    assert not found["beyond"]["against_reference"] and found["beyond"]["gap"]["end"]["estimate"] < 0
