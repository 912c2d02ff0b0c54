"""``ondevice schedule`` and ``train --parts``: a chain at the command line, and one sentence for what cannot be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ondevice.run.directory import RunDir
from tests.tiny import SMALLEST

WISH = """
name = "chain"
[data]
split = "hash:0.1"
order = "staged"
max_unique_tokens = 2176
[[data.sources]]
path = "first.txt"
document = "line"
[[data.sources]]
path = "second.txt"
document = "line"
[[data.stages]]
name = "general"
groups = ["first"]
[[data.stages]]
name = "talk"
groups = ["second"]
[chain]
parts = 4
""" + SMALLEST.format(batch=6)


@pytest.fixture
def wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rng = random.Random(4)
    for name in ("first", "second", "third"):
        lines = [" ".join(rng.choices(["kar", "kâr", "ılık", "iz", "dağ", "deniz", "su"], k=9)) for _ in range(60)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), "utf-8")
    path = tmp_path / "chain.toml"
    path.write_text(WISH, "utf-8")
    monkeypatch.chdir(tmp_path)
    return path


def test_a_chain_is_trained_shown_and_changed(call, wish: Path) -> None:
    built = call("data", "build", str(wish), "--parts", "4")
    assert built.code == 0 and "4 parts, each evaluated" in built.out and "general:" in built.out
    assert call("data", "order", str(wish)).out.startswith("Order staged, 4 parts from left to right")
    result = call("train", str(wish), "--parts", "1", "--quiet")
    assert result.code == 0 and "the parts that were asked for are done" in result.out
    shown = call("schedule", "show", "chain")
    assert "chain: 1 of 4 parts done" in shown.out and "+  001 done" in shown.out and "loss " in shown.out
    assert "part      002, stage general (2 of 4)" in call("status", "chain").out
    changed = call("schedule", "reorder", "chain", "004", "--json").json
    assert changed["revision"] == 2 and changed["next"] == ["004", "002", "003"]
    added = call("schedule", "add", "chain", "--data", "third.txt", "--parts", "2", "--stage", "news")
    assert "2 parts added (005 to 006), stage 'news'." in added.out
    assert "Recipe revision 4" in call("schedule", "skip", "chain", "--reason", "dull").out
    assert call("train", "chain", "--quiet").code == 0
    parts = call("schedule", "show", "chain", "--json").json["parts"]
    assert [(part["name"], part["state"]) for part in parts] == [
        ("001", "done"),
        ("004", "skipped"),
        ("002", "done"),
        ("003", "done"),
        ("005", "done"),
        ("006", "done"),
    ]
    assert parts[1]["error"] == "dull" and "dull" in call("schedule", "show", "chain").out
    assert "part      " not in call("status", "chain").out
    assert call("pack", "chain", "--out", str(wish.parent / "a.ondevice")).code == 0
    assert call("unpack", str(wish.parent / "a.ondevice"), "--name", "there").code == 0
    assert call("verify", "there").code == 0, "revisions travel along"
    assert call("verify", "chain").code == 0
    assert "5 parts done, each chained" in call("verify", "chain", "--json").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "chain", "--parts", "0"], "must be at least 1"),
        (["schedule", "reorder", "chain", "009"], "part 009: no such part"),
        (["schedule", "reorder", "chain", "002", "002"], "part 002: named twice"),
        (["schedule", "add", "chain"], "name the new text with --data PATH"),
        (["schedule", "add", "chain", "--data", "nowhere.txt"], "nowhere.txt"),
        (["schedule", "add", "chain", "--data", "first.txt"], "learns from this text already"),
        (["schedule", "show", "chian"], "did you mean 'chain'"),
        (["schedule", "sow", "chain"], "did you mean 'show'"),
    ],
)
def test_slips_get_one_sentence(call, wish: Path, words: list[str], sentence: str) -> None:
    assert call("train", str(wish), "--parts", "1", "--quiet").code == 0
    result = call(*words)
    assert result.code in (2, 3) and sentence in result.error


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('groups = ["second"]', 'groups = ["first"]', "'first' is in 'general' and in 'talk'"),
        ('groups = ["second"]', 'groups = ["empty"]', "Stage 'talk' has no text for a whole window"),
        ("parts = 4", "parts = 1", "too few for 2 stages"),
        ("parts = 4", "parts = 2000", "too few for"),
        ("parts = 4", "parts = -1", "chain.parts"),
        ("lr = 1e-3", "lr = 1e-3\nsteps = 9", "a chain's length follows from its parts"),
    ],
)
def test_plans_that_cannot_be_get_one_sentence(call, wish: Path, old: str, new: str, sentence: str) -> None:
    (wish.parent / "empty.txt").write_text("x", "utf-8")
    more = '[[data.sources]]\npath = "empty.txt"\nname = "empty"\n[[data.stages]]\nname = "general"'
    text = WISH.replace(old, new).replace('[[data.stages]]\nname = "general"', more, 1)
    wish.write_text(text, "utf-8")
    result = call("train", str(wish), "--quiet")
    assert result.code in (2, 3) and sentence in result.error


def test_a_run_without_parts_says_so(call, wish: Path) -> None:
    wish.write_text(WISH.replace("parts = 4", "parts = 0").replace("lr = 1e-3", "lr = 1e-3\nsteps = 2"), "utf-8")
    assert call("train", str(wish), "--quiet").code == 0
    for words in (["train", "chain", "--parts", "1"], ["schedule", "show", "chain"], ["schedule", "skip", "chain"]):
        result = call(*words)
        assert result.code == 2 and "parts" in result.error and "chain.parts" in result.error
    assert not (RunDir(wish.parent / "home" / "runs" / "chain").path / "schedule.json").exists()
