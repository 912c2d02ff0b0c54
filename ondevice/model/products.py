"""Matrix products where another library than torch's default one is the faster.

oneDNN is in torch for x86, but torch gives it no fp32 products of its own accord: MKL does them, which on processors of
AMD is at half its rate for the product of a vocabulary. In Termux torch has no oneDNN; on other ARM nobody measured it.
Which library it is depends on the build of torch and the machine alone, so a resumed run meets the same one.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import Tensor

__all__ = ["has_one_dnn", "times_transposed"]


@cache
def has_one_dnn() -> bool:
    """Whether `times_transposed` can be used here."""
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def times_transposed(x_NC: Tensor, weight_VC: Tensor) -> Tensor:
    """``x @ weight.T`` of fp32 -> ``[N, V]``, by oneDNN. No gradient."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x_NC, weight_VC, None, "none", [], "")
    return product
