"""Muon: orthogonal directions, the right matrices, AdamW for the rest, and a state that comes back."""

import math

import pytest
import torch

from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape
from ondevice.train.muon import MuonAdamW, NewtonSchulzMuonAdamW, row_parts
from ondevice.train.optimizer import load_state, optimizer_of, state_tensors
from ondevice.train.orthogonal import newton_schulz

SHAPE = ModelShape(arch="llama", vocab_size=61, context=16, layers=2, width=32, heads=4, kv_heads=2, hidden=48)


BOTH = pytest.mark.parametrize("kind", [MuonAdamW, NewtonSchulzMuonAdamW])


def make(arch="llama", kind=MuonAdamW):
    shape = SHAPE if arch == "llama" else ModelShape(**{**vars(SHAPE), "arch": "gpt2", "kv_heads": 4})
    model = build_model(shape, seed=1)
    return model, kind(model, shape, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.99), eps=1e-8)


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


@BOTH
def test_one_step_moves_each_part_by_the_stated_size(kind):
    model, optimizer = make(kind=kind)
    before = model.blocks[0].attn.qkv.weight.detach().clone()
    step(model, optimizer, 0)
    moved = model.blocks[0].attn.qkv.weight.detach() - before * (1 - 1e-2 * 0.1)
    for part in moved.split([32, 16, 16]):
        rms = part.pow(2).mean().sqrt().item()
        # an orthogonal r x c direction has RMS 1 / sqrt(max(r, c)), so the update has 0.2 x lr
        assert rms == pytest.approx(0.2 * 1e-2, rel=0.2)


@BOTH
def test_everything_else_moves_as_under_adamw(kind):
    model, optimizer = make("gpt2", kind)
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


@BOTH
def test_it_learns_and_comes_back_from_its_state_to_the_bit(kind):
    model, optimizer = make(kind=kind)
    losses = [step(model, optimizer, 3) for _ in range(12)]
    assert losses[-1] < losses[0] - 1.0
    twin, other = make(kind=kind)
    twin.load_state_dict(model.state_dict())
    load_state(twin, other, {name: tensor.clone() for name, tensor in state_tensors(model, optimizer).items()})
    for seed in range(3):
        assert step(model, optimizer, seed) == step(twin, other, seed)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_step_is_momentum_decay_and_an_orthogonal_update():
    """Beside the same arithmetic written out with singular values, over the parts of fused weights."""
    model, optimizer = make()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = [torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) for p in model.parameters()]
    for p, grad in zip(model.parameters(), gradients, strict=True):
        p.grad = grad.clone()
    optimizer.step()
    for (name, p), grad in zip(model.named_parameters(), gradients, strict=True):
        sizes = row_parts(name, SHAPE) or []
        sizes = sizes if sizes != [-1] else [p.shape[0]]
        pieces = zip(*(each.split(sizes) for each in (p.detach(), before[name], grad)), strict=True) if sizes else ()
        for after, was, direction in pieces:
            u, _, vh = torch.linalg.svd(direction, full_matrices=False)
            wanted = was * (1 - 1e-2 * 0.1) - 1e-2 * 0.2 * max(was.shape) ** 0.5 * (u @ vh)
            assert torch.linalg.matrix_norm(after - wanted) < 0.2 * torch.linalg.matrix_norm(wanted - was), name


def test_many_matrices_are_worked_on_in_stacks_of_a_bounded_size(monkeypatch):
    model, optimizer = make()
    alone, other = make()
    monkeypatch.setattr("ondevice.train.muon.MUON_STACK", 2 * 32 * 32)
    step(model, optimizer, 0)
    monkeypatch.setattr("ondevice.train.muon.MUON_STACK", 1)
    step(alone, other, 0)
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_recipes_before_version_7_keep_their_arithmetic():
    how = {"lr": 1e-2, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    names = ("muon-adamw-fp32", "muon-zolotarev-adamw-fp32", "muon")
    kinds = [type(optimizer_of(name, build_model(SHAPE, seed=1), **how)) for name in names]
    assert kinds == [NewtonSchulzMuonAdamW, MuonAdamW, MuonAdamW]


def test_newton_schulz_goes_on_to_the_bit_as_it_was_begun():
    """The step of recipes before version 7, written out as it was released."""
    model, optimizer = make(kind=NewtonSchulzMuonAdamW)
    twin, _ = make()
    names = [name for name, _ in model.named_parameters() if row_parts(name, SHAPE)]
    momentum = {name: torch.zeros_like(twin.get_parameter(name)) for name in names}
    for seed in range(3):
        step(model, optimizer, seed)
        _released_step(twin, model, names, momentum, seed)
    for name in names:
        assert torch.equal(model.get_parameter(name), twin.get_parameter(name)), name


@torch.no_grad()
def _released_step(twin, model, names, momentum, seed):
    """Gradients are those that the model had before its step, at the weights of the twin."""
    with torch.enable_grad():
        ids = torch.randint(0, 61, (4, 17), generator=torch.Generator().manual_seed(seed))
        twin.zero_grad()
        logits = twin.logits(twin(ids[:, :-1]))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    by_shape = {}
    for name in names:
        parameter, parts = twin.get_parameter(name), row_parts(name, SHAPE)
        parts = parts if parts != [-1] else [parameter.shape[0]]
        update = parameter.grad.lerp(momentum[name].lerp_(parameter.grad, 1 - 0.95), 0.95)
        for target, part in zip(parameter.split(parts), update.split(parts), strict=True):
            by_shape.setdefault((part.shape[0], part.shape[1]), []).append((target, part))
    for (rows, columns), pairs in by_shape.items():
        scale = 0.2 * math.sqrt(max(rows, columns))
        for (target, _), direction in zip(pairs, newton_schulz(torch.stack([u for _, u in pairs])), strict=True):
            target.mul_(1 - 1e-2 * 0.1).add_(direction, alpha=-1e-2 * scale)
    for name, parameter in twin.named_parameters():
        if name not in names:  # AdamW's share is the same in both
            parameter.copy_(model.get_parameter(name))
