"""What a run was begun with is recorded with hashes, and a run of an older layout is brought up to the present one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import DataError
from ondevice.run.config import read_limits
from ondevice.run.create import create_run
from ondevice.run.directory import LAYOUT, RunDir
from ondevice.run.files import write_json
from ondevice.run.migrate import migrate
from ondevice.run.papers import changed_papers, lineage_of
from ondevice.run.recipe import Fit


def test_the_identity_names_every_paper_the_command_and_the_environment(run: RunDir) -> None:
    identity = run.read_identity()
    assert set(identity["papers"]) == {"config.toml", "recipe.json", "fit.json"}
    assert identity["command"] and identity["environment"]["python"]
    assert identity["lineage"] is None
    assert changed_papers(run, identity) == []


def test_every_changed_or_missing_paper_is_named(run: RunDir) -> None:
    identity = run.read_identity()
    for name in identity["papers"]:
        path = run.path / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert changed_papers(run, identity) == [f"{path}: changed since the run was made (hash differs)."]
        path.unlink()
        assert changed_papers(run, identity) == [f"{path}: no such file."]
        path.symlink_to(run.identity)
        assert "cannot be read" in changed_papers(run, identity)[0]
        path.unlink()
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd"])
def test_papers_outside_the_run_are_not_read(run: RunDir, name: str) -> None:
    assert "outside the run" in changed_papers(run, {"papers": {name: "0" * 64}})[0]


def test_every_changed_bit_of_the_identity_is_noticed(run: RunDir) -> None:
    data = run.identity.read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        run.identity.write_bytes(changed)
        with pytest.raises(DataError, match=r"run\.json: .*ondevice doctor notes|run\.json: not valid JSON"):
            run.read_identity()


def test_lineage_is_a_chain() -> None:
    parent = {"run": "a", "id": "1", "step": 3, "checkpoint_sha256": "x", "recipe_sha256": "y", "lineage": None}
    first = lineage_of(parent)
    assert first == lineage_of(dict(reversed(parent.items())))
    assert first != lineage_of({**parent, "lineage": first}) != lineage_of({**parent, "step": 4})
    assert lineage_of(None) is None


def _as_layout_1(run: RunDir) -> None:
    """The run as layout 1 wrote it."""
    identity = run.read_identity()
    kept = {key: identity[key] for key in ("id", "created_t", "code_version", "parent")}
    write_json(run.identity, {"layout": 1, **kept})
    write_json(run.status, {"v": 1, "state": "stopped", "step": 3})
    write_json(run.limits, {"v": 1, "keep_last": 5, "max_rss_mb": None})


def test_layout_1_becomes_the_present_one(run: RunDir) -> None:
    before = run.read_identity()
    _as_layout_1(run)
    assert run.read_identity()["layout"] == 1  # still readable before
    assert len(migrate(run)) == 1
    after = run.read_identity()
    assert after["layout"] == LAYOUT
    assert {key: after[key] for key in ("id", "created_t", "papers")} == {
        key: before[key] for key in ("id", "created_t", "papers")
    }
    assert read_limits(run.limits).keep_last == 5
    assert migrate(run) == []


def test_a_migration_that_was_interrupted_is_repeated(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_layout_1(run)

    def fail(*_: Any) -> Any:
        raise DataError("power is gone")

    with monkeypatch.context() as patch:
        patch.setattr("ondevice.run.migrate.paper_hashes", fail)
        with pytest.raises(DataError, match="power is gone"):
            migrate(run)
    assert read_limits(run.limits).keep_last == 5 and run.read_identity()["layout"] == 1
    assert migrate(run) and read_limits(run.limits).keep_last == 5


def test_limits_of_layout_1_that_make_no_sense_are_one_sentence(run: RunDir) -> None:
    _as_layout_1(run)
    run.limits.write_text(json.dumps([1]))
    with pytest.raises(DataError, match="not a run's limits; delete it"):
        migrate(run)


def test_what_a_caller_fills_in_appears_with_the_run(home_folder: Path, recipe: Any) -> None:
    def fill(draft: RunDir) -> None:
        assert draft.identity.exists() and not (home_folder / "runs" / "child").exists()
        (draft.checkpoints / "step-00000003").mkdir()

    fit = Fit(micro_batch=1, threads=1, activation_checkpointing=False, loss_chunk_tokens=16)
    parent = {"run": "a", "id": "1", "step": 3, "checkpoint_sha256": "x", "recipe_sha256": "y", "lineage": None}
    child = create_run(
        home_folder / "runs" / "child",
        config_toml="",
        recipe=recipe,
        fit=fit,
        save_tokenizer=lambda folder: (folder.mkdir(), (folder / "tokenizer.json").write_text("{}")),
        parent=parent,
        fill=fill,
    )
    assert (child.checkpoints / "step-00000003").is_dir()
    identity = child.read_identity()
    assert identity["lineage"] == lineage_of(parent)
    assert "tokenizer/tokenizer.json" in identity["papers"]
