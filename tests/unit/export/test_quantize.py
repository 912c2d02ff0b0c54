"""Numbers in fewer bits: layouts as written, errors within what the bits allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.export.quantize import BLOCK, Int4, Int8

_WEIGHTS = np.random.default_rng(0).standard_normal((50, 70), dtype=np.float32)


def written(payload) -> bytes:
    data = b"".join(bytes(block) for block in payload.blocks())
    assert len(data) == payload.size == np.prod(payload.dims) * np.dtype(payload.dtype).itemsize
    return data


def test_int8_is_stored_by_inputs_with_a_scale_an_output() -> None:
    whole = Int8(_WEIGHTS)
    values = np.frombuffer(written(whole.value_payload), np.int8).reshape(70, 50)
    scales = np.frombuffer(written(whole.scale_payload), np.float32)
    assert (np.abs(values).max(axis=0) == 127).all()
    assert np.abs(values.T * scales[:, None] - _WEIGHTS).max() <= scales.max() / 2 * 1.001
    assert np.array_equal(whole.restored(), values.T * scales[:, None])


def test_int4_is_stored_by_outputs_in_blocks_low_half_first() -> None:
    whole = Int4(_WEIGHTS)
    packed = np.frombuffer(written(whole.value_payload), np.uint8).reshape(50, 3, BLOCK // 2)
    scales = np.frombuffer(written(whole.scale_payload), np.float32).reshape(50, 3)
    values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(50, 3, BLOCK).astype(np.float32) - 8
    restored = (values * scales[..., None]).reshape(50, 96)
    assert np.array_equal(whole.restored(), restored[:, :70])
    assert not restored[:, 70:].any()  # padding is exactly zero
    assert np.sqrt(np.mean((restored[:, :70] - _WEIGHTS) ** 2)) < 0.1


def test_the_scale_of_a_block_beats_the_plain_one() -> None:
    blocks = _WEIGHTS[:, :64].reshape(50, 2, 32)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    plain = np.clip(np.rint(blocks / (largest / -8)), -8, 7) * (largest / -8)
    ours = Int4(_WEIGHTS[:, :64]).restored().reshape(50, 2, 32)
    errors = [((each - blocks) ** 2).sum(-1) for each in (ours, plain)]
    assert (errors[0] <= errors[1] * 1.0001).all() and errors[0].sum() < 0.97 * errors[1].sum()


@pytest.mark.parametrize("kind", [Int4, Int8])
def test_rows_of_zeros_stay_zero(kind) -> None:
    weights = _WEIGHTS.copy()
    weights[3] = 0
    restored = kind(weights).restored()
    assert not restored[3].any() and np.isfinite(restored).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 80), st.floats(1e-6, 1e6), st.integers(0, 99))
def test_any_size_and_any_scale(rows: int, columns: int, unit: float, seed: int) -> None:
    weights = (np.random.default_rng(seed).standard_normal((rows, columns)) * unit).astype(np.float32)
    largest = np.abs(weights).max()
    assert np.abs(Int8(weights).restored() - weights).max() <= largest / 253
    assert np.abs(Int4(weights).restored() - weights).max() <= largest / 7


def test_torch_tensors_of_half_precision() -> None:
    torch = pytest.importorskip("torch")
    half = torch.from_numpy(_WEIGHTS).bfloat16()
    assert np.array_equal(Int4(half).restored(), Int4(half.float().numpy()).restored())
