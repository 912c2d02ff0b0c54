"""``ondevice pack`` and ``unpack``: a run that moves goes on as if it had stayed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.data.parcel import dataset_files, open_dataset
from ondevice.run.audit import audit_file
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.files import sealed_bytes
from ondevice.run.liveness import read_status
from ondevice.run.pack import Pack, list_members, write_pack
from ondevice.run.parcel import Listed, run_files
from ondevice.run.store import Store
from ondevice.run.telemetry import chained, read_file
from ondevice.run.unpack import read_index


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``there()`` -> on the other machine from now on."""

    def go() -> Path:
        monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "there"))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "there"

    return go


def _weights(run: Path, step: int) -> bytes:
    folder = Store(RunDir(run).checkpoints).open(step).path
    return (folder / "model.safetensors").read_bytes() + (folder / "optimizer.safetensors").read_bytes()


def test_a_run_that_moved_in_the_middle_ends_with_the_same_bits(place: Path, call: Any, there: Any) -> None:
    dense = ("--set", "limits.save_every_steps=4", "--set", "limits.drop_old_optimizer=false", "--quiet")
    assert call("train", "tiny.toml", "--name", "stayed", "--quiet").code == 0
    assert call("train", "tiny.toml", "--name", "moved", *dense).code == 0
    for lost in (8, 12):
        shutil.rmtree(place / f"home/runs/moved/checkpoints/step-{lost:08d}")
    assert call("pack", "moved").code == 0
    away = there()
    assert "goes on bit for bit" in call("unpack", place / "moved.ondevice").out
    assert call("train", "moved", "--quiet").code == 0
    assert _weights(away / "runs/moved", 12) == _weights(place / "home/runs/stayed", 12)


def test_everything_comes_along(own: Path, call: Any, there: Any, tmp_path: Path) -> None:
    assert call("pack", "tiny", "--out", tmp_path / "p.ondevice").code == 0
    away = there()
    assert call("unpack", "p.ondevice").code == 0
    for part in ("run.json", "recipe.json", "telemetry/0001.jsonl"):
        assert (away / "runs/tiny" / part).read_bytes() == (own / "runs/tiny" / part).read_bytes()
    assert (away / "runs/tiny").stat().st_mode & 0o777 == 0o700
    assert not list((away / "runs").glob(".ondevice*"))
    assert call("generate", "tiny", "the", "--max-new-tokens", "4").code == 0
    index = read_index(tmp_path / "p.ondevice").index
    left = away / "runs" / f".ondevice-unpack-{hashlib.sha256(index).hexdigest()[:12]}"
    (left / "data").mkdir(parents=True)  # as after a kill at the very end
    assert "is here already" in call("unpack", "p.ondevice").out and not left.exists()
    assert call("unpack", "p.ondevice", "--name", "second").code == 0
    assert len(list((away / "datasets").iterdir())) == 1  # the data is there once


def test_the_newest_alone_without_data(own: Path, call: Any, there: Any, tmp_path: Path) -> None:
    body = call("pack", "tiny", "--latest", "--no-data", "--out", tmp_path / "p.ondevice", "--json").json
    assert body["about"]["dataset"] is None and body["about"]["step"] == 12
    away = there()
    assert call("unpack", "p.ondevice", "--json").json["inexact"] == []
    assert [path.name for path in (away / "runs/tiny/checkpoints").iterdir()] == ["step-00000012"]
    assert not (away / "datasets").exists()
    assert call("train", "tiny").code == 3  # and says that the dataset is missing


def test_another_dataset_of_that_name_stays_and_both_are_found(
    own: Path, call: Any, there: Any, tmp_path: Path
) -> None:
    assert call("pack", "tiny", "--out", tmp_path / "p.ondevice").code == 0
    away = there()
    name = next((own / "datasets").iterdir()).name
    (away / "datasets" / name).mkdir(parents=True)
    (away / "datasets" / name / "mine").write_text("precious")
    assert call("unpack", "p.ondevice").code == 0
    assert (away / "datasets" / name / "mine").read_text() == "precious"
    assert call("train", "tiny").code == 0


