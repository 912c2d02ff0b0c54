"""A page as one HTML file that needs nothing else: no network, no script, a style sheet for phones and dark rooms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from ondevice.report.page import Block, Chart, Heading, Page, Paragraph, Table, Texts, plain
from ondevice.report.svg import COLOURS, chart_svg

__all__ = ["page_html"]

_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#882255", "#555555")
_DARK = ("#56b4e9", "#ff9d5c", "#4fd1a5", "#f0a6cf", "#f0e442", "#9fd8ff", "#e589b8", "#bbbbbb")
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--soft:#6b6b6b;--rule:#d9d9d9;--card:#f6f6f4;LIGHT}
@media(prefers-color-scheme:dark){:root{--ink:#e8e6e3;--paper:#16181a;--soft:#a0a0a0;--rule:#3a3d40;--card:#202326;DARK}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0 .6rem}h2{font-size:1.15rem;margin:1.8rem 0 .5rem;border-bottom:1px solid var(--rule)}
p{margin:.4rem 0;max-width:46rem}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1rem;margin:.8rem 0}
figure{margin:0;background:var(--card);border-radius:.5rem;padding:.6rem}
figure b{display:block;font-size:.9rem;margin-bottom:.2rem}
figcaption{font-size:.8rem;color:var(--soft);display:flex;flex-wrap:wrap;gap:.1rem .9rem}
svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}
svg polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}svg polygon{opacity:.18;stroke:none}
.grid{stroke:var(--rule);stroke-width:.6}.axis{stroke:var(--soft);stroke-width:1}
circle.mark{fill:none;stroke:var(--ink);stroke-width:1.4}text.mark{fill:var(--ink)}
i{display:inline-block;width:.9rem;height:.2rem;margin-right:.3rem;vertical-align:middle}
.wide{overflow-x:auto;margin:.6rem 0;background:linear-gradient(to left,var(--paper) 1rem,transparent) right/2rem 100%
no-repeat local,linear-gradient(to left,var(--rule),transparent) right/1rem 100% no-repeat scroll}
table{border-collapse:collapse;font-size:.85rem}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--rule);text-align:right;vertical-align:top;white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal}th,td{overflow-wrap:normal}
th.w,td.w{text-align:left;white-space:normal;min-width:4.5rem}
th:first-child,td:first-child{position:sticky;left:0;background:var(--paper)}
th.g{text-align:left;color:var(--ink);white-space:nowrap;padding-top:.6rem}
.h{word-break:break-all}td.i{white-space:normal}td.i span{display:inline-block;white-space:nowrap}
.texts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,16rem),1fr));gap:.8rem;margin:.6rem 0}
.texts div{background:var(--card);border-radius:.5rem;padding:.6rem}.texts b{font-size:.8rem;color:var(--soft)}
pre{white-space:pre-wrap;font:13px/1.45 ui-monospace,Menlo,Consolas,monospace;margin:.3rem 0 0}
@media print{body{max-width:none}}
"""
_LONG = re.compile(r"[0-9A-Za-z]{32,}")  # a hash
_BREAKS = r'<span class="h">\g<0></span>'
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page_html(page: Page) -> str:
    """The whole file. Every text in the page is escaped."""
    title = escape(plain(page.title))
    head = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_style()}</style></head><body><h1>{title}</h1>"
    )
    return head + "\n".join(_blocks(page.blocks)) + "</body></html>\n"


def _style() -> str:
    def colours(values: tuple[str, ...]) -> str:
        return ";".join(f"--c{place}:{value}" for place, value in enumerate(values))

    rules = "".join(
        f".c{k}{{stroke:var(--c{k})}}.b{k}{{fill:var(--c{k})}}i.k{k}{{background:var(--c{k})}}" for k in range(COLOURS)
    )
    return _STYLE.replace("LIGHT", colours(_LIGHT)).replace("DARK", colours(_DARK)) + rules


def _blocks(blocks: list[Block]) -> Iterator[str]:
    """Charts that follow each other share a grid."""
    in_charts = False
    for block in blocks:
        if isinstance(block, Chart) != in_charts:
            yield "</div>" if in_charts else '<div class="charts">'
            in_charts = not in_charts
        yield _block(block)
    if in_charts:
        yield "</div>"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_safe(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{_safe(block.text)}</p>"
        case Table():
            return _table(block)
        case Chart():
            return _chart(block)
        case Texts():
            return _texts(block)


def _table(table: Table) -> str:
    """What several rows begin with is a line of its own above them: a phone has no room for it in each."""
    grouped = table.words > 1 and len({row[0] for row in table.rows}) < len(table.rows)
    kept = slice(1 if grouped else 0, None)
    words = table.words - grouped

    def cells(row: tuple[str, ...], tag: str) -> str:
        return "".join(_cell(cell, tag, is_words=place < words) for place, cell in enumerate(row[kept]))

    lines, group = [f"<tr>{cells(table.columns, 'th')}</tr>"], None
    for row in table.rows:
        if grouped and row[0] != group:
            group = row[0]
            lines.append(f'<tr><th class="g" colspan="{len(row) - 1}">{_safe(group)}</th></tr>')
        lines.append(f"<tr>{cells(row, 'td')}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _cell(text: str, tag: str, *, is_words: bool) -> str:
    if is_words:
        return f'<{tag} class="w">{_LONG.sub(_BREAKS, _safe(text))}</{tag}>'
    estimate, found, rest = text.partition(" (")
    if not found or tag == "th":
        return f"<{tag}>{_safe(text)}</{tag}>"
    return f'<td class="i"><span>{_safe(estimate)}</span> <span>({_safe(rest)}</span></td>'


def _chart(chart: Chart) -> str:
    names = [
        f'<span><i class="k{place % COLOURS}"></i>{_safe(curve.name)}</span>'
        for place, curve in enumerate(chart.curves)
        if curve.name
    ]
    legend = f"<figcaption>{''.join(names)}</figcaption>" if names else ""
    return f"<figure><b>{_safe(chart.title)}, {_safe(chart.y)}</b>{chart_svg(chart)}{legend}</figure>"


def _texts(block: Texts) -> str:
    cards = "".join(f"<div><b>{_safe(each.title)}</b><pre>{_safe(each.text)}</pre></div>" for each in block.texts)
    return f'<p><strong>{_safe(block.title)}</strong></p><div class="texts">{cards}</div>'


def _safe(text: str) -> str:
    return escape(plain(text), quote=True)
