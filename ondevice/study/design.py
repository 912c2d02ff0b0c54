"""The design of a study: arms (any keys of a config) times seeds, read strictly from a TOML file.

An arm either begins with fresh weights or goes on from a checkpoint of another arm (``from``, ``at_tokens``), with a
decay tail or without. Whatever a machine's speed would decide must be given, so that only the arms differ. Pure but for
reading the file; knows no runs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import UsageError, nearest
from ondevice.run.config import config_of, parse_toml
from ondevice.run.config_check import Origin
from ondevice.run.directory import safe_name
from ondevice.run.schema import TAILS, Config
from ondevice.run.schema_key import LARGEST_SEED

__all__ = ["INTERVALS", "Arm", "Design", "Panel", "parse_design", "read_design"]

INTERVALS = 21
_SEEDED = (("train", "seed"), ("data", "seed"))
_MOST_ARMS, _MOST_SEEDS = 32, 64
_STUDY_KEYS = ("name", "question", "seeds", "intervals", "reference", "panel", "config", "arms")
_ARM_KEYS = ("name", "from", "at_tokens", "tokens", "tail", "config")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """How the kept checkpoints of every run are judged: prompts a source and the length of what is written."""

    per_source: int = 20
    max_new_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train. ``config`` is its own; of a fork (``parent``) what it changes are ``changes``, and it goes on
    at ``at_tokens`` for ``tokens`` more, with a ``tail`` of that shape or, without one, as the changes say."""

    name: str
    config: Config
    changes: tuple[str, ...] = ()
    parent: str | None = None
    at_tokens: int = 0
    tokens: int = 0
    tail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Design:
    """``reference`` is the arm that others are measured against; None: every pair is compared."""

    name: str
    question: str
    seeds: tuple[int, ...]
    intervals: int
    arms: tuple[Arm, ...]
    reference: str | None
    panel: Panel | None
    text: str

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def read_design(path: str, *, base: Path | None = None) -> Design:
    """Relative paths in the file count from ``base`` (None: from its folder). Raises UsageError naming file, line and
    key."""
    file = Path(os.path.expanduser(path))
    try:
        text = file.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such study file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a study file: it is not UTF-8 at byte {error.start}.") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a study file ({error.strerror or error}).") from error
    return parse_design(text, where=path, base=base or file.resolve().parent, name=safe_name(file.stem))


def parse_design(text: str, *, where: str, base: Path, name: str) -> Design:
    """`read_design` on text; ``base`` is what relative paths count from, ``name`` holds where the file gives none."""
    raw = parse_toml(text, where)
    origin = Origin(where, text)
    _refuse_unknown(raw, _STUDY_KEYS, (), origin)
    tables = raw.get("arms", [{"name": "run"}])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{origin.of(('arms',))}: 'arms' must be a list of tables: [[arms]].")
    if len(tables) > _MOST_ARMS:
        raise UsageError(f"{origin.of(('arms',))}: {len(tables)} arms; at most {_MOST_ARMS} make a study.")
    shared = _table(raw, "config", (), origin)
    intervals = _whole(raw, "intervals", (), origin, low=2, high=1_000, default=INTERVALS)
    arms: list[Arm] = []
    for index, table in enumerate(tables):
        arms.append(_arm(table, index, shared, arms, origin=origin, text=text, base=base))
    if "intervals" in raw:
        _refuse_other_intervals(intervals, arms, origin)
    return Design(
        name=_name(raw.get("name", name), ("name",), origin),
        question=str(raw.get("question", "")),
        seeds=_seeds(raw, origin),
        intervals=intervals,
        arms=tuple(arms),
        reference=_reference(raw, arms, origin),
        panel=_panel(raw, origin),
        text=text,
    )


def _refuse_other_intervals(intervals: int, arms: Sequence[Arm], origin: Origin) -> None:
    for arm in arms:
        parts = arm.config.chain.parts
        if parts and arm.parent is None and intervals != parts + 1:
            raise UsageError(
                f"{origin.of(('intervals',))}: a chain is measured at its beginning and after each part, so "
                f"'intervals' {intervals} needs chain.parts = {intervals - 1}, not {parts}, "
                f"in arm '{arm.name}'; or leave it out."
            )