def test_other_software_is_said(
    own: Path, call: Any, there: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("pack", "tiny", "--out", tmp_path / "p.ondevice").code == 0
    there()
    import torch

    monkeypatch.setattr(torch, "__version__", "2.11.0")
    out = call("unpack", "p.ondevice").out
    assert "its last bits may differ" in out and "-> 2.11.0" in out


def test_a_live_run_can_be_packed(own: Path, call: Any, tmp_path: Path) -> None:
    lock = RunLock(RunDir(own / "runs/tiny"))
    try:
        assert call("pack", "tiny", "--out", tmp_path / "p.ondevice").code == 0
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pack", "tyni"), "no such run (did you mean 'tiny'?)"),
        (("pack", "tiny", "--out", "nowhere/x"), "no such folder; make it"),
        (("unpack", "nothing"), "cannot be read"),
        (("unpack", "words.txt"), "not a run packed by"),
        (("unpack", "p.ondevice", "--name", "A B"), "use lower case letters"),
        (("unpack", "p.ondevice", "--name", "taken"), "a run of this name exists; unpack under another with --name"),
    ],
)
def test_bad_input_is_one_sentence(own: Path, call: Any, words: tuple[str, ...], sentence: str) -> None:
    (Path("p.ondevice")).unlink(missing_ok=True)
    assert call("pack", "tiny", "--out", "p.ondevice").code == 0
    shutil.copytree(own / "runs/tiny/logs", own / "runs/taken")
    assert sentence in call(*words).error


def test_damage_is_not_packed(own: Path, call: Any, tmp_path: Path) -> None:
    model = own / "runs/tiny/checkpoints/step-00000012/model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    result = call("pack", "tiny", "--out", tmp_path / "p.ondevice")
    assert result.code == 4 and "Leave damaged checkpoints out with --latest." in result.error
    assert not list(tmp_path.glob("p.ondevice*"))


def _sound(call: Any, name: str) -> bool:
    """Whether verify finds no damage and doctor nothing to do."""
    verified, mended = call("verify", name), call("doctor", name)
    return (verified.code, mended.code) == (0, 0) and "nothing to mend" in mended.out


def _unfinished(place: Path, call: Any) -> Path:
    """A run as it is in the middle of training: a checkpoint, some steps beyond it, and no end."""
    dense = ("--set", "limits.save_every_steps=4", "--set", "limits.drop_old_optimizer=false", "--quiet")
    assert call("train", "tiny.toml", "--name", "live", *dense).code == 0
    run = RunDir(place / "home/runs/live")
    for step in (8, 12):
        shutil.rmtree(Store(run.checkpoints).path(step))
    lines = (run.telemetry / "0001.jsonl").read_bytes().splitlines(keepends=True)
    last = max(index for index, line in enumerate(lines) if b'"kind":"step","step":6,' in line)
    (run.telemetry / "0001.jsonl").write_bytes(b"".join(lines[: last + 1]) + b'{"v":1,"t":17')
    run.status.unlink()
    return run.path


def test_a_run_that_was_packed_while_it_trained_did_not_die(place: Path, call: Any, there: Any) -> None:
    assert call("train", "tiny.toml", "--name", "stayed", "--quiet").code == 0
    _unfinished(place, call)
    assert call("pack", "live").code == 0
    away = there()
    assert "live unpacked at step 4." in call("unpack", place / "live.ondevice").out
    status = call("status", "live").out
    assert status.startswith("live: stopped") and "kills" not in status and "step      6 of 12" in status
    assert _sound(call, "live")
    out = call("train", "live")
    assert out.code == 0 and "killed" not in out.out + out.err
    assert _weights(away / "runs/live", 12) == _weights(place / "home/runs/stayed", 12)
    launch = next(read_file(away / "runs/live/telemetry/0002.jsonl"))
    assert launch["inexact"] == [] and launch["previous"]["outcome"] == "stopped"
    assert _sound(call, "live")


def test_checkpoints_that_stayed_behind_are_not_missed(own: Path, call: Any, there: Any, tmp_path: Path) -> None:
    assert call("pin", "tiny", "12", "--reason", "mine").code == 0
    assert call("pack", "tiny", "--latest", "--out", tmp_path / "p.ondevice").code == 0
    there()
    assert call("unpack", "p.ondevice").code == 0
    assert _sound(call, "tiny") and "saved     12\n" in call("status", "tiny").out
    assert call("status", "tiny").out.startswith("tiny: finished")


