"""Sampling: the defaults of the config, edge cases, exact resume, and honest shares."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from ondevice.errors import CheckpointError, UsageError
from ondevice.infer.sampling import Sampler, Sampling, check_finite, warp
from ondevice.run.schema import SampleConfig

LOGITS = np.array([1.0, 3.0, 3.0, -1.0, 2.0])


def test_defaults_are_those_of_the_config() -> None:
    config = SampleConfig()
    assert all(getattr(Sampling(), each.name) == getattr(config, each.name) for each in fields(Sampling))


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    assert Sampler(Sampling(temperature=0.0)).next(LOGITS, []) == 1


def test_greedy_heeds_the_repetition_penalty() -> None:
    assert Sampler(Sampling(temperature=0.0, repetition_penalty=2.0)).next(LOGITS, [1, 2, 1]) == 4


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"top_k": 1}, [1, 2]),  # equals of the k-th stay, as in transformers
        ({"top_k": 3}, [1, 2, 4]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_k": 0}, [0, 1, 2, 3, 4]),
        ({"top_k": 0, "top_p": 1e-9}, [2]),
    ],
)
def test_which_tokens_may_be_chosen(settings: dict, allowed: list[int]) -> None:
    scores = warp(LOGITS, [], Sampling(**{"temperature": 1.0, "top_p": 1.0, **settings}))
    assert np.flatnonzero(scores > -np.inf).tolist() == allowed


def test_shares_are_those_of_the_softmax() -> None:
    sampler = Sampler(Sampling(temperature=0.5, top_k=0, top_p=1.0, seed=3))
    draws = np.bincount([sampler.next(LOGITS, []) for _ in range(4000)], minlength=5) / 4000
    wanted = np.exp(LOGITS / 0.5) / np.exp(LOGITS / 0.5).sum()
    np.testing.assert_allclose(draws, wanted, atol=0.03)


def test_same_seed_same_tokens_and_resume_is_exact() -> None:
    logits = np.random.default_rng(0).standard_normal((40, 100))
    first, second = Sampler(Sampling(seed=5)), Sampler(Sampling(seed=5))
    whole = [first.next(row, []) for row in logits]
    half = [second.next(row, []) for row in logits[:20]]
    third = Sampler(Sampling(seed=99))
    third.load_state_dict(json.loads(json.dumps(second.state_dict())))
    assert half + [third.next(row, []) for row in logits[20:]] == whole
    with pytest.raises(CheckpointError, match="version 2"):
        third.load_state_dict({"v": 2})


def test_logits_are_not_changed_and_may_be_float32() -> None:
    logits = LOGITS.astype(np.float32)
    warp(logits, [1], Sampling(repetition_penalty=1.3))
    assert (logits == LOGITS).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        Sampler(Sampling()).next(np.array([1.0, bad, 2.0]), [])
    with pytest.raises(CheckpointError, match="not finite"):
        check_finite(np.array([[1.0, 2.0], [bad, 1.0]]))
    check_finite(np.array([[1.0, -np.inf], [-np.inf, 0.0]]))  # tokens that a trimmed vocabulary left out


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1},
            {"repetition_penalty": 0.0}, {"seed": -1}],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(bad: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        Sampling(**bad)
