"""The digest: what records tell, with the steps that a kill took away taken away too."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.run.digest import Digest, Series, best_of, digest
from ondevice.run.telemetry import KINDS, read_records

GOLDEN = Path(__file__).parents[2] / "golden" / "digest"


def as_json(story: Digest) -> dict[str, Any]:
    plain = {key: value for key, value in vars(story).items() if not key.startswith("_") and key != "usage"}
    for key in ("loss", "lr", "grad_norm", "tok_s"):
        plain[key] = plain[key].points
    plain["val_loss"] = {name: series.points for name, series in story.val_loss.items()}
    plain["samples"] = [record["text"] for record in story.samples]
    plain["events"] = [f"{record['kind']} {record['step']}" for record in story.events]
    return dict(json.loads(json.dumps(plain)))


def test_a_story_with_a_kill_and_a_resume() -> None:
    """Launch 1 is killed at step 7 in the middle of a line; launch 2 resumes at 4 and finishes."""
    expected = json.loads((GOLDEN / "expected.json").read_bytes())
    assert as_json(digest(read_records(GOLDEN / "telemetry"))) == expected


def step(number: int, **fields: Any) -> dict[str, Any]:
    return {"v": 1, "t": float(number), "kind": "step", "step": number, **fields}


def launch(resumed: int | None) -> dict[str, Any]:
    return {"v": 1, "t": 0.0, "kind": "launch", "step": resumed or 0, "resumed_step": resumed, "steps": 100}


def test_a_resume_forgets_what_was_lost() -> None:
    story = digest([launch(None), *(step(n, loss=float(n), tokens=10 * n) for n in range(1, 8)), launch(5)])
    assert (story.step, story.tokens, story.loss.last, story.kills) == (5, 50, 5.0, 1)
    story.fold(launch(None))
    assert (story.step, story.tokens, story.loss.points, story.kills, story.launches) == (0, 0, [], 2, 3)


def test_the_best_is_found_again_after_a_loss() -> None:
    losses = {0: 4.0, 2: 3.0, 4: 3.0, 6: 2.0}
    evals = [{"kind": "eval", "step": at, "val_loss_mixed": loss} for at, loss in losses.items()]
    story = digest([launch(None), *evals])
    assert (story.best_step, story.best_loss) == (6, 2.0)
    story.fold(launch(5))
    assert (story.best_step, story.best_loss) == (2, 3.0)
    story.fold(launch(None))
    assert (story.best_step, story.best_loss) == (None, None)


def test_a_lost_launch_line_shows_as_a_rewind() -> None:
    story = digest([step(n, loss=float(n)) for n in (1, 2, 3, 4, 2, 3)])
    assert story.loss.points == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_memory_is_told_by_readings() -> None:
    story = digest([{"kind": "reading", "step": 0, "rss_mb": 300.0}, {"kind": "reading", "step": 0, "rss_mb": None}])
    assert story.rss_mb == 300.0


def test_it_stays_small_however_long_the_run() -> None:
    def records() -> Any:
        yield launch(None)
        for n in range(1, 6_001):
            yield step(n, loss=1 / n, lr=0.1, grad_norm=1.0, tok_s=9.0)
            yield {"kind": "sample", "step": n, "text": "x"}
            yield {"kind": "checkpoint", "step": n, "removed": []}
            if n % 5 == 0:
                yield {"kind": "eval", "step": n, "val_loss": {f"s{n}": 1.0}, "val_loss_mixed": 1 / n}

    story = digest(records())
    assert len(story.loss.points) <= 2048 and story.loss.points[-1] == (6_000, 1 / 6_000)
    assert len(story.val_loss[""].points) <= 512 and len(story.val_loss) <= 1001
    assert (len(story.samples), len(story.events), len(story.checkpoints)) == (16, 200, 1000)
    assert story.best_step == 6_000


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=5)
any_value = plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=3), plain, max_size=3)
keys = st.sampled_from(
    ["t", "step", "steps", "resumed_step", "tokens", "loss", "lr", "val_loss", "val_loss_mixed", "removed", "rss_mb"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*KINDS, "aurora"]), st.dictionaries(keys, any_value)), max_size=8))
def test_no_record_can_break_it(records: list[tuple[str, dict[str, Any]]]) -> None:
    story = digest({**fields, "kind": kind} for kind, fields in records)
    for series in (story.loss, *story.val_loss.values()):
        assert [x for x, _ in series.points] == sorted(x for x, _ in series.points)
    assert isinstance(story.step, int) and isinstance(story.tokens, int)


@pytest.mark.parametrize("seed", range(3))
def test_thinning_keeps_extremes_and_order(seed: int) -> None:
    values = [random.Random(seed).gauss(0, 1) for _ in range(5000)]
    series = Series(64)
    for x, y in enumerate(values):
        series.add(x, y)
    points = series.points
    assert len(points) <= 64
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert all(values[int(x)] == y for x, y in points)
    assert {min(values), max(values)} <= {y for _, y in points}
    assert (points[0], points[-1]) == ((0, values[0]), (4999, values[-1]))


def test_series_leave_out_what_is_no_number() -> None:
    series = Series()
    for y in (None, float("nan"), float("inf"), "5", True, 10**400, [1]):
        series.add(1, y)
    assert series.points == [] and series.last is None


def test_a_fork_is_where_its_parent_was_from_its_launch_on():
    launch = {"v": 1, "t": 1.0, "kind": "launch", "step": 8, "resumed_step": 8, "steps": 12}
    assert digest([launch]).step == 8


@pytest.mark.parametrize(
    ("status", "best"),
    [
        ({}, (20, 1.5)),
        ({"launch": 2, "best_step": 30, "best_loss": 1.25}, (30, 1.25)),  # its line was lost
        ({"launch": 2, "best_step": 10, "best_loss": 1.75}, (20, 1.5)),  # the status was lost
        ({"launch": 1, "best_step": 30, "best_loss": 1.25}, (20, 1.5)),  # a kill took it away
        ({"launch": 3, "best_step": 10, "best_loss": 1.75}, (10, 1.75)),  # the launch's line was lost
        ({"launch": 2, "best_step": "30", "best_loss": 1.25}, (20, 1.5)),
        ({"launch": 2, "best_step": 30, "best_loss": float("nan")}, (20, 1.5)),
    ],
)
def test_the_best_is_the_statuss_where_the_story_lost_it(status: dict[str, Any], best: tuple[int, float]) -> None:
    evals = [{"kind": "eval", "step": step, "val_loss_mixed": loss} for step, loss in ((10, 1.75), (20, 1.5))]
    story = digest([{"kind": "launch"}, {"kind": "launch"}, *evals])
    assert best_of(story, status) == best
    assert best_of(digest([{"kind": "launch"}]), {**status, "launch": 0}) == (None, None)
