"""``ondevice compare``: live, dead and copied runs, in a table or in lines, and as JSON."""

from __future__ import annotations

import shutil

import pytest

from ondevice.run.directory import RunDir, RunLock


@pytest.fixture
def copied(own, tmp_path):
    """A copy of the run under another name, as somebody else's disk may have it: without checkpoints."""
    target = tmp_path / "elsewhere" / "copy"
    shutil.copytree(own / "runs" / "tiny", target, ignore=shutil.ignore_patterns("checkpoints", "trainer.lock"))
    return target


def test_equal_runs_are_equal(own, copied, call):
    found = call("compare", "tiny", copied, "--json").json
    one, two = found["runs"]
    assert found["differences"] == {} and found["same_text"] and found["measure"] == "nats_per_token"
    assert found["equal_tokens"] == one["tokens"] == 12 * 4 * 32
    assert one["best_at_equal_tokens"] == two["best_at_equal_tokens"] and set(one["best"]) == {"words", ""}
    assert (one["run"], two["run"], two["path"]) == ("tiny", "copy", str(copied))
    assert one["step"] == one["steps"] == 12 and one["wall_s"] >= one["worked_s"] > 0 and one["parameters"] > 1000
    out = call("compare", "tiny", copied).out
    assert out.startswith("A  tiny: finished\nB  copy: finished\n") and "Their recipes are the same." in out
    assert "*" not in out, "no one is better than the other"


def test_a_live_run_is_compared_too(own, copied, call):
    lock = RunLock(RunDir(own / "runs" / "tiny"))
    try:
        out = call("compare", "tiny", copied).out
    finally:
        lock.release()
    assert out.splitlines()[0].startswith("A  tiny: ") and "finished" not in out.splitlines()[0]


def test_another_recipe_shows_its_differences_and_the_better_loss(own, call, monkeypatch):
    words = ("--name", "wide", "--set", "model.width=48", "--set", "train.lr=0.03", "--quiet")
    assert call("train", "tiny.toml", *words).code == 0
    monkeypatch.setenv("COLUMNS", "45")
    out = call("compare", "tiny", "wide").out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 45
    assert any(line.split() == ["model.width", "32", "48"] for line in lines)
    assert any(line.split() == ["train.lr", "0.003", "0.03"] for line in lines)
    assert sum("*" in line for line in lines) == 2 and "within 1,536 tokens" in out
    found = call("compare", "tiny", "wide", "--json").json
    assert found["differences"]["model.width"] == [32, 48]
    better = min(found["runs"], key=lambda run: run["best_at_equal_tokens"]["words"])
    assert f"{better['best_at_equal_tokens']['words']:.4f}*" in out
    monkeypatch.setenv("COLUMNS", "24")
    narrow = call("compare", "tiny", "wide").out
    assert "model.width\n  A  32\n  B  48\n" in narrow


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tiny",), "name at least two runs"),
        (("tiny", "tiny"), "tiny: named twice"),
        (("tiny", "tinny"), "tinny: no such run (did you mean 'tiny'?)"),
    ],
)
def test_what_cannot_be_compared(reading, call, words, says):
    result = call("compare", *words)
    assert (result.code, result.out) == (2, "") and says in result.error


def test_a_damaged_recipe_is_one_sentence(own, copied, call):
    (copied / "recipe.json").write_text("{")
    result = call("compare", "tiny", copied)
    assert result.code in (3, 4) and "recipe.json" in result.error
