"""The decision: complete, hashed, and refused when anyone touched it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.errors import CheckpointError
from ondevice.run.recipe import (
    RECIPE_VERSION,
    AdapterParent,
    AdapterRecipe,
    Anchor,
    BaseRecipe,
    CurriculumRecipe,
    Fit,
    PartRecipe,
    PartSource,
    Recipe,
    RopeScaling,
    StageRecipe,
    VocabularyRecipe,
)

SECTIONS = ("model", "data", "train", "eval", "sample")


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, ensure_ascii=False))


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 2**70),
    int | None: st.none() | st.integers(0, 2**70),
    float: st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    bool: st.booleans(),
    str: st.text(max_size=8),
}
VALUES[tuple[int, ...]] = st.lists(VALUES[int], max_size=3).map(tuple)
VALUES[tuple[str, ...]] = st.lists(VALUES[str], max_size=3).map(tuple)
VALUES[dict[str, float]] = st.dictionaries(VALUES[str], VALUES[float], max_size=3)
VALUES[dict[str, str]] = st.dictionaries(VALUES[str], VALUES[str], max_size=3)


VALUES[RopeScaling | None] = st.none() | st.just(RopeScaling(kind="linear", factor=2.0))
BASE = BaseRecipe(path="/models/small", family="gpt2", sha256="00")
VALUES[BaseRecipe | None] = st.none() | st.just(BASE)
ADAPTER = AdapterRecipe(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj"))
VALUES[AdapterRecipe | None] = st.none() | st.just(ADAPTER)
VOCABULARY = VocabularyRecipe(kept=300, sha256="00")
VALUES[VocabularyRecipe | None] = st.none() | st.just(VOCABULARY)
LADDER = CurriculumRecipe(by="score", direction="ascending", mixing=0.5, afterwards="ranked", scores={"notes": 2.0})
VALUES[CurriculumRecipe | None] = st.none() | st.just(LADDER)
STAGE = StageRecipe(name="first", windows=3, shares={"notes": 1.0})
PART = PartRecipe(
    name="1", stage="first", windows=6, sources=(PartSource(name="notes", first=0, windows=5, share=1.0),)
)
ANCHOR = Anchor(step=3, lr=1e-3, steps=9, tail_steps=0)
VALUES[tuple[Anchor, ...]] = st.lists(st.just(ANCHOR), max_size=2).map(tuple)
VALUES[tuple[PartRecipe, ...]] = st.lists(st.just(PART), max_size=2).map(tuple)
VALUES[tuple[StageRecipe, ...]] = st.lists(st.just(STAGE), max_size=2).map(tuple)


def built(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    given_version = {"v": st.integers(1, RECIPE_VERSION)} if "v" in hints else {}
    fields = {name: VALUES[hint] if hint in VALUES else built(hint) for name, hint in hints.items()}
    return st.builds(cls, **{**fields, **given_version})


@settings(max_examples=100, deadline=None)
@given(built(Recipe))
def test_every_recipe_comes_back_from_json(recipe: Recipe) -> None:
    back = Recipe.from_json(through_json(recipe.to_json()), where="recipe.json")
    assert back == recipe and back.sha256 == recipe.sha256


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 0.125
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dict):
        return {**value, "more": 1.0}
    if isinstance(value, tuple):
        return (*value, value[0] if value else STAGE)
    return 5


def test_the_hash_covers_every_field_but_why(recipe: Recipe) -> None:
    seen = {recipe.sha256}
    for section in SECTIONS:
        part = getattr(recipe, section)
        for item in dataclasses.fields(part):
            other = dataclasses.replace(part, **{item.name: changed(getattr(part, item.name))})
            seen.add(dataclasses.replace(recipe, **{section: other}).sha256)
    seen.add(dataclasses.replace(recipe, v=1).sha256)
    assert len(seen) == 2 + sum(len(dataclasses.fields(getattr(recipe, section))) for section in SECTIONS)
    assert dataclasses.replace(recipe, base=BASE).sha256 not in seen
    assert dataclasses.replace(recipe, adapter=ADAPTER).sha256 not in seen
    assert dataclasses.replace(recipe, why={"x": "another reason"}).sha256 == recipe.sha256


def test_a_recipe_changed_by_hand_is_refused(recipe: Recipe) -> None:
    raw = through_json(recipe.to_json())
    raw["train"]["lr"] = 0.5
    with pytest.raises(CheckpointError) as caught:
        Recipe.from_json(raw, where="recipe.json")
    said = str(caught.value)
    assert said == "recipe.json: the recipe was changed by hand; fork the run to change its recipe."


def test_an_adapter_of_an_earlier_version_keeps_its_hash(recipe: Recipe) -> None:
    raw = through_json(dataclasses.replace(recipe, v=5, adapter=ADAPTER, base=BASE).to_json())
    del raw["adapter"]["parent"]
    assert Recipe.from_json(raw, where="r").adapter == ADAPTER
    parent = AdapterParent(path="/adapters/tickets", sha256="11")
    new = dataclasses.replace(recipe, adapter=dataclasses.replace(ADAPTER, parent=parent))
    assert new.sha256 != dataclasses.replace(recipe, adapter=ADAPTER).sha256
    assert Recipe.from_json(through_json(new.to_json()), where="r") == new


def test_a_trimmed_vocabulary_is_part_of_the_recipe_and_earlier_ones_keep_their_hash(recipe: Recipe) -> None:
    before = dataclasses.replace(recipe, v=6)
    raw = through_json(before.to_json())
    del raw["vocabulary"], raw["train"]["compile"]
    assert Recipe.from_json(raw, where="r").sha256 == before.sha256
    body = {key: value for key, value in raw.items() if key not in ("why", "sha256")}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == before.sha256
    trimmed = dataclasses.replace(recipe, vocabulary=VOCABULARY)
    assert trimmed.sha256 != recipe.sha256
    assert trimmed.trained == dataclasses.replace(recipe.model, vocab_size=300) and recipe.trained == recipe.model


def test_a_newer_recipe_is_refused(recipe: Recipe) -> None:
    raw = {**through_json(recipe.to_json()), "v": RECIPE_VERSION + 1}
    with pytest.raises(CheckpointError, match=r"^r: recipe version 9, this program reads 8; update ondevice\.$"):
        Recipe.from_json(raw, where="r")


@pytest.mark.parametrize("raw", [None, [], "x", 5, {}, {"v": None}, {"v": "1"}, {"v": 1}, {"v": 0}, {"v": True}])
def test_what_is_not_a_recipe_is_one_sentence(raw: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^r: not a recipe; restore the file from a copy of the run\.$"):
        Recipe.from_json(raw, where="r")


@pytest.mark.parametrize("damage", [None, [], 5, "x", {}, {"unknown": 1}, {"steps": 5}])
@pytest.mark.parametrize("section", SECTIONS)
def test_a_damaged_section_is_one_sentence(recipe: Recipe, section: str, damage: Any) -> None:
    raw = copy.deepcopy(through_json(recipe.to_json()))
    raw[section] = damage
    with pytest.raises(CheckpointError, match=r"^r: "):
        Recipe.from_json(raw, where="r")


def test_a_fit_comes_back_from_json() -> None:
    fit = Fit(micro_batch=4, threads=2, activation_checkpointing=True, loss_chunk_tokens=64)
    assert Fit.from_json(through_json(fit.to_json()), where="fit.json") == fit


@pytest.mark.parametrize(
    "change", [{"threads": 0}, {"threads": "2"}, {"threads": 2.0}, {"threads": True}, {"more": 1}, {"threads": None}]
)
def test_a_malformed_fit_is_one_sentence(change: dict[str, Any]) -> None:
    fit = Fit(micro_batch=4, threads=2, activation_checkpointing=True, loss_chunk_tokens=64)
    with pytest.raises(CheckpointError, match=r"^fit\.json: .*restore the file from a copy of the run\.$"):
        Fit.from_json({**fit.to_json(), **change}, where="fit.json")
    others: list[Any] = [None, [], {}, "x"]
    for raw in others:
        with pytest.raises(CheckpointError, match=r"^fit\.json: not a fit"):
            Fit.from_json(raw, where="fit.json")
