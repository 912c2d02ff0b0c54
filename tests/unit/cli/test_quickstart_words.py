"""What a quickstart advises to do next."""

from __future__ import annotations

import shutil

import pytest

from ondevice.cli.quickstart import _next_lines


@pytest.fixture
def found(monkeypatch):
    """The shell finds the command, or not."""
    return lambda path: monkeypatch.setattr(shutil, "which", lambda name: path)


def test_more_minutes_are_advised_only_where_the_text_was_not_read_too_often(found):
    found("/bin/ondevice")
    fresh, often = (list(_next_lines("notes", "~/my notes", passes)) for passes in (1.5, 15.2))
    assert "  ondevice quickstart '~/my notes' --minutes 60 --name longer" in fresh
    assert not any("--minutes" in line for line in often) and "read 15 times" in often[-1]


def test_a_shell_that_does_not_find_the_command_is_told_how(found):
    found(None)
    assert any("bin/activate" in line for line in _next_lines("notes", None, 1.0))
    found("/bin/ondevice")
    assert not any("bin/activate" in line for line in _next_lines("notes", None, 1.0))
