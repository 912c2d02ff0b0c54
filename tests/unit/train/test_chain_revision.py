"""A revision of a chain's recipe survives a crash at every write, and damage to what tells of parts is found."""

import errno
import json
import os
import shutil

import pytest

from ondevice.errors import DataError, OndeviceError, UsageError
from ondevice.run import files
from ondevice.run.directory import RunDir, offline_lock
from ondevice.run.papers import changed_papers
from ondevice.run.repair import Before, repair
from ondevice.run.schedule import FILE, schedule_of
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.run.verify import verify_folder
from ondevice.train.chain import train
from ondevice.train.fork import ForkWish, plan_fork
from ondevice.train.replay import replay
from ondevice.train.revise import reorder, skip_part
from ondevice.train.schedule import learning_rate
from tests.displays import Silent


class PowerCut(BaseException):
    pass


@pytest.fixture
def begun(make_chain):
    run = make_chain()
    train(run, display=Silent(), parts=1)
    return run


def damages(run):
    return [(finding.file, finding.text) for finding in verify_folder(run) if finding.level == "damage"]


def order_of(run):
    return [part.name for part in run.read_recipe().data.parts]


def mend(run):
    before = Before.of(run)
    with offline_lock(run, what="test"):
        return [each.file for each in repair(run, before)]


def copies(run, tmp_path):
    """A fresh copy of a run, again and again."""
    count = 0
    while True:
        count += 1
        target = tmp_path / f"copy-{count}" / run.name
        shutil.copytree(run.path, target)
        os.chmod(target, 0o700)
        yield RunDir(target)


