"""A step inside the backward pass: the bits of an ordinary one, gradients freed, and still a transaction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ondevice.model.build import build_model
from ondevice.model.lora import add_lora
from ondevice.model.loss import IGNORE
from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.train.engine import Engine, NonFiniteError, TornError
from ondevice.train.optimizer import optimizer_of

COMMON = {"vocab_size": 61, "context": 16, "layers": 3, "width": 32, "heads": 4, "hidden": 48}
LLAMA = ModelShape(arch="llama", kv_heads=2, qkv_bias=True, **COMMON)
GPT2 = ModelShape(arch="gpt2", kv_heads=4, **COMMON)
PLAIN = Fit(micro_batch=4, threads=1, activation_checkpointing=False, loss_chunk_tokens=24)
LAYERWISE = replace(PLAIN, layerwise=True)
HOW = {"lr": 1e-2, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


def batch(seed=0, rows=4):
    ids = np.random.default_rng(seed).integers(0, 61, (rows, 17))
    x, y = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    y[0, ::3] = IGNORE
    return x, y


def engine(shape, fit, *, clip=1.0, scope="all", optimizer="adamw", precision="fp32", adapter=None):
    model = build_model(shape, seed=3)
    if adapter is not None:
        add_lora(model, adapter, seed=5)
    made = optimizer_of(optimizer, model, **HOW)
    e = Engine(model, made, clip=clip, clip_scope=scope, precision=precision, loss_chunk_tokens=24)
    e.use(fit)
    return e


def steps(e, *, size=4, count=3, lr=1e-2):
    torch.manual_seed(4)
    results = []
    for seed in range(count):
        x, y = batch(seed)
        e.begin(y)
        for first in range(0, len(x), size):
            e.accumulate(x[first : first + size], y[first : first + size])
        results.append(e.update(lr))
    return results


def bits(e):
    named = dict(e.model.named_parameters())
    state = {f"{slot}.{n}": e.optimizer.state[p][slot] for n, p in named.items() for slot in e.optimizer.slots(p)}
    return {**{name: p.detach() for name, p in named.items()}, **state}


def assert_same_bits(one, other):
    one, other = bits(one), bits(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("shape", [LLAMA, GPT2, replace(GPT2, tied=False), replace(LLAMA, dropout=0.2)])
@pytest.mark.parametrize(("clip", "scope"), [(0.0, "all"), (0.05, "all"), (0.05, "tensor")])
@pytest.mark.parametrize(("kept", "repeated"), [(0, 0), (2, 1), (3, 3)])
def test_the_bits_are_those_of_an_ordinary_step(shape, clip, scope, kept, repeated):
    plain, fit = engine(shape, PLAIN, clip=clip, scope=scope), replace(LAYERWISE, kept_blocks=kept)
    ours = engine(shape, replace(fit, repeated_blocks=repeated), clip=clip, scope=scope)
    assert steps(plain) == steps(ours)
    assert_same_bits(plain, ours)
    assert all(parameter.grad is None for parameter in ours.model.parameters())


@pytest.mark.parametrize("optimizer", ["adamw-int8", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_any_state_and_precision(optimizer, precision):
    shape = replace(GPT2, width=64, hidden=128)  # matrices large enough for a state of 8 bits
    plain = engine(shape, PLAIN, optimizer=optimizer, precision=precision)
    ours = engine(shape, replace(LAYERWISE, repeated_blocks=2), optimizer=optimizer, precision=precision)
    assert steps(plain) == steps(ours)
    assert_same_bits(plain, ours)


def test_an_adapter_learns_the_same():
    adapter = AdapterRecipe(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "down_proj"))
    plain, ours = (engine(LLAMA, fit, adapter=adapter) for fit in (PLAIN, replace(LAYERWISE, repeated_blocks=1)))
    assert steps(plain) == steps(ours)
    assert_same_bits(plain, ours)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_several_micro_batches_give_the_same_to_rounding(tied, size):
    shape = replace(GPT2, tied=tied)
    plain, ours = engine(shape, PLAIN, clip=0.0), engine(shape, replace(LAYERWISE, kept_blocks=1), clip=0.0)
    for one, other in zip(steps(plain, size=size), steps(ours, size=size), strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)


def test_muon_learns_the_same_to_rounding():
    plain, ours = (engine(LLAMA, fit, optimizer="muon") for fit in (PLAIN, LAYERWISE))
    for one, other in zip(steps(plain), steps(ours), strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-4)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_gradients_are_gone_as_soon_as_they_are_used(clip):
    e = engine(GPT2, replace(LAYERWISE, repeated_blocks=3), clip=clip)
    x, y = batch()
    e.begin(y)
    e.accumulate(x, y)
    most = 0
    for _ in e.pieces(1e-2):
        most = max(most, sum(p.grad is not None for block in e.model.blocks for p in block.parameters()))
    assert most == 0


def test_pieces_without_a_rate_learn_nothing():
    e = engine(GPT2, LAYERWISE, clip=0.0)
    before = {name: p.detach().clone() for name, p in e.model.named_parameters()}
    x, y = batch()
    e.begin(y)
    e.accumulate(x, y)
    assert len(list(e.pieces(None))) == 1 + 1 + 3 + 1
    e.abort()
    assert all(torch.equal(p, before[name]) for name, p in e.model.named_parameters())


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_nothing_is_written_before_the_norm_is_known(poison):
    e = engine(GPT2, replace(LAYERWISE, repeated_blocks=2))
    steps(e, count=1)
    before = {name: tensor.clone() for name, tensor in bits(e).items()}
    block = e.model.blocks[0]
    if poison == "gradient":
        block.attn.out.weight.register_hook(lambda grad: grad * float("inf"))
    else:
        with torch.no_grad():
            block.norm1.weight[0] = before["blocks.0.norm1.weight"][0] = float("nan")
    with pytest.raises(NonFiniteError, match="norm became" if poison == "gradient" else "loss became nan"):
        steps(e, count=1)
    assert not e.torn
    after = bits(e)
    assert [name for name in after if not torch.equal(after[name].nan_to_num(7), before[name].nan_to_num(7))] == []


@pytest.mark.parametrize("scope", ["all", "tensor"])
def test_a_step_that_used_gradients_already_says_that_it_is_torn(scope):
    e = engine(GPT2, LAYERWISE, clip=0.0 if scope == "all" else 1.0, scope=scope)
    e.model.blocks[0].attn.out.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(TornError, match="not finite"):
        steps(e, count=1)
    assert e.torn


def test_each_tensor_is_clipped_by_itself():
    e = engine(LLAMA, PLAIN, clip=1e-3, scope="tensor")
    steps(e, count=1)
    norms = [p.grad.norm().item() for p in e.model.parameters()]
    assert max(norms) == pytest.approx(1e-3, rel=1e-2) and sum(norm > 0.9e-3 for norm in norms) > 10


def test_clipping_is_that_of_torch():
    e = engine(LLAMA, PLAIN)
    x, y = batch()
    e.begin(y)
    e.accumulate(x, y)
    grads = [p.grad.clone() for p in e.model.parameters()]
    result = e.update(0.0)
    copies = [torch.nn.Parameter(torch.zeros_like(grad)) for grad in grads]
    for copy, grad in zip(copies, grads, strict=True):
        copy.grad = grad
    assert torch.nn.utils.clip_grad_norm_(copies, 1.0).item() == result.grad_norm
    assert all(torch.equal(copy.grad, p.grad) for copy, p in zip(copies, e.model.parameters(), strict=True))


@pytest.mark.parametrize("shape", [LLAMA, GPT2])
def test_examples_side_by_side_learn_the_same(shape):
    results = []
    for fit in (PLAIN, replace(LAYERWISE, kept_blocks=1, repeated_blocks=2)):
        e = engine(shape, fit)
        x, y = (each.reshape(1, -1) for each in batch())
        e.begin(y)
        e.accumulate(x, y, (16, 3, 9, 4, 16, 16))
        results.append((e.update(1e-2), e))
    (one, plain), (other, ours) = results
    assert one == other
    assert_same_bits(plain, ours)
