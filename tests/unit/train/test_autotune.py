"""Precision and threads by timed steps: a change must gain clearly, and timing leaves no trace."""

import torch

from ondevice.run.recipe import Fit, ModelShape
from ondevice.train import autotune
from ondevice.train.autotune import Choice, candidates, choose, fastest

SHAPE = ModelShape(arch="llama", vocab_size=61, context=16, layers=1, width=16, heads=2, kv_heads=2, hidden=32)
FIT = Fit(micro_batch=2, threads=2, activation_checkpointing=False, loss_chunk_tokens=64)


def timed(**rates):
    names = {"plain": ("fp32", 2), "single": ("fp32", 1), "bf16": ("bf16", 2)}
    return [Choice(precision=names[key][0], threads=names[key][1], tok_s=rate) for key, rate in rates.items()]


def test_the_plain_choice_comes_first_and_nothing_twice():
    found = candidates(precisions=["fp32", "bf16", "fp32"], threads=[1, 2, 2])
    assert [(choice.precision, choice.threads) for choice in found] == [
        ("fp32", 2),
        ("fp32", 1),
        ("bf16", 2),
        ("bf16", 1),
    ]


def test_noise_does_not_change_the_plain_choice():
    assert fastest(timed(plain=1000.0, single=1050.0, bf16=1090.0)).threads == 2


def test_a_clear_gain_does():
    assert fastest(timed(plain=1000.0, single=1500.0, bf16=1400.0)) == Choice(precision="fp32", threads=1, tok_s=1500.0)


def test_choices_are_timed_in_turn_and_threads_put_back(monkeypatch):
    seen = []

    def rate(shape, fit, *, batch, precision, optimizer, adapter, seconds):
        seen.append((precision, torch.get_num_threads()))
        return 100.0 if fit.threads == 2 else 300.0

    monkeypatch.setattr(autotune, "step_rate", rate)
    before = torch.get_num_threads()
    wanted = candidates(precisions=["fp32"], threads=[2, 1])
    assert choose(SHAPE, FIT, wanted, batch=2, optimizer="muon").threads == 1
    assert seen == [("fp32", 2), ("fp32", 1)] * autotune.ROUNDS
    assert torch.get_num_threads() == before


def test_a_real_timing_gives_a_rate():
    choice = choose(SHAPE, FIT, candidates(precisions=["fp32"], threads=[1]), batch=2, optimizer="muon")
    assert choice.tok_s is not None and choice.tok_s > 0