def test_a_paused_run_arrives_paused(place: Path, call: Any, there: Any) -> None:
    run = RunDir(_unfinished(place, call))
    story = audit_file(run.telemetry / "0001.jsonl")
    record = {"v": 1, "t": 1.0, "kind": "control", "step": 6, "ok": True, "verb": "pause", "from": "me"}
    line, _ = chained(record, story.chain)
    path = run.telemetry / "0001.jsonl"
    path.write_bytes(path.read_bytes()[: story.bytes] + line)
    assert call("pack", "live").code == 0
    away = there()
    assert call("unpack", place / "live.ondevice").code == 0
    assert read_status(RunDir(away / "runs/live"))["hold"] == "paused by me"
    assert _sound(call, "live")


def test_torn_lines_of_older_launches_come_along(place: Path, call: Any, there: Any) -> None:
    _unfinished(place, call)
    assert call("train", "live", "--quiet").code == 0
    assert call("pack", "live").code == 0
    away = there()
    assert call("unpack", place / "live.ondevice").code == 0
    for name in ("0001.jsonl", "0002.jsonl"):
        told = (place / "home/runs/live/telemetry" / name).read_bytes()
        assert (away / "runs/live/telemetry" / name).read_bytes() == told
    assert _sound(call, "live")


def test_a_run_of_which_a_paper_is_damaged_is_not_packed(own: Path, call: Any, tmp_path: Path) -> None:
    config = own / "runs/tiny/config.toml"
    config.write_bytes(config.read_bytes() + b"# mine\n")
    result = call("pack", "tiny", "--out", tmp_path / "p.ondevice")
    assert result.code == 3 and "repair it with `ondevice doctor tiny`, then pack." in result.error
    assert not list(tmp_path.glob("p.ondevice*"))


def test_hidden_files_stay_behind(own: Path, call: Any, there: Any, tmp_path: Path) -> None:
    for name in ("evals/.nomedia", "exports/.tmp-half/model.onnx", "exports/mine/notes.txt"):
        (own / "runs/tiny" / name).parent.mkdir(parents=True, exist_ok=True)
        (own / "runs/tiny" / name).write_text("x")
    assert call("pack", "tiny", "--out", tmp_path / "p.ondevice").code == 0
    away = there()
    assert call("unpack", "p.ondevice").code == 0
    found = [path.name for path in (away / "runs/tiny").rglob("*") if path.is_file()]
    assert "notes.txt" in found and not {".nomedia", "model.onnx"} & set(found)


def test_an_older_state_of_the_run_is_not_overwritten(own: Path, call: Any, tmp_path: Path) -> None:
    assert call("pack", "tiny", "--out", tmp_path / "p.ondevice").code == 0
    shutil.rmtree(own / "runs/tiny/checkpoints/step-00000012")
    error = call("unpack", tmp_path / "p.ondevice").error
    assert "only as far as step" in error and "`ondevice runs rename tiny tiny-old`" in error
    assert call("runs", "rename", "tiny", "tiny-old").code == 0
    assert call("unpack", tmp_path / "p.ondevice").code == 0


def test_what_is_lacking_is_said(own: Path, call: Any, there: Any, tmp_path: Path) -> None:
    assert call("pack", "tiny", "--no-data", "--out", tmp_path / "p.ondevice").code == 0
    there()
    out = call("unpack", "p.ondevice").out
    assert "Not yet, though: " in out and "the dataset of this run is not here" in out


def test_a_name_that_is_not_utf8(own: Path, call: Any, there: Any, tmp_path: Path) -> None:
    target = os.fsdecode(os.fsencode(tmp_path) + b"/p\xff.ondevice")
    assert call("pack", "tiny", "--out", target).code == 0
    there()
    assert call("unpack", target).code == 0


Change = Callable[[Path], object]


