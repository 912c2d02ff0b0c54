"""A study's page answers its question first: over-training, orders, forgetting, best text, and what cannot be said."""

from __future__ import annotations

import pytest

from ondevice.report.findings import findings
from ondevice.report.html import page_html
from ondevice.report.page import Page, Paragraph, Table
from ondevice.report.study_orders import orders
from ondevice.report.study_page import study_page
from ondevice.run.studies import StudyDir
from ondevice.study.results import results_of
from ondevice.study.story import Interval, Story

NOISE = {1: 0.01, 2: -0.01, 3: 0.005}
ARM = {"from": None, "at_tokens": None, "tokens": None, "tail": None, "order": "shuffled", "changes": []}


def story(sources, seed, *, wobble=1.0, epochs=1.0, **judged):
    """``sources``: losses at five evaluations and the tokens read by each."""
    intervals = []
    for k in range(5):
        losses = {name: curve[k] + wobble * NOISE[seed] * k for name, (curve, _) in sources.items()}
        intervals.append(
            Interval(
                step=10 * k,
                tokens=200_000 * k,
                losses={"": sum(losses.values()) / len(losses), **losses},
                trained={name: 1000.0 * read[k] for name, (_, read) in sources.items()},
                epochs=dict.fromkeys(sources, epochs),
            )
        )
    return Story(intervals=tuple(intervals), worked_s=100.0, **judged)


def results(arms, *, reference, seeds=(1, 2, 3)):
    """``arms``: sources, and what else a story of a seed has."""
    done = {
        name: {seed: story(sources, seed, wobble=place, **more) for seed in seeds}
        for place, (name, (sources, more)) in enumerate(arms.items(), 1)
    }
    return results_of(done, reference=reference, planned=len(seeds))


ALL, FIRST, LAST = (0, 1, 2, 3, 4), (0, 2, 4, 4, 4), (0, 0, 0, 2, 4)
FALLING = (6.0, 5.0, 4.5, 4.2, 4.0)
CAPPED = {"capped": ({"text": ((6.0, 4.6, 4.9, 5.3, 5.8), ALL)}, {"epochs": 15.0})}
UNIQUE = {**CAPPED, "uncapped": ({"text": (FALLING, ALL)}, {})}
EARLY, LATE = (6.0, 4.0, 3.5, 4.4, 5.0), (6.0, 5.9, 5.8, 4.2, 3.6)
STAGES = {
    "general-first": ({"general.general": (EARLY, FIRST), "special": (LATE, LAST)}, {}),
    "special-first": ({"general.general": (LATE, LAST), "special": (EARLY, FIRST)}, {}),
}


def test_over_training_is_the_first_sentence_with_cost_and_advice():
    found = findings(results(UNIQUE, reference="uncapped"), reference="uncapped")
    assert found[0].startswith("capped: lowest (4.602) at 0.20 M tokens, then surely up by 1.20")
    assert "0.60 M tokens, 75 % of the training, came after it and cost 1 min 15 s a run" in found[0]
    assert "over-trained, rising while read again: text (read 15.0 times, +1.20" in found[0]
    assert found[0].endswith("Every seed was lowest at 0.20 M.") and "Stop earlier" in found[0]
    assert found[1].startswith("capped is 1.793 nats higher than uncapped at 0.8 M tokens")
    assert "Still lowest at the end, so that more training may help: uncapped." in found
    assert found[-1].startswith("Losses are in nats")


def test_stages_say_which_order_is_lower_and_what_was_forgotten():
    found = findings(results(STAGES, reference="general-first"), reference="general-first")
    forgotten = [text for text in found if "forgotten, rising after the last reading: " in text]
    assert [text.partition(":")[0] for text in forgotten] == ["general-first", "special-first"]
    assert "general (+1.5" in forgotten[0] and "general.general" not in " ".join(
        found
    )  # a folder named as its language
    assert any(
        text.startswith(
            "special-first: sources read late (general) end better against those read early (special) than in"
        )
        for text in found
    )
    assert any("do not surely differ" in text for text in found)
    page = Page("t")
    orders(page, results(STAGES, reference="general-first")["order_effects"])
    table = next(block for block in page.blocks if isinstance(block, Table))
    assert table.rows[0][:2] == ("general-first", "general") and table.rows[0][3] == "50 %"


