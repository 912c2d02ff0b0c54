"""Writes a wish as text: a config as TOML (``config.toml`` of a run), and the schema as an explanation of every key."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ondevice.errors import UsageError
from ondevice.run.config_check import figure, nested
from ondevice.run.schema import Config

__all__ = ["explain", "to_toml"]


def to_toml(config: Config) -> str:
    """The config as TOML that parses back to an equal value; unset keys are left out.

    Raises UsageError for text that is not UTF-8, such as an odd file name.
    """
    return "\n".join(_toml_lines(config, ())).strip() + "\n"


def _toml_lines(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    tables = []
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            tables.append((item.name, inner, "[{}]"))
        elif isinstance(inner, tuple) and inner and dataclasses.is_dataclass(inner[0]):
            tables += [(item.name, element, "[[{}]]") for element in inner]
        elif inner is not None:
            yield f"{item.name} = {_toml_value(inner)}"
    for name, inner, brackets in tables:
        here = (*path, name)
        yield from ("", brackets.format(".".join(here)))
        yield from _toml_lines(inner, here)


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{value!a}: not UTF-8, which a config must be; rename it.") from None
    # JSON's escapes are TOML's, except that TOML also wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def explain(cls: type = Config, path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Every key of the schema: ``key, type, default, required, unit, choices, bounds, doc``."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        here = (*path, item.name)
        inner = nested(hints[item.name])
        if inner is not None:
            many = typing.get_origin(hints[item.name]) is tuple
            yield from explain(inner, (*path, item.name + ("[]" if many else "")))
            continue
        required = item.default is dataclasses.MISSING
        yield {
            "key": ".".join(here),
            "type": _type_name(hints[item.name]),
            "default": None if required else item.default,
            "required": required,
            "unit": item.metadata.get("unit", ""),
            "choices": list(item.metadata.get("choices", ())),
            "bounds": _bounds(item.metadata),
            "doc": item.metadata["doc"],
        }


def _bounds(rules: Mapping[str, Any]) -> str:
    """The values a number may take, in words; empty where it has no bounds."""
    rules = {key: rules[key] for key in ("low", "above", "high") if rules.get(key) is not None}
    words = {"low": "at least", "above": "more than", "high": "at most"}
    return ", ".join(f"{words[key]} {figure(bound)}" for key, bound in rules.items())


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _type_name(next(arg for arg in typing.get_args(hint) if arg is not type(None)))
    if typing.get_origin(hint) is tuple:
        return "list of " + _type_name(typing.get_args(hint)[0])
    return {int: "whole number", float: "number", bool: "true/false", str: "text"}[hint]
