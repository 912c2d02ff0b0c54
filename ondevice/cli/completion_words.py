"""What may come next on a line of ``ondevice``: commands, flags, values and names, from the parsers themselves.

Called at each press of Tab, so it imports only the command on the line, and nothing that takes long. Never raises for
what a person typed: where nothing is known, nothing is offered.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from ondevice.errors import OndeviceError
from ondevice.run.directory import find_run, home, list_runs
from ondevice.run.store import Store

__all__ = ["candidates"]

Candidates = Iterable[tuple[str, str]]  # (word, what it is)

_FILES = frozenset({"run", "runs", "target", "dataset", "file", "path", "out", "data"})  # a file or folder will do
_PLAIN = re.compile(r"[\w.,+=:@%/\[\]-]+")
_FREE = frozenset({"prompt", "name", "new_name", "reason", "stop"})


def candidates(current: str, before: list[str]) -> tuple[list[tuple[str, str]], bool]:
    """The words that may stand for ``current`` after the words ``before``, and whether files may stand there too."""
    from ondevice.cli.main import COMMANDS, make_parser

    if not before:
        commands = [(name, text) for name, (_, text) in COMMANDS.items()]
        return _fitting([*commands, ("--help", ""), ("--version", "")], current), False
    name, *words = before
    if name == "help" and not words:
        return _fitting([(each, text) for each, (_, text) in COMMANDS.items()], current), False
    if name not in COMMANDS:
        return [], False
    place = _Place(name, make_parser(name))
    for word in words:
        place.take(word)
    return place.offer(current)


def _fitting(found: Candidates, current: str) -> list[tuple[str, str]]:
    """Those that begin so; no name that a shell would take for more than a name."""
    return [each for each in dict(found).items() if each[0].startswith(current) and _PLAIN.fullmatch(each[0])]


class _Place:
    """How far the words before have led into a command's parser."""

    def __init__(self, command: str, parser: argparse.ArgumentParser) -> None:
        self._command, self._parser = command, parser
        self._positionals = _positionals(parser)
        self._given: list[str] = []
        self._awaited: argparse.Action | None = None  # a flag whose value comes next
        self._flags_over = False

    def take(self, word: str) -> None:
        if self._awaited is not None:
            self._awaited = None
        elif word == "--" and not self._flags_over:
            self._flags_over = True
        elif word.startswith("-") and not self._flags_over:
            flag, equals, _ = word.partition("=")
            action = self._parser._option_string_actions.get(flag)
            if action is not None and not equals and action.nargs != 0:
                self._awaited = action
        else:
            self._take_positional(word)

    def _take_positional(self, word: str) -> None:
        action = self._positionals[0] if self._positionals else None
        if isinstance(action, argparse._SubParsersAction):
            self._command = f"{self._command} {word}"
            self._parser = action.choices.get(word, argparse.ArgumentParser(add_help=False))
            self._positionals = _positionals(self._parser)
            return
        self._given.append(word)
        if action is not None and action.nargs not in ("*", "+"):
            self._positionals = self._positionals[1:]

    def offer(self, current: str) -> tuple[list[tuple[str, str]], bool]:
        if self._awaited is not None and not (self._awaited.nargs == "?" and current.startswith("-")):
            return self._values(self._awaited, current)
        if current.startswith("-") and not self._flags_over:
            return self._flags(current)
        if self._positionals:
            return self._values(self._positionals[0], current)
        return self._flags(current) if not current else ([], False)

    def _flags(self, current: str) -> tuple[list[tuple[str, str]], bool]:
        flag, equals, value = current.partition("=")
        action = self._parser._option_string_actions.get(flag)
        if equals and action is not None:
            found, files = self._values(action, value)
            return [(f"{flag}={word}", text) for word, text in found], files
        shown = [
            (option, each.help or "")
            for each in self._parser._actions
            if each.help != argparse.SUPPRESS
            for option in each.option_strings
            if option.startswith("--")
        ]
        return _fitting(shown, current), False

    def _values(self, action: argparse.Action, current: str) -> tuple[list[tuple[str, str]], bool]:
        if isinstance(action, argparse._SubParsersAction):
            about = {each.dest: each.help or "" for each in action._choices_actions}
            return _fitting(((name, about.get(name, "")) for name in action.choices), current), False
        if action.choices is not None:
            return _fitting(((str(choice), "") for choice in action.choices), current), False
        if action.dest in _FREE:
            return [], False
        source = _SOURCES.get((self._command, action.dest)) or _SOURCES.get(("", action.dest))
        found: list[tuple[str, str]] = []
        with suppress(OndeviceError, OSError):  # a home that cannot be read has no names to offer
            found = _fitting(source(current, self._given), current) if source else []
        return found, action.dest in _FILES and (not found or current.startswith(("~", "/", ".")))


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


