"""Reads the wish: a TOML file plus ``--set`` changes, strictly, into `ondevice.run.schema.Config`.

An unknown key, a wrong type or a value out of bounds is refused with the file, the line, the key and the nearest
name. Also keeps the limits of a run (``limits.json``), which are checked the same way.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ondevice
from ondevice.errors import DataError, UsageError, nearest
from ondevice.run.config_check import Origin, checked, hint_of
from ondevice.run.config_text import explain, to_toml
from ondevice.run.directory import home
from ondevice.run.files import read_sealed, write_sealed
from ondevice.run.schema import LIMITS_VERSION, Config, Limits, SampleConfig

__all__ = [
    "LIMITS_VERSION",
    "change_limits",
    "changed_keys",
    "checked_sample",
    "config_of",
    "explain",
    "limit_words",
    "load_config",
    "parse_config",
    "parse_toml",
    "preset_folder",
    "preset_names",
    "read_limits",
    "read_wish",
    "to_toml",
    "write_limits",
]


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

    ``name`` is a path or a preset's name; None starts from the defaults. Paths become absolute: relative ones count
    from the file's folder, those in ``changes`` from the current folder. Raises UsageError.

    >>> load_config("shakespeare-char", changes=["train.lr=1e-3"])  # doctest: +SKIP
    """
    if name is None:
        return parse_config("", where="--set", base=Path.cwd(), changes=changes)
    path, preset = Path(os.path.expanduser(name)), preset_folder() / f"{name}.toml"
    if not os.path.isfile(path) and os.path.isfile(preset):
        path = preset
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(
            f"{name}: no such config file and no preset of that name{nearest(name, preset_names())}; "
            f"presets: {', '.join(preset_names())}."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a config file: it is not UTF-8 at byte {error.start}.") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a config file ({error.strerror or error}).") from error
    return parse_config(text, where=str(path), base=path.resolve().parent, changes=changes)


def read_wish(path: Path) -> Config:
    """The config that a run keeps (``config.toml``, or what a revision wrote beside it). Raises UsageError where it was
    edited into something else, DataError where it cannot be read."""
    mend = f"repair it with `ondevice doctor {path.parent.name}`, or restore it from a copy of the run"
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; {mend}.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {mend}.") from error
    return parse_config(text, where=str(path), base=path.parent)


def parse_config(text: str, *, where: str, base: Path, changes: Sequence[str] = ()) -> Config:
    """`load_config` on text; ``where`` names it in errors, ``base`` is what relative paths in it count from."""
    raw = parse_toml(text, where)
    origin = Origin(where, text)
    for change in changes:
        origin.changed.add(_apply_change(raw, change))
    return config_of(raw, origin, base=base)


def config_of(raw: dict[str, Any], origin: Origin, *, base: Path) -> Config:
    """The config in tables that came from ``origin``; relative paths count from ``base``. Raises UsageError."""
    return _absolute_paths(checked(raw, origin), base, origin)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML file, unchecked. Raises UsageError naming the line."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{where}: not valid TOML: nested too deeply.") from error
    except ValueError as error:
        place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        line = f":{place[1] or text.count(chr(10)) + 1}" if place else ""
        message = str(error)[: place.start()] if place else str(error)
        raise UsageError(f"{where}{line}: not valid TOML: {message}.") from error


def _apply_change(raw: dict[str, Any], change: str) -> tuple[str, ...]:
    """Puts ``a.b=value`` into the parsed file and gives the path of the key."""
    key, equals, value = change.partition("=")
    parts = tuple(part.strip() for part in key.split("."))
    if not equals or not all(parts):
        raise UsageError(f"--set {change}: write it as key=value, such as train.lr=1e-3.")
    table = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {change}: '{part}' is a value, not a table.")
    table[parts[-1]] = _change_value(value.strip(), hint_of(parts))
    return parts


def _change_value(text: str, hint: Any) -> Any:
    """What a value on the command line means: TOML where it is, else text; text keys need no quotes."""
    try:
        value: Any = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        value = text
    if hint is str and not isinstance(value, str):
        return text
    if hint in (float, float | None) and isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.|\.\d+)", value):
        return float(value)
    return value


def _absolute_paths(config: Config, base: Path, origin: Origin) -> Config:
    def absolute(path: str, key: tuple[str, ...]) -> str:
        start = Path.cwd() if origin.is_changed(key) else base
        return str((start / os.path.expanduser(path)).absolute()) if path else path

    sources = tuple(
        dataclasses.replace(source, path=absolute(source.path, ("data", "sources"))) for source in config.data.sources
    )
    tokenizer_path = absolute(config.tokenizer.path, ("tokenizer", "path"))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, sources=sources, contract=absolute(config.data.contract, ("data", "contract"))
        ),
        tokenizer=dataclasses.replace(config.tokenizer, path=tokenizer_path),
        model=dataclasses.replace(
            config.model,
            base=_pulled(config.model.base) or absolute(config.model.base, ("model", "base")),
            adapter=_pulled(config.model.adapter) or absolute(config.model.adapter, ("model", "adapter")),
        ),
    )


def _pulled(name: str) -> str:
    """The folder of a model that `ondevice pull` fetched under this name, where no path is meant."""
    folder = home() / "models" / name.replace("/", "--")
    return str(folder) if name and not name.startswith((".", "/", "~")) and folder.is_dir() else ""


def changed_keys(changes: Sequence[str], table: str) -> dict[str, Any]:
    """What ``key=value`` changes say about one table, as they say it: ``["fit.threads=2"] -> {"threads": 2}``."""
    raw: dict[str, Any] = {}
    for change in changes:
        _apply_change(raw, change)
    found: dict[str, Any] = raw.get(table, {})
    return found


def change_limits(limits: Limits, changes: dict[str, Any], *, where: str = "limits") -> Limits:
    """Limits with some keys changed, checked as a config file is. Raises UsageError."""
    raw = {**{key: value for key, value in dataclasses.asdict(limits).items() if value is not None}, **changes}
    return checked({"limits": raw}, Origin(where, "")).limits


def checked_sample(settings: dict[str, Any], *, where: str) -> SampleConfig:
    """Some keys of ``[sample]``, checked as a config file is; the others have their defaults. Raises UsageError."""
    return checked({"sample": settings}, Origin(where, "")).sample


def read_limits(path: Path) -> Limits:
    """What `write_limits` wrote. Raises DataError or UsageError for other content, CheckpointError for a newer one."""
    raw = read_sealed(path, version=LIMITS_VERSION)
    changes = {key: value for key, value in raw.items() if key not in ("v", "after") and value is not None}
    return change_limits(Limits(), changes, where=str(path))


def limit_words(value: float | bool | str | None) -> str:
    """A value of `Limits` for people.

    >>> limit_words(45.0), limit_words(False), limit_words(None)
    ('45', 'no', 'not given')
    """
    if value is None or isinstance(value, bool):
        return {None: "not given", True: "yes", False: "no"}[value]
    return value if isinstance(value, str) else f"{value:,.10g}"


def write_limits(path: Path, limits: Limits, *, after: Mapping[str, Any] | None = None) -> None:
    """Puts the limits that hold now on disk. Raises ResourceError or DataError.

    ``after``: how far the story goes (`ondevice.run.audit.end_of_story`), for a change that it will not tell of.
    """
    body = {"v": LIMITS_VERSION, **dataclasses.asdict(limits)}
    write_sealed(path, body if after is None else {**body, "after": dict(after)})