@pytest.fixture
def repack(own: Path, tmp_path: Path) -> Any:
    """``repack(change)`` -> a pack whose hashes are right, made by a stranger from a changed copy of the run."""

    def make(change: Change, **about: Any) -> Path:
        run = RunDir(own / "runs/tiny")
        told = {"run": "tiny", "id": run.read_identity()["id"], "recipe_sha256": run.read_recipe().sha256, "step": 12}
        dataset = open_dataset(run.read_recipe().data)
        listed = [*run_files(run, [12]), *dataset_files(dataset)]
        copy = tmp_path / "copy"
        for name, path, _ in listed:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / name)
        change(copy / "run")
        files: Listed = [
            (str(path.relative_to(copy)), path, None) for path in sorted(copy.rglob("*")) if path.is_file()
        ]
        told["recipe_sha256"] = json.loads((copy / "run/recipe.json").read_bytes()).get("sha256", "")
        write_pack(Pack({**told, **about}, tuple(list_members(files))), files, tmp_path / "evil.ondevice")
        return tmp_path / "evil.ondevice"

    return make


def _letter(run: Path) -> None:
    (run / "control/inbox").mkdir(parents=True)
    (run / "control/inbox/1-a.json").write_text('{"v":1,"id":"a","t":1,"verb":"limit","args":{},"from":"me"}')


def _recipe_with(key: str, value: Any) -> Change:
    """A recipe with another value, its own hash and those of the papers made right again."""

    def change(run: Path) -> None:
        raw = json.loads((run / "recipe.json").read_bytes())
        raw["data"][key] = value
        body = {name: raw[name] for name in raw if name not in ("why", "sha256")}
        raw["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        (run / "recipe.json").write_text(json.dumps(raw))
        _seal_identity(run, "recipe.json")

    return change


def _seal_identity(run: Path, paper: str) -> None:
    identity = json.loads((run / "run.json").read_bytes())
    del identity["sha256"]
    identity["papers"][paper] = hashlib.sha256((run / paper).read_bytes()).hexdigest()
    (run / "run.json").write_bytes(sealed_bytes(identity))


def _without_id(run: Path) -> None:
    identity = json.loads((run / "run.json").read_bytes())
    del identity["sha256"], identity["id"]
    (run / "run.json").write_bytes(sealed_bytes(identity))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_letter, "control: no part of a run"),
        (lambda run: (run / "status.json").write_text("{}"), "status.json: no part of a run"),
        (lambda run: (run / "run.json").unlink(), "holds no whole run"),
        (lambda run: (run / "fit.json").unlink(), "holds no whole run"),
        (lambda run: (run / "run.json").write_text('{"layout": 99}'), "update ondevice"),
        (_without_id, "its papers are of another run"),
        (lambda run: (run / "checkpoints/step-00000012/state.json").write_text("{}"), "wrong size"),
        (lambda run: (run / "config.toml").write_text("x"), "changed since the run was made"),
        (lambda run: (run.parent / "data/extra").write_text("x"), "extra is not part of one"),
        (_recipe_with("dataset", 5), "no dataset is called that"),
        (_recipe_with("dataset", ".."), "no dataset is called that"),
        (_recipe_with("dataset_sha256", None), "no dataset is called that"),
    ],
)
def test_a_crafted_pack_leaves_nothing(
    repack: Any, call: Any, there: Any, change: Change, words: str, own: Path
) -> None:
    path = repack(change)
    away = there()
    error = call("unpack", path).error
    assert words in error
    assert [str(item) for item in away.rglob("*") if item.is_file()] == []


def test_a_crafted_name_of_a_dataset_leads_nowhere(repack: Any, call: Any, there: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    path = repack(_recipe_with("dataset", str(tmp_path / "outside/../outside/x")))
    away = there()
    call("unpack", path)
    assert not list((tmp_path / "outside").iterdir())
    assert {item.name for item in away.iterdir()} <= {"runs", "datasets", "logs"}


def test_what_a_stranger_writes_does_not_command_the_terminal(
    repack: Any, call: Any, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"machine": "\x1b[2J", "processor": "x" * 5000}
    path = repack(lambda run: None, environment=environment, exactness={"torch_version": ["\x07"], "threads": True})
    there()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = call("unpack", path).out
    assert "\x1b[2J" not in out and "\x07" not in out and max(map(len, out.splitlines())) < 200
