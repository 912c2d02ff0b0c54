"""The speed of saving: measured where runs live, and nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ondevice.device.save_rate import measure_save_rate


def test_a_rate_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    rate = measure_save_rate(tmp_path / "not" / "there")
    assert rate is not None and rate > 0.1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_nothing_has_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    assert measure_save_rate(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
