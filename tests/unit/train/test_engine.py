"""One step: equal to plain torch, independent of how the batch is cut, and a transaction."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ondevice.model.build import build_model
from ondevice.model.loss import IGNORE
from ondevice.run.recipe import ModelShape
from ondevice.train.engine import Engine, NonFiniteError
from ondevice.train.optimizer import adamw

SHAPES = {
    arch: ModelShape(
        arch=arch,
        vocab_size=61,
        context=16,
        layers=2,
        width=32,
        heads=4,
        kv_heads=2 if arch == "llama" else 4,
        hidden=48,
    )
    for arch in ("llama", "gpt2")
}
SETTINGS = {"lr": 1e-2, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


def batch(rows=6, masked=False, seed=0):
    ids = np.random.default_rng(seed).integers(0, 61, (rows, 17))
    x, y = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    if masked:
        y[0, :] = IGNORE
        y[1, ::2] = IGNORE
        y[-1, 3:] = IGNORE
    return x, y


def engine(arch, *, clip=1.0, chunk=2048):
    model = build_model(SHAPES[arch], seed=3)
    return Engine(model, adamw(model, **SETTINGS), clip=clip, precision="fp32", loss_chunk_tokens=chunk)


def step(e, x, y, size, lr=1e-2):
    e.begin(y)
    for first in range(0, len(x), size):
        e.accumulate(x[first : first + size], y[first : first + size])
    return e.update(lr)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("masked", [False, True])
def test_three_steps_equal_plain_torch(arch, masked):
    ours = engine(arch)
    model = build_model(SHAPES[arch], seed=3)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    plain = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    for seed in range(3):
        x, y = batch(masked=masked, seed=seed)
        result = step(ours, x, y, 2)
        plain.zero_grad()
        logits = model.logits(model(torch.from_numpy(x)))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y).flatten(), ignore_index=IGNORE)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        plain.step()
        assert result.loss == pytest.approx(loss.item(), rel=1e-5)
        assert result.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        assert result.tokens == int((y != IGNORE).sum())
    for name, p in model.named_parameters():
        torch.testing.assert_close(dict(ours.model.named_parameters())[name], p, rtol=2e-3, atol=5e-4)


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_cutting_the_batch_does_not_change_what_is_learned(size):
    x, y = batch(masked=True)
    whole, cut = engine("llama"), engine("llama", chunk=16)
    first, second = step(whole, x, y, 6), step(cut, x, y, size)
    assert second.loss == pytest.approx(first.loss, rel=1e-6)
    assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-5)


def test_activation_checkpointing_gives_the_same_weights_to_the_bit():
    kept, recomputed = engine("gpt2"), engine("gpt2")
    recomputed.model.activation_checkpointing = True
    for e in (kept, recomputed):
        step(e, *batch(), 3)
    for a, b in zip(kept.model.parameters(), recomputed.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("poison", ["weight", "gradient"])
def test_a_number_that_is_not_finite_leaves_the_weights_alone(poison):
    e = engine("llama")
    x, y = batch()
    step(e, x, y, 6)
    before = {name: p.detach().clone() for name, p in e.model.named_parameters()}
    moments = {name: e.optimizer.state[p]["exp_avg"].clone() for name, p in e.model.named_parameters()}
    if poison == "weight":
        with torch.no_grad():
            e.model.norm.weight[0] = float("nan")
        before["norm.weight"] = e.model.norm.weight.detach().clone()
    else:
        e.model.blocks[0].attn.out.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NonFiniteError, match="loss became nan" if poison == "weight" else "gradient norm became"):
        step(e, x, y, 6)
    for name, p in e.model.named_parameters():
        assert torch.equal(p.nan_to_num(7.0), before[name].nan_to_num(7.0)), name
        assert torch.equal(e.optimizer.state[p]["exp_avg"], moments[name])


def test_an_aborted_step_leaves_dropout_where_it_was():
    shape = ModelShape(**{**vars(SHAPES["gpt2"]), "dropout": 0.3})
    losses = []
    for disturbed in (False, True):
        model = build_model(shape, seed=3)
        e = Engine(model, adamw(model, **SETTINGS), clip=1.0, precision="fp32", loss_chunk_tokens=64)
        torch.manual_seed(5)
        x, y = batch()
        if disturbed:
            e.begin(y)
            e.accumulate(x, y)
            e.abort()
        losses.append(step(e, x, y, 3).loss)
    assert losses[0] == losses[1]


def test_clipping_bounds_the_gradient_and_zero_turns_it_off():
    x, y = batch()
    clipped, free = engine("llama", clip=1e-3), engine("llama", clip=0.0)
    assert step(clipped, x, y, 6).grad_norm == pytest.approx(step(free, x, y, 6).grad_norm)
    total = torch.sqrt(sum((p.grad**2).sum() for p in clipped.model.parameters()))
    assert total.item() == pytest.approx(1e-3, rel=1e-2)


def test_norms_and_biases_do_not_decay():
    e = engine("gpt2")
    decayed = {id(p) for group in e.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, p in e.model.named_parameters():
        assert (id(p) in decayed) == (p.ndim >= 2), name


def test_bf16_learns_almost_the_same():
    x, y = batch()
    exact = engine("llama")
    model = build_model(SHAPES["llama"], seed=3)
    rough = Engine(model, adamw(model, **SETTINGS), clip=1.0, precision="bf16", loss_chunk_tokens=64)
    losses = [(step(exact, x, y, 6).loss, step(rough, x, y, 6).loss) for _ in range(8)]
    assert losses[-1][1] < losses[0][1] - 0.5
    assert abs(losses[-1][0] - losses[-1][1]) < 0.1
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_the_gradient_of_the_head_has_the_same_memory_every_step(arch):
    ours = engine(arch)
    places = set()
    for seed in range(3):
        step(ours, *batch(seed=seed), 3)
        places.add(ours.model.head_weight.grad.data_ptr())
    assert len(places) == 1


def test_a_given_up_step_leaves_nothing_of_its_gradient():
    x, y = batch()
    ours, fresh = engine("llama"), engine("llama")
    ours.begin(y)
    ours.accumulate(x[:3], y[:3])
    ours.abort()
    assert step(ours, x, y, 3) == step(fresh, x, y, 3)
    assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), fresh.model.parameters(), strict=True))


def test_only_the_first_micro_batch_hands_a_gradient_over():
    """The others are added within the product."""
    e, given = engine("llama"), []
    x, y = batch()
    e.model.blocks[0].mlp.gate_up.weight.register_hook(lambda grad: given.append(grad is not None))
    step(e, x, y, 2)
    assert sum(given) == 1
