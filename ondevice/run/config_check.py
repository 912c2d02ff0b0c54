"""Checks a parsed wish strictly against `ondevice.run.schema` and finds the line of what is wrong.

Used by `ondevice.run.config` alone. Knows no meaning beyond the schema's own types and bounds.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
import tomllib
import typing
from collections.abc import Mapping
from typing import Any

import cattrs
from cattrs.errors import AttributeValidationNote, IterableValidationNote

from ondevice.errors import UsageError, nearest
from ondevice.run.schema import Config
from ondevice.run.telemetry import as_number

__all__ = ["Origin", "checked", "figure", "hint_of", "nested"]

_LONGEST_FILE = 2000  # lines; finding a key's line parses as many prefixes of the file


class Origin:
    """Where keys came from: a file's lines, or ``--set``."""

    def __init__(self, where: str, text: str) -> None:
        self.where, self.changed = where, set[tuple[str, ...]]()
        self._lines = text.split("\n")

    def of(self, path: tuple[str, ...]) -> str:
        """``file:line`` of a key, or of the nearest table around it; ``--set`` for a key that was changed."""
        if self.is_changed(path):
            return "--set"
        for length in range(len(path), 0, -1):
            if line := self._line(path[:length]):
                return f"{self.where}:{line}"
        return self.where

    def is_changed(self, path: tuple[str, ...]) -> bool:
        """Whether ``--set`` gave the key, or a table around it."""
        return any(path[: len(changed)] == changed for changed in self.changed)

    def _line(self, path: tuple[str, ...]) -> int | None:
        """The first line of the statement with which the key appears: TOML itself tells, prefix by prefix."""
        first = 1
        for count in range(1, min(len(self._lines), _LONGEST_FILE) + 1):
            try:
                raw = tomllib.loads("\n".join(self._lines[:count]) + "\n")
            except (ValueError, RecursionError):
                continue  # cut inside a value of several lines
            if _contains(raw, path):
                return first
            first = count + 1
        return None


def _contains(raw: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if isinstance(raw, list) and part.isdecimal() and int(part) < len(raw):
            raw = raw[int(part)]
        elif isinstance(raw, dict) and part in raw:
            raw = raw[part]
        else:
            return False
    return True


def nested(hint: Any) -> type | None:
    """The dataclass a field's type holds, directly or as items of a tuple."""
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
            return candidate
    return None


def hint_of(path: tuple[str, ...]) -> Any:
    """The type of a key of the schema, None for a key it does not have."""
    hint: Any = Config
    for part in path:
        table = nested(hint)
        hint = _hints(table).get(part) if table else None
    return hint


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def checked(raw: dict[str, Any], origin: Origin) -> Config:
    """The config in a parsed file. Raises UsageError for the first thing that is wrong."""
    _refuse_unknown(Config, raw, (), origin)
    config = _structure(raw, origin)
    _check_bounds(config, (), origin)
    return config


def _refuse_unknown(cls: type, raw: Any, path: tuple[str, ...], origin: Origin) -> None:
    if not isinstance(raw, dict):
        raise UsageError(f"{origin.of(path)}: '{'.'.join(path)}' must be a table, not {_kind(raw)}.")
    hints = _hints(cls)
    for key, value in raw.items():
        here = (*path, key)
        if key not in hints:
            hint = nearest(key, hints) or f"; known here: {', '.join(hints)}"
            raise UsageError(f"{origin.of(here)}: unknown key '{'.'.join(here)}'{hint}.")
        inner = nested(hints[key])
        if inner is None:
            continue
        if typing.get_origin(hints[key]) is not tuple:
            _refuse_unknown(inner, value, here, origin)
            continue
        if not isinstance(value, list):
            name = ".".join(here)
            raise UsageError(f"{origin.of(here)}: '{name}' must be a list of tables: [[{name}]].")
        for index, item in enumerate(value):
            _refuse_unknown(inner, item, (*here, str(index)), origin)


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a table",
    type(None): "nothing",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _shown(value: Any) -> str:
    return f"{_kind(value)} ({reprlib.repr(value)})"


def _strict_int(value: Any, _: Any) -> int:
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if type(value) is not int:
        raise TypeError(f"must be a whole number, not {_shown(value)}")
    if not -(2**63) <= value < 2**63:
        raise TypeError("must be a whole number of at most 64 bits")
    return value


def _strict_float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"must be a number, not {_shown(value)}")
    if as_number(value) is None:
        raise TypeError("must be a finite number")
    return float(value)


