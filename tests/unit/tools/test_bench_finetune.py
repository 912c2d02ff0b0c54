"""What the benchmarks of fine-tuning rely on: 8-bit states are compared on the same steps, limits are hard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape
from ondevice.train.engine import Engine
from ondevice.train.optimizer import optimizer_of
from tools.faults.scarce import NoRoot, memory_cgroup, oom_kills

BENCH = Path(__file__).parents[3] / "tools" / "bench"
SHAPE = ModelShape(arch="gpt2", vocab_size=60, context=256, layers=1, width=16, heads=2, kv_heads=2, hidden=32)


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    torch.set_num_threads(1)  # two over matrices of 16 x 16 wait for each other where others work


def engine(state):
    model = build_model(SHAPE, seed=1)
    how = {"lr": 1e-4, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    return Engine(model, optimizer_of(state, model, **how), clip=1.0, precision="fp32", loss_chunk_tokens=512)


def test_the_comparison_of_states_trains_and_looks_at_other_text(capsys):
    import finetune_loss

    rows = np.tile(np.arange(257) % 7, (finetune_loss.VALIDATION + 30, 1))
    first, again = (finetune_loss.train(engine("adamw-fp32"), rows, 30, 1, "fp32", None) for _ in range(2))
    assert first == again and first.trains[-1] < 4.0 < np.log(60)
    rows[: finetune_loss.VALIDATION] = 50 + rows[: finetune_loss.VALIDATION]  # symbols that were not trained on
    capsys.readouterr()
    assert finetune_loss.train(engine("adamw-int8"), rows, 30, 1, "int8", first).validation > first.validation
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[:2] for words in told] == [["int8", "20"], ["int8", "30"]]
    assert all(words[3].endswith("%") for words in told)  # beside fp32 at the same steps


def test_a_cgroup_kills_what_is_over_its_limit_and_says_so():
    eat = "import sys; block = bytearray(200 << 20); print(len(block))"
    try:
        with memory_cgroup(limit_mb=64) as cgroup:
            join = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')\n"
            done = subprocess.run([sys.executable, "-c", join + eat], capture_output=True, check=False)
            assert done.returncode == -9 and oom_kills(cgroup) == 1
    except NoRoot as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_preset_for_phones_trains_and_goes_on_under_its_limit(name, tmp_path):
    from finetune_limits import run_limited

    try:
        found = run_limited(name, tmp_path, steps=4, threads=1)
    except NoRoot as error:
        pytest.skip(str(error))
    assert (found.steps, found.launches, found.killed_by_kernel) == (4, 2, 0)