@pytest.mark.parametrize("diverged", [None, {"best": 20, "worse": 40, "loss_change": -0.19, "quality_change": -0.12}])
def test_the_lowest_loss_is_held_against_the_best_text(diverged):
    judged = {
        "quality": {20: {"": 60.0, "text": 60.0}, 40: {"": 50.0, "text": 50.0}},
        "components": {"text": {"n": 64.0, "parses": 0.5, "code_tokens": 12.0, "score": 50.0}},
        "diverged": diverged,
    }
    found = results({"mixed": ({"text": (FALLING, ALL)}, judged)}, reference=None)
    told = findings(found, reference=None)
    assert told[1].startswith("Lowest loss and best text are the same checkpoint in 0 of 3 runs")
    assert told[1].endswith("the best text came before in 3 and after in 0.")
    said = " ".join(told)
    assert ("mixed-1 (step 40 against 20: loss -19 %, score -12 %)" in said) == (diverged is not None)
    assert ("In no run did a loss" in said) == (diverged is None)
    assert found["arms"]["mixed"]["quality"]["components"]["text"]["n"] == 64.0


def test_one_seed_and_no_seed_say_so():
    one = findings(results(UNIQUE, reference="uncapped", seeds=(1,)), reference="uncapped")
    assert any("of one seed this may be chance" in text for text in one)
    staged = findings(results(STAGES, reference="general-first", seeds=(1,)), reference="general-first")
    assert any("late (general) - early (special) against general-first -2.8" in text for text in staged)
    assert not any("surely" in text for text in one)
    assert findings(results_of({"capped": {}, "uncapped": {}}, reference=None, planned=3), reference=None) == []


def test_many_pairs_are_counted():
    arms = {f"a{k}": ({"text": (tuple(x + 0.3 * k for x in FALLING), ALL)}, {}) for k in range(5)}
    told = [text for text in findings(results(arms, reference=None), reference=None) if "pairs of arms" in text]
    assert len(told) == 1 and "Of 10 pairs of arms" in told[0]


def test_the_page_begins_with_the_question_and_its_answer(tmp_path):
    two = ({"text": (CAPPED["capped"][0]["text"][0], ALL), "more": (FALLING, ALL)}, {"epochs": 9.0})
    found = results(
        {"capped": two, "uncapped": ({"text": (FALLING, ALL), "more": (FALLING, ALL)}, {})}, reference="uncapped"
    )
    study = StudyDir(tmp_path / "little")
    study.path.mkdir()
    study.write(
        {
            "name": "little",
            "question": "Does it rise?",
            "seeds": [1, 2, 3],
            "intervals": 5,
            "reference": "uncapped",
            "design_sha256": "0" * 64,
            "code_version": "1",
            "arms": [{"name": name, **ARM} for name in ("capped", "uncapped")],
            "planned": [],
            "cells": [],
            "lr_range": {},
            "results": found,
        }
    )
    page = study_page(study)
    said = [block.text for block in page.blocks if isinstance(block, Paragraph)]
    assert said[0] == "Does it rise?" and said[1].startswith("capped: lowest")
    assert len(said[0] + said[1]) < 600
    study.write(study.read() | {"planned": ["capped-1"]})
    unfinished = [block.text for block in study_page(study).blocks if isinstance(block, Paragraph)]
    assert unfinished[1].startswith("Not finished: what follows is of 0 of 1 runs")
    html = page_html(page)
    assert '<th class="g" colspan="7">capped</th>' in html  # an arm's name once, and not in every row
    assert '<td class="i"><span>+1.2' in html
    assert f'<span class="h">{"0" * 64}</span>' in html
