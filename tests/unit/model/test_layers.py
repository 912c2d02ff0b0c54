from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ondevice.model.attention import attend, continuation_mask
from ondevice.model.layers import Embedding, rms_norm, swiglu
from ondevice.model.rope import rotate, rotation_tables


def plain_rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def plain_swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def plain_rotate(x, cos, sin):
    """As transformers writes it: halves rotated, unsigned sine."""
    half = x.shape[-1] // 2
    unsigned = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * unsigned


def gradients(function, *inputs):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    out = function(*leaves)
    weights = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()
    return out, torch.autograd.grad(out, leaves, weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(2, 5, 16), (7, 33), (1, 1, 8)])
def test_rms_norm_and_its_gradients(size, dtype):
    x, weight = torch.randn(size, dtype=dtype), torch.randn(size[-1], dtype=dtype)
    torch.testing.assert_close(
        gradients(lambda x, w: rms_norm(x, w, 1e-5), x, weight),
        gradients(lambda x, w: plain_rms_norm(x, w, 1e-5), x, weight),
    )


def test_rms_norm_of_zeros_is_zero_with_finite_gradients():
    out, grads = gradients(lambda x, w: rms_norm(x, w, 1e-5), torch.zeros(3, 8), torch.ones(8))
    assert not out.any()
    assert all(grad.isfinite().all() for grad in grads)


def test_rms_norm_of_a_frozen_weight_and_of_strided_input():
    x = torch.randn(6, 2, 4, dtype=torch.float64).transpose(0, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, torch.ones(4, dtype=torch.float64), 1e-5), x)


def test_rms_norm_in_bfloat16_is_computed_in_fp32():
    x, weight = torch.randn(4, 64).bfloat16(), torch.randn(64)
    exact = plain_rms_norm(x.float(), weight, 1e-5)
    assert rms_norm(x, weight, 1e-5).dtype == torch.bfloat16
    torch.testing.assert_close(rms_norm(x, weight, 1e-5).float(), exact, rtol=2e-2, atol=1e-2)


def test_rms_norm_gradients_do_not_lose_precision_under_autocast():
    x, weight = torch.randn(40, 64), torch.randn(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gradients(lambda x, w: rms_norm(x, w, 1e-5), x, weight)
    torch.testing.assert_close(inside, gradients(lambda x, w: plain_rms_norm(x, w, 1e-5), x, weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_swiglu_and_its_gradients(dtype):
    gate_up = torch.randn(3, 5, 14, dtype=dtype) * 3
    torch.testing.assert_close(gradients(swiglu, gate_up), gradients(plain_swiglu, gate_up))


def test_swiglu_works_in_bfloat16():
    gate_up = torch.randn(3, 14).bfloat16()
    torch.testing.assert_close(gradients(swiglu, gate_up), gradients(plain_swiglu, gate_up), rtol=4e-2, atol=4e-2)


def test_rotation_and_its_gradients():
    cos, sin = (table[3:10].double() for table in rotation_tables(32, 8, 10_000.0))
    x = torch.randn(2, 7, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(
        gradients(lambda x: rotate(x, (cos, sin)), x), gradients(lambda x: plain_rotate(x, cos, sin), x)
    )


def test_rotated_scores_depend_on_the_distance_only():
    tables = rotation_tables(64, 16, 10_000.0)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(at: int, other: int) -> torch.Tensor:
        turned_q = rotate(q, (tables[0][at : at + 1], tables[1][at : at + 1]))
        turned_k = rotate(k, (tables[0][other : other + 1], tables[1][other : other + 1]))
        return (turned_q * turned_k).sum()

    torch.testing.assert_close(score(9, 4), score(59, 54), rtol=1e-4, atol=1e-5)
    assert not torch.isclose(score(9, 4), score(9, 8), rtol=1e-3)


def test_tables_made_in_inference_mode_serve_training():
    rotation_tables.cache_clear()
    with torch.inference_mode():
        rotation_tables(16, 8, 500.0)
    x = torch.randn(1, 16, 2, 8, requires_grad=True)
    rotate(x, rotation_tables(16, 8, 500.0)).sum().backward()
    assert x.grad is not None


def plain_attention(q, k, v, start):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    seen = torch.arange(k.shape[2]) <= start + torch.arange(q.shape[2])[:, None]
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize(("start", "count"), [(0, 9), (0, 1), (5, 1), (5, 4)])
def test_attention_and_its_gradients(kv_heads, start, count):
    q = torch.randn(2, 6, count, 8)
    k, v = torch.randn(2, kv_heads, start + count, 8), torch.randn(2, kv_heads, start + count, 8)
    mask = continuation_mask(start, count, q.device)
    torch.testing.assert_close(
        gradients(lambda q, k, v: attend(q, k, v, mask=mask), q, k, v),
        gradients(lambda q, k, v: plain_attention(q, k, v, start), q, k, v),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("before", [False, True])
def test_rows_added_to_a_gradient_have_the_bits_of_a_dense_one(before):
    ids = torch.randint(0, 7, (3, 11))  # every row several times
    plain, adding = Embedding(9, 5), Embedding(9, 5)
    adding.adds_to_grad = True
    weights, head = torch.randn(3, 11, 5), torch.randn(9, 5)
    for layer in (plain, adding):
        with torch.no_grad():
            layer.weight.copy_(head)
        layer.weight.grad = head.clone() if before else None
        (layer(ids) * weights).sum().backward()
    assert torch.equal(plain.weight.grad, adding.weight.grad)
