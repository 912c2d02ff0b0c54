"""What verify finds in runs whose life was written by hand, without training."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.run import control, verify
from ondevice.run.audit import end_of_story
from ondevice.run.config import write_limits
from ondevice.run.directory import RunDir, offline_lock
from ondevice.run.files import read_json, write_sealed
from ondevice.run.finding import damage, note
from ondevice.run.quality import write_quality
from ondevice.run.repair import Before, repair
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.verify import verify_folder


def faults(run: RunDir) -> list[str]:
    return [f"{finding.file}: {finding.text}" for finding in verify_folder(run) if finding.level == "damage"]


def notes(run: RunDir) -> list[str]:
    return [f"{finding.file}: {finding.text}" for finding in verify_folder(run) if finding.level == "note"]


def test_a_run_that_was_killed_and_went_on_is_sound(lived: RunDir) -> None:
    write_quality(lived.evals, {4: 0.5})
    assert faults(lived) == []
    assert {finding.file for finding in verify_folder(lived) if finding.level == "ok"} >= {
        "run.json",
        "config.toml",
        "recipe.json",
        "fit.json",
        "telemetry/0001.jsonl",
        "telemetry/0002.jsonl",
        "checkpoints/step-00000008",
        "status.json",
        "evals/quality.json",
    }


def test_a_run_that_never_started_is_sound(run: RunDir) -> None:
    assert faults(run) == []


def _edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _drop_last_line(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:-1])


def test_a_cut_story_is_said_to_be_cut(lived: RunDir) -> None:
    _edit(lived.telemetry / "0002.jsonl", _drop_last_line)
    assert faults(lived)[0].startswith("telemetry/0002.jsonl: cut: status.json knew")
    _edit(lived.telemetry / "0001.jsonl", _drop_last_line)
    assert "telemetry/0001.jsonl: is not what launch 2 found: it was cut" in faults(lived)


def test_a_cut_story_never_costs_a_checkpoint(lived: RunDir) -> None:
    lived.status.unlink()
    _edit(lived.telemetry / "0002.jsonl", lambda data: b"".join(data.splitlines(keepends=True)[:3]))
    found = faults(lived)
    assert any("cut: a checkpoint knew" in text for text in found)
    assert any("step-00000008: ahead of its story" in text for text in found)
    repair(lived, Before.of(lived))
    assert Store(lived.checkpoints).steps() == [2, 4, 6, 8]


def test_a_gap_a_foreign_line_and_a_tail_are_damage_and_a_torn_line_is_not(lived: RunDir, life: Any) -> None:
    second = lived.telemetry / "0002.jsonl"
    _edit(second, lambda data: data + b'{"v":1,"t":12')
    assert faults(lived) == ["telemetry/0002.jsonl: ends with bytes that no trainer wrote"]  # it had ended
    _edit(second, lambda data: data.rpartition(b"\n")[0] + b"\n")
    _edit(second, lambda data: data.replace(b'"step":5', b'"step":6', 1))
    assert any("changed since it was written" in text for text in faults(lived))
    (lived.telemetry / "0001.jsonl").unlink()
    assert any("telemetry/0001.jsonl: missing" in text for text in faults(lived))


def test_a_line_torn_by_a_kill_is_a_note(life: Any) -> None:
    life.launch().steps(1, 2).save(2).status().gone()
    _edit(life.run.telemetry / "0001.jsonl", lambda data: data + b'{"v":1,"t":12')
    assert faults(life.run) == []
    assert any("1 torn" in text for text in notes(life.run))
    _edit(life.run.telemetry / "0001.jsonl", lambda data: data + b"\xfe\xff" * 9)
    life.again()
    life.launch(2).steps(3, 3).status().gone()
    _edit(life.run.telemetry / "0001.jsonl", lambda data: data + b"\0" * 512)
    assert any("0001.jsonl: has grown since launch 2 began" in text for text in faults(life.run))


def test_a_file_of_another_run_is_told_from_this_ones(
    lived: RunDir, new_run: Callable[[str], RunDir], begin: Callable[[RunDir], Any]
) -> None:
    other = begin(new_run("other")).launch().steps(1, 3).save(2).save(4).end().run
    kept = (lived.telemetry / "0001.jsonl").read_bytes()
    shutil.copy(other.telemetry / "0001.jsonl", lived.telemetry / "0001.jsonl")
    assert "telemetry/0001.jsonl: was written by another run" in faults(lived)
    (lived.telemetry / "0001.jsonl").write_bytes(kept)
    shutil.copy(other.identity, lived.identity)
    assert "run.json: not the one its launches found (id differ)" in faults(lived)
    repair(lived, Before.of(lived))
    shutil.copy(other.status, lived.status)
    assert faults(lived) == ["status.json: not of this story: it knows another one"]


def test_a_checkpoint_that_is_intact_and_not_the_recorded_one_is_damage(
    lived: RunDir, new_run: Callable[[str], RunDir], begin: Callable[[RunDir], Any]
) -> None:
    other = begin(new_run("other")).launch().steps(1, 3).save(2).save(4).end().run
    shutil.rmtree(Store(lived.checkpoints).path(4))
    shutil.copytree(Store(other.checkpoints).path(4), Store(lived.checkpoints).path(4))
    assert any("step-00000004: intact, but not the one" in text for text in faults(lived))
    repair(lived, Before.of(lived))
    assert Store(lived.checkpoints).steps() == [2, 6, 8]
    assert faults(lived) == []


def test_the_chain_of_checkpoints_is_followed(life: Any) -> None:
    life.launch().steps(1, 6).save(2).save(4)
    first = life.store.peek(2)
    life.previous = dataclasses.replace(first, sha256="0" * 64)
    life.save(6).end()
    assert any("step-00000006: came after another checkpoint of step 2" in text for text in faults(life.run))


def test_a_missing_checkpoint_is_damage_unless_a_prune_explains_it(lived: RunDir) -> None:
    store = Store(lived.checkpoints)
    shutil.rmtree(store.path(8))
    assert faults(lived) == ["checkpoints/step-00000008: gone, and nothing says that it was pruned"]


def test_a_prune_that_a_kill_left_untold_is_no_damage(life: Any) -> None:
    life.launch().steps(1, 6).save(2).save(4).save(6, record=False, removed=(2,)).status().gone()
    assert faults(life.run) == []
    shutil.rmtree(life.store.path(4))
    assert any("step-00000004: gone" in text for text in faults(life.run))


def test_what_a_prune_told_of_is_not_missed(life: Any) -> None:
    life.launch().steps(1, 6).save(2).save(4).save(6, removed=(2,)).end()
    assert faults(life.run) == []


def test_a_half_pruned_checkpoint_is_a_note_and_a_lost_manifest_is_damage(life: Any) -> None:
    life.launch().steps(1, 6).save(2).save(4).save(6, record=False).status().gone()
    (life.store.path(2) / "manifest.json").unlink()
    assert faults(life.run) == []
    assert any("half-pruned" in text for text in notes(life.run))
    (life.store.path(4) / "manifest.json").unlink()
    assert "checkpoints/step-00000004: its manifest is gone" in faults(life.run)


def test_pins_and_limits_may_change_while_no_trainer_lives(lived: RunDir) -> None:
    after = end_of_story(lived.telemetry)
    Store(lived.checkpoints).pin(4, "by hand", after=after)
    write_limits(lived.limits, Limits(keep_last=9), after=after)
    assert faults(lived) == []
    Store(lived.checkpoints).pin(6, "by nobody")
    write_limits(lived.limits, Limits(keep_last=8))
    assert faults(lived) == [
        "limits.json: not the limits that the story tells of",
        "checkpoints/pins.json: not the pins that the story tells of",
    ]


def test_a_letter_that_was_obeyed_and_not_answered_is_no_damage(life: Any) -> None:
    life.launch().steps(1, 4).save(2).save(4).status()
    control.send(life.run, "pin", {"step": 4, "reason": "x"}, sender="test")
    control.send(life.run, "limit", {"keep_last": 7}, sender="test")
    life.store.pin(4, "x")
    write_limits(life.run.limits, Limits(keep_last=7))
    life.gone()
    assert faults(life.run) == []


def test_pins_and_limits_that_were_answered_must_be_there(life: Any) -> None:
    life.launch().steps(1, 4).save(2).save(4)
    for verb, args in (("pin", {"step": 4, "reason": "x"}), ("limit", {"keep_last": 7})):
        life.told("control", 4, verb=verb, args=args, ok=True)
    life.status().gone()
    assert faults(life.run) == [
        "limits.json: gone, though limits were changed",
        "checkpoints/pins.json: step 4 is no longer pinned, and nobody unpinned it",
    ]


def test_a_status_from_before_the_end_is_damage(lived: RunDir) -> None:
    status = {key: value for key, value in read_json(lived.status).items() if key != "sha256"}
    before = lived.status.read_bytes()
    lived.status.unlink()
    assert faults(lived) == ["status.json: gone, though the last launch wrote one"]
    status["telemetry"] = {"launch": 2, "bytes": 0, "chain": f"{2:016d}"}
    write_sealed(lived.status, status)
    assert faults(lived) == ["status.json: older than the end of the run, after which it was written"]
    lived.status.write_bytes(before)
    assert faults(lived) == []


def test_a_copy_without_lock_and_status_is_no_damage(lived: RunDir) -> None:
    lived.status.unlink()
    lived.lock.unlink()
    shutil.rmtree(Store(lived.checkpoints).path(2))
    assert faults(lived) == []
    with offline_lock(lived, what="ondevice doctor"):
        assert repair(lived, Before.of(lived)) == []
    assert faults(lived) == []
    assert "checkpoints/step-00000002: stayed behind when the run was copied here" in notes(lived)


def test_links_are_damage_and_open_folders_and_litter_are_notes(lived: RunDir, tmp_path: Path) -> None:
    lived.config.rename(tmp_path / "config.toml")
    lived.config.symlink_to(tmp_path / "config.toml")
    os.mkfifo(lived.logs / "pipe")
    (lived.path / ".tmp-status.json-1-2").write_text("{")
    lived.path.chmod(0o755)
    found = faults(lived)
    assert "config.toml: a symbolic link; everything of a run must lie inside it" in found
    assert "logs/pipe: neither a file nor a folder" in found
    assert ".tmp-status.json-1-2: left by a writer that was killed" in notes(lived)
    assert any("others may enter" in text for text in notes(lived))


def test_the_lineage_must_be_the_hash_of_the_parent(lived: RunDir) -> None:
    identity = lived.read_identity()
    write_sealed(lived.identity, {**identity, "parent": {"run": "x", "step": 4}})
    assert any("lineage is not the hash" in text for text in faults(lived))


def test_on_a_live_run_only_lasting_damage_counts(life: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    life.launch().steps(1, 2).save(2).status()
    looks = [
        [damage("a", "passing"), damage("b", "lasting")],
        [damage("b", "lasting"), damage("c", "new"), note("", "n")],
    ]
    monkeypatch.setattr(verify, "_look", lambda run: looks.pop(0) if len(looks) > 1 else looks[0])
    monkeypatch.setattr(verify, "_WAIT_S", 0.0)
    assert verify_folder(life.run) == [damage("b", "lasting"), note("", "n")]
    life.gone()


def test_a_live_run_is_sound(life: Any) -> None:
    life.launch().steps(1, 4).save(2).save(4).status().steps(5, 6)
    assert faults(life.run) == []
    life.gone()
