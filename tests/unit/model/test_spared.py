"""Cheap activations are not kept, and the gradients are the same to the bit."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from ondevice.model.build import build_model
from ondevice.model.recompute import backward_from
from ondevice.model.spared import cheap, spared
from ondevice.run.recipe import ModelShape
from ondevice.train.memory_layerwise import BlockFloats

COMMON = {"vocab_size": 61, "context": 32, "layers": 1, "width": 64, "heads": 4, "hidden": 160}
LLAMA = ModelShape(arch="llama", kv_heads=2, qkv_bias=True, **COMMON)
GPT2 = ModelShape(arch="gpt2", kv_heads=4, **COMMON)


def gradients(shape, *, lean, lower=False):
    """Of a block's input and parameters, and the numbers a token that its graph keeps."""
    torch.manual_seed(2)
    model = build_model(shape, seed=1).train()
    place = model.place(torch.randint(61, (2, 32)))
    x, grad = torch.randn(2, 32, 64, requires_grad=True), torch.randn(2, 32, 64)
    how = spared() if lean else nullcontext()
    trace = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with trace, torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower), how:
        y = model.blocks[0](x, place)
    kept = sum(each.nbytes() for each in trace.profiler.kineto_results.events() if each.name() == "[memory]")
    backward_from(y, grad)
    return [x.grad, *(each.grad for each in model.blocks[0].parameters())], kept / 4 / 64


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("shape", [LLAMA, GPT2])
def test_the_gradients_have_the_same_bits(shape, lower):
    plain, lean = (gradients(shape, lean=lean, lower=lower)[0] for lean in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(plain, lean, strict=True))


@pytest.mark.parametrize("shape", [LLAMA, GPT2])
def test_a_third_less_is_kept_and_the_plan_knows(shape):
    floats = BlockFloats.of(shape)
    counted = (floats.kept, floats.spared)  # with what comes in, which is not the block's, and without what comes out
    held = [gradients(shape, lean=lean)[1] for lean in (False, True)]
    assert held == pytest.approx(counted, rel=0.07)
    assert held[1] < 0.75 * held[0]


def test_only_the_tensor_itself_is_made_again():
    x = torch.linspace(-2, 2, 24).view(4, 6).requires_grad_()
    with spared():
        part = (cheap(torch.sin, x)[1:] * 3).square()  # half of it is saved by what follows
        address = cheap(torch.exp, x.detach()).data_ptr()  # gone at once
        there = F.gelu(x + 1.0)  # may lie at the same place
        whole = (cheap(torch.sin, x).flatten() * there.flatten()).square()
    assert address
    (part.sum() + whole.sum()).backward()
    y = x.detach().clone().requires_grad_()
    ((y.sin()[1:] * 3).square().sum() + (y.sin().flatten() * F.gelu(y + 1.0).flatten()).square().sum()).backward()
    assert torch.equal(x.grad, y.grad)


def test_outside_everything_is_kept():
    x = torch.randn(3, 5, requires_grad=True)
    calls = []

    def noted(given):
        calls.append(given)
        return given.exp()

    (cheap(noted, x) * x).sum().backward()
    assert len(calls) == 1
    with spared():
        y = (cheap(noted, x) * x).sum()
    y.backward()
    assert len(calls) == 3
