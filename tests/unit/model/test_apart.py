"""Texts side by side in one row: logits and gradients are those of each text alone."""

import pytest
import torch

from ondevice.model.build import build_model
from ondevice.model.lora import add_lora
from ondevice.model.loss import IGNORE, linear_cross_entropy
from ondevice.run.recipe import AdapterRecipe, ModelShape

LENGTHS = (5, 1, 9, 16, 2, 9)


def _shape(arch, kv_heads):
    return ModelShape(
        arch=arch,
        vocab_size=61,
        context=16,
        layers=2,
        width=32,
        heads=4,
        kv_heads=kv_heads,
        hidden=48,
        tied=arch == "gpt2",
    )


def _model(arch, kv_heads, adapter):
    model = build_model(_shape(arch, kv_heads), seed=3).double()
    if adapter:
        targets = ("c_attn",) if arch == "gpt2" else ("q_proj", "v_proj")
        add_lora(model, AdapterRecipe(rank=2, alpha=4.0, dropout=0.0, targets=targets), seed=1)
        model.double()
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(len(name)))
    return model


def _loss(model, ids, targets, lengths=None):
    hidden = model(ids, lengths=lengths).flatten(0, 1)
    return linear_cross_entropy(hidden, model.head_weight, targets.flatten(), chunk_tokens=7)


def _gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("arch", "kv_heads"), [("gpt2", 4), ("llama", 4), ("llama", 2)])
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_side_by_side_is_as_alone(arch, kv_heads, adapter, recompute):
    model = _model(arch, kv_heads, adapter)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 61, (1, sum(LENGTHS)), generator=draw)
    targets = torch.randint(0, 61, ids.shape, generator=draw)
    targets[torch.rand(ids.shape, generator=draw) < 0.5] = IGNORE
    model.activation_checkpointing = recompute
    together = _loss(model, ids, targets, LENGTHS)
    packed = _gradients(model, together)
    model.activation_checkpointing = False
    parts = list(zip(ids.split(LENGTHS, dim=1), targets.split(LENGTHS, dim=1), strict=True))
    apart = sum(_loss(model, one, labels) for one, labels in parts)
    alone = _gradients(model, apart)
    assert abs(together.item() - apart.item()) < 1e-9
    assert packed.keys() == alone.keys() and packed
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, alone[name], rtol=0, atol=1e-10, msg=name)
    with torch.no_grad():
        whole = model.logits(model(ids, lengths=LENGTHS))
        each = torch.cat([model.logits(model(one)) for one, _ in parts], dim=1)
    torch.testing.assert_close(whole, each, rtol=0, atol=1e-10)


def test_in_single_precision_too():
    model = build_model(_shape("llama", 2), seed=3)
    ids = torch.randint(0, 61, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model.logits(model(ids, lengths=LENGTHS))
        each = torch.cat([model.logits(model(one)) for one in ids.split(LENGTHS, dim=1)], dim=1)
    assert (whole - each).abs().max() < 1e-5


def test_a_change_in_one_text_changes_no_other():
    model = build_model(_shape("gpt2", 4), seed=3)
    ids = torch.zeros(1, 12, dtype=torch.int64)
    other = ids.clone()
    other[0, 2] = 5
    with torch.no_grad():
        difference = (model(ids, lengths=(4, 8)) - model(other, lengths=(4, 8))).abs().amax(dim=-1)[0]
    assert difference[:2].max() == 0 and difference[2:4].min() > 0 and difference[4:].max() == 0


@pytest.mark.parametrize("lengths", [(3, 4), (17,), (8, 0), ()])
def test_lengths_that_do_not_fit_are_refused(lengths):
    model = build_model(_shape("gpt2", 4), seed=3)
    with pytest.raises(ValueError):
        model(torch.zeros(1, 8, dtype=torch.int64), lengths=lengths)
