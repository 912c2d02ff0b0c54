"""Answers judged by a contract: format and labels apart, free text never demanded letter by letter."""

from __future__ import annotations

import json

import pytest

from ondevice.data.contract import OutputRule
from ondevice.evaluate.task_answers import judge_answer

TICKET = OutputRule(form="json", fields={"label": ("bug", "billing"), "urgent": "boolean", "summary": "string"})
RIGHT = {"label": "bug", "urgent": True, "summary": "It crashes"}


def right(answer, rule=TICKET, expected=None):
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return dict(judge_answer(text, expected or json.dumps(RIGHT), rule).right)


def test_everything_right_and_the_names_of_the_contract():
    found = right(RIGHT)
    assert all(found.values())
    assert set(found) == {"parse", "keys", "labels", "label:label", "label:urgent", "label:summary"}


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ({**RIGHT, "summary": "It breaks"}, {"label:summary"}),
        ({**RIGHT, "label": "billing"}, {"label:label", "labels"}),
        ({**RIGHT, "urgent": 1}, {"label:urgent", "labels"}),
        ({**RIGHT, "more": 1}, {"keys"}),
        ("Sure! " + json.dumps(RIGHT), {"parse", "keys", "labels", "label:label", "label:urgent", "label:summary"}),
        ("[1]", {"parse", "keys", "labels", "label:label", "label:urgent", "label:summary"}),
        ("[" * 100_000, {"parse", "keys", "labels", "label:label", "label:urgent", "label:summary"}),
    ],
)
def test_what_is_wrong_and_only_that(answer, wrong):
    assert {name for name, fine in right(answer).items() if not fine} == wrong


def test_white_space_around_an_answer_does_not_count():
    assert all(right(f"\n {json.dumps(RIGHT)} \n").values())


def test_a_contract_of_free_text_alone_still_has_labels():
    rule = OutputRule(form="json", fields={"summary": "string"})
    found = right({"summary": "a"}, rule, json.dumps({"summary": "b"}))
    assert found == {"parse": True, "keys": True, "label:summary": False, "labels": False}


@pytest.mark.parametrize(("answer", "fine"), [("bug", True), (" bug\n", True), ("Bug", False), ("bug.", False)])
def test_a_label_is_exact(answer, fine):
    assert right(answer, OutputRule(form="label", labels=("bug", "billing")), "bug") == {"exact": fine}