@pytest.mark.parametrize("remedy", ["launch", "doctor", "again"])
def test_a_crash_at_any_write_leaves_the_old_plan_or_the_new_one(begun, tmp_path, monkeypatch, remedy):
    old, new = order_of(begun), ["001", "004", "002", "003"]
    plain, finished, run_copies, point = files.write_atomic, False, copies(begun, tmp_path), 0
    seen = []
    while not finished:
        run, point = next(run_copies), point + 1
        left = [point]

        def crashing(path, data, *, durable=True, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise PowerCut
            plain(path, data, durable=durable)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_atomic", crashing)
            patch.setattr("ondevice.run.revision.write_atomic", crashing)
            try:
                with offline_lock(run, what="test"):
                    reorder(run, ["004"])
                finished = True
            except PowerCut:
                pass
        assert order_of(run) in (old, new)
        seen.append(order_of(run) == new)
        assert not damages(run), "an interrupted revision is no damage"
        if remedy == "doctor":
            mend(run)
        elif remedy == "again":
            with offline_lock(run, what="test"):
                reorder(run, ["004"])
            assert order_of(run) == new
        else:
            train(run, display=Silent(), parts=1)
        assert not changed_papers(run, run.read_identity()) and not damages(run)
        if remedy == "launch":
            trained = [record["name"] for record in read_records(run.telemetry) if record["kind"] == "part"]
            assert trained == order_of(run)[:2]
    assert seen == sorted(seen) and point == 5, "before the new recipe is in its place nothing has happened"


def test_a_full_disk_refuses_a_revision_and_changes_nothing(begun, monkeypatch):
    def full(path, data, *, durable=True):
        raise files.write_error(path, OSError(errno.ENOSPC, "full"))

    monkeypatch.setattr("ondevice.run.revision.write_atomic", full)
    with offline_lock(begun, what="test"), pytest.raises(OndeviceError, match="the disk is full"):
        reorder(begun, ["004"])
    assert order_of(begun) == ["001", "002", "003", "004"] and not damages(begun)


def test_a_damaged_schedule_is_found_and_made_anew(begun):
    path = begun.path / FILE
    right = path.read_bytes()
    for wrong in (right.replace(b'"done"', b'"lost"'), right[:40], b"{}"):
        path.write_bytes(wrong)
        assert [file for file, _ in damages(begun)] == [FILE]
        assert mend(begun) == [FILE] and path.read_bytes() == right and not damages(begun)
    body = json.loads(right)
    del body["sha256"]
    files.write_sealed(path, {**body, "parts": body["parts"][:-1]})
    assert damages(begun) == [(FILE, "not the schedule that the recipe and the story make")]
    path.unlink()
    assert damages(begun) == [(FILE, "gone, though the trainer wrote one")]
    assert mend(begun) == [FILE] and path.read_bytes() == right


def test_parts_are_a_chain_of_hashes(begun, monkeypatch):
    train(begun, display=Silent(), parts=2)
    assert not damages(begun)
    plain = read_records

    def forged(folder):
        for record in plain(folder):
            yield {**record, "tokens": 1} if record["kind"] == "part" and record["name"] == "002" else record

    monkeypatch.setattr("ondevice.run.verify_schedule.read_records", forged)
    assert ("telemetry", "part 002: not chained to the part before it") in damages(begun)


def test_a_revision_changes_nothing_of_what_was_learned(make_chain):
    plain, revised = make_chain(name="plain"), make_chain(name="revised")
    train(plain, display=Silent(), parts=2)
    train(revised, display=Silent(), parts=2)
    with offline_lock(revised, what="test"):
        reorder(revised, ["004"])
    assert replay(revised).identical, "the last steps were made by the earlier revision"
    train(revised, display=Silent(), parts=1)
    assert replay(revised).identical
    one, two = (schedule_of(run.read_recipe(), read_records(run.telemetry)).parts for run in (plain, revised))
    assert [part.results["loss"] for part in one[:2]] == [part.results["loss"] for part in two[:2]]


def test_a_part_skipped_in_its_middle_keeps_what_was_trained(make_chain, monkeypatch):
    run = make_chain("limits.save_every_steps=2")
    train(run, display=Silent(), parts=1)
    end = schedule_of(run.read_recipe(), []).parts[0].last_step
    loop_step = end + 3
    from ondevice.run.telemetry import TelemetryWriter

    plain = TelemetryWriter.write

    def write(self, kind, step, **fields):
        if kind == "step" and step == loop_step:
            raise PowerCut
        return plain(self, kind, step, **fields)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(TelemetryWriter, "write", write)
        train(run, display=Silent())
    saved = max(Store(run.checkpoints).steps())
    assert saved > end
    with offline_lock(run, what="test"):
        assert skip_part(run, "as asked").name == "002"
    part = schedule_of(run.read_recipe(), read_records(run.telemetry)).parts[1]
    assert (part.state, part.last_step, part.error) == ("skipped", saved, "as asked")
    assert train(run, display=Silent()).outcome == "finished" and not damages(run)
    with offline_lock(run, what="test"), pytest.raises(UsageError, match="every part is done"):
        skip_part(run, "as asked")


def test_a_fork_of_a_chain_is_trained_in_one_go(begun):
    store = Store(begun.checkpoints)
    with store.lease(max(store.steps())) as checkpoint:
        fork = plan_fork(begun, checkpoint, ForkWish(steps=3))
    assert not fork.recipe.data.parts and not fork.config.chain.parts and fork.recipe.train.planned_steps == 3


def test_a_dataset_that_went_away_between_launches_is_no_failure_of_a_part(begun):
    dataset = begun.path.parent.parent / "datasets" / begun.read_recipe().data.dataset
    dataset.rename(dataset.with_name("elsewhere"))
    with pytest.raises(DataError, match="the dataset of this run is not here"):
        train(begun, display=Silent(), sleep=lambda seconds: pytest.fail("nothing to wait for"))
    assert not [record for record in read_records(begun.telemetry) if record.get("outcome") == "failed"]


def test_a_part_whose_checkpoint_was_damaged_is_trained_again(begun):
    train(begun, display=Silent(), parts=1)
    second = schedule_of(begun.read_recipe(), read_records(begun.telemetry)).parts[1]
    store = Store(begun.checkpoints)
    path = store.path(second.last_step) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert mend(begun) == [f"checkpoints/{store.path(second.last_step).name}"]
    train(begun, display=Silent(), parts=1)
    again = schedule_of(begun.read_recipe(), read_records(begun.telemetry)).parts[1]
    assert again.state == "done" and again.results["loss"] == second.results["loss"] and not damages(begun)
    assert again.results["chained"] != second.results["chained"], "another checkpoint, of another launch"
    assert train(begun, display=Silent()).outcome == "finished" and not damages(begun)


def test_an_earlier_recipe_that_was_lost_is_put_back(begun):
    with offline_lock(begun, what="test"):
        reorder(begun, ["004"])
    path = begun.path / "recipe-1.json"
    right = path.read_bytes()
    path.unlink()
    assert [file for file, _ in damages(begun)] == ["recipe-1.json"]
    assert mend(begun) == ["recipe-1.json"] and path.read_bytes() == right and not damages(begun)


def test_the_rate_goes_on_where_parts_are_left_out_and_the_recipe_tells(make_chain):
    run = make_chain("train.schedule=cosine")
    train(run, display=Silent(), parts=2)
    before = run.read_recipe()
    with offline_lock(run, what="test"):
        skip_part(run, "dull")
    recipe = run.read_recipe()
    (anchor,) = recipe.train.anchors
    assert (anchor.step, anchor.steps) == (max(Store(run.checkpoints).steps()), before.train.steps)
    assert anchor.lr == learning_rate(before.train, anchor.step)
    assert train(run, display=Silent()).outcome == "finished"
    rates = [record["lr"] for record in read_records(run.telemetry) if record["kind"] == "step"]
    assert rates == [learning_rate(recipe.train, step) for step in range(recipe.train.steps)]
    assert replay(run).identical and not damages(run)
