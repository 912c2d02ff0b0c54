"""Text of a stranger on a terminal: what would command it is written out; a pipe gets every byte as it is."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading

import pytest

from ondevice.cli.common import for_terminal

EVIL = "a\x1b[2Jb\x07\x9b31m\rc\x7f\td\ne è"
SAFE = "a\\x1b[2Jb\\x07\\x9b31m\\x0dc\\x7f\td\ne è"


@pytest.fixture
def terminal(monkeypatch):
    """Standard output says that it is a terminal."""

    def make():
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    return make


def test_control_characters_are_written_out_on_a_terminal_only(terminal, capsys):
    assert for_terminal(EVIL) == EVIL
    terminal()
    assert for_terminal(EVIL) == SAFE
    assert for_terminal(SAFE) == SAFE
    assert for_terminal(EVIL, sys.stderr) == EVIL


def test_generate_writes_out_control_characters(reading, call, terminal):
    words = ("generate", "tiny", "the \x1b[31m", "--max-new-tokens", 2, "--temperature", 0)
    assert call(*words).out.startswith("the \x1b[31m")
    terminal()
    assert call(*words).out.startswith("the \\x1b[31m")


def test_pieces_are_written_out_too(reading, call, terminal, monkeypatch):
    class Pieces(list):
        ids, finish, note = (), "length", ""

    monkeypatch.setattr("ondevice.infer.text.stream_text", lambda *args, **named: Pieces(["x\x1b", "]0;title\x07"]))
    assert call("generate", "tiny", "").out == "x\x1b]0;title\x07\n"
    assert call("sample", "tiny", "").out == "x\x1b]0;title\x07\n"
    terminal()
    assert call("generate", "tiny", "").out == "x\\x1b]0;title\\x07\n"
    assert call("sample", "tiny", "").out == "x\\x1b]0;title\\x07\n"


def test_samples_of_the_past_are_written_out(place, call, terminal):
    prompts = json.dumps(["\x1b[2J"])
    assert call("train", "tiny.toml", "--set", f"sample.prompts={prompts}", "--quiet").code == 0
    assert "\x1b[2J" in call("sample", "tiny", "--last").out
    terminal()
    shown = call("sample", "tiny", "--last").out
    assert "\\x1b[2J" in shown and "\x1b" not in shown


def test_names_of_files_that_were_left_out_are_written_out(place, call, terminal):
    (place / "notes").mkdir()
    (place / "notes" / "bad\x1b[31m.txt").write_bytes(b"\x89PNG\0\0\0\rabc" * 9)
    (place / "notes" / "good.txt").write_text("some words to learn " * 30)
    words = ("data", "build", "--data", "notes", "--set", "tokenizer.kind=byte")
    assert "\x1b" not in call(*words).out  # a file name is nobody's text: it is written out for pipes too
    terminal()
    shown = call(*words).out
    assert "bad\\x1b[31m.txt" in shown and "\x1b" not in shown


def test_what_training_says_is_written_out_on_a_real_terminal(place):
    code = (
        "from ondevice.cli.progress import make_display\n"
        "display = make_display(quiet=False, as_json=False)\n"
        "display.say('said \\x1b]0;title\\x07 done')\n"
        "display.status({'step': 1, 'steps': 2, 'hold': 'by \\x1b]0;title'})\n"
        "display.close()\n"
        "display.result('result \\x1b]0;title')\n"
    )
    ours, theirs = pty.openpty()
    said: list[bytes] = []

    def read():
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                return
            if not data:
                return
            said.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, check=True, env=env, timeout=60)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    shown = b"".join(said).decode()
    assert "said \\x1b]0;title\\x07 done" in shown and "by \\x1b]0;title" in shown and "result \\x1b]0;title" in shown
    assert "\x1b]0;" not in shown
