"""Muon: orthogonal directions, the right matrices, AdamW for the rest, and a state that comes back."""

import pytest
import torch

from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape
from ondevice.train.muon import MuonAdamW, newton_schulz, row_parts
from ondevice.train.optimizer import load_state, state_tensors

SHAPE = ModelShape(arch="llama", vocab_size=61, context=16, layers=2, width=32, heads=4, kv_heads=2, hidden=48)


def make(arch="llama"):
    shape = SHAPE if arch == "llama" else ModelShape(**{**vars(SHAPE), "arch": "gpt2", "kv_heads": 4})
    model = build_model(shape, seed=1)
    return model, MuonAdamW(model, shape, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.99), eps=1e-8)


def step(model, optimizer, seed):
    ids = torch.randint(0, 61, (4, 17), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    logits = model.logits(model(ids[:, :-1]))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (32, 32)])
def test_singular_values_become_nearly_one_and_directions_stay(size):
    generator = torch.Generator().manual_seed(0)
    stack = torch.randn(3, *size, generator=generator) * torch.tensor([1e-4, 1.0, 1e3])[:, None, None]
    result = newton_schulz(stack)
    values = torch.linalg.svdvals(result)
    # Jordan's coefficients trade exactness for speed: everything but the smallest lands between 0.68 and 1.13.
    assert values[:, : min(size) // 2].min() > 0.6
    assert values.max() < 1.25
    u, _, vh = torch.linalg.svd(stack, full_matrices=False)
    inner = torch.einsum("mij,mij->m", result, u @ vh) / min(size)
    assert (inner > 0.8).all()


def test_fused_weights_are_orthogonalised_in_their_parts():
    assert row_parts("blocks.0.attn.qkv.weight", SHAPE) == [32, 16, 16]
    assert row_parts("blocks.1.mlp.gate_up.weight", SHAPE) == [48, 48]
    assert row_parts("blocks.1.mlp.down.weight", SHAPE) == [-1]
    for name in ("embed.weight", "head.weight", "position.weight", "norm.weight", "blocks.0.norm1.weight"):
        assert row_parts(name, SHAPE) is None
    assert row_parts("blocks.0.attn.qkv.bias", SHAPE) is None


def test_one_step_moves_each_part_by_the_stated_size():
    model, optimizer = make()
    before = model.blocks[0].attn.qkv.weight.detach().clone()
    step(model, optimizer, 0)
    moved = model.blocks[0].attn.qkv.weight.detach() - before * (1 - 1e-2 * 0.1)
    for part in moved.split([32, 16, 16]):
        rms = part.pow(2).mean().sqrt().item()
        # an orthogonal r x c direction has RMS 1 / sqrt(max(r, c)), so the update has 0.2 x lr
        assert rms == pytest.approx(0.2 * 1e-2, rel=0.2)


def test_everything_else_moves_as_under_adamw():
    model, optimizer = make("gpt2")
    twin = build_model(model.shape, seed=1)
    groups = [
        {"params": [twin.embed.weight, twin.position.weight], "weight_decay": 0.1},
        {"params": [p for p in twin.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    plain = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-8, fused=True)
    step(model, optimizer, 0)
    step(twin, plain, 0)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        if row_parts(name, model.shape) is None:
            assert torch.equal(p, q), name


def test_it_learns_and_comes_back_from_its_state_to_the_bit():
    model, optimizer = make()
    losses = [step(model, optimizer, 3) for _ in range(12)]
    assert losses[-1] < losses[0] - 1.0
    twin, other = make()
    twin.load_state_dict(model.state_dict())
    load_state(twin, other, {name: tensor.clone() for name, tensor in state_tensors(model, optimizer).items()})
    for seed in range(3):
        assert step(model, optimizer, seed) == step(twin, other, seed)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
