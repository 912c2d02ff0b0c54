"""The device under the run: thermometers, battery, memory against the plan, disk. Colours by limit, not by taste."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from tui.draw import bar, begun
from tui.look import Look, level
from tui.snapshot import RunSnapshot, Sensor
from tui.views.heat import heat_words
from tui.words import duration, fit, megabytes

__all__ = ["battery_text", "machine_text", "sensors_text"]

_LABEL = 8
_FLOORS = {"battery_percent": 10.0, "disk_free_mb": 200.0}  # and how near them it grows serious


def machine_text(run: RunSnapshot, width: int, height: int, look: Look) -> Text:
    """One row a thing; how the machine of a dead run feels is no longer known."""
    if not run.alive:
        return Text(fit("Nobody measures while no trainer lives.", width, look.glyphs.ellipsis), look.palette.dim)
    rows = [*_meters(run, width, look), *(heat_words(heat, look) for heat in run.heat), *_rest(run, look)]
    return Text("\n", no_wrap=True).join(rows[:height])


def _meters(run: RunSnapshot, width: int, look: Look) -> Iterator[Text]:
    palette = look.palette
    yield _row("charge", battery_text(run, look, floor=width >= 36), _share(run.battery_percent, 100.0), width, look)
    top = run.max_rss_mb or run.plan_mb
    planned = run.max_rss_mb is None  # and a plan is no limit
    style = level(
        run.rss_mb, (top or 0.0) * (1.1 if planned else 1.0) or None, near=0.1 * (top or 0.0), palette=palette
    )
    style = palette.warn if planned and style.endswith(palette.bad) else style
    plan = f" of {megabytes(top)}" + (" planned" if planned else "") if top else ""
    words = begun(megabytes(run.rss_mb), style).append(plan, palette.dim)
    yield _row("memory", words, _share(run.rss_mb, top), width, look, style)
    used = None if run.available_mb is None or not run.total_mb else 1 - run.available_mb / run.total_mb
    yield _row("machine", Text(_free(run.available_mb)), used, width, look)
    floor = run.min_free_disk_mb
    style = level(run.disk_free_mb, floor, near=floor or 0.0, palette=palette, below=True)
    words = begun(_free(run.disk_free_mb), style)
    words.append(f", keeps {megabytes(floor)}" if floor and width >= 36 else "", palette.dim)
    yield _row("disk", words, None, width, look)


def _free(mb: float | None) -> str:
    return "-" if mb is None else f"{megabytes(mb)} free"


def battery_text(run: RunSnapshot, look: Look, *, floor: bool = True) -> Text:
    """``83% charging, 30% floor``; coloured by the floor."""
    if run.battery_percent is None:
        return Text("-", look.palette.dim)
    least = run.battery_floor_percent
    style = level(run.battery_percent, least, near=10.0, palette=look.palette, below=True)
    text = begun(f"{run.battery_percent:.0f}%", style)
    if run.plugged:
        text.append(f" {run.charging or 'plugged'}".replace("_", " "), look.palette.good)
    elif run.plugged is False:
        text.append(" on battery", look.palette.dim)
    if floor and least is not None:
        text.append(f", {least:g}% floor", look.palette.dim)
    return text


def _row(label: str, words: Text, share: float | None, width: int, look: Look, style: str = "") -> Text:
    text = begun(f"{label:<{_LABEL}} ", look.palette.dim).append_text(words)
    room = width - text.cell_len - 2
    if share is not None and room >= 6:
        text.append("  ").append_text(
            bar(share, min(room, 24), look.glyphs, style or look.palette.accent, look.palette.dim)
        )
    if text.cell_len > width:
        text.truncate(width - len(look.glyphs.ellipsis))
        text.append(look.glyphs.ellipsis, look.palette.dim)
    return text


def _share(value: float | None, whole: float | None) -> float | None:
    return None if value is None or not whole else value / whole


def _rest(run: RunSnapshot, look: Look) -> Iterator[Text]:
    dim = look.palette.dim
    if run.power_w is not None:
        where = "into the battery" if run.power_w < 0 else "drawn"
        yield begun("power    ", dim).append(f"{abs(run.power_w):.1f} W ").append(where, dim)
    away = (run.slept_s or 0.0) + (run.frozen_s or 0.0)
    if away >= 1:
        yield begun("asleep   ", dim).append(duration(away))


def sensors_text(run: RunSnapshot, width: int, height: int, look: Look) -> Text:
    """Every sensor of a live run; what cannot be read says so."""
    if not run.sensors:
        return Text("No live run measures this device now.", look.palette.dim)
    label_width = min(26, max(len(sensor.label) for sensor in run.sensors))
    rows = []
    for sensor in run.sensors[:height]:
        row = begun(f"{fit(sensor.label, label_width):<{label_width}}  ", look.palette.dim)
        value = sensor.value
        if value is None:
            row.append("unknown", look.palette.dim)
        elif isinstance(value, bool):
            row.append("yes" if value else "no")
        else:
            said = f"{value:,.1f}" if isinstance(value, float) else str(value)
            style = _style(sensor, value, look) if isinstance(value, float) else ""
            row.append(f"{said} {look.glyphs.plain(sensor.unit)}".rstrip(), style)
        if sensor.limit is not None:
            row.append(f"  {'floor' if sensor.name in _FLOORS else 'limit'} {sensor.limit:g}", look.palette.dim)
        rows.append(row)
    return Text("\n", no_wrap=True).join(rows)


def _style(sensor: Sensor, value: float, look: Look) -> str:
    near = _FLOORS.get(sensor.name, 0.05 if sensor.name == "headroom" else 2.0)
    return level(value, sensor.limit, near=near, palette=look.palette, below=sensor.name in _FLOORS)
