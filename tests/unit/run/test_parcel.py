"""The staging folder of an unpack: one at a time, kept where repeating helps, gone where it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ondevice.errors import DataError, OndeviceError, RunBusy
from ondevice.run.parcel import refused_for_good, staging


def test_what_is_refused_for_good_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError), staging(tmp_path / "s") as folder, refused_for_good(folder):
        (folder / "x").touch()
        raise DataError("not a run")
    assert not (tmp_path / "s").exists()


def test_what_nobody_came_back_for_is_removed_after_a_week(tmp_path: Path) -> None:
    old, young, mine = (tmp_path / f".ondevice-unpack-{name}" for name in ("old", "young", "mine"))
    for folder in (old, young, mine):
        (folder / "run").mkdir(parents=True)
    for folder in (old, mine):
        os.utime(folder, (1, 1))
    with staging(mine):
        assert not old.exists() and young.exists() and (mine / "run").exists()


def test_two_at_once_are_refused_and_a_failed_one_keeps_its_place(tmp_path: Path) -> None:
    with pytest.raises(OndeviceError, match="stopped"), staging(tmp_path / "s") as folder:
        (folder / "x").touch()
        with pytest.raises(RunBusy, match="another unpack of this file is at work"), staging(tmp_path / "s"):
            pass
        raise OndeviceError("stopped")
    assert (tmp_path / "s" / "x").exists()
    with staging(tmp_path / "s"):
        pass
    assert not (tmp_path / "s").exists()
