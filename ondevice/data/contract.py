"""The contract of a task (``contract.toml``): what every row must be, what is measured, and the rule that decides.

Written by a person before any training. Read here, and enforced on rows by `ondevice.data.check`; knows no files of
rows and no models.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.data.examples import Example
from ondevice.errors import UsageError, nearest
from ondevice.run.config_check import Origin

__all__ = ["CONTRACT_VERSION", "Contract", "Decision", "OutputRule", "read_contract"]

CONTRACT_VERSION = 1
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}
_SECTIONS = {
    "": ("v", "task", "instruction", "scope", "input", "output", "files", "decision"),
    "input": ("fields", "max_chars"),
    "output": ("form", "labels", "fields", "max_chars"),
    "files": ("train", "held_out"),
    "decision": ("primary", "guards", "note"),
}
_FORMS = ("json", "label", "text")


@dataclass(frozen=True, kw_only=True)
class OutputRule:
    """``json``: an object with exactly ``fields``, each a list of allowed labels or the name of a type. ``label``: one
    of ``labels``. ``text``: anything that is not empty."""

    form: str
    labels: tuple[str, ...] = ()
    fields: Mapping[str, tuple[Any, ...] | str] = field(default_factory=dict)
    max_chars: int | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The rule fixed before any score: ``primary`` must rise, each of ``guards`` may fall by at most its tolerance."""

    primary: str
    guards: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """``instruction``: what every row asks, any where empty. Paths of files count from the contract's folder."""

    task: str
    output: OutputRule
    instruction: str = ""
    scope: str = ""
    required: tuple[str, ...] = ()
    max_input_chars: int | None = None
    train: Path | None = None
    held_out: Path | None = None
    decision: Decision | None = None

    def faults(self, row: Mapping[str, Any], example: Example) -> Iterator[str]:
        """What of a row breaks the contract, a sentence each."""
        for name in self.required:
            value = row.get(name)
            if value is None or (isinstance(value, str) and not value.strip()):
                yield f"the contract wants the field '{name}', which is {'empty' if name in row else 'not there'}."
        if self.instruction and row.get("instruction") != self.instruction:
            yield "its instruction is not the one of the contract; every row of a task asks the same."
        size = len(str(row.get("input") or example.asked))
        if self.max_input_chars is not None and size > self.max_input_chars:
            yield f"its input has {size:,} letters, beyond the scope of {self.max_input_chars:,}."
        yield from self._answer_faults(example.answer)

    def _answer_faults(self, answer: str) -> Iterator[str]:
        rule = self.output
        if rule.max_chars is not None and len(answer) > rule.max_chars:
            yield f"its answer has {len(answer):,} letters, more than {rule.max_chars:,}."
        if rule.form == "label" and answer not in rule.labels:
            yield f"its answer is {_short(answer)}, {_wanted(answer, rule.labels)}."
        if rule.form == "json":
            yield from self._object_faults(answer)

    def _object_faults(self, answer: str) -> Iterator[str]:
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError) as error:
            yield f"its answer is not valid JSON ({error})."
            return
        if not isinstance(found, dict):
            yield "its answer is JSON but no object."
            return
        fields = self.output.fields
        for name in [name for name in fields if name not in found]:
            yield f"its answer has no key '{name}'{nearest(name, found)}; the contract names {_list(fields)}."
        for name in [name for name in found if name not in fields]:
            yield f"its answer has the key '{name}', which the contract does not name{nearest(name, fields)}."
        for name, allowed in fields.items():
            if name in found and not _allowed(found[name], allowed):
                yield f"its answer has {name} = {_short(found[name])}, {_wanted(found[name], allowed)}."


def _allowed(value: Any, allowed: tuple[Any, ...] | str) -> bool:
    if isinstance(allowed, tuple):
        return any(type(value) is type(label) and value == label for label in allowed)
    if isinstance(value, bool):  # which Python counts among the whole numbers
        return allowed == "boolean"
    return isinstance(value, _TYPES[allowed]) and not (isinstance(value, str) and not value.strip())