def _strict_str(value: Any, _: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"must be text, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeError(f"is not UTF-8 ({value!a})") from None
    return value


def _strict_bool(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"must be true or false, not {_shown(value)}")
    return value


@functools.cache  # what it learns of a class takes 50 ms
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _strict_int)
    converter.register_structure_hook(float, _strict_float)
    converter.register_structure_hook(bool, _strict_bool)
    converter.register_structure_hook(str, _strict_str)

    def strict_tuple(value: Any, hint: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError(f"must be a list, not {_shown(value)}")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(converter.structure(item, typing.get_args(hint)[0]))
            except Exception as error:
                error.add_note(IterableValidationNote(str(index), index, hint))
                raise
        return tuple(items)

    converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is tuple, strict_tuple)
    return converter


def _structure(raw: dict[str, Any], origin: Origin) -> Config:
    try:
        return _converter().structure(raw, Config)
    except cattrs.BaseValidationError as group:
        path, error = _first_error(group)
        if isinstance(error, KeyError):
            table = path[:-1]
            raise UsageError(f"{origin.of(table)}: '{'.'.join(table)}' needs the key {error}.") from None
        raise UsageError(f"{origin.of(path)}: '{'.'.join(path)}' {error.args[0]}.") from None


def _first_error(error: BaseException) -> tuple[tuple[str, ...], BaseException]:
    """The first leaf of cattrs' tree of errors, with the path of keys that leads to it."""
    path: tuple[str, ...] = ()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        for note in reversed(getattr(error, "__notes__", [])):  # the innermost was noted first
            if isinstance(note, AttributeValidationNote):
                path = (*path, note.name)
            elif isinstance(note, IterableValidationNote):
                path = (*path, str(note.index))
    return path, error


def _check_bounds(value: Any, path: tuple[str, ...], origin: Origin) -> None:
    for item in dataclasses.fields(value):
        inner, here = getattr(value, item.name), (*path, item.name)
        if dataclasses.is_dataclass(inner):
            _check_bounds(inner, here, origin)
        elif isinstance(inner, tuple) and inner and dataclasses.is_dataclass(inner[0]):
            for index, element in enumerate(inner):
                _check_bounds(element, (*here, str(index)), origin)
        elif inner is not None and (fault := _fault(inner, item.metadata)):
            raise UsageError(f"{origin.of(here)}: '{'.'.join(here)}' {fault}.")


def _fault(value: Any, rules: Mapping[str, Any]) -> str | None:
    if (choices := rules.get("choices")) and value not in choices:
        return f"must be one of {', '.join(choices)}, not '{value}'{nearest(str(value), choices)}"
    if (low := rules.get("low")) is not None and value < low:
        return f"must be at least {figure(low)}, not {value}"
    if (high := rules.get("high")) is not None and value > high:
        return f"must be at most {figure(high)}, not {value}"
    if (above := rules.get("above")) is not None and value <= above:
        return f"must be more than {figure(above)}, not {value}"
    if rules.get("filled") and not value:
        return "must not be empty"
    return None


def figure(bound: float) -> str:
    """A bound for people: ``65536 -> '65,536'``, ``0.99 -> '0.99'``."""
    return f"{int(bound):,}" if bound == int(bound) and bound < 1e20 else f"{bound:g}"
