"""What doctor mends in runs whose life was written by hand, and what it leaves alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.run.config import read_limits, write_limits
from ondevice.run.directory import LAYOUT, RunDir, offline_lock
from ondevice.run.files import read_json, write_json, write_sealed
from ondevice.run.finding import DAMAGE
from ondevice.run.liveness import read_status
from ondevice.run.quality import write_quality
from ondevice.run.repair import Before, Repair, repair
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.verify import verify_folder


def mend(run: RunDir, *, dry_run: bool = False) -> list[Repair]:
    """As the command does it."""
    before = Before.of(run)
    if dry_run:
        return repair(run, before, dry_run=True)
    with offline_lock(run, what="ondevice doctor"):
        return repair(run, before)


def damaged(run: RunDir) -> list[str]:
    return [finding.file for finding in verify_folder(run) if finding.level == DAMAGE]


def content(run: RunDir) -> dict[str, bytes]:
    files = [path for path in run.path.rglob("*") if path.is_file() and path != run.lock]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


PAPERS = ("run.json", "config.toml", "recipe.json", "fit.json")


@pytest.mark.parametrize("how", [spoil, Path.unlink])
@pytest.mark.parametrize("names", [*([name] for name in PAPERS), PAPERS])
def test_papers_come_back_to_the_byte(lived: RunDir, how: Callable[[Path], None], names: list[str]) -> None:
    before = content(lived)
    for name in names:
        if (lived.path / name).stat().st_size:
            how(lived.path / name)
    mend(lived)
    assert content(lived) == before
    assert mend(lived) == []


def test_a_paper_without_a_right_copy_is_left_to_a_person(run: RunDir) -> None:
    run.fit.write_text("{}")
    assert mend(run) == []
    assert run.fit.read_text() == "{}"
    assert damaged(run) == ["fit.json"]


def test_the_tokenizer_comes_from_wherever_its_hash_is_right(lived: RunDir, home_folder: Path) -> None:
    (lived.tokenizer / "a.json").write_text("right")
    identity = lived.read_identity()
    papers = {**identity["papers"], "tokenizer/a.json": hashlib.sha256(b"right").hexdigest()}
    write_sealed(lived.identity, {**identity, "papers": papers})
    shutil.rmtree(lived.telemetry)
    lived.telemetry.mkdir()
    (lived.tokenizer / "a.json").unlink()
    for name, text in (("tokenizer-1", "wrong"), ("tokenizer-2", "right")):
        (home_folder / "datasets" / "d" / name).mkdir(parents=True)
        (home_folder / "datasets" / "d" / name / "a.json").write_text(text)
    assert [each.file for each in mend(lived)][:1] == ["tokenizer/a.json"]
    assert (lived.tokenizer / "a.json").read_text() == "right"


def test_a_link_is_replaced_by_the_paper_itself(lived: RunDir, tmp_path: Path) -> None:
    before = lived.recipe.read_bytes()
    lived.recipe.rename(tmp_path / "elsewhere")
    lived.recipe.symlink_to(tmp_path / "elsewhere")
    mend(lived)
    assert not lived.recipe.is_symlink() and lived.recipe.read_bytes() == before
    assert (tmp_path / "elsewhere").read_bytes() == before


@pytest.mark.parametrize("how", [spoil, Path.unlink])
def test_limits_and_pins_are_made_anew_from_the_story(life: Any, how: Callable[[Path], None]) -> None:
    run = life.run
    life.launch().steps(1, 6).save(2).save(4)
    for verb, args in (
        ("limit", {"keep_last": 7}),
        ("pin", {"step": 2, "reason": "old"}),
        ("pin", {"step": 4, "reason": "new"}),
        ("limit", {"max_rss_mb": 900.0}),
        ("pin", {"step": 2, "reason": None}),
    ):
        life.told("control", 4, verb=verb, args=args, ok=True)
    life.told("control", 4, verb="limit", args={"keep_last": 1}, ok=False)
    write_limits(run.limits, Limits(keep_last=7, max_rss_mb=900.0))
    life.store.pin(4, "new")
    life.save(6).end()
    assert damaged(run) == []
    how(run.limits)
    how(run.checkpoints / "pins.json")
    assert len(mend(run)) == 2
    assert read_limits(run.limits) == Limits(keep_last=7, max_rss_mb=900.0)
    assert life.store.pins() == {4: "new"}
    assert damaged(run) == [] and mend(run) == []


def test_a_hold_outlives_its_status(life: Any) -> None:
    run = life.run
    life.launch().steps(1, 4).save(2).save(4)
    life.told("control", 4, verb="pause", args={}, ok=True, **{"from": "phone"})
    life.status("waiting", hold="paused by phone").gone()
    run.status.write_text("{")
    assert "it stays paused by phone" in mend(run)[0].text
    assert read_status(run)["hold"] == "paused by phone"
    assert damaged(run) == []
    life.again().launch(4).steps(5, 5).status().gone()  # a person started it again
    run.status.unlink()
    mend(run)
    assert read_status(run)["hold"] == ""


def test_a_status_made_anew_tells_how_the_run_ended(lived: RunDir) -> None:
    lived.status.write_bytes(b"")
    mend(lived)
    status = read_status(lived)
    assert (status["state"], status["launch"], status["step"]) == ("finished", 2, 8)
    assert damaged(lived) == []


def test_damaged_checkpoints_are_set_aside_whole(lived: RunDir) -> None:
    store = Store(lived.checkpoints)
    for step in (8, 4):
        spoil(store.path(step) / "model.safetensors")
    (store.path(6) / "manifest.json").unlink()
    before = set(content(lived).values())
    assert {each.file for each in mend(lived)} == {f"checkpoints/step-0000000{step}" for step in (4, 6, 8)}
    assert store.steps() == [2]
    assert set(content(lived).values()) >= before
    assert damaged(lived) == [] and mend(lived) == []


def test_the_last_checkpoints_stay_where_they_are_though_damaged(lived: RunDir) -> None:
    store = Store(lived.checkpoints)
    for step in store.steps():
        spoil(store.path(step) / "state.json")
    assert mend(lived) == []
    assert store.steps() == [2, 4, 6, 8]
    assert len(damaged(lived)) == 4


def test_telemetry_is_never_rewritten(lived: RunDir) -> None:
    spoil(lived.telemetry / "0001.jsonl")
    lived.limits.write_text("{")
    before = content(lived)
    assert mend(lived) == []  # what a damaged story says is not believed
    assert content(lived) == before


def test_scores_and_unknown_files_are_left(lived: RunDir) -> None:
    write_quality(lived.evals, {4: 1.0})
    spoil(lived.evals / "quality.json")
    (Store(lived.checkpoints).path(8) / "notes.txt").write_text("mine")
    before = content(lived)
    assert mend(lived) == []
    assert content(lived) == before


def test_what_interrupted_changes_left_is_finished(lived: RunDir, life: Any) -> None:
    store = Store(lived.checkpoints)
    manifest = read_json(store.path(2) / "manifest.json")
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    write_sealed(store.path(2) / "manifest.json", {**body, "dropped": ["optimizer.safetensors"]})
    (lived.checkpoints / ".tmp-9-1").mkdir()
    (lived.telemetry / ".tmp-0003.jsonl-1-a").write_text("")
    (lived.path / ".tmp-status.json-1-a").write_text("")
    done = mend(lived)
    assert {each.file for each in done} == {
        ".tmp-status.json-1-a",
        "checkpoints/.tmp-9-1",
        "telemetry/.tmp-0003.jsonl-1-a",
    }
    assert not (store.path(2) / "optimizer.safetensors").exists()
    assert not [name for name in content(lived) if ".tmp-" in name]
    assert damaged(lived) == [] and mend(lived) == []


def test_a_dry_run_says_the_same_and_writes_nothing(lived: RunDir) -> None:
    for path in (lived.identity, lived.recipe, lived.status, Store(lived.checkpoints).path(8) / "model.safetensors"):
        spoil(path)
    (lived.path / ".tmp-x-1-a").write_text("")
    before = content(lived)
    said = [each.file for each in mend(lived, dry_run=True)]
    assert content(lived) == before
    assert said == [each.file for each in mend(lived)]


def test_an_older_layout_is_brought_up(run: RunDir) -> None:
    identity = run.read_identity()
    write_json(run.identity, {"layout": 1, "id": identity["id"], "created_t": 1.0, "code_version": "0", "parent": None})
    assert [each.file for each in mend(run, dry_run=True)] == ["run.json"]
    assert run.read_identity()["layout"] == 1
    mend(run)
    assert run.read_identity()["layout"] == LAYOUT
    assert damaged(run) == [] and mend(run) == []
