from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ondevice.errors import UsageError
from ondevice.model.build import build_model
from ondevice.model.cache import KVCache
from ondevice.run.recipe import ModelShape

GROUPED = ModelShape(arch="llama", vocab_size=97, context=24, layers=2, width=32, heads=4, kv_heads=2, hidden=48)


def ids_for(shape: ModelShape, *, batch: int = 2, count: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(shape.vocab_size, (batch, count or shape.context), generator=generator)


def gradients(model, ids):
    model.zero_grad()
    model.logits(model(ids)).float().logsumexp(-1).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_names_and_shapes_are_those_of_the_architecture_document(shape):
    C, D = shape.width, shape.head_dim
    llama = shape.arch == "llama"
    expected = {"embed.weight": (shape.vocab_size, C), "norm.weight": (C,)}
    for layer in range(shape.layers):
        up = ("mlp.gate_up", 2 * shape.hidden) if llama else ("mlp.up", shape.hidden)
        matrices = {
            "attn.qkv": ((shape.heads + 2 * shape.kv_heads) * D, C),
            "attn.out": (C, C),
            up[0]: (up[1], C),
            "mlp.down": (C, shape.hidden),
        }
        for name, size in {**matrices, "norm1": (C,), "norm2": (C,)}.items():
            expected[f"blocks.{layer}.{name}.weight"] = size
            if not llama:
                expected[f"blocks.{layer}.{name}.bias"] = size[:1]
    if not llama:
        expected |= {"position.weight": (shape.context, C), "norm.bias": (C,)}
    if not shape.tied:
        expected["head.weight"] = (shape.vocab_size, C)
    state = build_model(shape, seed=1).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_a_bad_shape_is_refused():
    with pytest.raises(UsageError, match=r"model\.heads"):
        build_model(replace(GROUPED, heads=5), seed=0)


def test_the_seed_alone_decides_the_weights(shape):
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    first = build_model(shape, seed=5).state_dict()
    torch.manual_seed(2)
    try:
        torch.set_num_threads(2)
        second = build_model(shape, seed=5).state_dict()
    finally:
        torch.set_num_threads(threads)
    other = build_model(shape, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


@pytest.mark.parametrize("seed", [None, 3])
def test_building_leaves_the_global_random_state_alone(shape, seed):
    before = torch.get_rng_state()
    build_model(shape, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_scales():
    shape = replace(GROUPED, width=256, hidden=512, layers=8)
    state = build_model(shape, seed=0).state_dict()
    assert state["embed.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["blocks.3.attn.qkv.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    for name in ("attn.out", "mlp.down"):
        assert state[f"blocks.3.{name}.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert state["norm.weight"].eq(1).all()


def test_initial_vectors_of_gpt2():
    state = build_model(replace(GROUPED, arch="gpt2", kv_heads=4), seed=0).state_dict()
    vectors = {name: tensor for name, tensor in state.items() if tensor.ndim == 1}
    assert all(tensor.eq(0.0 if name.endswith("bias") else 1.0).all() for name, tensor in vectors.items())


def test_a_new_model_is_as_good_as_guessing(shape):
    model = build_model(shape, seed=0)
    ids = ids_for(shape)
    loss = torch.nn.functional.cross_entropy(model.logits(model(ids))[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(float(shape.vocab_size)).log().item(), abs=0.2)


def test_later_tokens_do_not_show_in_earlier_states(shape):
    model = build_model(shape, seed=0)
    ids = ids_for(shape)
    changed = ids.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % shape.vocab_size
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.isclose(before[:, 10:], after[:, 10:]).all(dim=-1).any()


@pytest.mark.parametrize("pieces", [[24], [1] * 24, [5, 1, 1, 9, 8], [1, 23]])
@torch.no_grad()
def test_cached_decoding_equals_the_full_pass(shape, pieces):
    model = build_model(shape, seed=0).eval()
    ids = ids_for(shape)
    cache = KVCache(shape, batch=2)
    start, parts = 0, []
    for count in pieces:
        parts.append(model(ids[:, start : start + count], cache=cache, start=start))
        start += count
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_cache_can_go_back(shape):
    model = build_model(shape, seed=0).eval()
    ids = ids_for(shape)
    cache = KVCache(shape, batch=2)
    first = model(ids, cache=cache)
    again = model(ids[:, 6:10], cache=cache, start=6)
    torch.testing.assert_close(again, first[:, 6:10], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "cached", "start", "batch"), [(25, False, 0, 2), (3, True, 22, 2), (3, False, 1, 2), (3, True, 0, 1)]
)
def test_tokens_that_do_not_fit_are_refused(shape, count, cached, start, batch):
    model = build_model(shape, seed=0)
    cache = KVCache(shape, batch=batch) if cached else None
    with pytest.raises(ValueError):
        model(ids_for(shape, count=count), cache=cache, start=start)


def test_a_short_cache_takes_less_and_says_when_it_is_full(shape):
    model = build_model(shape, seed=0)
    cache = KVCache(shape, batch=1, length=8)
    assert cache.keys[0].shape == (1, shape.kv_heads, 8, shape.head_dim)
    with pytest.raises(ValueError, match="8"):
        model(ids_for(shape, batch=1, count=9), cache=cache)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activation_checkpointing_changes_no_bit_of_the_gradients(shape, dropout):
    model = build_model(replace(shape, dropout=dropout), seed=0)
    ids = ids_for(shape)
    results = []
    for recompute in (False, True):
        model.activation_checkpointing = recompute
        torch.manual_seed(3)
        results.append(gradients(model, ids))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_activation_checkpointing_keeps_fewer_activations(shape):
    model = build_model(shape, seed=0)
    kept = []
    for recompute in (False, True):
        model.activation_checkpointing = recompute
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            model(ids_for(shape))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_dropout_acts_in_training_only(shape):
    model = build_model(replace(shape, dropout=0.2), seed=0)
    plain = build_model(shape, seed=0).eval()
    ids = ids_for(shape)
    assert not torch.equal(model(ids), model(ids))
    assert torch.equal(model.eval()(ids), plain(ids))


def test_training_makes_no_tensor_of_scores():
    """Causal attention goes without a mask and without scores [B, H, T, T]."""
    shape = replace(GROUPED, context=256)
    model = build_model(shape, seed=0)
    with Largest() as largest:
        model(ids_for(shape, batch=1)).sum().backward()
    assert largest.numel < 256 * 256


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_a_model_made_on_meta_and_loaded_is_the_same_model(shape):
    source = build_model(shape, seed=4)
    with torch.device("meta"):
        model = build_model(shape, seed=None)
    model.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(model(ids_for(shape)), source(ids_for(shape)))


def test_the_head_is_the_embedding_only_when_tied(shape):
    model = build_model(shape, seed=0)
    assert (model.head_weight is model.embed.weight) == shape.tied
    hidden = torch.randn(3, shape.width)
    assert torch.equal(model.logits(hidden), hidden @ model.head_weight.t())


def test_a_copy_of_a_model_is_its_own(shape):
    model = build_model(shape, seed=0)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.embed.weight.zero_()
    assert model.embed.weight.any()


def test_bfloat16_autocast_trains(shape):
    model = build_model(shape, seed=0)
    exact = gradients(model, ids_for(shape))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model(ids_for(shape))
    model.zero_grad()
    model.logits(hidden.float()).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        scale = exact[name].norm()
        assert (parameter.grad - exact[name]).norm() <= 0.1 * scale + 1e-3, name
