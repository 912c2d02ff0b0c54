"""The exception tree is what its docstring draws."""

from __future__ import annotations

import re

import pytest

from ondevice import errors
from ondevice.errors import OndeviceError, nearest

DRAWN = dict(re.findall(r"^ {6}(\w+) +exit (\d+)", errors.__doc__ or "", re.MULTILINE))


def test_every_error_has_the_exit_code_that_is_drawn() -> None:
    tree = {
        cls.__name__: str(cls.exit_code) for cls in OndeviceError.__subclasses__() if cls.__module__ == errors.__name__
    }
    assert tree == DRAWN
    assert len(set(tree.values())) == len(tree) == 7
    assert OndeviceError.exit_code == 1


def test_all_is_sorted_and_complete() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    assert {*DRAWN, "OndeviceError", "nearest"} == set(errors.__all__)
    assert all(getattr(errors, name).__doc__ for name in errors.__all__)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("stesp", ["lr", "steps"], " (did you mean 'steps'?)"),
        ("xyz", ["lr", "steps"], ""),
        ("", ["lr"], ""),
        ("lr", [], ""),
        ("lr", iter({"lr": 1}), " (did you mean 'lr'?)"),
    ],
)
def test_nearest(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, known) == hint
