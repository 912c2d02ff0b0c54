"""A run as others see it: new, killed, held by a trainer; and the letters people send to one that lives."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from ondevice.cli.progress import QuietDisplay
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.launch import launch


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def alive(place, call):
    """A run in training, stopped at the end of the test."""
    from ondevice.run.config import load_config
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    changes = ("train.steps=1000000", "eval.count=0", "sample.count=0", "name=alive")
    config = load_config("tiny.toml", changes=changes)
    dataset = make_dataset(config)
    run = make_run(config, prepare(config, dataset, cores=1, android=False, rate=1000.0), dataset)
    thread = threading.Thread(target=launch, args=(run,), kwargs={"display": QuietDisplay()})
    thread.start()
    try:
        wait_for(lambda: read_status(run).get("step", 0) >= 2)
        yield run
    finally:
        if thread.is_alive():
            call("stop", "alive")
        thread.join(60)
    assert not thread.is_alive()


def test_status_of_a_run_that_was_never_started(fresh, call):
    result = call("status", "tiny")
    assert result.out == "tiny: made, not started yet; `ondevice train tiny` starts it\n"
    assert call("status", "tiny", "--json").json["state"] == "new"


def test_status_of_a_killed_run_says_what_to_type(own, call):
    path = own / "runs" / "tiny" / "telemetry" / "0001.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    assert json.loads(lines[-1])["kind"] == "end"
    path.write_text("".join(lines[:-1]) + '{"v":1,"t":17', "utf-8")  # the last line torn
    result = call("status", "tiny")
    assert result.out.startswith("tiny: killed (its last launch ended without a word); `ondevice train tiny` goes on\n")
    assert call("runs", "list").out.startswith("killed")
    assert call("train", "tiny", "--quiet").code == 0
    after = call("status", "tiny", "--json").json
    assert (after["state"], after["kills"], after["launches"]) == ("finished", 1, 2)


def test_status_where_there_is_no_run(place, call):
    result = call("status")
    assert result.code == 2
    assert "`ondevice quickstart`" in result.error


def test_status_of_an_unknown_run_offers_the_nearest(reading, call):
    assert "tinny: no such run (did you mean 'tiny'?)." in call("status", "tinny").error


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "save"])
def test_letters_to_a_run_without_trainer_are_refused_and_not_left_behind(reading, call, verb):
    result = call(verb, "tiny")
    assert (result.code, result.out) == (2, "")
    assert result.error == "tiny: no trainer is running (finished); `ondevice fork tiny --tokens +1M` goes on."
    assert list((reading / "runs" / "tiny" / "control" / "inbox").iterdir()) == []


def test_a_trainer_that_does_not_answer_in_time_is_said_to_have_been_asked(own, call):
    lock = RunLock(RunDir(own / "runs" / "tiny"))
    try:
        result = call("pause", "tiny", "--wait", "0.2")
        assert (result.code, result.out) == (
            0,
            "tiny: asked; the trainer answers when its micro-batch is done.\n",
        )
        assert call("save", "tiny", "--wait", "0", "--json").json == {"ok": None, "verb": "save"}
        assert call("train", "tiny").code == 7
    finally:
        lock.release()


def test_pause_save_sample_resume_and_stop_from_another_shell(alive, call):
    assert call("pause", "alive").out == "alive: pause accepted.\n"
    wait_for(lambda: read_liveness(alive).state == "waiting")
    held = read_status(alive)["step"]
    status = call("status", "alive")
    assert status.out.startswith("alive: waiting\n") and "hold      paused" in status.out
    answer = call("save", "alive", "--json").json
    assert (answer["verb"], answer["ok"]) == ("save", True)
    assert read_status(alive)["step"] <= held + 1  # one that was held within a step ends it to save
    assert call("resume", "alive").code == 0
    wait_for(lambda: read_status(alive)["step"] > held + 2)
    wait_for(lambda: Store(alive.checkpoints).steps())
    (sample,) = call("sample", "alive", "the cat", "--json").json["samples"]
    assert sample["kind"] == "sample" and sample["prompt"] == "the cat" and sample["step"] > held
    assert call("status", "--json").json["run"] == "alive"
    assert call("runs", "rm", "alive", "--yes").code == 7
    assert call("stop", "alive").out == "alive: stop accepted.\n"
    wait_for(lambda: read_liveness(alive).state == "stopped")
    assert "alive: stopped; `ondevice train alive` goes on" in call("status", "alive").out


def test_a_live_run_is_measured_when_asked_and_a_paused_one_stays_paused(alive, call):
    assert call("pause", "alive").code == 0
    wait_for(lambda: read_liveness(alive).state == "waiting")
    found = call("eval", "alive", "--json").json
    assert found["kind"] == "eval" and set(found["val_loss"]) == {"words"} and found["val_loss_mixed"] < 6
    again = call("eval", "alive")
    assert again.out.startswith(f"alive: step {found['step']:,}\n  val       {found['val_loss']['words']:.4f} words, ")
    assert again.out.endswith(" nats a token, the best so far\n")
    assert read_liveness(alive).state == "waiting"
    assert call("eval", "alive", "--wait", "0").out.startswith("alive: asked; ")


def test_a_run_that_does_not_train_is_measured_here(own, call):
    found = call("eval", "tiny", "--per-source", "2", "--max-new-tokens", "8", "--json").json
    assert found["val_loss"]["words"] > 0 and found["step"] == 12
    refused = call("eval", "tny")
    assert refused.code == 2 and "tiny" in refused.error


def test_flags_of_sample_reach_the_live_trainer(alive, call):
    assert call("pause", "alive").code == 0
    wait_for(lambda: read_liveness(alive).state == "waiting")  # the same weights for all

    def asked(*flags):
        result = call("sample", "alive", "the cat", *flags, "--json")
        assert result.code == 0, result
        return result.json["samples"][0]

    plain, again = asked(), asked()
    assert plain["text"] == again["text"] and plain["letter"] != again["letter"]
    assert not set(plain) & {"temperature", "seed", "max_new_tokens"}
    wild = [asked("--temperature", 900, "--top-k", 0, "--top-p", 1, "--seed", seed) for seed in (1, 1, 2)]
    assert wild[0]["text"] == wild[1]["text"] != wild[2]["text"]
    assert (wild[2]["temperature"], wild[2]["top_k"], wild[2]["top_p"], wild[2]["seed"]) == (900.0, 0, 1.0, 2)
    greedy = [asked("--temperature", 0, "--max-new-tokens", count)["text"] for count in (4, 40)]
    assert greedy[1].startswith(greedy[0]) and len(greedy[1]) > 8 >= len(plain["text"])
    stop = greedy[1][2:4]
    cut = asked("--temperature", 0, "--max-new-tokens", 40, "--stop", stop)["text"]
    assert cut == greedy[1][: greedy[1].find(stop)]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--temperature", "-1"), "'sample.temperature' must be at least 0, not -1.0"),
        (("--top-p", "1.5"), "'sample.top_p' must be at most 1, not 1.5"),
        (("--max-new-tokens", "5000"), "a trainer writes at most 4,096 tokens at once"),
        (("--stop", ""), "A stop string is empty"),
    ],
)
def test_what_a_live_trainer_would_refuse_is_never_sent(own, call, flags, says):
    run = RunDir(own / "runs" / "tiny")
    lock = RunLock(run)
    try:
        result = call("sample", "tiny", "the", *flags, "--wait", "0.2")
    finally:
        lock.release()
    assert result.code == 2 and says in result.error
    assert list(run.inbox.iterdir()) == []


def test_a_letter_that_cannot_be_deleted_is_answered_once_and_ends_nothing(alive, call, monkeypatch):
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path.parent == alive.inbox:
            raise PermissionError(13, "Permission denied")
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        assert call("save", "alive").code == 0
        step = read_status(alive)["step"]
        wait_for(lambda: read_status(alive)["step"] > step + 3)
        time.sleep(0.6)  # the inbox is read four times a second
        assert len(list(alive.inbox.glob("*.json"))) == 1
    answers = [record for record in read_records(alive.telemetry) if record["kind"] == "control"]
    assert [record["verb"] for record in answers] == ["save"]
    wait_for(lambda: not list(alive.inbox.glob("*.json")))


def test_a_second_trainer_is_told_about_the_first(alive, call):
    result = call("train", "alive")
    assert result.code == 7
    assert "alive: another process holds this run (trainer pid" in result.error
    assert "`ondevice status alive`" in result.error
