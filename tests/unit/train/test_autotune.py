"""Precision, threads and micro-batch by timed steps: what is tried, how long it takes, that timing leaves no trace."""

import pytest
import torch

from ondevice.run.config import parse_config
from ondevice.run.recipe import Fit, ModelShape
from ondevice.train import autotune
from ondevice.train.autotune import Choice, candidates, choose, micro_batches_to_try, rows_for, threads_to_try, timed
from ondevice.train.fitting import memory_of
from ondevice.train.prepare import micro_batches, precisions_to_try
from ondevice.train.probe import MatmulRates, StepTimer, time_gradients
from ondevice.train.race import Timing
from ondevice.train.sizing import Machine

SHAPE = ModelShape(
    arch="llama", vocab_size=61, context=16, layers=1, width=16, heads=2, kv_heads=2, hidden=32, dropout=0.1
)
LARGE = ModelShape(arch="llama", vocab_size=8192, context=128, layers=8, width=512, heads=8, kv_heads=8, hidden=1408)
FIT = Fit(micro_batch=4, threads=2, activation_checkpointing=False, loss_chunk_tokens=64)


@pytest.fixture
def timer(monkeypatch):
    """``timer(rate)``: steps take what ``rate(fit, precision, rows)`` says, in no time; gives what was timed."""

    def build(rate, seconds=0.02):
        seen = []

        class Timer:
            def __init__(self, shape, fit, *, optimizer, most_rows, adapter, top_layers):
                pass

            def time(self, fit, *, precision, rows, batch):
                seen.append((fit.threads, precision, fit.micro_batch, rows))
                return Timing(rate=rate(fit, precision, rows), seconds=seconds)

        monkeypatch.setattr(autotune, "StepTimer", Timer)
        monkeypatch.setattr(autotune, "RATE_S", 0.001)
        return seen

    return build


def test_the_plain_choice_comes_first_and_nothing_twice():
    found = candidates(precisions=["fp32", "bf16", "fp32"], threads=[2, 1, 2])
    assert [(choice.precision, choice.threads) for choice in found] == [
        ("fp32", 2),
        ("fp32", 1),
        ("bf16", 2),
        ("bf16", 1),
    ]


@pytest.mark.parametrize(
    ("plain", "cores", "counts"),
    [(1, 1, [1]), (2, 2, [2, 1]), (4, 4, [4, 3, 2, 1]), (4, 8, [4, 8, 6, 3, 2, 1]), (3, 9, [3, 9, 8, 6, 4, 2, 1])],
)
def test_threads_to_try(plain, cores, counts):
    assert threads_to_try(plain, cores) == counts


def test_micro_batches_stay_within_memory_and_batch():
    def tried(batch, most):
        return micro_batches_to_try(FIT, batch=batch, has_room=lambda fit: fit.micro_batch <= most)

    assert tried(16, 8) == [4, 2, 1, 8]
    assert tried(6, 8) == [4, 2, 1]
    assert tried(16, 4) == [4, 2, 1]


def machine_of(memory_mb):
    return Machine(flops_s=1e9, memory_mb=memory_mb, cores=2)


def wish_of(tmp_path, *changes):
    return parse_config("", where="x.toml", base=tmp_path, changes=changes)


@pytest.mark.parametrize("change", ["train.precision=bf16", "train.average=0.2", "train.compile=true"])
def test_twice_as_many_sequences_are_tried_only_where_all_that_the_wish_holds_has_room(tmp_path, change):
    def tried(memory_mb, *changes):
        wish = wish_of(tmp_path, "train.precision=fp32", *changes)
        return micro_batches(wish, LARGE, FIT, machine_of(memory_mb), batch=16)

    enough_mb = next(mb for mb in range(300, 3000) if 8 in tried(mb))
    assert 8 not in tried(enough_mb, change)
    assert 8 in tried(3000, change)