def _wanted(value: Any, allowed: tuple[Any, ...] | str) -> str:
    if isinstance(allowed, str):
        return f"where the contract wants a {allowed}{' that is not empty' if allowed == 'string' else ''}"
    return f"which is none of the labels{nearest(str(value), [str(each) for each in allowed])}: {_list(allowed)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _list(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def read_contract(path: Path) -> Contract:
    """Raises UsageError, with file and line, for what is no contract.

    >>> read_contract(Path("contract.toml")).output.labels
    ('billing', 'bug')
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a contract ({error}).") from error
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML ({error}).") from error
    return _Reader(path, Origin(str(path), text)).contract(raw)


class _Reader:
    """Takes a parsed contract apart, strictly."""

    def __init__(self, path: Path, origin: Origin) -> None:
        self._folder, self._origin = path.parent, origin

    def contract(self, raw: dict[str, Any]) -> Contract:
        self._known(raw, "")
        for name in ("input", "output", "files", "decision"):
            self._known(self._table(raw, name), name)
        version = raw.get("v", CONTRACT_VERSION)
        if version != CONTRACT_VERSION:
            raise self._error(("v",), f"version {version!r}; this program reads {CONTRACT_VERSION}")
        files, given = self._table(raw, "files"), self._table(raw, "input")
        return Contract(
            task=self._text(raw, ("task",), needed=True),
            instruction=self._text(raw, ("instruction",)),
            scope=self._text(raw, ("scope",)),
            required=self._texts(given, ("input", "fields")),
            max_input_chars=self._count(given, ("input", "max_chars")),
            output=self._output(self._table(raw, "output")),
            train=self._path(files, ("files", "train")),
            held_out=self._path(files, ("files", "held_out")),
            decision=self._decision(raw),
        )

    def _output(self, raw: dict[str, Any]) -> OutputRule:
        form = self._text(raw, ("output", "form"), needed=True)
        if form not in _FORMS:
            raise self._error(("output", "form"), f"'{form}' is no form{nearest(form, _FORMS)}: {_list(_FORMS)}")
        labels = self._texts(raw, ("output", "labels"))
        if (form == "label") != bool(labels):
            raise self._error(("output",), "labels and form = 'label' belong together")
        fields = {name: self._field(name, value) for name, value in self._table(raw, "fields").items()}
        if (form == "json") != bool(fields):
            raise self._error(("output",), "form = 'json' and a table [output.fields] belong together")
        return OutputRule(form=form, labels=labels, fields=fields, max_chars=self._count(raw, ("output", "max_chars")))

    def _field(self, name: str, value: Any) -> tuple[Any, ...] | str:
        """Allowed labels, or the name of a type."""
        where = ("output", "fields", name)
        if isinstance(value, str):
            if value not in _TYPES:
                raise self._error(where, f"'{value}' is no type{nearest(value, _TYPES)}: {_list(_TYPES)}")
            return value
        if not isinstance(value, list) or not value or any(isinstance(each, dict | list) for each in value):
            raise self._error(where, 'write a list of allowed labels, or a type such as "string"')
        return tuple(value)

    def _decision(self, raw: dict[str, Any]) -> Decision | None:
        if "decision" not in raw:
            return None
        table = self._table(raw, "decision")
        guards = self._table(table, "guards")
        primary = self._text(table, ("decision", "primary"), needed=True)
        metrics = self._metrics(self._table(raw, "output"))
        for place, name in [
            (("decision", "primary"), primary),
            *((("decision", "guards", each), each) for each in guards),
        ]:
            if name not in metrics:
                raise self._error(
                    place, f"'{name}' is not measured{nearest(name, metrics)}; measured are {_list(metrics)}"
                )
        for name, tolerance in guards.items():
            if (
                name == primary
                or isinstance(tolerance, bool)
                or not isinstance(tolerance, int | float)
                or tolerance < 0
            ):
                raise self._error(
                    ("decision", "guards", name), "a guard is another metric, with a tolerance of 0 or more"
                )
        return Decision(primary=primary, guards=guards, note=self._text(table, ("decision", "note")))

    def _metrics(self, output: dict[str, Any]) -> list[str]:
        """What `ondevice.evaluate.task` measures of such answers."""
        fields = self._table(output, "fields")
        return ["parse", "keys", "labels", *(f"label:{name}" for name in fields)] if fields else ["exact"]

    def _known(self, raw: Mapping[str, Any], section: str) -> None:
        for key in raw:
            if key not in _SECTIONS[section]:
                path = (section, key) if section else (key,)
                raise self._error(path, f"unknown key{nearest(key, _SECTIONS[section])}")

    def _table(self, raw: Mapping[str, Any], name: str) -> dict[str, Any]:
        found = raw.get(name, {})
        if not isinstance(found, dict):
            raise self._error((name,), "must be a table")
        return found

    def _text(self, raw: Mapping[str, Any], path: Sequence[str], *, needed: bool = False) -> str:
        value = raw.get(path[-1], "")
        if not isinstance(value, str) or (needed and not value.strip()):
            raise self._error(path, "must be a text" + (" that is not empty" if needed else ""))
        return value

    def _texts(self, raw: Mapping[str, Any], path: Sequence[str]) -> tuple[str, ...]:
        value = raw.get(path[-1], [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self._error(path, "must be a list of texts")
        return tuple(value)

    def _count(self, raw: Mapping[str, Any], path: Sequence[str]) -> int | None:
        value = raw.get(path[-1])
        if value is not None and (type(value) is not int or value < 1):
            raise self._error(path, "must be a whole number above 0")
        return value

    def _path(self, raw: Mapping[str, Any], path: Sequence[str]) -> Path | None:
        text = self._text(raw, path)
        return self._folder / text if text else None

    def _error(self, path: Sequence[str], what: str) -> UsageError:
        return UsageError(f"{self._origin.of(tuple(path))}: contract, '{'.'.join(path)}': {what}.")