def _refuse_unknown(raw: Mapping[str, Any], known: Sequence[str], path: tuple[str, ...], origin: Origin) -> None:
    for key in raw:
        if key not in known:
            hint = nearest(key, known) or f"; known here: {', '.join(known)}"
            raise UsageError(f"{origin.of((*path, key))}: unknown key '{'.'.join((*path, key))}'{hint}.")


def _table(raw: Mapping[str, Any], key: str, path: tuple[str, ...], origin: Origin) -> dict[str, Any]:
    table = raw.get(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"{origin.of((*path, key))}: '{'.'.join((*path, key))}' must be a table.")
    return table


def _whole(
    raw: Mapping[str, Any], key: str, path: tuple[str, ...], origin: Origin, *, low: int, high: int, default: int
) -> int:
    value = raw.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise UsageError(
            f"{origin.of((*path, key))}: '{'.'.join((*path, key))}' must be a whole number from {low:,} to {high:,}, "
            f"not {value!r}."
        )
    return value


def _name(value: Any, path: tuple[str, ...], origin: Origin) -> str:
    if not isinstance(value, str) or value != safe_name(value):
        raise UsageError(
            f"{origin.of(path)}: '{'.'.join(path)}' {value!r}: use lower case letters, digits, '.', '_' and '-'."
        )
    return value


def _seeds(raw: Mapping[str, Any], origin: Origin) -> tuple[int, ...]:
    seeds = raw.get("seeds")
    if not isinstance(seeds, list) or not seeds or len(seeds) > _MOST_SEEDS:
        raise UsageError(
            f"{origin.of(('seeds',))}: 'seeds' must be a list of 1 to {_MOST_SEEDS} whole numbers, such as [1, 2, 3]."
        )
    wrong = next((seed for seed in seeds if type(seed) is not int or not 0 <= seed <= LARGEST_SEED), None)
    if wrong is not None or len(set(seeds)) != len(seeds):
        what = f"{wrong!r} is no seed" if wrong is not None else "a seed is named twice"
        raise UsageError(f"{origin.of(('seeds',))}: 'seeds': {what}; give different whole numbers from 0.")
    return tuple(seeds)


def _reference(raw: Mapping[str, Any], arms: Sequence[Arm], origin: Origin) -> str | None:
    reference, names = raw.get("reference"), [arm.name for arm in arms]
    if reference is None:
        return None
    if reference not in names:
        raise UsageError(
            f"{origin.of(('reference',))}: 'reference' {reference!r} is no arm{nearest(str(reference), names)}."
        )
    return str(reference)


def _panel(raw: Mapping[str, Any], origin: Origin) -> Panel | None:
    if "panel" not in raw:
        return None
    table = _table(raw, "panel", (), origin)
    _refuse_unknown(table, ("per_source", "max_new_tokens"), ("panel",), origin)
    return Panel(
        per_source=_whole(table, "per_source", ("panel",), origin, low=1, high=1_000, default=Panel.per_source),
        max_new_tokens=_whole(table, "max_new_tokens", ("panel",), origin, low=1, high=4_096, default=64),
    )


def _arm(
    table: dict[str, Any],
    index: int,
    shared: dict[str, Any],
    before: Sequence[Arm],
    *,
    origin: Origin,
    text: str,
    base: Path,
) -> Arm:
    here = ("arms", str(index))
    _refuse_unknown(table, _ARM_KEYS, here, origin)
    name = _name(table.get("name", ""), (*here, "name") if "name" in table else here, origin)
    if name in {arm.name for arm in before}:
        raise UsageError(f"{origin.of((*here, 'name'))}: two arms are called '{name}'.")
    own = _table(table, "config", here, origin)
    if "from" in table:
        return _fork(table, here, name, own, before, origin)
    odd = next((key for key in ("at_tokens", "tokens", "tail") if key in table), None)
    if odd is not None:
        raise UsageError(f"{origin.of((*here, odd))}: '{odd}' is for an arm that goes on from another: add from = ARM.")
    merged = _merged(shared, own)
    where = _ArmOrigin(origin.where, text, own, index)
    _refuse_seeds(merged, where)
    config = _complete(config_of(merged, where, base=base), where)
    return Arm(name=name, config=dataclasses.replace(config, name=""))


