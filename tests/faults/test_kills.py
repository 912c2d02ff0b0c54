"""Real training processes are killed, starved, frozen and misled, and end as if nothing had happened.

The whole campaign is ``tools/fault_campaign --full``; these tests are a small part of it, and show what it
notices.
"""

import dataclasses
import os
import random
import shutil

import pytest

from ondevice.run.directory import RunDir
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files
from tools.faults import kills, world
from tools.faults.lab import Lab
from tools.faults.table import Row, header, lines
from tools.faults.witness import Witness

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def small_world(lab):
    return world.World(lab, rng=random.Random(1), steps=60)


@pytest.fixture(scope="module")
def finished(small_world):
    run, _ = small_world.copy()
    assert small_world.lab.begin(run).end()["outcome"] == "finished"
    return run


@pytest.mark.parametrize("wish", kills.REDUCED, ids=lambda wish: wish.name)
def test_a_run_killed_in_every_phase_ends_as_if_it_never_was(lab, wish):
    campaign = kills.Campaign(lab, wish, rng=random.Random(1), steps=36)
    row = campaign.run(each=3)
    assert row.losses == row.silent == 0, campaign.losses
    assert row.trials >= 12 and campaign.finished >= 1
    assert sum(campaign.hits[phase] > 0 for phase in kills.TARGETS) >= 3, "kills are spread over the phases"


@pytest.mark.parametrize(
    ("trial", "argument"),
    [
        ("out_of_memory", world.OUT_OF_MEMORY[0]),
        ("out_of_memory", world.OUT_OF_MEMORY[1]),
        ("disk_full", None),
        ("clock_jumps", None),
        ("two_trainers", None),
        ("frozen", None),
    ],
)
def test_a_run_goes_on_after_what_the_world_did_to_it(small_world, trial, argument):
    row = small_world.row(trial, [argument], getattr(small_world, trial))
    if not row.trials and not row.losses:
        pytest.skip(row.detail)
    assert row.losses == 0, row.detail


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", [kills, world], ids=["kills", "world"])
def test_the_whole_campaign(tmp_path, part):
    for row in part.run(full=True, folder=tmp_path, seed=random.randrange(1 << 32)):
        assert row.losses == row.silent == 0, row


class TestTheWitness:
    """What it must notice, on a run that is done."""

    @pytest.fixture
    def witness(self, small_world, finished, tmp_path):
        shutil.copytree(finished.path, tmp_path / "run")
        witness = Witness(RunDir(tmp_path / "run"), small_world.truth, world.KEEP_LAST)
        assert witness.look(None) == []
        assert witness.truth.differs_at_end(witness.run) == []
        return witness

    def test_a_checkpoint_that_verifies_and_differs(self, witness):
        last, checkpoints = max(witness.known), witness.truth.checkpoints
        changed = {**checkpoints, last: {**checkpoints[last], "model.safetensors": "another"}}
        witness.truth = dataclasses.replace(witness.truth, checkpoints=changed)
        assert f"step {last}: verifies, but model.safetensors is not what it was without a kill" in witness.look(None)
        assert witness.silent == 1
        assert witness.truth.differs_at_end(witness.run) == ["the end: model.safetensors differs"]

    def test_a_checkpoint_that_is_gone(self, witness):
        last = max(witness.known)
        shutil.rmtree(Store(witness.run.checkpoints).path(last))
        assert witness.look(None) == [f"step {last}: its checkpoint is gone"]

    def test_a_commit_that_left_nothing(self, witness):
        assert witness.look(1) == []  # the policy has long let it go
        assert witness.look(witness.truth.steps - 1) == [f"step {witness.truth.steps - 1}: its checkpoint is gone"]

    def test_a_damaged_checkpoint(self, witness):
        file = Store(witness.run.checkpoints).path(max(witness.known)) / "state.json"
        file.write_bytes(file.read_bytes()[:-1])
        faults = witness.look(None)
        assert any("a kill damaged it" in fault for fault in faults) and witness.silent == 0

    def test_a_loss_that_was_changed_and_a_story_that_was_cut(self, witness):
        [file] = launch_files(witness.run.telemetry)
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b'"grad_norm":0.', b'"grad_norm":1.', 1))
        assert witness.look(None) != []
        assert witness.truth.differs_at_end(witness.run) == ["telemetry: grad_norm differs"]
        file.write_bytes(whole[: len(whole) // 2])
        assert "launch 1: a checkpoint is ahead of its telemetry" in witness.look(None)


def test_the_table_fits_a_terminal():
    row = Row("kill gpt2-adamw-recompute", 123_456, 12, 3, "a long detail " * 20 + "\nand another")
    assert all(len(line) <= 100 for line in [*header(), *lines(row)])
    assert lines(row)[0].split()[:5] == ["kill", "gpt2-adamw-recompute", "123456", "12", "3"]
