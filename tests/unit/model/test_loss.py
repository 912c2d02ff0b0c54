from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ondevice.model.loss import IGNORE, WeightGradient, linear_cross_entropy
from ondevice.model.products import has_one_dnn


def problem(N, V, C, *, dtype=torch.float32, ignored=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, C, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, C, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(V, (N,), generator=generator)
    targets[torch.rand(N, generator=generator) < ignored] = IGNORE
    return hidden, weight, targets


def reference(hidden, weight, targets, *, scale=1.0):
    """Loss and gradients by torch, in float64."""
    hidden, weight = (tensor.detach().double().requires_grad_() for tensor in (hidden, weight))
    loss = F.cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORE, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss * scale, (hidden, weight))


def ours(hidden, weight, targets, *, chunk, scale=1.0):
    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=chunk)
    return loss.detach(), *torch.autograd.grad(loss * scale, (hidden, weight))


def assert_equal(got, expected, tolerance):
    for value, wanted in zip(got, expected, strict=True):
        assert (value.double() - wanted).norm() <= tolerance * (wanted.norm() + 1)


@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 17),
    V=st.integers(1, 29),
    C=st.integers(1, 9),
    chunk=st.integers(1, 20),
    ignored=st.sampled_from([0.0, 0.4, 1.0]),
    scale=st.sampled_from([1.0, 0.125, -3.0]),
    seed=st.integers(0, 99),
)
def test_parity_in_float64(N, V, C, chunk, ignored, scale, seed):
    case = problem(N, V, C, dtype=torch.float64, ignored=ignored, seed=seed)
    assert_equal(ours(*case, chunk=chunk, scale=scale), reference(*case, scale=scale), 1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 1000])
@pytest.mark.parametrize("ignored", [0.0, 0.5])
def test_parity_in_float32(chunk, ignored):
    case = problem(100, 301, 24, ignored=ignored)
    assert_equal(ours(*case, chunk=chunk), reference(*case), 2e-6)


def test_large_scores_stay_exact():
    hidden, weight, targets = problem(20, 50, 8)
    hidden, weight = (hidden * 30).detach().requires_grad_(), weight
    assert_equal(ours(hidden, weight, targets, chunk=6), reference(hidden, weight, targets), 2e-6)


def test_the_loss_is_fp32_and_the_same_with_and_without_gradients():
    hidden, weight, targets = problem(50, 60, 8, ignored=0.2)
    with_gradients = linear_cross_entropy(hidden, weight, targets, chunk_tokens=16)
    with torch.no_grad():
        without = linear_cross_entropy(hidden, weight, targets, chunk_tokens=16)
    assert with_gradients.dtype == torch.float32 and with_gradients.shape == ()
    assert with_gradients.requires_grad and not without.requires_grad
    assert torch.equal(with_gradients.detach(), without)


def test_nothing_to_predict_is_zero_with_zero_gradients():
    hidden, weight, _ = problem(4, 9, 3)
    loss, *grads = ours(hidden, weight, torch.full((4,), IGNORE), chunk=2)
    assert loss == 0 and not any(grad.any() for grad in grads)
    empty = linear_cross_entropy(hidden[:0], weight, torch.empty(0, dtype=torch.int64), chunk_tokens=2)
    empty.backward()
    assert empty.item() == 0 and not weight.grad.any()


def test_ignored_rows_may_hold_anything():
    hidden, weight, targets = problem(6, 9, 3)
    poisoned = hidden.detach().clone()
    poisoned[2] = float("nan")
    targets[2] = IGNORE
    _, grad_hidden, grad_weight = ours(poisoned.requires_grad_(), weight, targets, chunk=4)
    assert not grad_hidden[2].any() and grad_hidden.isfinite().all() and grad_weight.isfinite().all()


