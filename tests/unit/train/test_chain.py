"""A chain of parts: trained part by part, tried again, skipped, and to the bit what an undisturbed one is."""

import json
import random

import pytest

from ondevice.data.parcel import open_dataset
from ondevice.errors import DataError, OndeviceError, UsageError
from ondevice.run import control
from ondevice.run.directory import lock_holder, offline_lock
from ondevice.run.files import read_json, read_sealed
from ondevice.run.papers import changed_papers
from ondevice.run.revision import newest_config
from ondevice.run.schedule import FILE, chained_hash, schedule_of
from ondevice.run.schema import SourceConfig
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter, read_records
from ondevice.train.chain import train
from ondevice.train.engine import Engine, NonFiniteError
from ondevice.train.loop import Loop
from ondevice.train.revise import add_text, reorder
from tests.displays import Crash, Silent


def told(run, kind="part"):
    return [record for record in read_records(run.telemetry) if record["kind"] == kind]


def schedule(run):
    return schedule_of(run.read_recipe(), read_records(run.telemetry))


def test_parts_are_evaluated_verified_and_chained(make_chain):
    run = make_chain()
    assert train(run, display=Silent()).outcome == "finished"
    records = told(run)
    assert [record["name"] for record in records] == ["001", "002", "003", "004"]
    assert all(record["outcome"] == "done" and record["verified"] for record in records)
    before, hashes = None, ""
    for record in records:
        assert record["checkpoint_in"] == before
        before, hashes = record["checkpoint_out"], chained_hash(hashes, record)
        assert record["chained"] == hashes
        assert Store(run.checkpoints).peek(before["step"]).sha256 == before["sha256"], "ends of parts are kept"
        assert set(record["val_loss"]) == {"first", "second"} and record["train_s"] > 0 and record["loss"] > 0
        assert record["steps"] == before["step"] - (record["checkpoint_in"] or {"step": 0})["step"]
    assert [part.state for part in schedule(run).parts] == ["done"] * 4
    body = read_sealed(run.path / FILE, version=1)
    assert body == json.loads(json.dumps(schedule(run).to_json()))


def test_parts_can_be_trained_a_few_at_a_time(make_chain):
    run = make_chain()
    outcome = train(run, display=Silent(), parts=1)
    assert (outcome.outcome, schedule(run).done) == ("stopped", 1) and "asked for" in outcome.why
    assert train(run, display=Silent(), parts=2).step == schedule(run).parts[2].last_step
    assert train(run, display=Silent(), parts=9).outcome == "finished"
    assert len(told(run)) == 4


def weights(run):
    store = Store(run.checkpoints)
    checkpoint = store.open(max(store.steps()))
    state = read_json(checkpoint.path / "state.json")
    files = {name: entry["sha256"] for name, entry in checkpoint.files.items() if name != "state.json"}
    return files, {key: state[key] for key in ("step", "tokens", "cursor", "rng", "losses", "best_step")}


def crash_when(monkeypatch, wish):
    """Kills the trainer, once, before the telling of a record for which ``wish(record kind, step)`` is true."""
    plain, left = TelemetryWriter.write, [True]

    def write(self, kind, step, **fields):
        if left and wish(kind, step, fields):
            left.clear()
            raise Crash
        return plain(self, kind, step, **fields)

    monkeypatch.setattr(TelemetryWriter, "write", write)


def test_a_part_that_was_kept_and_not_told_is_told_by_the_next_launch(make_chain, monkeypatch):
    run = make_chain()
    crash_when(monkeypatch, lambda kind, step, fields: kind == "part" and fields["name"] == "002")
    with pytest.raises(Crash):
        train(run, display=Silent())
    end = schedule(run).parts[1].last_step
    assert max(Store(run.checkpoints).steps()) == end and [part["name"] for part in told(run)] == ["001"]
    assert train(run, display=Silent(), parts=1).step == end, "nothing but the record was missing"
    record = told(run)[-1]
    assert record["name"] == "002" and record["train_s"] > 0 and set(record["val_loss"]) == {"first", "second"}
    assert record["steps"] == sum(r["kind"] == "step" for r in read_records(run.telemetry)) - told(run)[0]["steps"]


