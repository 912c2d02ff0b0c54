"""Numbers of rows that products may have: few of them, none that lose a row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.model import loss, products
from ondevice.model.loss import IGNORE, linear_cross_entropy
from ondevice.model.products import round_rows


@given(rows=st.integers(0, 5000), most=st.integers(1, 3000))
def test_rounded_numbers_hold_the_rows_and_are_not_above_the_most(rows, most):
    rounded = round_rows(rows, most)
    assert rows <= rounded <= max(rows, most)


def test_one_dnn_meets_few_numbers_of_rows(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    assert len({round_rows(rows, 1024) for rows in range(1, 1025)}) == 16
    monkeypatch.setattr(products, "_PARTS", 1)
    assert {round_rows(rows, 1024) for rows in range(1, 1025)} == {1024}


def test_without_one_dnn_nothing_is_filled_up(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert [round_rows(rows, 1024) for rows in (1, 77, 1000)] == [1, 77, 1000]


@pytest.mark.parametrize("chunk", [32, 48, 400])
@pytest.mark.parametrize("kept", [1, 31, 33, 95, 127])
def test_a_head_whose_products_are_filled_up_has_the_loss_and_gradients_of_one_whose_are_not(monkeypatch, chunk, kept):
    generator = torch.Generator().manual_seed(kept)
    targets = torch.randint(0, 50, (128,), generator=generator)
    targets[torch.randperm(128, generator=generator)[kept:]] = IGNORE
    data = torch.randn(128, 24, generator=generator), torch.randn(50, 24, generator=generator)

    def losses(rounding):
        monkeypatch.setattr(loss, "round_rows", rounding)
        hidden, weight = (each.clone().double().requires_grad_() for each in data)
        found = linear_cross_entropy(hidden, weight, targets, chunk_tokens=chunk, gradient_scale=0.5)
        found.backward()
        return found, hidden.grad, weight.grad

    filled = losses(lambda rows, most: max(rows, min(-(-rows // 16) * 16, most)))
    for one, other in zip(filled, losses(lambda rows, most: rows), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
