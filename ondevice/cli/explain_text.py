"""The keys of a config in words, for screens from 40 columns on: how each is written, what it means, what it may be.

Keys of ``[limits]`` that are left out follow a preset: their values by preset, with the reasons, are told too.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ondevice.governor.presets import PRESETS, Policy

__all__ = ["by_preset", "key_lines", "table_line"]

_WIDEST = 76
_INDENT = "    "
_POLICY = {f"limits.{item.name}": item.name for item in dataclasses.fields(Policy)}
_LIMITS_OF_ITS_OWN = (  # left out, nothing takes their place
    "limits.",
    "data.max_unique_tokens",
    "data.clean.",
    "data.items.max_tokens",
    "data.sources[].score",
)


def by_preset(key: str) -> dict[str, Any] | None:
    """Preset -> the value it gives this key; None for a key that no preset knows."""
    name = _POLICY.get(key)
    return {preset: getattr(found.policy, name) for preset, found in PRESETS.items()} if name else None


def table_line(key: str) -> str:
    """The table a key is written in, as a config has it: ``[train]``, ``[[data.sources]]``; empty for the top."""
    table = key.rpartition(".")[0]
    if not table:
        return ""
    return f"[[{table.removesuffix('[]')}]]" if table.endswith("[]") else f"[{table}]"


def key_lines(row: dict[str, Any], width: int, *, closely: bool) -> Iterator[str]:
    """One key. ``closely``: it is the only one asked for, so with reasons and with how to change it."""
    width = min(_WIDEST, max(24, width - 1))
    unit = f" {row['unit']}" if row["unit"] else ""
    head, kind = f"{row['key']} = {_default(row)}", f"({row['type']}{unit})"
    yield from [f"{head}   {kind}"] if len(head) + 3 + len(kind) <= width else [head, _INDENT + kind]
    allowed = f" One of: {', '.join(row['choices'])}." if row["choices"] else ""
    if row["bounds"]:
        allowed = f" {row['bounds'].capitalize()}."
    yield from _filled(row["doc"] + "." + allowed, width)
    if presets := by_preset(row["key"]):
        yield from _preset_lines(row["key"], presets, width, closely=closely)
    if closely:
        yield from _ways_to_change(row, width)


def _filled(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)


def _default(row: dict[str, Any]) -> str:
    if row["required"]:
        return "required"
    if row["default"] is not None:
        return _toml(row["default"])
    if row["key"] in _POLICY:
        return "by preset"
    return "none" if row["key"].startswith(_LIMITS_OF_ITS_OWN) else "derived"


def _toml(value: Any) -> str:
    """As it is written in a config."""
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _preset_lines(key: str, presets: dict[str, Any], width: int, *, closely: bool) -> Iterator[str]:
    if not closely:
        yield from _filled(", ".join(f"{name} {_toml(value)}" for name, value in presets.items()) + ".", width)
        return
    for name, value in presets.items():
        why = PRESETS[name].why.get(_POLICY[key], "")
        yield from _filled(f"{name}: {_toml(value)}" + (f", {why}" if why else ""), width)


def _ways_to_change(row: dict[str, Any], width: int) -> Sequence[str]:
    key, example = row["key"], _example(row, by_preset(row["key"]))
    if "[]" in key:
        return _filled(f"Write it under {table_line(key)} in a config file.", width)
    if key.startswith("limits."):
        short = key.removeprefix("limits.")
        return _filled(f"`ondevice limit RUN {short}={example}` changes it at any time.", width)
    return _filled(f"--set {key}={example}, or {table_line(key) or 'at the top'} of a config file.", width)


def _example(row: dict[str, Any], presets: dict[str, Any] | None) -> str:
    if row["choices"]:
        return str(row["choices"][-1])
    if row["type"] in ("number", "whole number"):
        value = row["default"] if presets is None else presets["gentle"]
        return "N" if value is None else _toml(value)
    return {"true/false": "true", "list of text": '["A", "B"]'}.get(row["type"], "TEXT")
