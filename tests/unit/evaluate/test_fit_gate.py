"""The fit gate: six known cases, and that any answers lead to advice."""

from __future__ import annotations

import itertools

import pytest

from ondevice.evaluate.fit_gate import QUESTIONS, advise

CASES = {
    "strict JSON from short support tickets": (
        {"goal": "format", "prompting": "fails", "kinds": "one", "inputs": "short", "checkable": "yes"},
        "train",
        ("LoRA",),
    ),
    "questions on a handbook that changes every month": (
        {"goal": "facts", "source": "documents", "changes": "monthly"},
        "retrieve",
        ("retrieval",),
    ),
    "summaries of legal documents of many types": (
        {"goal": "text", "kinds": "many"},
        "redesign",
        ("narrow", "retrieval with review"),
    ),
    "the tone of release notes": (
        {"goal": "style", "prompting": "untried", "checkable": "no"},
        "compare",
        ("prompting", "LoRA"),
    ),
    "a whole product catalogue": (
        {"goal": "facts", "source": "records"},
        "retrieve",
        ("retrieval", "database"),
    ),
    "short alerts into fixed labels": (
        {"goal": "labels", "prompting": "untried", "kinds": "one", "inputs": "short", "checkable": "yes"},
        "train",
        ("LoRA", "QLoRA", "held-out checks"),
    ),
}
MORE = {"examples": "600", "harm": "little"}


@pytest.mark.parametrize("case", CASES)
def test_the_six_cases(case):
    answers, verdict, methods = CASES[case]
    advice = advise({**MORE, **answers}.__getitem__)
    assert (advice.verdict, advice.methods) == (verdict, methods)
    assert advice.why and all(sentence.endswith(".") for sentence in advice.why)


def test_the_json_of_tickets_is_learned_by_a_small_instruct_model():
    advice = advise({**MORE, **CASES["strict JSON from short support tickets"][0]}.__getitem__)
    assert "small instruct model" in advice.headline


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"prompting": "works"}, "prompt"),
        ({"kinds": "many"}, "redesign"),
        ({"inputs": "long"}, "redesign"),
        ({"checkable": "no"}, "prepare"),
        ({"examples": "6"}, "prepare"),
        ({"examples": "99"}, "prepare"),
        ({"examples": "100"}, "train"),
    ],
)
def test_what_speaks_against_training_is_heard(change, verdict):
    answers = {**MORE, **CASES["strict JSON from short support tickets"][0], **change}
    assert advise(answers.__getitem__).verdict == verdict


def test_facts_are_never_trained():
    for source, changes in itertools.product(QUESTIONS["source"].choices, QUESTIONS["changes"].choices):
        advice = advise({"goal": "facts", "source": source, "changes": changes}.__getitem__)
        assert advice.verdict == "retrieve"


def test_every_way_through_ends_and_asks_nothing_twice():
    names = [name for name in QUESTIONS if name != "examples"]
    for values in itertools.product(*(QUESTIONS[name].choices for name in names)):
        answers, asked = {**dict(zip(names, values, strict=True)), "examples": "50"}, []

        def ask(name, answers=answers, asked=asked):
            asked.append(name)
            return answers[name]

        assert advise(ask).headline.endswith(".")
        assert len(asked) == len(set(asked)) <= 7


def test_a_costly_mistake_is_reviewed():
    answers = {**MORE, **CASES["short alerts into fixed labels"][0], "harm": "much"}
    assert any("review" in sentence for sentence in advise(answers.__getitem__).why)
