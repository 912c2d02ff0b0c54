"""The same command again, with other words about how a run behaves; and quickstart after Python moved its library."""

from __future__ import annotations

import json
import re
import sysconfig

import pytest

from ondevice.run.config import read_limits
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.files import read_json

SMALL = [
    word
    for change in (
        "tokenizer.kind=byte",
        "model.layers=1",
        "model.width=16",
        "model.context=32",
        "train.steps=2",
        "train.batch=2",
        "train.precision=fp32",
        "fit.threads=1",
        "eval.count=0",
        "sample.count=0",
        "limits.min_free_disk_mb=0",
    )
    for word in ("--set", change)
]


@pytest.mark.parametrize("target", ["tiny.toml", "tiny"])
def test_limits_of_a_repeated_command_hold_from_now_on(own, call, target):
    run = RunDir(own / "runs" / "tiny")
    words = ("--set", "limits.keep_last=7", "--set", "limits.save_every_s=45")
    result = call("train", target, *words)
    assert result.code == 0
    assert "limits.keep_last = 7 from now on, was 3." in result.out
    assert "limits.save_every_s = 45 from now on, was 300." in result.out
    limits = read_limits(run.limits)
    assert (limits.keep_last, limits.save_every_s, limits.min_free_disk_mb) == (7, 45.0, 0.0)
    assert "from now on" not in call("train", target, *words).out
    back = call("train", target, "--set", "limits.keep_last=3")
    assert "limits.keep_last = 3 from now on, was 7." in back.out
    assert (read_limits(run.limits).keep_last, read_limits(run.limits).save_every_s) == (3, 45.0)


@pytest.mark.parametrize("target", ["tiny.toml", "tiny"])
def test_limits_of_a_repeated_command_are_told_and_refused_as_by_the_command_that_changes_them(own, call, target):
    words = "limits.max_battery_c = 40 from now on, was 45 by the preset."
    assert words in call("train", target, "--set", "limits.max_battery_c=40").out
    refused = call("train", target, "--set", "limits.hours=25:00-26:00")
    assert refused.code == 2 and "25:00" in refused.error
    assert read_limits(RunDir(own / "runs" / "tiny").limits).hours is None


@pytest.mark.parametrize("target", ["tiny.toml", "tiny"])
def test_a_fit_of_a_repeated_command_is_said_to_be_left_as_it_is(own, call, target):
    fit = read_json(RunDir(own / "runs" / "tiny").fit)
    result = call("train", target, "--set", "fit.micro_batch=2", "--set", "fit.threads=1")
    assert result.code == 0
    assert "fit.micro_batch is left as it is" in result.out and "fit.threads" not in result.out
    assert read_json(RunDir(own / "runs" / "tiny").fit) == fit


def test_a_run_takes_no_other_changes(own, call):
    for words in (("--set", "train.lr=1"), ("--set", "limits.keep_last=7", "--minutes", "3")):
        result = call("train", "tiny", *words)
        assert result.code == 2 and "a run's recipe never changes" in result.error
    for change, says in (("limits.keep_lats=7", "did you mean 'keep_last'"), ("fit.threads=many", "whole number")):
        result = call("train", "tiny", "--set", change)
        assert result.code == 2 and says in result.error
    assert not RunDir(own / "runs" / "tiny").limits.exists()


def test_limits_are_not_written_under_a_live_trainer(own, call):
    run = RunDir(own / "runs" / "tiny")
    lock = RunLock(run)
    try:
        assert call("train", "tiny", "--set", "limits.keep_last=7").code == 7
    finally:
        lock.release()
    assert not run.limits.exists()


@pytest.fixture
def library(place, monkeypatch):
    """``library("3.12")``: Python says that its library is there."""

    def move(version):
        folder = place / f"python{version}"
        folder.mkdir()
        (folder / "code.py").write_text("".join(f"def f{n}(a):\n    return a + {n}\n" for n in range(200)))
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(folder)})
        return folder

    return move


def test_quickstart_goes_on_after_an_upgrade_of_python(place, library, call):
    pytest.importorskip("onnxruntime")
    old = library("3.12")
    assert call("quickstart", *SMALL, "--quiet").code == 0
    library("3.13")
    for path in [*old.iterdir(), old]:
        path.rmdir() if path.is_dir() else path.unlink()
    result = call("quickstart", *SMALL)
    assert result.code == 0, result.err
    assert "quickstart is trained already" in result.out
    assert [path.name for path in (place / "home" / "runs").iterdir()] == ["quickstart"]
    config = (place / "home" / "runs" / "quickstart" / "config.toml").read_text()
    assert json.dumps(str(old)) in config


def test_quickstart_on_another_text_is_still_another_wish(place, library, call):
    library("3.12")
    assert call("quickstart", "words.txt", "--name", "quickstart", *SMALL, "--quiet").code == 0
    result = call("quickstart", *SMALL)
    assert result.code == 2 and "this run was started with data.sources" in result.error


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("words.txt", "other.txt"), r"with data.sources\[1\].path = '.*/words.txt', not '.*/other.txt', and"),
        (
            ("[tokenizer]", '[[data.sources]]\npath = "other.txt"\n[tokenizer]'),
            r"with the number of data.sources = 1, not 2",
        ),
    ],
)
def test_another_text_is_told_by_its_key(own, place, call, change, says):
    (place / "other.txt").write_text("other words altogether\n" * 200)
    before, after = change
    (place / "tiny.toml").write_text((place / "tiny.toml").read_text().replace(before, after))
    result = call("train", place / "tiny.toml")
    assert result.code == 2 and re.search(says, result.error), result.error
