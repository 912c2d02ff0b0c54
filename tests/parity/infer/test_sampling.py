"""Our sampling steps against transformers' logits processors, on the same float64 logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ondevice.infer.sampling import Sampling, warp

SETTINGS = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p, "repetition_penalty": penalty}
    for temperature in (0.3, 1.0, 1.7)
    for top_k in (0, 1, 7, 50, 1000)
    for top_p in (0.05, 0.8, 0.95, 1.0)
    for penalty in (0.8, 1.0, 1.3)
]


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_transformers(seed: int) -> None:
    pytest.importorskip("transformers")
    random = np.random.default_rng(seed)
    logits = random.standard_normal(97) * 4
    seen = random.integers(0, 97, 20).tolist()
    for each in SETTINGS:
        wanted = processors(each)(torch.tensor([seen]), torch.tensor(logits[None]))[0].numpy()
        np.testing.assert_allclose(warp(logits, seen, Sampling(**each)), wanted, rtol=1e-12, err_msg=str(each))


def processors(settings: dict):
    """The list that transformers' generate builds, in its order."""
    from transformers.generation import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    steps = [RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"])]
    steps.append(TemperatureLogitsWarper(settings["temperature"]))
    if settings["top_k"]:
        steps.append(TopKLogitsWarper(settings["top_k"]))
    if settings["top_p"] < 1.0:
        steps.append(TopPLogitsWarper(settings["top_p"]))
    return LogitsProcessorList(steps)
