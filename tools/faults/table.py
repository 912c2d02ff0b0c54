"""The table a fault campaign prints: one row for every part, with what was lost.

Every part is a module with ``run(*, full: bool, folder: Path, seed: int)``, which gives a list of `Row` or yields them
as they come; it does not print.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

__all__ = ["WIDTH", "Row", "header", "lines"]

WIDTH = 100


@dataclass(frozen=True)
class Row:
    """What one part of a campaign found.

    ``losses``: trials after which something promised was gone or wrong, or the run did not go on. ``silent``: trials
    whose damage nothing noticed. ``detail``: one line of figures for a person.
    """

    part: str
    trials: int
    losses: int
    silent: int
    detail: str = ""


def header() -> list[str]:
    """The lines above the rows."""
    return [f"{'part':<29}{'trials':>8}{'losses':>8}{'silent':>8}  detail", "-" * WIDTH]


def lines(row: Row) -> list[str]:
    """A row in at most `WIDTH` columns; a long detail goes on below."""
    first, *more = _wrap(row.detail, WIDTH - 55) or [""]
    return [
        f"{row.part:<29}{row.trials:>8}{row.losses:>8}{row.silent:>8}  {first}".rstrip(),
        *(" " * 55 + line for line in more),
    ]


def _wrap(text: str, width: int) -> list[str]:
    return [line for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, width)]