# --- where names come from: (what is typed, positionals before) -> (word, what it is) ---------------------------------


def _runs(_: str, given: list[str]) -> Iterator[tuple[str, str]]:
    yield from ((run.name, "run") for run in list_runs() if run.name not in given)


def _presets(_: str, __: list[str]) -> Iterator[tuple[str, str]]:
    from ondevice.run.config import preset_names

    yield from ((name, "preset") for name in preset_names())


def _presets_and_runs(current: str, given: list[str]) -> Iterator[tuple[str, str]]:
    yield from _presets(current, given)
    yield from _runs(current, given)


def _datasets(_: str, __: list[str]) -> Iterator[tuple[str, str]]:
    folder = home() / "datasets"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "dataset.json").exists():
            yield path.name, "dataset"


def _steps(_: str, given: list[str]) -> Iterator[tuple[str, str]]:
    if given:
        yield from ((str(step), "checkpoint") for step in Store(find_run(given[0]).checkpoints).steps())


def _places(current: str, given: list[str]) -> Iterator[tuple[str, str]]:
    yield from (("best", "lowest validation loss"), ("latest", "newest checkpoint"))
    yield from _steps(current, given)


def _keys_to_explain(_: str, __: list[str]) -> Iterator[tuple[str, str]]:
    from ondevice.run.config import explain

    for row in explain():
        yield row["key"].partition(".")[0], "table"
        yield row["key"], row["doc"]


def _changes(current: str, given: list[str], *, table: str = "") -> Iterator[tuple[str, str]]:
    """``key=`` and, once that is typed, the values where they are few."""
    from ondevice.run.config import explain

    typed, equals, _ = current.partition("=")
    for row in explain():
        key = row["key"].removeprefix(table)
        if "[]" in key or not row["key"].startswith(table):
            continue
        if not equals:
            yield f"{key}=", row["doc"]
        elif key == typed:
            values = ["true", "false"] if row["type"] == "true/false" else row["choices"]
            yield from ((f"{key}={value}", "") for value in values)


def _limits(current: str, given: list[str]) -> Iterator[tuple[str, str]]:
    yield from _changes(current, given, table="limits.")


def _devices(_: str, __: list[str]) -> Iterator[tuple[str, str]]:
    from ondevice.device.simulate_profile import known_profiles

    yield from ((f"sim:{name}", "simulated phone") for name in known_profiles())


_SOURCES: dict[tuple[str, str], Callable[[str, list[str]], Candidates]] = {
    ("", "run"): _runs,
    ("", "runs"): _runs,
    ("", "target"): _presets,
    ("train", "target"): _presets_and_runs,
    ("generate", "target"): _runs,
    ("chat", "target"): _runs,
    ("serve", "target"): _runs,
    ("", "dataset"): _datasets,
    ("", "step"): _steps,
    ("", "at"): _places,
    ("", "set"): _changes,
    ("train", "device"): _devices,
    ("limit", "changes"): _limits,
    ("config explain", "key"): _keys_to_explain,
}
