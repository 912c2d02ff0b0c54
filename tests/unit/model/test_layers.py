from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ondevice.model.attention import attend, continuation_mask
from ondevice.model.layers import Embedding, Linear, rms_norm, swiglu
from ondevice.model.products import has_one_dnn, layers_by_one_dnn
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


@pytest.fixture(params=["one_dnn", "own"])
def library(request, monkeypatch):
    """Products of layers by oneDNN, or by torch's own library."""
    if request.param == "one_dnn" and not has_one_dnn():
        pytest.skip("this torch has no oneDNN for fp32 products")
    monkeypatch.setattr("ondevice.model.layers.layers_by_one_dnn", lambda: request.param == "one_dnn")
    monkeypatch.setattr("ondevice.model.layers.LARGE", 0)
    return request.param


def made_linear(columns, rows, bias, dtype=torch.float32):
    layer = Linear(columns, rows, bias=bias).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    layer.adds_to_grad = True
    return layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [(2, 9, 24), (5, 24), (1, 1, 24)])
def test_linear_and_its_gradients(library, bias, size):
    layer = made_linear(24, 40, bias)
    weights = [parameter.detach() for parameter in layer.parameters()]
    x = torch.randn(size[1], size[0], size[2]).transpose(0, 1) if len(size) == 3 else torch.randn(size)
    torch.testing.assert_close(
        gradients(lambda x, *weights: torch.func.functional_call(layer, _named(weights), x), x, *weights),
        gradients(F.linear, x, *weights),
        rtol=1e-4,
        atol=1e-4,
    )


def _named(weights):
    return dict(zip(("weight", "bias"), weights, strict=False))


def test_linear_in_double_precision_by_finite_differences(library):
    layer = made_linear(6, 4, True, torch.float64)
    x = torch.randn(3, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


def test_linear_adds_its_gradient_where_there_is_one(library):
    adding, plain = made_linear(24, 40, True), made_linear(24, 40, True)
    plain.load_state_dict(adding.state_dict())
    plain.adds_to_grad = False
    pieces = torch.randn(3, 2, 9, 24)
    buffer = None
    for piece in pieces:
        adding(piece).square().sum().backward()
        buffer = buffer if buffer is not None else adding.weight.grad.data_ptr()
        plain(piece).square().sum().backward()
    assert adding.weight.grad.data_ptr() == buffer
    torch.testing.assert_close(adding.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(adding.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-3)


def test_a_frozen_linear_gets_no_gradient(library):
    layer = made_linear(24, 40, False).requires_grad_(False)
    x = torch.randn(7, 24, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(7, 24), rtol=1e-4, atol=1e-4)


def test_linear_has_the_same_bits_with_and_without_gradients(library):
    """As a recomputed block needs it."""
    layer, x = made_linear(24, 40, True), torch.randn(2, 9, 24)
    with torch.no_grad():
        without = layer(x)
    assert torch.equal(without, layer(x.requires_grad_()))


def test_what_linear_gives_may_be_changed_in_place(library):
    """As an adapter adds its part."""
    layer, x = made_linear(24, 40, True), torch.randn(2, 9, 24, requires_grad=True)
    layer(x).add_(1.0).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, 9, 24), rtol=1e-4, atol=1e-4)


def test_small_products_and_those_of_use_stay_with_torch(monkeypatch):
    monkeypatch.setattr("ondevice.model.layers.layers_by_one_dnn", lambda: True)
    monkeypatch.setattr("ondevice.model.layers.times_transposed", None)  # would fail
    small, large = made_linear(24, 40, True), made_linear(1024, 1024, False)
    small(torch.randn(7, 24)).sum().backward()
    large.eval()(torch.randn(40, 1024))


def test_linear_follows_autocast(library):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made_linear(24, 40, True)(torch.randn(3, 24)).dtype == torch.bfloat16


def test_one_dnn_does_the_layers_only_where_avx512_meets_amd(monkeypatch):
    for capability, vendor, expected in (
        ("AVX2", True, False),
        ("AVX512", False, False),
        ("AVX512", True, has_one_dnn()),
    ):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda capability=capability: capability)
        monkeypatch.setattr("ondevice.model.products._made_by_amd", lambda vendor=vendor: vendor)
        assert layers_by_one_dnn.__wrapped__() is expected
