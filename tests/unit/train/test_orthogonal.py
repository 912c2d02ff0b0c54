"""Orthogonal factors: beside singular values and Newton-Schulz, and inverses beside LAPACK's in double precision."""

import numpy as np
import pytest
import torch
from scipy.special import ellipj, ellipk

from ondevice.train import orthogonal
from ondevice.train.orthogonal import FLATNESS, LEAST, gram, invert_, newton_schulz, orthogonalizers


def random_like(rows, columns, values, *, seed=0):
    """A matrix with given singular values."""
    generator = torch.Generator().manual_seed(seed)
    size = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, size, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(columns, size, generator=generator, dtype=torch.float64))[0]
    return ((left * values) @ right.T).float(), left @ right.T


def orthogonalized(matrix):
    side = min(matrix.shape)
    grams = torch.empty(1, side, side)
    gram(matrix, out=grams[0])
    (factor,) = orthogonalizers(grams)
    return factor @ matrix if matrix.shape[0] <= matrix.shape[1] else matrix @ factor


def spectrum(size, least):
    return torch.logspace(0, np.log10(least), size, dtype=torch.float64)


@pytest.mark.parametrize("size", [(24, 40), (100, 33), (65, 65), (128, 336), (7, 9), (1, 5)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_singular_values_become_one_within_the_stated_band_and_vectors_stay(size, scale):
    values = spectrum(min(size), 2 * LEAST)  # the norm of the Gram matrix is up to a third more than the largest value
    matrix, factor = random_like(*size, values)
    result = orthogonalized(matrix * scale)
    found = torch.linalg.svdvals(result)
    assert found.min() > 1 - FLATNESS - 0.01 and found.max() < 1 + FLATNESS + 0.01
    distance = torch.linalg.matrix_norm(result - factor.float(), ord=2)
    assert distance < FLATNESS + 0.02  # singular vectors are the matrix's own


def test_it_is_closer_to_orthogonal_than_five_iterations():
    for rows, columns in ((64, 64), (64, 256), (200, 64)):
        matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        before = torch.linalg.matrix_norm(newton_schulz(matrix[None])[0] - left @ right)
        assert torch.linalg.matrix_norm(orthogonalized(matrix) - left @ right) < 0.6 * before


@pytest.mark.parametrize("least", [1e-2, 1e-6])
@pytest.mark.parametrize("size", [(96, 96), (200, 200), (128, 300)])
def test_fp32_computes_what_double_precision_would(size, least):
    """The root squares the condition of the matrix: fp32 must not turn its smallest values into noise or infinity."""
    matrix, _ = random_like(*size, spectrum(min(size), least))
    rounded = orthogonalized(matrix)
    assert torch.isfinite(rounded).all()
    u, values, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = values.pow(2).norm().sqrt()
    scaled = values / root
    poles = sum(weight / (scaled**2 + shift) for shift, weight in orthogonal._POLES)
    exact = (u * (scaled * (orthogonal._CONSTANT + poles))) @ vh
    assert torch.linalg.matrix_norm(rounded - exact, ord=2) < 2e-3


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_what_has_few_directions_or_none_stays_finite(rank):
    matrix, factor = random_like(40, 60, torch.tensor([1.0] * rank + [0.0] * (40 - rank), dtype=torch.float64))
    result = orthogonalized(matrix)
    values = torch.linalg.svdvals(result)
    assert torch.isfinite(result).all()
    assert ((values[:rank] - 1).abs() < FLATNESS + 0.01).all()
    assert (values[rank:] < 1e-3).all()
    assert factor.shape == result.shape


def test_the_coefficients_are_zolotarevs():
    """The best odd rational function of its kind for the sign on [LEAST, 1], by elliptic functions."""
    complement = 1 - LEAST**2
    sn, cn, _, _ = ellipj(np.arange(1, 5) * ellipk(complement) / 5, complement)
    shifts = LEAST**2 * (sn / cn) ** 2
    x = np.geomspace(LEAST, 1, 5_001)
    numerator, denominator = (np.prod([x**2 + shift for shift in some], axis=0) for some in (shifts[1::2], shifts[::2]))
    exact = x * numerator / denominator
    exact *= 2 / (exact.max() + exact.min())
    ours = x * (orthogonal._CONSTANT + sum(weight / (x**2 + shift) for shift, weight in orthogonal._POLES))
    assert ours == pytest.approx(exact, rel=1e-5)
    assert np.abs(ours - 1).max() == pytest.approx(FLATNESS, abs=2e-4)


@pytest.mark.parametrize("size", [1, 2, 32, 33, 49, 96, 131])
def test_inverses_are_lapacks(size):
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(3, size, 2 * size, generator=generator)
    stack = x @ x.mT / size + 0.01 * torch.eye(size)
    exact = torch.linalg.inv(stack.double())
    invert_(stack, refined=False)
    error = torch.linalg.matrix_norm(stack - exact) / torch.linalg.matrix_norm(exact)
    assert error.max() < 1e-4
    assert torch.equal(stack, stack.mT) or (stack - stack.mT).abs().max() < 1e-4 * stack.abs().max()


def test_a_torch_without_lapack_uses_numpys(monkeypatch):
    x = torch.randn(2, 60, 90, generator=torch.Generator().manual_seed(0))
    grams = x @ x.mT
    ours = orthogonalizers(grams.clone())
    monkeypatch.setattr(torch._C, "has_lapack", False)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda *args: pytest.fail("torch's LAPACK was asked"))
    torch.testing.assert_close(orthogonalizers(grams.clone()), ours, rtol=1e-4, atol=1e-5)


def test_each_matrix_of_a_stack_is_worked_on_alone():
    x = (
        torch.randn(3, 30, 50, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    )
    together = orthogonalizers(x @ x.mT)
    for one, factor in zip(x, together, strict=True):
        torch.testing.assert_close(orthogonalizers((one @ one.T)[None])[0], factor, rtol=1e-4, atol=1e-6)
