"""Runs to look at: a trainer of paper, and recorded run directories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tui.recorded import RECORDED, PaperTrainer


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder for runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def paper(runs: Path) -> Callable[..., PaperTrainer]:
    """``paper("notes", steps=100)`` makes a run and its trainer."""
    return lambda name, **settings: PaperTrainer(runs / name, **settings)


@pytest.fixture
def recorded(runs: Path) -> Iterator[Callable[[str], PaperTrainer]]:
    """``recorded("hot")`` makes that run (see `tests.tui.recorded.RECORDED`) under its own name; living ones live until
    the test is over."""
    made: list[PaperTrainer] = []

    def make(kind: str) -> PaperTrainer:
        made.append(RECORDED[kind](runs / kind))
        return made[-1]

    yield make
    for trainer in made:
        trainer.leave()
