"""The parts that a chain would have, before anything is trained: for ``data build`` and ``data order``. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ondevice.cli.common import for_terminal

if TYPE_CHECKING:
    from ondevice.data.dataset import Dataset
    from ondevice.run.recipe import PartRecipe
    from ondevice.run.schema import Config

__all__ = ["USUAL_CONTEXT", "part_rows", "planned_parts"]

USUAL_CONTEXT = 256


def planned_parts(config: Config, dataset: Dataset) -> tuple[PartRecipe, ...]:
    """The parts by the wish, with a batch of one where it names none; none without a chain. Raises UsageError,
    DataError."""
    from ondevice.train.chain_plan import chained, cut

    chained(config)  # refuses what a chain cannot have
    return cut(config, dataset, context=config.model.context or USUAL_CONTEXT, batch=config.train.batch or 1)


def part_rows(parts: Sequence[PartRecipe], *, context: int) -> Iterator[str]:
    """A row a part, under the name of its stage."""
    stage = None
    if parts:
        yield f"{len(parts)} parts, each evaluated, verified and kept:"
    for part in parts:
        if part.stage != stage:
            stage = part.stage
            yield for_terminal(f"{stage}:")
        names = ", ".join(each.name for each in part.sources)
        yield for_terminal(f"  {part.name:>4} {part.windows * context:>9,} tokens  {names}")
