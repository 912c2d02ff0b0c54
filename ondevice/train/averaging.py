"""The weights that a run shows: an average over its last steps, while training goes on from the last step's alone.

At a high learning rate every step leaves the weights somewhere else around a valley; their average lies inside it, as
if the rate had been lowered there. Polynomial-decay averaging (Shamir and Zhang, 2013): after step t of its own the
average moves to the newest weights by ``r / (t + r - 1)``, ``r = 1 / share``, so that it reaches back over about
``share`` of the steps so far, however many there will be. Knows no optimizer and no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ondevice.run.recipe import TrainRecipe

__all__ = ["WeightAverage", "average_of"]


def average_of(model: nn.Module, recipe: TrainRecipe) -> WeightAverage | None:
    """The average a recipe asks for, None where it asks for none; it begins with the weights of now."""
    return WeightAverage(model, share=recipe.average) if recipe.average else None


class WeightAverage:
    """One copy of every weight that learns. ``tensors`` is the average by parameter name, fp32 as the weights are."""

    def __init__(self, model: nn.Module, *, share: float) -> None:
        """``share`` in (0, 1]; 1 weighs all steps alike."""
        self._reach = 1.0 / share
        self._learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tensors = {name: parameter.detach().clone() for name, parameter in self._learned.items()}

    @property
    def live(self) -> dict[str, Tensor]:
        """The weights that training goes on from, by parameter name."""
        return {name: parameter.detach() for name, parameter in self._learned.items()}

    @torch.no_grad()
    def restart(self) -> None:
        """The model's weights of now become the average."""
        for name, parameter in self._learned.items():
            self.tensors[name].copy_(parameter)

    @torch.no_grad()
    def add(self, steps: int) -> None:
        """Takes in the weights after ``steps`` (from 1) of a run's own steps."""
        weight = self._reach / (steps + self._reach - 1.0)
        for name, parameter in self._learned.items():
            self.tensors[name].lerp_(parameter, weight)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the average inside the block and its own weights, to the bit, after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._learned.items():
            own = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(own)