@pytest.mark.parametrize("wrong", [-1, 9, 2**40, -101])
def test_targets_outside_the_vocabulary_are_refused(wrong):
    hidden, weight, targets = problem(6, 9, 3)
    targets[3] = wrong
    with pytest.raises(IndexError, match=str(wrong)):
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=4)
    with torch.no_grad(), pytest.raises(IndexError):
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(6, 4)}, "multiply"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, "targets"),
        ({"targets": torch.zeros(6, dtype=torch.int32)}, "int64"),
        ({"chunk_tokens": 0}, "chunk_tokens"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    good = {"hidden": torch.zeros(6, 3), "weight": torch.zeros(9, 3), "targets": torch.zeros(6, dtype=torch.int64)}
    arguments = {"chunk_tokens": 4, **good, **change}
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(
            arguments["hidden"], arguments["weight"], arguments["targets"], chunk_tokens=arguments["chunk_tokens"]
        )


def test_strided_inputs():
    hidden, weight, targets = problem(12, 10, 6, dtype=torch.float64)
    strided_hidden = torch.stack((hidden, hidden), dim=2).detach()[:, :, 0].requires_grad_()
    strided_weight = weight.detach().t().contiguous().t().requires_grad_()
    assert not strided_hidden.is_contiguous() and not strided_weight.is_contiguous()
    assert_equal(ours(strided_hidden, strided_weight, targets, chunk=5), reference(hidden, weight, targets), 1e-12)


class Sizes(TorchDispatchMode):
    """Sizes of all tensors that operations gave, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.seen.append((func.__name__, tuple(tensor.shape)))
        return result

    def largest(self) -> int:
        return max(torch.Size(shape).numel() for _, shape in self.seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", [0.0, 0.5])
def test_logits_exist_for_one_chunk_only(dtype, ignored):
    N, V, C, chunk = 256, 600, 4, 16
    hidden, weight, targets = problem(N, V, C, dtype=dtype, ignored=ignored)
    with Sizes() as sizes:
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=chunk).backward()
    assert sizes.largest() == chunk * V


def test_one_buffer_for_the_weight_gradient_and_one_for_the_logits():
    hidden, weight, targets = problem(64, 50, 4)
    with Sizes() as sizes:
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=8).backward()
    filled = [
        name for name, shape in sizes.seen if shape == (50, 4) and name.startswith(("mm", "zeros", "empty.memory"))
    ]
    assert filled == ["empty.memory_format"]
    made = [name for name, shape in sizes.seen if shape == (8, 50) and name.startswith(("empty", "_linear"))]
    # oneDNN brings a result of its own for each of the eight chunks; otherwise all share one.
    assert made == (["_linear_pointwise.default"] * 8 if has_one_dnn() else ["empty.memory_format"])


@pytest.mark.parametrize("frozen", [0, 1])
def test_gradients_not_wanted_are_not_computed(frozen):
    case = problem(30, 40, 5)
    case[frozen].requires_grad_(False)
    with Sizes() as sizes:
        loss = linear_cross_entropy(*case, chunk_tokens=8)
    loss.backward()
    shapes = {shape for name, shape in sizes.seen if name.startswith(("empty", "zeros", "mm"))}
    assert tuple(case[frozen].shape) not in shapes
    expected = reference(*case)[2 - frozen]
    assert_equal([case[1 - frozen].grad], [expected], 2e-6)


def test_no_gradient_is_computed_without_grad_mode():
    case = problem(30, 40, 5)
    with torch.no_grad(), Sizes() as sizes:
        linear_cross_entropy(*case, chunk_tokens=8)
    assert not {(30, 5), (40, 5)} & {shape for name, shape in sizes.seen if name.startswith(("empty", "zeros", "mm"))}


def test_ignored_positions_cost_nothing():
    hidden, weight, targets = problem(64, 30, 4)
    targets[8:] = IGNORE
    with Sizes() as sizes:
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=64)
    assert sum(name.startswith(("mm", "_linear")) and shape == (8, 30) for name, shape in sizes.seen) == 1
    assert sizes.largest() <= 64 * 4


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_products_with_fp32_softmax(autocast):
    V = 4200  # more than one tile
    hidden, weight, targets = problem(40, V, 16, dtype=torch.float32 if autocast else torch.bfloat16, ignored=0.2)
    expected = reference(hidden.bfloat16(), weight.bfloat16(), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=16)
    grads = torch.autograd.grad(loss, (hidden, weight))
    assert loss.dtype == torch.float32
    assert [grad.dtype for grad in grads] == [hidden.dtype, weight.dtype]
    assert_equal([loss, *grads], expected, 1e-2)


def test_the_softmax_of_half_precision_products_is_exact():
    hidden, weight, targets = problem(40, 300, 16, dtype=torch.bfloat16)
    logits = (hidden @ weight.t()).detach().float().requires_grad_()
    expected = F.cross_entropy(logits, targets, reduction="sum")
    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=16)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_second_derivatives_are_refused():
    hidden, weight, targets = problem(6, 9, 3)
    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=4)
    with pytest.raises(RuntimeError, match="twice"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_a_second_backward_is_refused():
    hidden, weight, targets = problem(6, 9, 3)
    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=4)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_gradients_add_up_over_calls():
    hidden, weight, targets = problem(20, 15, 4, dtype=torch.float64)
    for part in (slice(0, 13), slice(13, 20)):
        linear_cross_entropy(hidden[part], weight, targets[part], chunk_tokens=4).backward()
    assert_equal([hidden.grad, weight.grad], reference(hidden, weight, targets)[1:], 1e-12)


def test_infinite_scores_show_in_the_loss():
    hidden, weight, targets = problem(4, 9, 3)
    with torch.no_grad():
        hidden[1, 0] = float("inf")
    assert not linear_cross_entropy(hidden, weight, targets, chunk_tokens=2).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", [0.0, 0.5])
def test_scaled_gradients_are_those_of_the_scaled_sum(dtype, ignored):
    case = problem(24, 40, 6, dtype=dtype, ignored=ignored)
    plain = linear_cross_entropy(*case, chunk_tokens=8)
    expected = torch.autograd.grad(plain, case[:2])
    scaled = linear_cross_entropy(*case, chunk_tokens=8, gradient_scale=0.25)
    assert scaled.item() == plain.item()
    found = torch.autograd.grad(scaled, case[:2])
    torch.testing.assert_close(found, tuple(grad * 0.25 for grad in expected))


def test_a_given_weight_gradient_is_added_to_and_backward_has_none():
    hidden, weight, targets = problem(24, 40, 6)
    weight = weight.detach().requires_grad_()
    expected = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, chunk_tokens=8), weight)[0]
    kept = WeightGradient(weight.shape, weight.dtype)
    kept.total.fill_(float("nan"))  # what a fresh one holds counts for nothing
    for _ in range(2):
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=8, weight_gradient=kept).backward()
    assert weight.grad is None
    torch.testing.assert_close(kept.total, 2 * expected)
    kept.fresh = True
    linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORE), chunk_tokens=8, weight_gradient=kept)
    assert not kept.total.any()


def test_without_one_dnn_the_same_gradients(monkeypatch):
    def found():
        hidden, weight, targets = problem(24, 40, 6)
        loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens=8)
        return (loss, *torch.autograd.grad(loss, (hidden, weight)))

    torch.manual_seed(4)
    with_it = found()
    monkeypatch.setattr("ondevice.model.loss.has_one_dnn", lambda: False)
    torch.manual_seed(4)
    torch.testing.assert_close(with_it, found())
