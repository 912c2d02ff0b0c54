"""Sentences and help on a terminal of 40 columns: folded between words there, and never in a pipe."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.cli.folding import columns, fold, tell
from ondevice.cli.main import COMMANDS

WORDS = st.lists(st.text("abcdefgh日é", min_size=1, max_size=9), min_size=1, max_size=30)


@given(WORDS, st.integers(24, 100))
def test_words_are_kept_and_lines_fit(words, width):
    lines = fold(f"  advice    {' '.join(words)}", width)
    assert [word for line in lines for word in line.split()] == ["advice", *words]
    assert max(map(columns, lines)) <= width
    assert all(line.startswith(" " * 12) for line in lines[1:])


def test_a_command_in_backticks_is_not_torn():
    lines = fold("error: notes: killed; go on with `ondevice train notes` or look.", 40)
    assert "`ondevice train notes`" in "\n".join(lines)


def test_a_command_that_stands_alone_can_be_pasted():
    lines = fold("  ondevice quickstart ~/notes --minutes 60 --name longer", 40)
    assert lines == ["  ondevice quickstart ~/notes \\", "      --minutes 60 --name longer"]


def test_what_stands_in_quotes_is_not_torn():
    assert fold('  ondevice sample notes-of-may "Dear diary, today"', 40)[1:] == ['      "Dear diary, today"']


def test_rows_of_a_table_and_long_paths_stay_whole():
    row = "       324    3.6877     77.5      0.910       0%  for use"
    assert fold(row, 40) == [row]
    path = "/data/data/com.termux/files/home/ondevice/runs/notes"
    assert path in fold(f"Generations: {path}", 40)


def test_a_pipe_gets_the_line_as_it_is(capsys):
    tell("word " * 40)
    assert capsys.readouterr().out == "word " * 40 + "\n"


def shown_at_40_columns(*words):
    """What a terminal of 40 columns shows of a command."""
    mine, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": "40", "NO_COLOR": "1", "ONDEVICE_HOME": "/nowhere"}
    code = [sys.executable, "-c", "import sys; from ondevice.cli.main import main; sys.exit(main())", *words]
    child = subprocess.Popen(code, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    data = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:
            break
        if not part:
            break
        data += part
    child.wait(20)
    os.close(mine)
    return data.decode().replace("\r\n", "\n")


def test_an_error_is_folded_between_words_on_a_terminal():
    shown = shown_at_40_columns("trian").splitlines()
    assert max(map(len, shown)) <= 40
    assert " ".join(shown) == "error: 'trian' is not a command (did you mean 'train'?); `ondevice --help` lists them."


@pytest.mark.parametrize("name", ["schedule", "train"])
def test_the_usage_fits_40_columns_in_colour_too(call, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")  # heard from Python 3.14 on
    monkeypatch.delenv("NO_COLOR", raising=False)
    usage = re.sub(r"\x1b\[[\d;]*m", "", call(name, "--help").out).split("\n\n")[0]
    assert usage.startswith(f"usage: ondevice {name} [options]\n")
    assert all(len(line) <= 40 for line in usage.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_fits_40_columns(call, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "40")
    lines = call(name, "--help").out.splitlines()
    assert len(lines) > 3
    long = [line for line in lines if len(line) > 40 and " " in line.strip().removesuffix(" \\").removesuffix("`")]
    assert all(line.strip().startswith("-") for line in long), long  # quoted data of curl cannot be cut


def test_a_long_example_can_still_be_pasted(call, monkeypatch):
    wide = _example(call, monkeypatch, "200")
    assert wide == _example(call, monkeypatch, "40")
    assert wide[-2:] == ["--minutes", "30"]


def _example(call, monkeypatch, width):
    """The words a shell makes of the first example."""
    monkeypatch.setenv("COLUMNS", width)
    text = call("train", "--help").out.partition("examples:\n")[2].replace("\\\n", "")
    return shlex.split(text.splitlines()[0].strip().partition("   " if width == "200" else "\n")[0])


def test_the_list_of_commands_is_whole_and_fits_40_columns(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    shown = call("--help").out
    assert max(map(len, shown.splitlines())) <= 40
    assert sorted(re.findall(r"^  (\w+) ", shown, re.M)) == sorted(COMMANDS)


def test_what_an_action_lacks_is_told_with_a_command_that_can_be_pasted(call):
    """argparse builds the name of an action from the usage of its command, which says [options] to people."""
    assert "ondevice schedule show: the following" in call("schedule", "show").error
    assert "`ondevice schedule --help` shows examples" in call("schedule", "show").error
    assert call("schedule", "show", "--help").out.startswith("usage: ondevice schedule show [options] run\n")
    assert call("schedule", "--help").out.startswith("usage: ondevice schedule [options] ")


def test_sentences_of_the_help_go_on_where_the_terminal_ends(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    end = call("decide", "--help").out.split("\n\n")[-1].splitlines()
    assert all(len(f"{line} {after.split()[0]}") > 58 for line, after in pairwise(end))


def test_the_help_of_an_action_says_what_it_does(call):
    shown = call("data", "build", "--help").out
    assert "Text to token chunks." in shown and "`ondevice data --help`" in shown


def test_help_of_a_mistyped_command_says_so(call):
    assert "did you mean 'train'" in call("help", "trian").err


@pytest.mark.parametrize(
    ("value", "says"), [("abc", "--minutes: 'abc' is not a number"), ("-1", "--minutes must be more than 0, not -1")]
)
def test_a_wrong_number_is_told_by_its_flag(call, value, says):
    result = call("train", "--data", ".", f"--minutes={value}")
    assert result.code == 2 and says in result.err


@pytest.mark.parametrize("command", ["generate", "chat", "serve", "eval", "select", "sweep", "decide"])
def test_more_threads_than_a_config_may_have_are_refused(call, command):
    """9,999 of them took half a minute for a text of eight tokens, and the machine with it."""
    assert "--threads: must be at most 256, not 9999" in call(command, "tiny", "--threads", "9999").error
