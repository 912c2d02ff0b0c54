"""Frozen matrices: what each format costs in accuracy and bytes, and products that never hold a whole matrix."""

import numpy as np
import pytest
import torch

from ondevice.model import frozen
from ondevice.model.frozen import NF4, FrozenMatrix, frozen_matrix
from ondevice.model.loss import IGNORE, linear_cross_entropy

FORMATS = ("bf16", "int8", "int4", "nf4")
BITS = {"bf16": 16.0, "int8": 8 + 32 / 256, "int4": 4.5, "nf4": 4 + 8 / 64 + 32 / (64 * 256)}
# Root mean square error over that of the numbers themselves, for normal ones; measured, with a little room.
RELATIVE = {"bf16": 0.0018, "int8": 0.0085, "int4": 0.088, "nf4": 0.095}


def numbers(rows=96, columns=256, *, seed=0):
    """Normal, with rows of different size and some far ones."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator) * torch.linspace(0.01, 0.05, rows)[:, None]
    matrix[3, 5], matrix[7] = 0.4, 0.0
    return matrix


def frozen_of(form, matrix, *, piece=None):
    made = frozen_matrix(form, *matrix.shape)
    piece = piece or len(matrix)
    for first in range(0, len(matrix), piece):
        made.fill(first, matrix[first : first + piece])
    made.seal()
    return made


def whole(made):
    return made.unpacked(slice(0, made.rows))


def nf4_of_the_paper(matrix):
    """Blocks of 64 over the rows, the nearest of the 16 values; scales in 8 bits by groups of 256 around their mean.

    One number after another, to be read beside arXiv 2305.14314."""
    flat, levels = matrix.reshape(-1).astype(np.float32), np.array(NF4, np.float32)
    blocks = flat.reshape(-1, 64)
    absmax = np.abs(blocks).max(axis=1)
    codes = np.zeros(blocks.shape, np.int64)
    for index, block in enumerate(blocks):
        for place, value in enumerate(block):
            scaled = value / absmax[index] if absmax[index] else np.float32(0)
            codes[index, place] = int(np.argmin(np.abs(levels - scaled)))
    mean = np.float32(absmax.astype(np.float64).mean())
    again = np.zeros_like(absmax)
    for first in range(0, len(absmax), 256):
        group = absmax[first : first + 256] - mean
        step = np.abs(group).max() / np.float32(127)
        again[first : first + 256] = np.round(group / step).astype(np.int8) * step + mean
    return (levels[codes] * again[:, None]).reshape(matrix.shape)


def test_nf4_is_that_of_the_paper():
    matrix = numbers(90, 256)
    np.testing.assert_allclose(whole(frozen_of("nf4", matrix)).numpy(), nf4_of_the_paper(matrix.numpy()), atol=1e-8)


@pytest.mark.parametrize("form", FORMATS)
def test_the_error_is_what_is_stated(form):
    matrix = torch.randn(256, 256, generator=torch.Generator().manual_seed(1)) * 0.02
    made = frozen_of(form, matrix)
    error = (whole(made) - matrix).norm() / matrix.norm()
    assert 0.5 * RELATIVE[form] < error < RELATIVE[form]
    stored = sum(buffer.numel() * buffer.element_size() for buffer in made.buffers())
    assert stored * 8 / matrix.numel() == pytest.approx(BITS[form], rel=0.001)


def test_bounds_hold_for_every_number():
    matrix = numbers()
    bf16, int8, int4 = (whole(frozen_of(form, matrix)) - matrix for form in ("bf16", "int8", "int4"))
    assert (bf16.abs() <= matrix.abs() * 2**-8).all()
    assert (int8.abs() <= matrix.abs().amax(dim=1, keepdim=True) * (0.5 / 127 + 1e-6)).all()
    blocks, errors = matrix.view(96, 8, 32), int4.view(96, 8, 32)
    # Half a step; a whole one for what would be 8 of -8 ... 7.
    assert (errors.abs() <= blocks.abs().amax(dim=2, keepdim=True) / 8 * 1.001).all()


@pytest.mark.parametrize("form", FORMATS)
def test_pieces_and_threads_change_no_bit(form):
    matrix, threads = numbers(1000, 96), torch.get_num_threads()
    stored = []
    for piece, count in ((1000, 1), (1000, 2), (7, 1)):
        torch.set_num_threads(count)
        stored.append(list(frozen_of(form, matrix, piece=piece).buffers()))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for other in stored[1:] for one, two in zip(stored[0], other, strict=True))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("columns", [40, 256])
def test_rows_are_found_by_number_and_zeros_stay(form, columns):
    matrix = numbers(50, columns)
    made = frozen_of(form, matrix)
    ids = torch.tensor([7, 0, 49, 7, 13])
    assert torch.equal(made.unpacked(ids), whole(made)[ids])
    assert whole(made).shape == matrix.shape and torch.isfinite(whole(made)).all()
    nothing = frozen_of(form, torch.zeros(4, columns))
    assert not whole(nothing).any()
    assert whole(made)[7].abs().max() < 1e-3


@pytest.fixture
def tiles(monkeypatch):
    """Sizes of what was unpacked, with small tiles."""
    monkeypatch.setattr(frozen, "_TILE", 1024)
    seen = []
    for kind in frozen._FORMATS.values():
        original = kind.unpacked
        monkeypatch.setattr(kind, "unpacked", lambda self, rows, original=original: _note(seen, original(self, rows)))
    return seen


def _note(seen, tile):
    seen.append(tile.numel())
    return tile


@pytest.mark.parametrize("form", FORMATS)
def test_products_are_those_of_the_whole_matrix_tile_by_tile(form, tiles):
    made = frozen_of(form, numbers())
    matrix = whole(made)
    x, grad = torch.randn(2, 11, 256, requires_grad=True), torch.randn(2, 11, 96)
    tiles.clear()
    y = made.product(x)
    y.backward(grad)
    assert max(tiles) <= 1024 and len(tiles) == 48
    torch.testing.assert_close(y, x @ matrix.t(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad, grad @ matrix, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_the_derivative():
    made = frozen_of("int8", torch.randn(12, 32, generator=torch.Generator().manual_seed(2)))
    x = torch.randn(3, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made.product, (x,))


def test_autocast_multiplies_in_its_precision():
    made = frozen_of("nf4", numbers())
    x = torch.randn(5, 256, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = made.product(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad, whole(made).sum(dim=0).expand(5, -1), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_a_frozen_head_gives_the_loss_and_gradient_of_the_whole_one(form, masked, tiles):
    made = frozen_of(form, numbers(300, 256))
    hidden = torch.randn(13, 256, requires_grad=True)
    targets = torch.randint(300, (13,))
    if masked:
        targets[4:7] = IGNORE
    matrix = whole(made)
    tiles.clear()
    linear_cross_entropy(hidden, made, targets, chunk_tokens=5).backward()
    assert max(tiles) <= 1024
    found, hidden.grad = hidden.grad, None
    loss = linear_cross_entropy(hidden, matrix, targets, chunk_tokens=5)
    loss.backward()
    torch.testing.assert_close(found, hidden.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(hidden, made, targets, chunk_tokens=5), loss)
    with pytest.raises(IndexError, match="outside the vocabulary of 300"):
        linear_cross_entropy(hidden, made, targets.fill_(300), chunk_tokens=5)


def test_every_format_is_one_of_the_config():
    from ondevice.run.schema import AdapterConfig

    choices = AdapterConfig.__dataclass_fields__["base_format"].metadata["choices"]
    assert set(choices) == {"fp32", *FORMATS}
    assert all(issubclass(kind, FrozenMatrix) for kind in frozen._FORMATS.values())
