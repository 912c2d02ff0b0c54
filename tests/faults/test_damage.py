"""Damage to every kind of file of a trained run; the whole is ``tools/fault_campaign --full --part damage``."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ondevice.run.directory import RunDir
from ondevice.run.finding import damage
from tools.faults import damage as campaign
from tools.faults.damage import Campaign
from tools.faults.damage_mutations import KINDS, MUTATIONS, allowed, files_of, mutate
from tools.faults.damage_specimen import Specimen, at_home, make_specimen


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("damage"))


def test_the_specimen_has_every_kind_of_file(specimen: Specimen) -> None:
    assert all(files_of(specimen.home, kind) for kind in KINDS)
    assert all(files_of(specimen.other, kind, "other") for kind in KINDS)


def test_nothing_is_missed_lost_or_loaded_wrong(specimen: Specimen, tmp_path: Path) -> None:
    made = Campaign(specimen, tmp_path / "trial", random.Random(1))
    rows = made.run(trials=70)  # of every kind some; `tools/faults/damage.py` makes thousands
    assert sum(row.trials for row in rows) >= 70
    assert made.words == []
    assert sum(row.losses + row.silent for row in rows) == 0
    assert made.continued >= 2


def test_a_sound_specimen_is_found_sound(specimen: Specimen) -> None:
    for home in (specimen.home, *specimen.past):  # the last of the past ended in a kill
        with at_home(home):
            found = campaign.verify_run(RunDir(home / "runs" / "own"))
        assert [finding for finding in found if finding.level == "damage"] == []


def test_the_campaign_notices_a_blind_verify_and_a_doctor_that_deletes(
    specimen: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Campaign(specimen, tmp_path / "trial", random.Random(2))
    monkeypatch.setattr(campaign, "verify_run", lambda run_dir: [])
    monkeypatch.setattr(campaign, "repair", lambda run_dir, before: run_dir.fit.unlink(missing_ok=True) or [])
    made.run(trials=3)
    assert made.silent.total() == 3
    assert made.losses.total() == 3
    assert any("verify finds nothing" in text for text in made.words)
    assert any("fit.json is gone or changed" in text for text in made.words)


def test_the_campaign_notices_what_doctor_leaves(
    specimen: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Campaign(specimen, tmp_path / "trial", random.Random(3))
    monkeypatch.setattr(campaign, "verify_run", lambda run_dir: [damage("fit.json", "changed")])
    made.run(trials=1)
    made.trial("fit", "flip")
    assert any("doctor leaves fit.json" in text for text in made.words)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_changes_bytes(specimen: Specimen, tmp_path: Path, mutation: str) -> None:
    kind = "checkpoint" if mutation in ("swap", "stale") else "config"
    assert allowed(kind, mutation)
    made = Campaign(specimen, tmp_path / "trial", random.Random(4))
    home = made.fresh_home()
    done = mutate(home, specimen, kind, mutation, random.Random(5))
    assert done is not None and done.words.startswith(mutation)
    before, after = campaign.bytes_of(specimen.home), campaign.bytes_of(home)
    linked = any((home / path).is_symlink() for path in done.paths)
    assert linked or before != after


@pytest.mark.slow
def test_the_whole_campaign(tmp_path: Path) -> None:
    rows = campaign.run(full=True, folder=tmp_path, seed=1)
    assert sum(row.trials for row in rows) >= 1000
    assert [row.detail for row in rows if row.losses or row.silent] == []
