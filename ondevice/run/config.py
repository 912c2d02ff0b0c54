"""Reads the wish: a TOML file plus ``--set`` changes, strictly, into `ondevice.run.schema.Config`.

An unknown key, a wrong type or a value out of bounds is refused with the file, the line, the key and the nearest
name. Writes a config back as TOML (``config.toml`` of a run) and explains every key. Knows no meaning beyond the
schema's own bounds.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cattrs

import ondevice
from ondevice.errors import UsageError, nearest
from ondevice.run.schema import Config, Limits

__all__ = ["change_limits", "explain", "load_config", "parse_config", "preset_folder", "preset_names", "to_toml"]


def preset_folder() -> Path:
    """Where the shipped presets lie: beside the package when installed, else at the root of the checkout."""
    package = Path(ondevice.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """Names of the shipped presets, without ``.toml``."""
    return sorted(path.stem for path in preset_folder().glob("*.toml"))


def load_config(name: str | None, *, changes: Sequence[str] = ()) -> Config:
    """The config in a file or shipped preset, with ``key=value`` changes applied.

    ``name`` is a path or a preset's name; None starts from the defaults. Paths of sources become absolute: relative
    ones count from the file's folder. Raises UsageError.

    >>> load_config("shakespeare-char", changes=["train.lr=1e-3"])  # doctest: +SKIP
    """
    if name is None:
        return parse_config("", where="--set", base=Path.cwd(), changes=changes)
    path = Path(name).expanduser()
    if not path.is_file() and (preset := preset_folder() / f"{name}.toml").is_file():
        path = preset
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise UsageError(
            f"{name}: no such config file and no preset of that name{nearest(name, preset_names())}; "
            f"presets: {', '.join(preset_names())}."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a config file ({error}).") from error
    return parse_config(text, where=str(path), base=path.resolve().parent, changes=changes)


def parse_config(text: str, *, where: str, base: Path, changes: Sequence[str] = ()) -> Config:
    """`load_config` on text; ``where`` names it in errors, ``base`` is what relative paths count from."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: not valid TOML: {error}.") from error
    origin = _Origin(where, text)
    for change in changes:
        _apply_change(raw, change)
        origin.changed.add(change.partition("=")[0].strip())
    _refuse_unknown(Config, raw, (), origin)
    config = _structure(raw, origin)
    _check_bounds(config, (), origin)
    return _absolute_paths(config, base)


class _Origin:
    """Finds the file and line a key came from, for error messages."""

    def __init__(self, where: str, text: str) -> None:
        self.where, self.lines, self.changed = where, text.splitlines(), set[str]()

    def of(self, path: tuple[str, ...]) -> str:
        key = ".".join(path)
        if key in self.changed:
            return "--set"
        line = self._line(path)
        return f"{self.where}:{line}" if line else self.where

    def _line(self, path: tuple[str, ...]) -> int | None:
        names = [part for part in path if not part.isdigit()]
        table: list[str] = []
        for number, line in enumerate(self.lines, 1):
            if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
                table = [part.strip().strip("\"'") for part in header.group(1).split(".")]
                if table == names:
                    return number
            elif (entry := re.match(r"\s*([\w.\"'-]+)\s*=", line)) and [
                *table,
                *(part.strip("\"'") for part in entry.group(1).split(".")),
            ] == names:
                return number
        return None


def _apply_change(raw: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {change}: write it as key=value, such as train.lr=1e-3.")
    try:
        parsed: Any = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    table = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {change}: '{part}' is a value, not a table.")
    table[parts[-1]] = parsed


def _nested(hint: Any) -> type | None:
    """The dataclass a field's type holds, directly or as items of a tuple."""
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
            return candidate
    return None


def _refuse_unknown(cls: type, raw: Any, path: tuple[str, ...], origin: _Origin) -> None:
    if not isinstance(raw, dict):
        raise UsageError(f"{origin.of(path)}: '{'.'.join(path)}' must be a table, not {_kind(raw)}.")
    hints = typing.get_type_hints(cls)
    for key, value in raw.items():
        here = (*path, key)
        if key not in hints:
            known = ", ".join(hints)
            hint = nearest(key, hints) or f"; known here: {known}"
            raise UsageError(f"{origin.of(here)}: unknown key '{'.'.join(here)}'{hint}.")
        inner = _nested(hints[key])
        if inner is None:
            continue
        if typing.get_origin(hints[key]) is tuple:
            if not isinstance(value, list):
                raise UsageError(
                    f"{origin.of(here)}: '{'.'.join(here)}' must be a list of tables: [[{'.'.join(here)}]]."
                )
            for index, item in enumerate(value):
                _refuse_unknown(inner, item, (*here, str(index)), origin)
        else:
            _refuse_unknown(inner, value, here, origin)


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a table",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _strict_int(value: Any, _: Any) -> int:
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if type(value) is not int:
        raise TypeError(f"must be a whole number, not {_kind(value)} ({value!r})")
    return value


def _strict_float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"must be a number, not {_kind(value)} ({value!r})")
    if value != value or value in (float("inf"), float("-inf")):
        raise TypeError(f"must be a finite number, not {value}")
    return float(value)


