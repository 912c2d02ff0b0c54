"""What `ondevice plan --json` answers, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from ondevice.run.telemetry import as_number
from tui.look import Look
from tui.values import table
from tui.words import count, decimal, duration, megabytes, printable, short

__all__ = ["plan_text"]


def plan_text(plan: dict[str, Any] | str, look: Look) -> Text:
    """Model, steps, memory, time and disk, warnings first; then why."""
    if isinstance(plan, str):
        return Text(printable(plan), look.palette.warn)
    text = Text()
    warnings = plan.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        text.append(f"! {printable(str(warning))}\n", look.palette.warn)
    for label, value in _rows(plan):
        text.append(f"{label:<9}", look.palette.dim).append(f"{value}\n", "bold")
    why = table(table(plan, "recipe"), "why")
    for key, reason in why.items():
        text.append(f"\n{printable(key)}: ", look.palette.accent).append(printable(str(reason)), look.palette.dim)
    return text


def _rows(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    recipe, estimate, saving = table(plan, "recipe"), table(plan, "estimate"), table(plan, "saving")
    model, train, fit = table(recipe, "model"), table(recipe, "train"), table(plan, "fit")
    yield "model", f"{model.get('arch', '-')}, {short(as_number(estimate.get('parameters')))} parameters"
    yield "", f"{_n(model, 'layers')} layers x {_n(model, 'width')}, context {_n(model, 'context')}"
    yield (
        "text",
        f"{short(as_number(train.get('tokens')))} tokens, {decimal(as_number(estimate.get('epochs')), 2)} epochs",
    )
    yield "steps", f"{_n(train, 'steps')} x {_n(train, 'batch')} sequences"
    yield "time", f"{duration(as_number(estimate.get('train_s')))} at {_n(plan, 'tok_s')} tokens a second"
    memory = as_number(table(estimate, "memory").get("total_mb"))
    yield "memory", f"{megabytes(memory)}, micro-batch {_n(fit, 'micro_batch')}, {_n(fit, 'threads')} threads"
    yield "disk", f"up to {megabytes(as_number(saving.get('disk_mb')))}"


def _n(raw: dict[str, Any], key: str) -> str:
    return count(as_number(raw.get(key)))
