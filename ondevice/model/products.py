"""Matrix products where another library than torch's default one is the faster.

oneDNN is in torch for x86, but torch gives it no fp32 products of its own accord: MKL does them, which on processors of
AMD is at half its rate for the product of a vocabulary, and keeps to AVX2 where they have AVX-512. In Termux torch has
no oneDNN; on other ARM nobody measured it. Which library it is depends on the build of torch, the machine and the
instruction set alone, so a resumed run meets the same one.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["LARGE", "has_one_dnn", "layers_by_one_dnn", "round_rows", "times_transposed"]

LARGE = 1 << 25  # multiplications of a layer's product; for smaller ones oneDNN's preparations cost more than it gains
_CPUINFO = Path("/proc/cpuinfo")
_PARTS = 16


@cache
def has_one_dnn() -> bool:
    """Whether `times_transposed` can be used here."""
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@cache
def layers_by_one_dnn() -> bool:
    """Whether `times_transposed` is also the faster for the layers: elsewhere MKL is as fast."""
    return has_one_dnn() and torch.backends.cpu.get_cpu_capability() == "AVX512" and _made_by_amd()


def round_rows(rows: int, most: int) -> int:
    """So many rows, or up to a sixteenth of ``most`` more, but then not above it.

    oneDNN prepares code for every new number of rows of a product and keeps it, 0.7 to 2 MB each: where the number
    changes from step to step it has to be one of few.
    """
    part = max(1, most // _PARTS) if torch.backends.mkldnn.is_available() else 1
    return max(rows, min(-(-rows // part) * part, most))


def _made_by_amd() -> bool:
    try:
        return "AuthenticAMD" in _CPUINFO.read_text("utf-8", "replace")
    except OSError:  # no Linux
        return False


def times_transposed(x_NC: Tensor, weight_VC: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` of fp32 -> ``[N, V]``, by oneDNN. No gradient."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x_NC, weight_VC, bias_V, "none", [], "")
    return product
