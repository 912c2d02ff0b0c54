"""Runs side by side: best losses within equal tokens, and what recipes have different."""

from __future__ import annotations

import dataclasses
from typing import Any

from ondevice.run.comparison import MIXED, Record, best_within, differences, equal_tokens, read_record
from ondevice.run.recipe import DataRecipe, EvalRecipe, ModelShape, Recipe, SampleRecipe, TrainRecipe


def evaluated(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {
        "kind": "eval",
        "t": float(step),
        "step": step,
        "tokens": 100 * step,
        "val_loss": {"a": loss, "b": loss + 1},
        "bits_per_byte": {"a": loss / 2, "b": "much"},
        "val_loss_mixed": loss + 0.5,
        **more,
    }


def launched(resumed: int | None = None) -> dict[str, Any]:
    return {"kind": "launch", "t": 0.0, "step": resumed or 0, "resumed_step": resumed, "steps": 100}


def test_losses_are_compared_within_the_tokens_that_all_had() -> None:
    long = read_record([launched(), *(evaluated(step, 9.0 - step) for step in (0, 2, 4, 6))])
    short = read_record([launched(), *(evaluated(step, 8.0 - step) for step in (0, 3))])
    assert equal_tokens([long, short]) == 300
    assert best_within(long, 300, measure="nats") == {"a": 7.0, "b": 8.0, MIXED: 7.5}
    assert best_within(short, 300, measure="nats") == {"a": 5.0, "b": 6.0, MIXED: 5.5}
    assert best_within(long, None, measure="bits") == {"a": 1.5}
    assert equal_tokens([long, Record()]) is None and best_within(Record(), None, measure="nats") == {}


def test_the_best_need_not_be_the_last() -> None:
    run = read_record([launched(), *(evaluated(step, abs(step - 4)) for step in range(0, 9, 2))])
    assert best_within(run, None, measure="nats")["a"] == 0.0


def test_what_a_kill_took_away_does_not_count() -> None:
    run = read_record([launched(), evaluated(2, 5.0), evaluated(8, 1.0), launched(4), evaluated(6, 4.0)])
    assert best_within(run, None, measure="nats")["a"] == 4.0
    assert [each.step for each in run.measurements] == [2, 6] and run.story.kills == 1


def test_odd_records_are_left_out() -> None:
    odd = [
        evaluated(1, 1.0, tokens=None),
        {**evaluated(1, 1.0), "step": "x"},
        evaluated(3, 2.0, val_loss=[], val_loss_mixed=""),
    ]
    run = read_record([launched(), *odd])
    assert best_within(run, None, measure="nats") == {} and best_within(run, None, measure="bits") == {"a": 1.0}


def recipe(**train: Any) -> Recipe:
    plain = dict.fromkeys(TrainRecipe.__dataclass_fields__, 1)
    return Recipe(
        model=ModelShape(arch="llama", vocab_size=9, context=8, layers=1, width=8, heads=1, kv_heads=1, hidden=8),
        data=DataRecipe(
            dataset="d",
            dataset_sha256="x",
            tokenizer_sha256="y",
            order="shuffled",
            order_sha256="z",
            seed=1,
            weights={"a": 1.0},
            train_tokens=9,
        ),
        train=TrainRecipe(**{**plain, **train}),
        eval=EvalRecipe(steps=(1,), max_tokens=1),
        sample=SampleRecipe(
            steps=(1,),
            prompts=("p",),
            max_new_tokens=1,
            temperature=0.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            seed=1,
        ),
        why={"train.lr": str(train)},
    )


def test_only_what_differs_is_told() -> None:
    one, two = recipe(lr=0.1), recipe(lr=0.2)
    assert differences([one, one]) == {}
    assert differences([one, two, one]) == {"train.lr": [0.1, 0.2, 0.1]}
    more = dataclasses.replace(two, data=dataclasses.replace(two.data, weights={"b": 2.0}))
    assert differences([one, more]) == {
        "data.weights.a": [1.0, None],
        "data.weights.b": [None, 2.0],
        "train.lr": [0.1, 0.2],
    }
