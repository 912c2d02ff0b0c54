"""How gradients are clipped: all together by their norm, each tensor by its own, or not at all.

The arithmetic is that of ``torch.nn.utils.clip_grad_norm_``, in parts, so that a norm can be summed up from gradients
that no longer exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Clip", "Norms"]

_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Clip:
    """``most`` is the largest norm, 0 for none; ``scope`` "all" bounds the norm of all gradients together, "tensor"
    that of each tensor."""

    most: float
    scope: str = "all"

    @property
    def waits(self) -> bool:
        """Whether every gradient must be known before one may be used."""
        return self.scope == "all" and self.most > 0.0

    def apply(self, parameters: Iterable[nn.Parameter], norms: Norms) -> None:
        """Scales gradients whose norms were added to ``norms``."""
        if not self.most:
            return
        found = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        if self.scope == "all":
            self._scale([grad for _, grad in found], norms.total())
        else:
            for parameter, grad in found:
                self._scale([grad], norms.of(parameter))

    def _scale(self, gradients: list[Tensor], norm: Tensor) -> None:
        factor = self.most / (norm + _EPS)
        if gradients and not factor >= 1.0:  # else a pass over all gradients would change no bit of them
            torch._foreach_mul_(gradients, factor)


class Norms:
    """The norm of each parameter's gradient, in the order of ``parameters``."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._found: dict[nn.Parameter, Tensor] = {}

    @torch.no_grad()
    def add(self, parameters: Iterable[nn.Parameter]) -> None:
        """Takes the norms of gradients that are whole; parameters without one count nothing."""
        having = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        if having:
            # In fp32, or the norm of a bf16 gradient would have three digits.
            norms = torch._foreach_norm([grad for _, grad in having], 2, torch.float32)
            self._found.update(zip((parameter for parameter, _ in having), norms, strict=True))

    def of(self, parameter: nn.Parameter) -> Tensor:
        return self._found[parameter]

    def total(self) -> Tensor:
        """Norm of all of them together, a scalar."""
        found = [self._found[parameter] for parameter in self._parameters if parameter in self._found]
        return torch.linalg.vector_norm(torch.stack(found)) if found else torch.zeros(())

    def finite(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether the norms of these are finite numbers."""
        return all(math.isfinite(self._found[each].item()) for each in parameters if each in self._found)
