"""``ondevice advise``: flags, JSON, and the dialogue of a person at a terminal."""

from __future__ import annotations

import io
import sys

import pytest

HANDBOOK = ("advise", "--goal", "facts", "--source", "documents", "--changes", "monthly")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch):
    return lambda text: monkeypatch.setattr(sys, "stdin", Terminal(text))


def test_flags_alone(call):
    result = call(*HANDBOOK)
    assert result.code == 0 and result.out.startswith("Do not train: find the passage")
    assert "every month would be stale" in result.out


def test_json_has_the_answers_that_counted(call):
    found = call(*HANDBOOK, "--inputs", "long", "--json").json
    assert found["verdict"] == "retrieve" and found["methods"] == ["retrieval"]
    assert found["answers"] == {"goal": "facts", "source": "documents", "changes": "monthly"}


def test_a_flag_that_is_needed_is_asked_for_where_nobody_can_answer(call, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    result = call("advise", "--goal", "facts", "--source", "documents")
    assert result.code == 2
    assert "--changes is needed after --goal facts --source documents" in result.error and "monthly" in result.error


def test_dialogue_takes_numbers_and_words_and_asks_again(call, typed):
    typed("fakts\n2\nuntried\n1\nshort\nyes\nmany\n800\n1\n")
    result = call("advise")
    assert result.code == 0, result.err
    assert "did you mean 'facts'?" in result.out and "Please type a number." in result.out
    assert "Train: LoRA, or QLoRA" in result.out


def test_dialogue_asks_only_what_flags_left_open(call, typed):
    typed("records\n")
    result = call("advise", "--goal", "facts")
    assert "What should the model do better?" not in result.out
    assert "Do not train: look the records up" in result.out


def test_no_answer_is_no_advice(call, typed):
    typed("")
    result = call("advise")
    assert result.code == 130 and "no advice" in result.error


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--goal", "fact"], "did you mean 'facts'?"), (["--examples", "-1"], "must be at least 0")],
)
def test_wrong_answers_are_named(call, words, says):
    result = call("advise", *words)
    assert result.code == 2 and says in result.error
