"""``ondevice doctor RUN``: what it says it mended, what it refuses, and that it stays out of a live run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice.run.directory import RunDir, RunLock
from ondevice.run.liveness import read_status
from ondevice.run.store import Store


def run_in(home: Path) -> RunDir:
    return RunDir(home / "runs" / "tiny")


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_a_sound_run_has_nothing_to_mend(own, call):
    result = call("doctor", "tiny")
    assert (result.code, result.out) == (0, "tiny: nothing to mend.\n")


def test_every_paper_comes_back_and_a_second_doctor_finds_nothing(own, call):
    run = run_in(own)
    papers = [run.identity, run.config, run.recipe, run.fit, *run.tokenizer.iterdir()]
    before = [path.read_bytes() for path in papers]
    for path in papers:
        path.unlink()
    result = call("doctor", "tiny")
    assert result.code == 0
    assert [path.read_bytes() for path in papers] == before
    assert result.out.count("mended ") == len(papers)
    assert result.out.endswith("tiny: sound now.\n")
    assert call("doctor", "tiny").out == "tiny: nothing to mend.\n"
    assert call("verify", "tiny").code == 0


def test_what_it_cannot_mend_it_refuses_with_what_to_do(own, call):
    run = run_in(own)
    spoil(run.telemetry / "0001.jsonl")
    spoil(next((own / "datasets").glob("*/chunks/*/*val*.chunk")))
    for path in run.checkpoints.glob("step-*/model.safetensors"):
        spoil(path)
    result = call("doctor", "tiny")
    assert result.code == 4
    refused = [line for line in result.out.splitlines() if line.startswith("refused ")]
    assert any("telemetry/0001.jsonl" in line and "never rewritten" in line for line in refused)
    assert any(".chunk" in line and "ondevice data build" in line for line in refused)
    assert any("step-00000012" in line and "from a backup" in line for line in refused)
    assert all(line.endswith(".") and ".." not in line for line in refused)
    assert result.out.splitlines()[-1] == f"tiny: {len(refused)} things need you."


def test_json_and_dry_run(own, call):
    run = run_in(own)
    run.fit.unlink()
    run.status.unlink()
    body = call("doctor", "tiny", "--dry-run", "--json").json
    assert body["dry_run"] and body["sound"]
    assert [each["file"] for each in body["repaired"]] == ["fit.json", "status.json"]
    assert not run.fit.exists()
    assert "to mend" in call("doctor", "tiny", "--dry-run").out
    assert call("doctor", "tiny", "--json").json["repaired"] == body["repaired"]
    assert run.fit.exists()
    assert read_status(run)["state"] == "finished"


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_live_run_is_left_alone(own, call, flags):
    run_in(own).fit.unlink()
    lock = RunLock(run_in(own))
    try:
        result = call("doctor", "tiny", *flags)
    finally:
        lock.release()
    assert result.code == 7
    assert not run_in(own).fit.exists()


def test_words_that_make_no_sense_are_refused(own, call):
    assert call("doctor", "--dry-run").code == 2
    assert call("doctor", "tinny").code == 2


def test_training_goes_on_where_doctor_left_it(own, call):
    run = run_in(own)
    before = (Store(run.checkpoints).path(12) / "model.safetensors").read_bytes()
    run.recipe.unlink()
    run.identity.unlink()
    assert call("train", "tiny", "--quiet").code == 2
    assert call("doctor", "tiny").code == 0
    assert call("train", "tiny", "--quiet").code == 0
    assert (Store(run.checkpoints).path(12) / "model.safetensors").read_bytes() == before
