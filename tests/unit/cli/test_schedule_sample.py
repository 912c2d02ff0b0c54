"""``ondevice schedule sample`` and ``grow`` at the command line: real checkpoints, kills, and slips."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ondevice.cli import schedule_grow
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.store import Store
from ondevice.study import evaluation, part_samples
from tests.tiny import SMALLEST

WISH = """
name = "chain"
[[data.sources]]
path = "notes"
document = "line"
[chain]
parts = 3
""" + SMALLEST.format(batch=6)


@pytest.fixture
def chain(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("\n".join(f"line {n} of the notes" for n in range(60)), "utf-8")
    (tmp_path / "chain.toml").write_text(WISH, "utf-8")
    rows = [{"prompt": f"line {n} of", "group": "notes"} for n in range(4)]
    rows += [{"prompt": "line", "expected": "\x01 never"}, {"prompt": "of", "contains": ""}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert call("train", "chain.toml", "--parts", "2", "--quiet").code == 0
    return RunDir(tmp_path / "home" / "runs" / "chain")


WORDS = ("schedule", "sample", "chain", "--prompts", "p.jsonl", "--max-new-tokens", "8")


def test_every_part_writes_after_the_same_prompts_and_what_is_done_is_not_done_again(
    call, chain: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call(*WORDS)
    assert shown.code == 0 and "001 step" in shown.out and "002 step" in shown.out and "0 of 1 right" in shown.out
    assert "of 1 parts made something worse" in shown.out
    files = {path.name: path.read_bytes() for path in chain.evals.iterdir()}
    rows = [json.loads(line) for name, data in files.items() if name.endswith(".jsonl") for line in data.splitlines()]
    assert len(rows) == 12 and all(len(row["ids"]) <= 8 for row in rows)
    assert [row["right"] for row in rows[:6]] == [None] * 4 + [False, None]

    def written(*args: object, **more: object) -> None:
        pytest.fail("was generated again")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "write_all", written)
        result = call(*WORDS, "--json").json
    assert {path.name: path.read_bytes() for path in chain.evals.iterdir()} == files
    assert [part["part"] for part in result["parts"]] == ["001", "002"] and len(result["changes"]) == 1
    assert call("train", "chain", "--quiet").code == 0
    made = []
    plain = evaluation.write_all
    monkeypatch.setattr(evaluation, "write_all", lambda target, *more: made.append(target.step) or plain(target, *more))
    assert [part["part"] for part in call(*WORDS, "--json").json["parts"]] == ["001", "002", "003"]
    assert len(made) == 1
    new = Path("notes") / "new.txt"
    new.write_text("\n".join(f"other line {n}" for n in range(80)), "utf-8")
    os.utime(new, (1.0, 1.0))
    assert "learned at the lowest rate, 0.0001," in call("schedule", "grow", "chain").out


def test_a_killed_study_goes_on_to_the_same_bytes(call, chain: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_samples, "_SLICE", 2)
    assert call(*WORDS).code == 0
    wanted = {path.name: path.read_bytes() for path in chain.evals.iterdir()}
    (first, *_) = sorted(name for name in wanted if name.endswith(".jsonl"))
    for left in (0, 10, wanted[first].index(b"\n") + 5, len(wanted[first]) - 1):
        for path in chain.evals.iterdir():
            path.unlink()
        (chain.evals / first).write_bytes(wanted[first][:left])
        assert call(*WORDS).code == 0
        assert {path.name: path.read_bytes() for path in chain.evals.iterdir()} == wanted
    changed = wanted[first].replace(b'"finish": "length"', b'"finish": "stop"', 1)
    (chain.evals / first).write_bytes(changed if changed != wanted[first] else b"x" + wanted[first])
    assert call(*WORDS).code == 0


def test_parts_without_a_sound_checkpoint_are_named(call, chain: RunDir) -> None:
    store = Store(chain.checkpoints)
    last = max(store.steps())
    shutil.rmtree(store.path(last))
    shown = call(*WORDS, "--json").json
    assert [part["part"] for part in shown["parts"]] == ["001"] and shown["skipped"][0]["part"] == "002"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["schedule", "sample", "chain"], "name a JSONL file of prompts"),
        (["schedule", "sample", "chain", "--prompts", "no.jsonl"], "no.jsonl: cannot be read"),
        (["schedule", "sample", "chain", "--prompts", "p.jsonl", "--max-new-tokens", "0"], "must be 1 or more"),
        (["schedule", "sample", "chain", "--prompts", "p.jsonl", "--stop", "x"], "--stop"),
        (["schedule", "grow", "chain", "--parts", "0"], "must be at least 1"),
        (["schedule", "grow", "chian"], "did you mean 'chain'"),
    ],
)
def test_slips_get_one_sentence(call, chain: RunDir, words: list[str], sentence: str) -> None:
    result = call(*words)
    assert result.code in (2, 3) and sentence in result.error


def test_grow_adds_parts_once_and_watches(call, chain: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing new to learn from" in call("schedule", "grow", "chain").out
    rounds = []

    def sleep(seconds: float) -> None:
        rounds.append(seconds)
        new = tmp_path / "notes" / f"new-{len(rounds)}.txt"
        new.write_text("\n".join(f"other line {n} of {len(rounds)}" for n in range(50)), "utf-8")
        os.utime(new, (1.0, 1.0))
        if len(rounds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(schedule_grow.run, "__kwdefaults__", {"sleep": sleep})
    result = call("schedule", "grow", "chain", "--watch", "--every", "7", "--parts", "1")
    assert rounds == [7, 7, 7]
    assert "1 part added (004) of 1 new file" in result.out and "1 part added (005) of 1 new file" in result.out
    assert result.out.count("nothing new") == 1 and len(chain.read_recipe().revises) == 2
    lock = RunLock(chain)
    try:
        assert call("schedule", "grow", "chain").code == 7
    finally:
        lock.release()
    found = call("schedule", "grow", "chain", "--parts", "1", "--json").json
    assert found["files"] == 1 and found["added"] == ["006"]