def test_a_chain_that_was_killed_ends_as_an_undisturbed_one(make_chain, monkeypatch):
    calm, wild = make_chain("chain.parts=8", name="calm"), make_chain("chain.parts=8", name="wild")
    assert train(calm, display=Silent()).outcome == "finished"
    rng, kills = random.Random(5), 0
    for _ in range(3):
        countdown = [rng.randint(4, 25)]
        with monkeypatch.context() as patch:
            crash_when(patch, lambda kind, step, fields, left=countdown: left.append(left.pop() - 1) or left[0] <= 0)
            with pytest.raises(Crash):
                train(wild, display=Silent())
        kills += 1
    assert train(wild, display=Silent()).outcome == "finished" and kills == 3
    assert weights(calm) == weights(wild)
    parts = [[(part.name, part.state, part.last_step) for part in schedule(run).parts] for run in (calm, wild)]
    assert parts[0] == parts[1] and [part[1] for part in parts[0]] == ["done"] * 8


def damage(run, source):
    """Flips a bit in the middle of a source's training text."""
    dataset = open_dataset(run.read_recipe().data)
    chunk = next(c for c in dataset.manifest["chunks"] if c["source"] == source and c["split"] == "train")
    path = dataset.folder / chunk["file"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


BY_SOURCE = ("data.order=sequential",)


def test_a_part_with_a_damaged_chunk_is_tried_again_and_then_stops_the_chain(make_chain):
    run, pauses, display = make_chain(*BY_SOURCE, "chain.retries=2"), [], Silent()
    path = damage(run, "second")
    with pytest.raises(DataError) as caught:
        train(run, display=display, sleep=pauses.append)
    sentence = str(caught.value)
    assert path.name in sentence and "part 003 was tried 3 times" in sentence and "schedule skip tiny" in sentence
    assert (
        sum(pauses) == 10.0 + 20.0
        and "tried again in 10 s (1 more try after that)" in display.said[-3] + display.said[-2]
    )
    failed = [record for record in told(run) if record["outcome"] == "failed"]
    assert {record["name"] for record in failed} == {"003"} and path.name in failed[0]["why"]
    part = schedule(run).current
    assert (part.name, part.state) == ("003", "failed") and path.name in part.error
    with pytest.raises(OndeviceError, match="was tried 3 times"):  # a watcher's try trains nothing
        launches = run.next_launch()
        train(run, display=display, keep_hold=True, sleep=pauses.append)
    assert run.next_launch() == launches


def test_a_part_is_skipped_by_policy_and_the_chain_goes_on(make_chain):
    run, pauses = make_chain(*BY_SOURCE, "chain.retries=1", "chain.on_failure=skip"), []
    damage(run, "first")
    assert train(run, display=Silent(), sleep=pauses.append).outcome == "finished"
    states = [(part.name, part.state, part.planned_steps > 0) for part in schedule(run).parts]
    assert states == [
        ("001", "skipped", False),
        ("002", "skipped", False),
        ("003", "done", True),
        ("004", "done", True),
    ]
    recipe = run.read_recipe()
    assert len(recipe.revises) == 2 and "tried 2 times" in recipe.data.parts[0].skipped
    assert [name for name in run.read_identity()["papers"] if name.startswith("recipe")] == [
        "recipe.json",
        "recipe-1.json",
        "recipe-2.json",
    ]
    assert {"first": 0}.items() <= told(run, "eval")[-1]["trained_tokens"].items()


def test_a_part_that_kills_its_trainer_is_not_tried_for_ever(make_chain, monkeypatch):
    run = make_chain("chain.retries=2")
    train(run, display=Silent(), parts=1)
    poison = schedule(run).parts[0].last_step + 2
    plain = Engine.update

    def update(self, lr):
        if len(self_steps) and self_steps[-1].state.step + 1 == poison:
            raise Crash
        return plain(self, lr)

    self_steps = []
    monkeypatch.setattr(Loop, "_safe_point", lambda self, piece=False: self_steps.append(self) or 0.0)
    monkeypatch.setattr(Engine, "update", update)
    for _ in range(3):
        with pytest.raises(Crash):
            train(run, display=Silent(), keep_hold=True)
    with pytest.raises(OndeviceError, match=r"part 002 was tried 3 times.*the trainer was killed in it"):
        train(run, display=Silent(), keep_hold=True)
    with pytest.raises(Crash):  # a person may try again, and counts anew
        train(run, display=Silent())
    with pytest.raises(Crash):
        train(run, display=Silent(), keep_hold=True)


STAGES = """
[[data.stages]]
name = "one"
groups = ["first"]
parts = 6
until = "plateau"
[[data.stages]]
name = "two"
groups = ["second"]
parts = 2
"""


def test_a_stage_ends_when_its_loss_no_longer_falls(make_chain):
    wish = ("data.order=staged", "chain.parts=8", "chain.patience=1", "train.lr=1e-9", "train.warmup_steps=0")
    run = make_chain(*wish, stages=STAGES)
    display = Silent()
    assert train(run, display=display).outcome == "finished"
    assert [part.state for part in schedule(run).parts] == ["done"] * 2 + ["skipped"] * 4 + ["done"] * 2
    assert any("4 parts of stage 'one' are left out" in text for text in display.said)
    ends = told(run, "end")
    assert [end["outcome"] for end in ends] == ["stopped", "finished"] and ends[0]["leave"] is True
    assert run.read_recipe().train.steps == ends[-1]["step"]


def test_what_a_person_asked_comes_before_the_end_of_a_stage(make_chain):
    wish = ("data.order=staged", "chain.parts=8", "chain.patience=1", "train.lr=1e-9", "train.warmup_steps=0")
    run = make_chain(*wish, stages=STAGES)
    outcome = train(run, display=Silent(), parts=2)
    assert (outcome.why, outcome.stalled) == ("the parts that were asked for are done", "")
    assert "leave" not in told(run, "end")[-1] and schedule(run).parts[2].state == "training"
    train(run, display=Silent(), parts=1)
    assert [part.state for part in schedule(run).parts] == ["done"] * 2 + ["skipped"] * 4 + ["done", "training"]


def test_parts_not_begun_change_places_and_the_rest_stays(make_chain):
    run = make_chain()
    train(run, display=Silent(), parts=1)
    with offline_lock(run, what="test"):
        assert reorder(run, ["004", "002"]) == ("004", "002", "003")
        with pytest.raises(UsageError, match="part 001: is done or begun"):
            reorder(run, ["001"])
        with pytest.raises(UsageError, match=r"part 04: no such part \(did you mean '004'"):
            reorder(run, ["04"])
    assert train(run, display=Silent()).outcome == "finished"
    assert [part["name"] for part in told(run)] == ["001", "004", "002", "003"]
    assert all(passes >= 1.0 for passes in told(run, "eval")[-1]["trained_epochs"].values()), "nothing was left out"


def test_text_is_added_as_parts_and_what_was_learned_stays(make_chain, corpus):
    run = make_chain()
    train(run, display=Silent())
    before = {part.name: part.results for part in schedule(run).parts}
    (corpus / "third.txt").write_text("\n".join(f"a quite new line number {n} of text" for n in range(80)), "utf-8")
    source = SourceConfig(path=str(corpus / "third.txt"), name="third", document="line")
    with offline_lock(run, what="test"):
        added = add_text(run, [source], parts=2, stage="news")
    assert [(part.name, part.stage) for part in added] == [("005", "news"), ("006", "news")]
    assert train(run, display=Silent()).outcome == "finished"
    parts = schedule(run).parts
    assert [part.state for part in parts] == ["done"] * 6
    assert {part.name: part.results for part in parts[:4]} == before
    assert told(run)[-1]["val_loss"].keys() == {"first", "second", "third"}
    assert not changed_papers(run, run.read_identity()) and newest_config(run).name == "config-2.toml"
    (corpus / "copy.txt").write_bytes((corpus / "third.txt").read_bytes())
    with offline_lock(run, what="test"), pytest.raises(DataError, match="nothing that the run has not read"):
        add_text(run, [SourceConfig(path=str(corpus / "copy.txt"), name="copy", document="line")])


def test_a_chain_that_pauses_between_tries_can_be_stopped(make_chain):
    run = make_chain(*BY_SOURCE)
    damage(run, "first")

    def ask(seconds):
        assert lock_holder(run), "the run is not free for another trainer"
        control.send(run, "stop", {}, sender="a test")

    outcome = train(run, display=Silent(), sleep=ask)
    assert (outcome.outcome, outcome.why) == ("stopped", "asked to stop between two tries")
    assert not control.pending(run) and lock_holder(run) is None


def test_a_program_that_starts_a_killed_run_goes_on_with_what_a_person_asked(make_chain, monkeypatch):
    run = make_chain()
    crash_when(monkeypatch, lambda kind, step, fields: kind == "step" and step == 2)
    with pytest.raises(Crash):
        train(run, display=Silent(), parts=2)
    assert train(run, display=Silent(), keep_hold=True).why == "the parts that were asked for are done"
    assert schedule(run).done == 2
    assert train(run, display=Silent(), keep_hold=True).outcome == "finished", "that was done, and ended with a word"


def test_a_disk_without_room_at_the_end_of_a_part_lets_no_step_pass(make_chain, monkeypatch):
    run = make_chain()
    end = schedule(run).parts[0].last_step

    def fail(self, *args, **more):
        raise DataError("the card was taken out.")

    monkeypatch.setattr(Store, "draft", fail)
    with pytest.raises(OndeviceError, match="the card was taken out"):
        train(run, display=Silent(), sleep=lambda seconds: None)
    assert max(record["step"] for record in read_records(run.telemetry)) == end


def test_text_that_changed_or_went_away_hinders_neither_its_parts_nor_new_text(make_chain, corpus):
    run = make_chain()
    train(run, display=Silent(), parts=1)
    (corpus / "first.txt").write_text("other words", "utf-8")
    (corpus / "second.txt").unlink()
    assert train(run, display=Silent(), parts=1).step == schedule(run).parts[1].last_step, "its tokens are kept"
    (corpus / "third.txt").write_text("\n".join(f"new line {n}" for n in range(80)), "utf-8")
    with offline_lock(run, what="test"):
        add_text(run, [SourceConfig(path=str(corpus / "third.txt"), name="third", document="line")], parts=1)
    assert train(run, display=Silent()).outcome == "finished"
    assert told(run)[-1]["val_loss"].keys() == {"first", "second", "third"}, "what was read of the others is still here"


def test_a_part_that_diverges_is_tried_again_and_skipped(make_chain, monkeypatch):
    run, pauses = make_chain("chain.retries=1", "chain.on_failure=skip"), []
    first, second = (part.last_step for part in schedule(run).parts[:2])
    plain = Engine.update

    def update(self, lr):
        if loops[-1].state.step == first + 1 and schedule(run).current.name == "002":
            raise NonFiniteError("the loss is not a finite number")
        return plain(self, lr)

    loops = []
    monkeypatch.setattr(Loop, "_safe_point", lambda self, piece=False: loops.append(self) or 0.0)
    monkeypatch.setattr(Engine, "update", update)
    assert train(run, display=Silent(), sleep=pauses.append).outcome == "finished"
    parts = schedule(run).parts
    assert [part.state for part in parts] == ["done", "skipped", "done", "done"]
    assert parts[1].planned_steps == 1 and "not a finite number" in parts[1].error and sum(pauses) == 10.0
    assert told(run)[-2]["checkpoint_in"]["step"] == parts[1].last_step < second
