"""How fast and how well it learns: rates, step time, learning rate and gradient norm, each with its short history."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from tui.draw import big, sparkline
from tui.look import Look
from tui.snapshot import RunSnapshot
from tui.views.heat import heat_style
from tui.words import count, decimal, duration, fit, percent, short

__all__ = ["now_text", "pace_text", "seconds"]

Row = tuple[str, str, str]  # label, value, name of the curve beside it


def pace_text(run: RunSnapshot, width: int, height: int, look: Look) -> Text:
    """One row a figure, with a sparkline where there is room."""
    text = Text(no_wrap=True)
    for number, (label, value, curve) in enumerate(list(_rows(run))[:height]):
        head = f"{label:<9} {value:>9}"
        text.append("\n" if number else "").append(f"{label:<9} ", look.palette.dim).append(f"{value:>9}", "bold")
        room = width - len(head) - 2
        if curve and room >= 6:
            line = run.plots.series(curve, max_points=2 * room)
            text.append(
                f"  {sparkline(list(zip(line.xs, line.ys, strict=True)), room, look.glyphs)}", look.palette.train
            )
    return text


def _rows(run: RunSnapshot) -> Iterator[Row]:
    now = run.alive
    yield "loss", decimal(run.loss, 4), "loss_smooth"
    yield "best val", decimal(run.best_loss, 4), "val:"
    yield "tok/s", count(run.tok_s) if now else "-", "tok_s"
    yield "sustained", count(run.tok_s_sustained), ""
    yield "step", seconds(run.step_s), "step_s"
    yield "lr", decimal(run.lr, 5), "lr"
    yield "grad norm", decimal(run.grad_norm), "grad_norm"
    yield "tokens", short(run.tokens), ""
    if run.epochs is not None:
        yield "epochs", decimal(run.epochs, 2), ""
    if run.duty is not None and now:
        yield "duty", percent(run.duty), "duty"
    if run.threads:
        yield "threads", count(run.threads), ""
    away = (run.slept_s or 0.0) + (run.frozen_s or 0.0)
    if away >= 1:
        yield "asleep", duration(away), ""


def seconds(value: float | None) -> str:
    """``0.048 -> '48 ms'``."""
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else duration(value)


def now_text(run: RunSnapshot, width: int, height: int, look: Look) -> Text:
    """The figures one looks for first, in numbers that can be read at arm's length."""
    blocks = list(_big_rows(run, look))
    each = 4 if look.glyphs.unicode else 2
    shown = blocks[: max(1, height // each)]
    gap = "\n\n" if len(shown) * (each + 1) - 1 <= height else "\n"
    text = Text(no_wrap=True)
    for number, (label, value, style) in enumerate(shown):
        text.append(gap if number else "").append(fit(label, width, look.glyphs.ellipsis), look.palette.dim)
        drawn = big(value, look.glyphs, style)
        if max(len(line) for line in drawn.plain.split("\n")) > width:
            drawn = Text(value, f"bold {style}".strip())
        text.append("\n").append_text(drawn)
    return text


def _big_rows(run: RunSnapshot, look: Look) -> Iterator[tuple[str, str, str]]:
    palette = look.palette
    if run.share is not None:
        left = f", {duration(run.eta_s)} left" if run.alive and run.eta_s is not None else ""
        yield f"progress{left}", percent(run.share), palette.accent
    best = f", best validation {decimal(run.best_loss, 3)}" if run.best_loss is not None else ""
    yield f"loss{best}", decimal(run.loss, 3), palette.train
    if run.hottest is not None and run.hottest.now_c is not None and run.alive:
        limit = f", limit {run.hottest.limit_c:g}" if run.hottest.limit_c is not None else ""
        degrees = f"{run.hottest.label} {look.glyphs.degree.strip()}{limit}"
        yield degrees, f"{run.hottest.now_c:.1f}", heat_style(run.hottest, look)
    yield "tokens a second", count(run.tok_s) if run.alive else "-", ""
