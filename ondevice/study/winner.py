"""Which run of a study to use: the winner, version 1, and the sentence that says why.

The arm whose mean mixed loss over its finished seeds is lowest, each arm at its own best interval; of that arm the seed
that was lowest there; of equals the first. An arm with fewer finished seeds than another is left out: its mean
would be of other seeds. Which checkpoint of the run is `ondevice.study.selection`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ondevice.errors import DataError, UsageError
from ondevice.run.comparison import MIXED
from ondevice.run.files import sha256_of
from ondevice.run.studies import StudyDir
from ondevice.study.story import read_story

__all__ = ["WINNER_VERSION", "Winner", "winner_of"]

WINNER_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Winner:
    """``run`` is the cell's name; ``loss`` the arm's mean at its best interval, over ``seeds`` of ``planned``;
    ``left_out`` are arms with fewer finished seeds; ``study_sha256`` is the hash of the record this was read from."""

    study: str
    study_sha256: str
    run: str
    arm: str
    seed: int
    loss: float
    seeds: int
    planned: int
    left_out: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What won and by what, for a person."""
        of = f"{self.seeds} of {self.planned} seeds" if self.seeds < self.planned else f"{self.seeds} seeds"
        left = f"; left out, with fewer seeds: {', '.join(self.left_out)}" if self.left_out else ""
        return (
            f"the winner of the study {self.study}: arm {self.arm} (lowest mean validation loss, {self.loss:.4f} over "
            f"{of}{left}), seed {self.seed} (its lowest)"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "v": WINNER_VERSION,
            "study": self.study,
            "study_sha256": self.study_sha256,
            "run": self.run,
            "arm": self.arm,
            "seed": self.seed,
            "loss": self.loss,
            "seeds": self.seeds,
            "planned": self.planned,
            "left_out": list(self.left_out),
        }


def winner_of(study: StudyDir) -> Winner:
    """The winner among the runs that are finished. Raises UsageError where there is none yet, DataError for damage."""
    record = study.read()
    try:
        measured = {name: arm for name, arm in record["results"]["arms"].items() if "best" in arm}
        if not measured:
            raise UsageError(
                f"{study.name}: no run is finished and measured yet; go on with `ondevice study run FILE`."
            )
        most = max(len(arm["seeds"]) for arm in measured.values())
        compared = {name: arm for name, arm in measured.items() if len(arm["seeds"]) == most}
        name = min(compared, key=lambda each: compared[each]["best"]["loss"])
        best = measured[name]["best"]
        seed = _best_seed(study, _cells(record, name), step=best["step"])
        return Winner(
            study=study.name,
            study_sha256=sha256_of(study.record),
            run=_cells(record, name)[seed],
            arm=name,
            seed=seed,
            loss=float(best["loss"]),
            seeds=most,
            planned=len(record["seeds"]),
            left_out=tuple(each for each in measured if each not in compared),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{study.record}: damaged ({type(error).__name__}: {error}); `ondevice study run FILE` writes it again."
        ) from error


def _cells(record: Mapping[str, Any], arm: str) -> dict[int, str]:
    """The finished runs of an arm by seed."""
    done = [cell for cell in record["cells"] if cell["arm"] == arm and cell["state"] == "finished"]
    return {int(cell["seed"]): str(cell["name"]) for cell in done}


def _best_seed(study: StudyDir, cells: Mapping[int, str], *, step: int) -> int:
    def loss(seed: int) -> float:
        intervals = read_story(study.run(cells[seed])).intervals
        return next((each.losses[MIXED] for each in intervals if each.step == step), math.inf)

    return min(cells, key=lambda seed: (loss(seed), seed))
