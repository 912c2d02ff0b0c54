"""AdamW (Loshchilov & Hutter, arXiv 1711.05101) through torch's fused CPU kernel, without ``torch.optim``.

``torch.optim`` pulls in the whole compiler at its first optimizer: more than a second and a quarter of the memory of a
training launch at rest. The numbers are those of ``torch.optim.AdamW(fused=True)`` to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SLOTS", "AdamW"]

SLOTS = ("exp_avg", "exp_avg_sq", "step")


class AdamW:
    """Groups are dicts with ``params`` and ``weight_decay``; ``lr`` of a group may be set before every step."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        self.param_groups = [{**group, "lr": lr} for group in groups if group["params"]]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self._betas, self._eps = betas, eps

    def slots(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """Names of the state tensors of a parameter."""
        return SLOTS

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients; memory is taken again by the next backward pass."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            self._step(group)

    def _step(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [self._state_of(parameter) for parameter in parameters]
        for state in states:
            state["step"] += 1
        if parameters:
            self._update(
                parameters,
                [parameter.grad for parameter in parameters if parameter.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [state["step"] for state in states],
                group,
            )

    def _update(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        averages: list[Tensor],
        squares: list[Tensor],
        steps: list[Tensor],
        group: dict[str, Any],
    ) -> None:
        """Changes weights and both averages in place, by the settings of their group."""
        torch._fused_adamw_(
            weights,
            gradients,
            averages,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=group["weight_decay"],
            eps=self._eps,
            amsgrad=False,
            maximize=False,
        )

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state.setdefault(parameter, {})
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["step"] = torch.zeros((), dtype=torch.float32)
        return state
