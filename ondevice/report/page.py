"""A report as blocks, before it is Markdown or HTML: headings, sentences, tables, charts, texts side by side.

Plain values; every text in them is a stranger's until a writer has escaped it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ondevice.run.series import Series

__all__ = [
    "Block",
    "Chart",
    "Curve",
    "Heading",
    "Page",
    "Paragraph",
    "Table",
    "Text",
    "Texts",
    "plain",
    "thinned_points",
]

MOST_POINTS = 400  # of one curve: more than a phone has columns
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """``rows`` as they are shown; the first ``words`` columns are words, the others figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclass(frozen=True)
class Curve:
    """``band`` is (x, low, high): the spread around the points."""

    name: str
    points: Points
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over one x; ``log_x`` for rates. ``marks`` are single points with a name, such as the best."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    marks: tuple[tuple[str, float, float], ...] = ()
    log_x: bool = False


@dataclass(frozen=True)
class Text:
    """A text as it was written, under a title."""

    title: str
    text: str


@dataclass(frozen=True)
class Texts:
    """Texts that are read side by side, where the screen is wide enough."""

    title: str
    texts: tuple[Text, ...]


Block = Heading | Paragraph | Table | Chart | Texts


@dataclass
class Page:
    """A whole report, filled from above to below."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def head(self, text: str) -> None:
        self.blocks.append(Heading(text))

    def say(self, text: str) -> None:
        self.blocks.append(Paragraph(text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> None:
        """Nothing where there are no rows."""
        if rows:
            self.blocks.append(Table(columns=tuple(columns), rows=tuple(map(tuple, rows)), words=words))

    def chart(self, chart: Chart) -> None:
        """Nothing where no curve has two points."""
        curves = tuple(curve for curve in chart.curves if len(curve.points) > 1)
        if curves:
            self.blocks.append(
                Chart(title=chart.title, x=chart.x, y=chart.y, curves=curves, marks=chart.marks, log_x=chart.log_x)
            )

    def texts(self, title: str, texts: Sequence[Text]) -> None:
        if texts:
            self.blocks.append(Texts(title, tuple(texts)))


def plain(text: str) -> str:
    """Without what no file of text may hold: control characters but tabs and line ends, and lone surrogates."""
    kept = "".join(char if char >= " " or char in "\t\n" else "\ufffd" for char in text)
    return kept.encode("utf-8", "replace").decode("utf-8")


def thinned_points(points: Sequence[tuple[float, float]]) -> Points:
    """At most `MOST_POINTS` of them, extremes kept."""
    series = Series(MOST_POINTS)
    for x, y in points:
        series.add(x, y)
    return tuple(series.points)