class _ArmOrigin(Origin):
    """Keys of a config that came from an arm where it gives them, else from the table all arms share."""

    def __init__(self, where: str, text: str, own: Mapping[str, Any], index: int) -> None:
        super().__init__(where, text)
        self._own, self._index = own, index

    def of(self, path: tuple[str, ...]) -> str:
        inner: Any = self._own
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if inner is not None:
            return super().of(("arms", str(self._index), "config", *path))
        return super().of(("config", *path))


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Tables key by key; everything else, lists included, is replaced."""
    merged = dict(shared)
    for key, value in own.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _refuse_seeds(raw: Mapping[str, Any], origin: Origin) -> None:
    for table, key in (*_SEEDED, ("eval", "count")):
        inner = raw.get(table)
        if isinstance(inner, dict) and key in inner:
            instead = "'intervals'" if key == "count" else "'seeds'"
            raise UsageError(f"{origin.of((table, key))}: '{table}.{key}' is set by the study; use {instead} for it.")


def _complete(config: Config, origin: Origin) -> Config:
    """Everything is given that would else follow from how fast or large this machine is."""
    train, model = config.train, config.model
    if not config.chain.parts and (train.tokens, train.steps, train.epochs) == (None, None, None):
        raise UsageError(f"{origin.of(('train',))}: arms are compared at equal tokens, so say how many: train.tokens.")
    if train.batch is None:
        raise UsageError(f"{origin.of(('train',))}: say train.batch, so that every arm makes the same steps.")
    if not model.base and (model.layers is None or model.width is None):
        raise UsageError(f"{origin.of(('model',))}: say model.layers and model.width, so that every arm has one shape.")
    precision = "fp32" if train.precision == "auto" else train.precision
    return dataclasses.replace(config, train=dataclasses.replace(train, precision=precision))


def _fork(
    table: dict[str, Any],
    here: tuple[str, ...],
    name: str,
    own: dict[str, Any],
    before: Sequence[Arm],
    origin: Origin,
) -> Arm:
    parent = next((arm for arm in before if arm.name == table["from"]), None)
    if parent is None or parent.parent is not None:
        fresh = [arm.name for arm in before if arm.parent is None]
        raise UsageError(
            f"{origin.of((*here, 'from'))}: 'from' {table['from']!r} is no earlier arm that begins with fresh weights"
            f"{nearest(str(table['from']), fresh)}."
        )
    for key in ("at_tokens", "tokens"):
        if key not in table:
            raise UsageError(f"{origin.of(here)}: an arm with 'from' needs '{key}'.")
    tail = table.get("tail")
    if tail is not None and tail not in TAILS:
        raise UsageError(f"{origin.of((*here, 'tail'))}: 'tail' must be one of {', '.join(TAILS)}, not {tail!r}.")
    return Arm(
        name=name,
        config=parent.config,
        changes=tuple(_changes(own, (), (*here, "config"), origin)),
        parent=parent.name,
        at_tokens=_whole(table, "at_tokens", here, origin, low=1, high=10**12, default=0),
        tokens=_whole(table, "tokens", here, origin, low=1, high=10**12, default=0),
        tail=tail,
    )


def _changes(table: Mapping[str, Any], path: tuple[str, ...], here: tuple[str, ...], origin: Origin) -> list[str]:
    """A table as ``key=value`` changes. Raises UsageError for values that no change can say."""
    found: list[str] = []
    for key, value in table.items():
        inner = (*path, key)
        if isinstance(value, dict):
            found += _changes(value, inner, here, origin)
        elif isinstance(value, bool | int | float | str):
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            found.append(f"{'.'.join(inner)}={shown}")
        else:
            raise UsageError(f"{origin.of((*here, *inner))}: '{'.'.join(inner)}': a fork cannot change this.")
    return found
