"""The schedule of a chain is a fold of its recipe and its story."""

from __future__ import annotations

import dataclasses
import json

from ondevice.run.files import read_sealed
from ondevice.run.recipe import PartRecipe, PartSource, Recipe
from ondevice.run.schedule import FILE, chained_hash, schedule_of, write_schedule


def chain(recipe: Recipe, *windows: int) -> Recipe:
    parts = tuple(
        PartRecipe(
            name=f"{number:03d}",
            stage="one" if number < 3 else "two",
            windows=count,
            sources=(PartSource(name="notes", first=0, windows=count, share=1.0),),
        )
        for number, count in enumerate(windows, start=1)
    )
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, parts=parts))


def launch(step: int | None) -> dict:
    return {"kind": "launch", "resumed_step": step}


def end(outcome: str) -> dict:
    return {"kind": "end", "outcome": outcome}


def done(name: str, **more) -> dict:
    return {"kind": "part", "name": name, "outcome": "done", "chained": f"hash-{name}", **more}


def test_parts_follow_each_other_in_steps(recipe: Recipe) -> None:
    batch = recipe.train.batch
    schedule = schedule_of(chain(recipe, 3 * batch, batch, 2 * batch), [])
    assert [(part.first_step, part.last_step, part.planned_steps) for part in schedule.parts] == [
        (0, 3, 3),
        (3, 4, 1),
        (4, 6, 2),
    ]
    assert [part.state for part in schedule.parts] == ["waiting"] * 3 and schedule.chained == ""
    assert schedule.parts[0].sources == {"notes": 3 * batch * recipe.model.context}


def test_a_story_makes_parts_done_and_the_next_one_trained(recipe: Recipe) -> None:
    batch = recipe.train.batch
    story = [
        launch(None),
        {"kind": "checkpoint", "step": 3},
        done("001", train_s=2.5),
        {"kind": "checkpoint", "step": 4},
    ]
    schedule = schedule_of(chain(recipe, 3 * batch, 3 * batch), story)
    assert [part.state for part in schedule.parts] == ["done", "training"]
    assert schedule.parts[0].results == {"train_s": 2.5, "chained": "hash-001"}
    assert (schedule.done, schedule.current.name, schedule.chained) == (1, "002", "hash-001")


def test_launches_that_get_nowhere_are_tries_and_a_persons_stop_is_none(recipe: Recipe) -> None:
    plan = chain(recipe, 5 * recipe.train.batch)
    assert schedule_of(plan, [launch(None)]).parts[0].tries == 0
    assert schedule_of(plan, [launch(None), launch(None), launch(None)]).parts[0].tries == 2
    assert schedule_of(plan, [launch(None), end("stopped"), launch(None)]).parts[0].tries == 0
    assert schedule_of(plan, [launch(None), end("failed"), launch(None)]).parts[0].tries == 1
    moved = [launch(None), launch(None), {"kind": "checkpoint", "step": 2}, launch(2)]
    assert schedule_of(plan, moved).parts[0].tries == 0
    assert schedule_of(plan, [*moved, launch(2)]).parts[0].tries == 1


def test_a_failed_part_says_why_until_it_is_done(recipe: Recipe) -> None:
    plan = chain(recipe, 5 * recipe.train.batch)
    failed = {"kind": "part", "name": "001", "outcome": "failed", "why": "a chunk is damaged"}
    part = schedule_of(plan, [launch(None), failed, end("failed")]).parts[0]
    assert (part.state, part.error) == ("failed", "a chunk is damaged")
    part = schedule_of(plan, [launch(None), failed, end("failed"), launch(None), done("001")]).parts[0]
    assert (part.state, part.error) == ("done", None)


def test_the_chain_of_hashes_depends_on_everything_before() -> None:
    one = chained_hash("", {"name": "001", "checkpoint_out": "a"})
    assert one != chained_hash("", {"name": "001", "checkpoint_out": "b"}) != chained_hash(one, {"name": "001"})
    assert chained_hash("", {"checkpoint_out": "a", "name": "001"}) == one


def test_the_file_is_sealed_and_says_the_same(recipe: Recipe, tmp_path) -> None:
    schedule = schedule_of(chain(recipe, 3 * recipe.train.batch), [launch(None)])
    write_schedule(tmp_path, schedule)
    body = read_sealed(tmp_path / FILE, version=1)
    assert body["parts"] == json.loads(json.dumps(schedule.to_json()))["parts"] and body["revision"] == 1