def test_bf16_is_tried_only_where_its_copies_have_room(tmp_path):
    def tried(memory_mb, *changes, fast=2.0):
        rates = MatmulRates(fp32_flops_s=1e9, bf16_flops_s=fast * 1e9)
        wish = wish_of(tmp_path, *changes)
        return precisions_to_try(wish, LARGE, FIT, machine_of(memory_mb), rates, batch=16)

    fp32_mb = memory_of(wish_of(tmp_path, "train.precision=fp32"), LARGE, FIT, batch=16).total_mb
    assert tried(fp32_mb) == tried(3000, fast=1.1) == ["fp32"]
    assert tried(3000) == ["fp32", "bf16"]
    assert tried(fp32_mb, "train.precision=bf16") == ["bf16"]
    # The doubled micro-batch is not timed where one of the two precisions has no room for it.
    wish = wish_of(tmp_path)
    enough_mb = next(mb for mb in range(300, 3000) if 8 in micro_batches(wish, LARGE, FIT, machine_of(mb), batch=16))
    assert 8 not in micro_batches(wish, LARGE, FIT, machine_of(enough_mb), batch=16, precision="bf16")


def test_threads_and_micro_batch_are_found_together(timer):
    speeds = {2: 100.0, 1: 150.0}
    seen = timer(lambda fit, precision, rows: speeds[fit.threads] * (2.0 if fit.micro_batch == 1 else 1.0))
    before = torch.get_num_threads()
    wanted = candidates(precisions=["fp32"], threads=[2, 1])
    found = choose(SHAPE, FIT, wanted, batch=8, optimizer="muon", micro_batches=[4, 2, 1])
    assert found == Choice(precision="fp32", threads=1, micro_batch=1, tok_s=300.0)
    assert found.applied_to(FIT) == Fit(micro_batch=1, threads=1, activation_checkpointing=False, loss_chunk_tokens=64)
    assert {rows for _, _, size, rows in seen if size == 2} == {2}
    assert torch.get_num_threads() == before


def test_equal_choices_leave_everything_as_it_was(timer):
    timer(lambda fit, precision, rows: 100.0)
    wanted = candidates(precisions=["fp32", "bf16"], threads=[2, 1])
    found = choose(SHAPE, FIT, wanted, batch=8, optimizer="adamw", micro_batches=[4, 2])
    assert (found.precision, found.threads, found.micro_batch) == ("fp32", 2, 4)


def test_long_steps_are_cut_so_that_all_fits_into_the_time(timer):
    seen = timer(lambda fit, precision, rows: 100.0, seconds=0.9)
    wanted = candidates(precisions=["fp32"], threads=[2, 1])
    found = choose(SHAPE, FIT, wanted, batch=8, optimizer="adamw", micro_batches=[4, 2, 1])
    assert (found.threads, found.micro_batch) == (2, 4)
    assert {rows for *_, rows in seen[:-1]} == {1}
    assert len(seen) * 0.9 <= 20.0


def test_a_known_choice_is_timed_as_it_is(timer):
    seen = timer(lambda fit, precision, rows: 50.0)
    choice = Choice(precision="bf16", threads=1, micro_batch=2, tok_s=9.0)
    assert timed(SHAPE, FIT, choice, batch=8, optimizer="adamw") == Choice(
        precision="bf16", threads=1, micro_batch=2, tok_s=50.0
    )
    assert {(threads, precision, size) for threads, precision, size, _ in seen} == {(1, "bf16", 2)}


@pytest.mark.parametrize(("row_s", "most", "rows"), [(0.001, 32, 32), (0.05, 32, 4), (9.0, 32, 1), (0.1, 6, 1)])
def test_rows_of_a_short_trial(row_s, most, rows):
    assert rows_for(row_s, most) == rows


def test_a_real_timing_gives_a_rate_and_leaves_the_random_state():
    random = torch.get_rng_state()
    timer = StepTimer(SHAPE, FIT, optimizer="muon", most_rows=4)
    assert timer.time(FIT, precision="fp32", rows=4, batch=8).rate > 0
    assert timer.time(FIT, precision="bf16", rows=1, batch=8).rate > 0
    assert torch.equal(torch.get_rng_state(), random)


def test_gradients_of_a_live_model_leave_it_as_it_was():
    from ondevice.model.build import build_model
    from ondevice.train.engine import Engine
    from ondevice.train.optimizer import optimizer_of

    model = build_model(SHAPE, seed=0)
    settings = {"lr": 1e-4, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    engine = Engine(model, optimizer_of("adamw", model, **settings), clip=1.0, precision="fp32", loss_chunk_tokens=64)
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert time_gradients(engine, SHAPE, rows=2).rate > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
