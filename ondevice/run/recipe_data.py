"""The part of a recipe that says which tokens a run reads, in which order. Plain values and their JSON form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["CurriculumRecipe", "DataRecipe", "PartRecipe", "PartSource", "StageRecipe", "data_from_json"]


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """A stretch of a staged order: ``windows`` long, with a share for each source that it reads."""

    name: str
    windows: int
    shares: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CurriculumRecipe:
    """An order by difficulty: ``by`` length or score; ``scores`` are those of sources as a whole, by name.

    A training of fewer ``windows`` than a pass goes over all ranks with a part of each; None where it is no shorter.
    """

    by: str
    direction: str  # "ascending" or "descending"
    mixing: float
    afterwards: str  # "shuffled" or "ranked"
    scores: dict[str, float] = field(default_factory=dict)
    windows: int | None = None


@dataclass(frozen=True, kw_only=True)
class PartSource:
    """What a part of a chain reads of one source: ``windows`` windows from number ``first`` on, with a share."""

    name: str
    first: int
    windows: int
    share: float


@dataclass(frozen=True, kw_only=True)
class PartRecipe:
    """One part of a chain: ``windows`` long, which are whole steps; more than its sources hold are read again.

    ``skipped`` says why a part was cut short or, with 0 windows, left out.
    """

    name: str
    stage: str
    windows: int
    sources: tuple[PartSource, ...]
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which tokens, in which order. ``groups`` names the group of each source that is in one."""

    dataset: str
    dataset_sha256: str
    tokenizer_sha256: str
    order: str
    order_sha256: str
    seed: int
    weights: dict[str, float]
    train_tokens: int
    max_unique_tokens: int | None = None
    temperature: float = 1.0
    groups: dict[str, str] = field(default_factory=dict)
    stages: tuple[StageRecipe, ...] = ()
    parts: tuple[PartRecipe, ...] = ()
    curriculum: CurriculumRecipe | None = None


def data_from_json(raw: dict[str, Any]) -> DataRecipe:
    """Reads the dictionary of `dataclasses.asdict`. Raises TypeError, KeyError or AttributeError for others."""
    stages = tuple(StageRecipe(**stage) for stage in raw.get("stages", ()))
    parts = tuple(
        PartRecipe(**{**part, "sources": tuple(PartSource(**each) for each in part["sources"])})
        for part in raw.get("parts", ())
    )
    curriculum = None if raw.get("curriculum") is None else CurriculumRecipe(**raw["curriculum"])
    return DataRecipe(**{**raw, "stages": stages, "parts": parts, "curriculum": curriculum})
