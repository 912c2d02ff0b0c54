"""Nearly orthogonal matrices with the singular vectors of given ones: the arithmetic of Muon, in fp32.

`newton_schulz` is what runs of recipes before version 7 learn by: five quintic iterations on whole matrices (Jordan et
al., 2024). `orthogonalizers` does it on the product of the smaller side alone: with ``G = X X^T`` the orthogonal factor
of ``X`` is ``G^(-1/2) X``, and the inverse root is a rational function of ``G`` with two poles, the best there is on a
range of singular values (Zolotarev 1877; as used for this by Nakatsukasa and Freund, SIAM Review 58, 2016). On a
processor two inverses cost less than one product each, where the iteration needs fifteen products and more. Knows no
parameters, no rates and no momentum.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["FLATNESS", "LEAST", "gram", "invert_", "newton_schulz", "orthogonalizers"]

ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic of Jordan's Muon, steep at zero

LEAST = 3e-3  # singular values from this on (of the root of the Gram matrix's norm) become 1 within FLATNESS
FLATNESS = 0.129
_CONSTANT = 0.9123148
_POLES = ((3.563632e-05, 0.01219064), (0.01272640, 0.2072178))  # (shift, weight) of weight / (G + shift)
_TINY = 1e-24  # of a trace; zeros stay zeros
_LEAST_NORM = 1e-6  # of a matrix of trace 1, which is at least 1 / sqrt(N): for zeros alone
_SMALL = 1e-3  # shifts below it leave matrices so ill conditioned that solutions must be refined
_LEAF = 32  # rows up to which LAPACK inverts in one go


def newton_schulz(stack_MRC: Tensor) -> Tensor:
    """Approximately orthogonal matrices with the same singular vectors: ``[M, rows, columns]`` -> the same shape."""
    x = stack_MRC
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        product = torch.bmm(x, x.mT)
        poly = torch.baddbmm(product, product, product, beta=_B, alpha=_C)
        x = torch.baddbmm(x, poly, x, beta=_A)
    return x if wide else x.mT


def gram(matrix: Tensor, *, out: Tensor) -> Tensor:
    """The product of a matrix with itself over its longer side: ``[N, N]`` of the shorter one."""
    wide = matrix.shape[0] <= matrix.shape[1]
    return torch.mm(matrix, matrix.mT, out=out) if wide else torch.mm(matrix.mT, matrix, out=out)


def orthogonalizers(grams_MNN: Tensor) -> Tensor:
    """The symmetric ``[M, N, N]`` by which each matrix becomes nearly orthogonal, from the left where it is wide and
    from the right where it is tall. Destroys ``grams``."""
    trace = grams_MNN.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None].clamp_(min=_TINY)
    norm = grams_MNN.div_(trace).norm(dim=(-2, -1), keepdim=True).clamp_(min=_LEAST_NORM)
    grams_MNN.div_(norm)
    result = torch.zeros_like(grams_MNN)
    result.diagonal(dim1=-2, dim2=-1).fill_(_CONSTANT)
    for shift, weight in _POLES:
        shifted = grams_MNN.clone()
        shifted.diagonal(dim1=-2, dim2=-1).add_(shift)
        invert_(shifted, refined=shift < _SMALL)
        result.add_(shifted, alpha=weight)
    return result.mul_((trace * norm).rsqrt_())


def invert_(stack_MNN: Tensor, *, refined: bool) -> None:
    """Inverts symmetric positive definite matrices in place, by halves: all but the leaves is products of stacks,
    where LAPACK would go through small matrices one by one at a fraction of their rate. ``refined`` solutions are
    mended once by what they leave over; without, matrices with a condition of 1e4 and more lose all digits."""
    size = stack_MNN.shape[-1]
    if size <= _LEAF:
        stack_MNN.copy_(_inverse(stack_MNN))
        return
    first, last = slice(None, size // 2), slice(size // 2, None)
    places = ((first, first), (first, last), (last, last))
    a, b, d = (stack_MNN[:, rows, columns].contiguous() for rows, columns in places)
    invert_(a, refined=refined)
    across = torch.bmm(a, b)
    if refined:
        left_over = torch.baddbmm(b, stack_MNN[:, first, first], across, alpha=-1)
        across.baddbmm_(a, left_over)
    d.baddbmm_(b.mT, across, alpha=-1)
    invert_(d, refined=refined)
    torch.bmm(across, d, out=b)
    a.baddbmm_(b, across.mT)
    b.neg_()
    for (rows, columns), block in zip((*places, (last, first)), (a, b, d, b.mT), strict=True):
        stack_MNN[:, rows, columns] = block


def _inverse(stack_MNN: Tensor) -> Tensor:
    """numpy always has LAPACK, torch where it was built with one."""
    if torch._C.has_lapack:
        factor, _ = torch.linalg.cholesky_ex(stack_MNN)
        return torch.cholesky_inverse(factor)
    return torch.from_numpy(np.linalg.inv(stack_MNN.numpy()))
