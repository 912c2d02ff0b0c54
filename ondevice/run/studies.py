"""The study directory: many runs that answer one question, and the record of what came of them.

``$ONDEVICE_HOME/studies/<name>/`` holds ``study.toml`` (the design as it was given), ``study.json`` (sealed; written by
whoever holds the lock) and ``runs/<arm>-<seed>``, each an ordinary run directory. Knows no torch and no statistics.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import UsageError, nearest
from ondevice.run.directory import RunDir, find_run, home, list_runs
from ondevice.run.files import read_sealed, write_sealed

__all__ = ["STUDY_VERSION", "StudyDir", "find_run_or_study", "find_study", "list_studies", "study_runs"]

STUDY_VERSION = 1


@dataclass(frozen=True)
class StudyDir:
    """Paths of one study."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def design(self) -> Path:
        return self.path / "study.toml"

    @property
    def record(self) -> Path:
        return self.path / "study.json"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def run(self, name: str) -> RunDir:
        """The run of a cell, whether or not it exists."""
        return RunDir(self.runs / name)

    def read(self) -> dict[str, Any]:
        """``study.json``. Raises DataError for damage, CheckpointError for a newer version."""
        return read_sealed(self.record, version=STUDY_VERSION)

    def write(self, body: dict[str, Any]) -> None:
        """Puts the record on disk, durably; for the holder of the lock. Raises ResourceError or DataError."""
        write_sealed(self.record, {"v": STUDY_VERSION, **body})


def list_studies() -> list[StudyDir]:
    """Every study under `home`, by name."""
    root = home() / "studies"
    found = sorted(root.iterdir()) if root.is_dir() else []
    return [StudyDir(path) for path in found if os.path.isfile(path / "study.json")]


def study_runs() -> list[RunDir]:
    """The runs of every study."""
    return [run for study in list_studies() for run in list_runs(study.runs)]


def find_study(name: str) -> StudyDir:
    """The study of that name under `home` or at that path. Raises UsageError with the nearest name."""
    for path in (home() / "studies" / name, Path(os.path.expanduser(name))) if name.strip() else ():
        if os.path.isfile(path / "study.json"):
            return StudyDir(Path(os.path.abspath(path)))
    known = [study.name for study in list_studies()]
    listed = f"; studies here: {', '.join(known[:8])}" if known else "; begin one with `ondevice study run FILE.toml`"
    raise UsageError(f"{name or repr(name)}: no such study{nearest(name, known) or listed}.")


def find_run_or_study(name: str) -> RunDir | StudyDir:
    """The run of that name or at that path, else the study. Raises UsageError with the nearest name of either."""
    for find in (find_run, find_study):
        try:
            return find(name)
        except UsageError:
            continue
    known = [run.name for run in list_runs()] + [study.name for study in list_studies()]
    listed = f"; there are {', '.join(known[:8])}" if known else "; there are none yet: `ondevice quickstart`"
    raise UsageError(f"{name or repr(name)}: no such run or study{nearest(name, known) or listed}.")
