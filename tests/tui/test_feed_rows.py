"""The fast way through step records says the same as the long way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondevice.run.telemetry import TelemetryWriter, chained, first_chain
from tui.curves import Curves
from tui.fold import Fold
from tui.rows import Lines, Steps, cut
from tui.tail import Block


def lines(count: int, *, first: int = 1, **changes: Any) -> list[bytes]:
    """As the trainer writes them."""
    told, chain = [], first_chain(1)
    for step in range(first, first + count):
        record = {
            "v": 1, "t": 1000.0 + step / 2, "kind": "step", "step": step, "tokens": 768 * step,
            "loss": 3.0 - step / 1e4,
            "lr": 1e-5 * step, "grad_norm": 0.5 + step % 3, "step_s": 0.25, "tok_s": 3072.0, **changes,
        }  # fmt: skip
        line, chain = chained(record, chain)
        told.append(line)
    return told


def folded(data: bytes, *, slowly: bool = False) -> Fold:
    fold = Fold()
    if slowly:  # a space is as good JSON, and not what the trainer writes
        data = data.replace(b'{"v":1,', b'{"v": 1,')
    fold.take(Block("0001.jsonl", 1, data))
    return fold


def points(curves: Curves) -> dict[str, list[tuple[float, float]]]:
    plots = curves.plots()
    names = [name for name in plots.names if name not in ("lr",)]  # of which one in eight is enough
    return {
        name: [(x, round(y, 6)) for x, y in zip(line.xs, line.ys, strict=True)]
        for name in names
        for line in [plots.series(name, max_points=10**6)]
    }


def test_both_ways_tell_the_same() -> None:
    other = b'{"v":1,"t":1010.0,"kind":"reading","step":20,"cpu_c":61.0,"rss_mb":400}\n'
    steps = lines(100)
    data = b"".join([*steps[:20], other, *steps[20:]])
    fast, slow = folded(data), folded(data, slowly=True)
    assert [type(part) for part in cut(Block("a", 1, data))] == [Lines, Steps]
    assert all(isinstance(part, Lines) for part in cut(Block("a", 1, data.replace(b'{"v":1,', b'{"v": 1,'))))
    assert points(fast.curves) == points(slow.curves)
    for name in ("step", "tokens", "last_t", "rss_mb", "launches"):
        assert getattr(fast.digest, name) == getattr(slow.digest, name), name
    assert fast.digest.loss.last == pytest.approx(slow.digest.loss.last)
    assert fast.damage == slow.damage == ""


@pytest.mark.parametrize("sim", [None, lambda: 5.0e9])
def test_what_the_writer_writes_goes_the_fast_way(tmp_path: Path, sim: Any) -> None:
    story = TelemetryWriter(tmp_path, 1, sim_clock=sim)
    for step in range(1, 6):
        rate = {"step_s": 0.25, "tok_s": 3072.0}
        story.write("step", step, tokens=768 * step, loss=2.5, lr=1e-5, grad_norm=0.1, **rate, more="later")
    story.close()
    (part,) = cut(Block("0001.jsonl", 1, story.path.read_bytes()))
    assert isinstance(part, Steps) and list(part.steps) == [1, 2, 3, 4, 5]
    assert (part.ts[-1] == 5.0e9) == (sim is not None)
    assert part.whole["tok_s"] == pytest.approx(3072.0) and part.whole["step_s"] == 1.25


@pytest.mark.parametrize(
    "odd",
    [
        {"loss": None},
        {"loss": 1e-9},
        {"loss": 1e300},
        {"step_s": 0.0},
        {"lr": 10**400},
        {"tokens": 10**20},
        {"note": "a } in words"},
        {"sim_t": 5.0},
    ],
)
def test_odd_step_records_go_the_long_way(odd: dict[str, Any]) -> None:
    data = b"".join(lines(3, **odd))
    fold = folded(data)
    assert fold.digest.step == 3 and fold.damage == ""


def test_steps_that_do_not_rise_are_told_one_by_one() -> None:
    fold = folded(b"".join([*lines(5), *lines(5, first=3)]))
    assert fold.digest.step == 7
    assert [x for x, _ in points(fold.curves)["loss"]] == [1, 2, 3, 4, 5, 6, 7]


def test_garbage_between_steps_is_counted_where_it_stands() -> None:
    steps = lines(9)
    fold = folded(b"".join([*steps[:4], b"\x00{\n", *steps[4:], b'{"v":1,"t":1}\n']))
    assert fold.digest.step == 9
    assert fold.damage == "2 damaged lines skipped, the first at 0001.jsonl:5."


def test_a_newer_version_ends_the_reading_there() -> None:
    steps = lines(9)
    fold = folded(b"".join([*steps[:4], steps[4].replace(b'{"v":1,', b'{"v":7,'), *steps[5:]]))
    assert fold.digest.step == 4 and "version 7" in fold.refusal


def test_a_restart_between_steps_cuts_what_it_lost() -> None:
    launch = json.dumps({"v": 1, "t": 1100.0, "kind": "launch", "step": 20, "launch": 2, "resumed_step": 20}).encode()
    fold = folded(b"".join([*lines(50), launch + b"\n", *lines(5, first=21)]))
    assert fold.digest.step == 25
    assert [x for x, _ in points(fold.curves)["loss"]] == list(range(1, 26))
    assert fold.curves.plots().extent("grad_norm") == (1, 25)


def test_a_block_of_nothing_the_pattern_knows_comes_out_line_by_line() -> None:
    odd = b"".join(lines(4000)).replace(b'{"v":1,', b'{"v": 1,')
    parts = list(cut(Block("a", 1, odd)))
    assert [part.number for part in parts if isinstance(part, Lines)] == list(range(1, 4001))
