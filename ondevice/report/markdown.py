"""A page as Markdown: tables stay tables, charts become a table of some of their points, texts become code blocks."""

from __future__ import annotations

import re

from ondevice.report.page import Block, Chart, Curve, Heading, Page, Paragraph, Table, Texts, plain

__all__ = ["page_markdown"]

_ROWS = 12  # of a chart


def page_markdown(page: Page) -> str:
    """The whole file."""
    return "\n\n".join([f"# {_safe(page.title)}", *(_block(block) for block in page.blocks)]) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_safe(block.text)}"
        case Paragraph():
            return _safe(block.text)
        case Table():
            return _table(block.columns, block.rows, block.words)
        case Chart():
            return _chart(block)
        case Texts():
            return "\n\n".join([f"**{_safe(block.title)}**", *(_text(each.title, each.text) for each in block.texts)])


def _table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...], words: int) -> str:
    rules = [":--" if place < words else "--:" for place in range(len(columns))]
    lines = [columns, tuple(rules), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _chart(chart: Chart) -> str:
    """Some of the points of each curve; where curves have other x's than the first, an empty cell."""
    xs = sorted({x for curve in chart.curves for x, _ in curve.points})
    chosen = [xs[index * (len(xs) - 1) // (_ROWS - 1)] for index in range(_ROWS)] if len(xs) > _ROWS else xs
    values = [_values(curve) for curve in chart.curves]
    rows = tuple((_place(x), *(curve.get(x, "") for curve in values)) for x in dict.fromkeys(chosen))
    names = tuple(curve.name or chart.y for curve in chart.curves)
    return f"**{_safe(chart.title)}, {_safe(chart.y)}**\n\n" + _table((chart.x, *names), rows, 0)


def _place(x: float) -> str:
    return f"{x:,.0f}" if x == int(x) else f"{x:.4g}"


def _values(curve: Curve) -> dict[float, str]:
    """By x, with half the width of the band."""
    spread = {x: f" ± {(high - low) / 2:.2g}" for x, low, high in curve.band}
    return {x: f"{y:.5g}{spread.get(x, '')}" for x, y in curve.points}


def _text(title: str, text: str) -> str:
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{_safe(title)}\n\n{fence}text\n{plain(text)}\n{fence}"


def _cell(text: str) -> str:
    return _safe(" ".join(text.split())).replace("|", "\\|")


def _safe(text: str) -> str:
    """No markup of a stranger's: what would begin a tag or an image is written out."""
    return re.sub(r"([<\[\]`*_\\])", r"\\\1", plain(text))
