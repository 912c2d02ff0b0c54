"""What frozen blocks below the first one that learns make of rows of examples: the same in every pass over the data.

Each row goes through them by itself, with its cache or without, so that its hidden states are the same to the bit
whatever rows share its micro-batch. Only for models that draw no random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ondevice.model.decoder import Decoder, Entering
from ondevice.model.products import round_rows
from ondevice.train.frozen_cache import FrozenCache

__all__ = ["Below", "Row"]


class Row(NamedTuple):
    """A row of packed examples: its number among all, and the length of each example in it."""

    number: int
    lengths: tuple[int, ...]


class Below:
    """The embedding and the first ``count`` blocks of a model. ``cache`` keeps what they gave, where one is set."""

    def __init__(self, model: Decoder, count: int) -> None:
        self._model, self.count = model, count
        self.cache: FrozenCache | None = None

    @classmethod
    def of(cls, model: Decoder) -> Below | None:
        """None where no block below the first that learns is frozen with the embedding, or where training draws."""
        learns = [_learns(block) for block in model.blocks]
        if model.draws or _learns(model.embed) or _learns(model.position) or not any(learns) or learns[0]:
            return None
        return cls(model, learns.index(True))

    def entering(self, ids_1N: Tensor, rows: tuple[Row, ...]) -> Entering:
        """What comes into the first block that learns; ``ids`` of all rows side by side, padding after them."""
        used = [sum(row.lengths) for row in rows]
        *ids, padding = ids_1N.split([*used, ids_1N.shape[1] - sum(used)], dim=1)
        with torch.no_grad():
            states = [self._states(row, part) for row, part in zip(rows, ids, strict=True)]
            states.append(states[-1].new_zeros(1, padding.shape[1], states[-1].shape[2]))
        return Entering(self.count, torch.cat(states, dim=1))

    def _states(self, row: Row, ids_1N: Tensor) -> Tensor:
        kept = None if self.cache is None else self.cache.read(row.number, ids_1N.shape[1])
        if kept is not None:
            return kept[None]
        x_1NC = self._through(ids_1N, row.lengths)
        if self.cache is not None:
            self.cache.write(row.number, x_1NC[0])
        return x_1NC

    def _through(self, ids_1N: Tensor, lengths: tuple[int, ...]) -> Tensor:
        tokens, context = ids_1N.shape[1], self._model.shape.context
        if left := round_rows(tokens, context) - tokens:
            ids_1N, lengths = F.pad(ids_1N, (0, left)), (*lengths, left)
        place = self._model.place_apart(ids_1N, lengths)
        x_1NC = self._model.embedded(ids_1N, place)
        for block in self._blocks():
            x_1NC = block(x_1NC, place)
        return x_1NC[:, :tokens]

    def _blocks(self) -> Iterator[nn.Module]:
        return (block for number, block in enumerate(self._model.blocks) if number < self.count)


def _learns(module: nn.Module | None) -> bool:
    return module is not None and any(parameter.requires_grad for parameter in module.parameters())