def _strict_exact(cls: type) -> Any:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise TypeError(f"must be {_KINDS[cls]}, not {_kind(value)} ({value!r})")
        return value

    return hook


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _strict_int)
    converter.register_structure_hook(float, _strict_float)
    converter.register_structure_hook(bool, _strict_exact(bool))
    converter.register_structure_hook(str, _strict_exact(str))
    converter.register_structure_hook_func(
        lambda hint: typing.get_origin(hint) is tuple,
        lambda value, hint: tuple(
            converter.structure(item, typing.get_args(hint)[0]) for item in _strict_exact(list)(value, hint)
        ),
    )
    return converter


def _structure(raw: dict[str, Any], origin: _Origin) -> Config:
    try:
        return _converter().structure(raw, Config)
    except cattrs.BaseValidationError as group:
        path, error = _first_error(group)
        if isinstance(error, KeyError):
            table = path[:-1]
            raise UsageError(f"{origin.of(table)}: '{'.'.join(table)}' needs the key {error}.") from None
        key = ".".join(path)
        raise UsageError(f"{origin.of(path)}: '{key}' {error}.") from None


def _first_error(error: BaseException, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], BaseException]:
    """The first leaf of cattrs' tree of errors, with the path of keys that leads to it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        for note in getattr(error, "__notes__", []):
            name = getattr(note, "name", None)
            if name is not None:
                path = (*path, str(name))
    return path, error


def _check_bounds(value: Any, path: tuple[str, ...], origin: _Origin) -> None:
    for item in dataclasses.fields(value):
        inner, here = getattr(value, item.name), (*path, item.name)
        if dataclasses.is_dataclass(inner):
            _check_bounds(inner, here, origin)
        elif isinstance(inner, tuple) and inner and dataclasses.is_dataclass(inner[0]):
            for index, element in enumerate(inner):
                _check_bounds(element, (*here, str(index)), origin)
        elif inner is not None and (fault := _fault(inner, item.metadata)):
            raise UsageError(f"{origin.of(here)}: '{'.'.join(here)}' {fault}.")


def _fault(value: Any, rules: typing.Mapping[str, Any]) -> str | None:
    if (choices := rules.get("choices")) and value not in choices:
        return f"must be one of {', '.join(choices)}, not '{value}'{nearest(str(value), choices)}"
    if (low := rules.get("low")) is not None and value < low:
        return f"must be at least {low:g}, not {value:g}"
    if (high := rules.get("high")) is not None and value > high:
        return f"must be at most {high:g}, not {value:g}"
    if (above := rules.get("above")) is not None and value <= above:
        return f"must be more than {above:g}, not {value:g}"
    return None


def _absolute_paths(config: Config, base: Path) -> Config:
    def absolute(path: str) -> str:
        return str((base / Path(path).expanduser()).absolute()) if path else path

    sources = tuple(dataclasses.replace(source, path=absolute(source.path)) for source in config.data.sources)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, sources=sources),
        tokenizer=dataclasses.replace(config.tokenizer, path=absolute(config.tokenizer.path)),
    )


def change_limits(limits: Limits, changes: dict[str, Any]) -> Limits:
    """Limits with some keys changed, checked as a config file is. Raises UsageError."""
    origin = _Origin("limits", "")
    raw = {**{key: value for key, value in dataclasses.asdict(limits).items() if value is not None}, **changes}
    _refuse_unknown(Config, {"limits": raw}, (), origin)
    config = _structure({"limits": raw}, origin)
    _check_bounds(config, (), origin)
    return config.limits


def to_toml(config: Config) -> str:
    """The config as TOML that parses back to an equal value; unset keys are left out."""
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
    # JSON's escapes are TOML's, except that TOML also wants DEL escaped.
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, str)
        else (json.dumps(value))
    )


def explain(cls: type = Config, path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Every key of the schema: ``key, type, default, unit, choices, doc``."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        here = (*path, item.name)
        inner = _nested(hints[item.name])
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
            "doc": item.metadata["doc"],
        }


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _type_name(next(arg for arg in typing.get_args(hint) if arg is not type(None)))
    if typing.get_origin(hint) is tuple:
        return "list of " + _type_name(typing.get_args(hint)[0])
    return {int: "whole number", float: "number", bool: "true/false", str: "text"}[hint]
