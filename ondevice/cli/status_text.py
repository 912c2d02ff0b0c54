"""The present of a run in words and numbers: for ``ondevice status``, its live view and its one line. Reads no file.

Rates, time left and energy of a live run are what its trainer foretells; of a dead one what its story tells.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from ondevice.cli.common import duration
from ondevice.cli.folding import columns
from ondevice.governor.forecast import energy
from ondevice.run.digest import Digest
from ondevice.run.liveness import Liveness
from ondevice.run.telemetry import as_number
from ondevice.run.usage import Usage

__all__ = ["RESTED", "cut", "moment", "one_line", "outlook", "pace_lines", "read_lines", "share_of", "story_lines"]

_READ = ("tokens", "unique_tokens", "epochs", "most_epochs")
_FORETOLD = ("eta_s", "done_t", "open_s", "battery_s")
_HEAT = (("battery_c", "battery"), ("skin_c", "body"), ("cpu_c", "cpu"))
RESTED = 0.95  # of the burst rate: above this there is nothing to tell of rests


def outlook(
    alive: Liveness, status: dict[str, Any], usage: Usage, *, price: float | None, now: float | None = None
) -> dict[str, float | None]:
    """Rates, time left, watt-hours and money; None is unknown. ``price`` of a kWh in place of that in the limits."""
    live = alive.holder is not None and alive.state != "asleep"
    now = time.time() if now is None else now
    numbers = {key: as_number(status.get(key)) for key in (*_FORETOLD, "wh_left", "price_per_mtok", "price_left")}
    foretold = {key: numbers[key] if live else None for key in _FORETOLD}
    told_t = as_number(status.get("heartbeat_t"))
    if foretold["eta_s"] is not None and told_t is not None:  # not by `done_t`: the clock of a simulated device is fast
        foretold["eta_s"] = max(0.0, foretold["eta_s"] - max(0.0, now - told_t))
    left = (as_number(status.get("tokens_total")) or 0.0) - (as_number(status.get("tokens")) or 0.0)
    spent = energy(usage.wh_per_mtok, tokens_left=left, price_per_kwh=price)
    costs: dict[str, float | None] = dataclasses.asdict(spent)
    if price is None:
        costs |= {key: numbers[key] for key in ("price_per_mtok", "price_left")}
    return {
        "burst_tok_s": as_number(status.get("tok_s")) if usage.burst_tok_s is None else usage.burst_tok_s,
        "sustained_tok_s": usage.sustained_tok_s,
        "duty": usage.duty,
        **foretold,
        "mean_power_w": usage.power_w,
        **costs,
    }


def story_lines(story: Digest) -> Iterator[str]:
    """What was learned so far."""
    steps = story.steps or 0
    if steps:
        yield f"  step      {story.step:,} of {steps:,} ({100 * story.step / steps:.0f} %)"
    if story.loss.last is not None:
        yield f"  loss      {story.loss.last:.4f} nats a token"
    for name, series in story.val_loss.items():
        if name and series.last is not None:
            yield f"  val       {series.last:.4f} {name}"
    if story.best_loss is not None:
        yield f"  best      {story.best_loss:.4f} at step {story.best_step:,}"


def read_lines(status: dict[str, Any], story: Digest) -> Iterator[str]:
    """How much of the text was read how often, and what its evaluations advise.

    A status is up to a second older than the story: both are told as of the story's last step, as `story_lines` does.
    """
    tokens, unique, epochs, most = (as_number(status.get(key)) for key in _READ)
    if tokens and unique and epochs:
        read = story.tokens or tokens
        yield f"  read      {read:,.0f} tokens, {epochs * read / tokens:.2f} epochs"
        if most and most > 1.2 * epochs:
            yield f"  most read {most:.2f} epochs of one source"
        yield f"  unique    {unique:,.0f} tokens"
    advice = status.get("advice")
    for text in advice if isinstance(advice, list) else ():
        yield f"  advice    {text}"


def pace_lines(status: dict[str, Any], found: dict[str, float | None], *, live: bool) -> Iterator[str]:
    """Rate, time left, heat and energy."""
    simulated = status.get("simulated")
    if isinstance(simulated, dict):
        yield f"  device    {simulated.get('device')}"
    if isinstance(part := status.get("part"), str):
        yield f"  part      {part}"
    yield from _rate_lines(found)
    if live and found["eta_s"] is not None:
        done_t = None if simulated else found["done_t"]  # its clock is not ours
        yield f"  left      {duration(found['eta_s'])}" + (f", done {moment(done_t)}" if done_t else "")
    elif live and found["open_s"]:
        yield f"  left      {duration(found['open_s'])} of work, end not known"
    if live and found["battery_s"] is not None:
        yield f"  battery   lasts {duration(found['battery_s'])}, then the charger"
    if live and (heat := _heat(status)):
        yield f"  heat      {heat}"
    yield from _energy_lines(found)


def _rate_lines(found: dict[str, float | None]) -> Iterator[str]:
    burst, sustained = found["burst_tok_s"], found["sustained_tok_s"]
    if burst is None:
        return
    yield f"  rate      {burst:,.0f} tok/s"
    if sustained is not None and sustained < RESTED * burst:
        yield f"  sustained {sustained:,.0f} tok/s, rests included"


def _energy_lines(found: dict[str, float | None]) -> Iterator[str]:
    if found["wh_per_mtok"] is None:
        return
    yield f"  energy    {found['wh_per_mtok']:,.3g} Wh a million tokens"
    if found["price_per_mtok"] is not None:
        yield f"  cost      {found['price_per_mtok']:,.2g} a million tokens"
    if found["wh_left"]:
        money = f", {found['price_left']:,.2g}" if found["price_left"] is not None else ""
        yield f"  to come   {found['wh_left']:,.3g} Wh{money}"


def _heat(status: dict[str, Any]) -> str:
    degrees = [(word, as_number(status.get(key))) for key, word in _HEAT]
    return ", ".join(f"{word} {value:.0f} C" for word, value in degrees if value is not None)


def moment(t: float) -> str:
    """A time for people: ``14:05`` today, ``Sun 06:10`` within six days, else the date."""
    local, today = time.localtime(t), time.localtime()
    if local[:3] == today[:3]:
        return time.strftime("%H:%M", local)
    return time.strftime("%a %H:%M" if 0 <= t - time.time() < 6 * 86_400 else "%Y-%m-%d", local)


def share_of(status: dict[str, Any]) -> float | None:
    """Progress from 0 to 1; None where the end is not known."""
    step, steps = as_number(status.get("step")), as_number(status.get("steps"))
    return None if step is None or not steps or steps <= 0 else min(1.0, max(0.0, step / steps))


def one_line(name: str, state: str, status: dict[str, Any], found: dict[str, float | None], *, width: int) -> str:
    """Name, state, progress, loss, temperature, time left; what matters least is left out where ``width`` is small."""
    share, loss = share_of(status), as_number(status.get("loss"))
    live = state in ("running", "resting", "waiting")
    degrees = next((value for key, _ in _HEAT if (value := as_number(status.get(key))) is not None), None)
    parts = [  # in the order shown; the number says how soon a part is left out
        (name, 0),
        (state, 1),
        (f"{int(100 * share)}%" if share is not None else "", 2),
        (f"loss {loss:.3f}" if loss is not None else "", 5),
        (f"{degrees:.0f}C" if live and degrees is not None else "", 4),
        (f"left {duration(found['eta_s'])}" if live and found["eta_s"] is not None else "", 3),
    ]
    kept = [(text, rank) for text, rank in parts if text]
    while len(kept) > 1 and columns(" ".join(text for text, _ in kept)) > width:
        kept.remove(max(kept, key=lambda part: part[1]))
    return cut(" ".join(text for text, _ in kept), width)


def cut(text: str, width: int) -> str:
    """The beginning of a text that fits into so many cells."""
    room, kept = width, ""
    for char in text:
        room -= columns(char)
        if room < 0:
            break
        kept += char
    return kept
