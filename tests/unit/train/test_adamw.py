"""Our AdamW against torch's, to the bit, and without its compiler."""

import subprocess
import sys

import pytest
import torch

from ondevice.train.adamw import AdamW


def parameters():
    generator = torch.Generator().manual_seed(3)
    return [torch.nn.Parameter(torch.randn(*size, generator=generator)) for size in ((33, 17), (17,), (5, 4, 3))]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_bit_is_torch_s(weight_decay):
    ours, theirs = parameters(), parameters()
    mine = AdamW([{"params": ours, "weight_decay": weight_decay}], lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    torchs = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=weight_decay, fused=True)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        for optimizer in (mine, torchs):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 / (step + 1)
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        for slot in mine.slots(p):
            assert torch.equal(mine.state[p][slot], torchs.state[q][slot]), slot


def test_a_parameter_without_gradient_stays():
    kept, moved = parameters()[:2]
    before = kept.detach().clone()
    optimizer = AdamW([{"params": [kept, moved], "weight_decay": 0.1}], lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    moved.grad = torch.ones_like(moved)
    optimizer.step()
    assert torch.equal(kept, before)
    optimizer.zero_grad()
    assert moved.grad is None


def test_a_training_step_does_not_load_the_compiler():
    code = (
        "import sys, numpy as np\n"
        "from ondevice.model.build import build_model\n"
        "from ondevice.run.recipe import ModelShape\n"
        "from ondevice.train.engine import Engine\n"
        "from ondevice.train.muon import MuonAdamW\n"
        "shape = ModelShape(arch='llama', vocab_size=9, context=8, layers=1, width=16, heads=2, kv_heads=2, hidden=9)\n"
        "model = build_model(shape, seed=1)\n"
        "optimizer = MuonAdamW(model, shape, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.99), eps=1e-8)\n"
        "model.activation_checkpointing = True\n"
        "engine = Engine(model, optimizer, clip=1.0, precision='fp32', loss_chunk_tokens=64)\n"
        "x = np.ones((2, 8), np.int64)\n"
        "engine.begin(x); engine.accumulate(x, x); engine.update(1e-3)\n"
        "sys.exit(', '.join(n for n in ('torch._dynamo', 'torch._inductor', 'sympy') if n in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
