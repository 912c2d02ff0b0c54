"""The door: help, unknown words, and every way a command can end."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from ondevice import __version__
from ondevice.cli import config as config_command
from ondevice.cli.common import mute
from ondevice.cli.main import COMMANDS, main
from ondevice.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    Interrupted,
    OndeviceError,
    ResourceError,
    RunBusy,
    UsageError,
)

PRESETS = ["config", "presets"]  # a command that is as good as any to end in every possible way


@pytest.fixture
def ending(monkeypatch):
    """``ending(error)``: the command ``config presets`` raises it."""

    def make(error):
        def run(args):
            raise error

        monkeypatch.setattr(config_command, "run", run)

    return make


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_on_lines_of_80(call, words):
    result = call(*words)
    assert result.code == 0 and not result.err
    for name, (_, text) in COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(text) for line in result.out.splitlines()), name
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_of_itself(call, name):
    result = call(name, "--help")
    assert result.code == 0 and not result.err
    examples = result.out.partition("examples:\n")[2]
    assert f"ondevice {name}" in examples
    assert call("help", name) == result


@pytest.mark.parametrize(
    "words",
    [
        *(("config", action) for action in ("explain", "presets", "check")),
        *(("data", action) for action in ("build", "inspect", "check", "order")),
        *(("schedule", action) for action in ("show", "reorder", "add", "grow", "skip", "sample")),
        *(("runs", action) for action in ("list", "rename", "rm", "du")),
        *(("study", action) for action in ("run", "status", "list")),
        ("tokenizer", "train"),
        *(
            (name,)
            for name in COMMANDS
            if name not in ("completion", "config", "data", "runs", "schedule", "study", "tokenizer")
        ),
    ],
)
def test_everything_that_answers_takes_json(call, words):
    result = call(*words, "--help")
    assert result.code == 0
    assert "--json" in result.out


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS.values()}))
def test_every_command_is_a_module_with_the_same_three_names(module):
    found = importlib.import_module(f"ondevice.cli.{module}")
    assert callable(found.add_arguments) and callable(found.run)
    assert found.EXAMPLES.startswith("examples:\n")
    assert {"EXAMPLES", "add_arguments", "run"} <= set(found.__all__)


def test_no_command_module_imports_torch_at_its_top():
    modules = sorted({module for module, _ in COMMANDS.values()})
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module('ondevice.cli.' + m)\n"
    code += "print('torch' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False False\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inspect", "words.txt"), "neither a safetensors nor a torch file"),
        (("inspect", "."), "no weights in it"),
        (("serve", "absent", "--port", "70000"), "cannot listen there"),
        (("serve", "absent", "--host", "0.0.0.0"), "a key is needed"),
        (("generate", "absent", "--prompts", "absent.jsonl", "--out", "texts.jsonl"), "absent.jsonl: cannot be read"),
    ],
)
def test_what_needs_no_model_is_refused_before_torch_is_imported(place, words, said):
    code = f"import sys; from ondevice.cli.main import main; main({list(words)})\nprint('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n" and said in found.stderr


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(call, flag):
    assert call(flag).out == f"ondevice {__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "'trian' is not a command (did you mean 'train'?)"),
        (["xyzzy"], "'xyzzy' is not a command; `ondevice --help` lists them"),
        (["doctor", "--quik"], "unknown argument '--quik' (did you mean '--quick'?)"),
        (["plan", "--rat=5"], "unknown argument '--rat=5' (did you mean '--rate'?)"),
        (["data", "inspect", "x", "--verfy"], "unknown argument '--verfy' (did you mean '--verify'?)"),
        (["data", "build", "--dat", "x"], "unknown argument '--dat' (did you mean '--data'?)"),  # never guessed
        (["status", "one", "two"], "unknown argument 'two'."),
        (["runs", "lst"], "invalid choice: 'lst'"),
        (["runs", "lst"], "(did you mean 'list'?)"),
        (["runs"], "required: list|rename|rm|du"),
        (["pause"], "required: run; `ondevice pause --help` shows examples"),
        (["train", "shakespear-char"], "no preset of that name (did you mean 'shakespeare-char'?)"),
        (["train", "shakespear-char", "--data", "x"], "no preset of that name (did you mean 'shakespeare-char'?)"),
        (["train", "--minutes", "soon"], "--minutes: 'soon' is not a number"),
        (["generate", "tiny", "--threads", "0"], "--threads: must be at least 1, not 0"),
        (["generate", "tiny", "x", "--limit", "max_battery_c=38"], "--limit is for --prompts"),
        (["generate", "tiny", "--threads", "two"], "--threads: 'two' is not a whole number"),
        (["data", "inspect", "x", "--context", "-1"], "--context: must be at least 1, not -1"),
        (["plan", "--rate", "-5"], "--rate: must be at least 1, not -5"),
        (["plan", "--rate", "nan"], "--rate: must be at least 1, not nan"),
    ],
)
def test_a_wrong_word_is_named_with_the_nearest_right_one(place, call, words, says):
    result = call(*words)
    assert (result.code, result.out) == (2, "")
    assert says in result.error
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (OndeviceError, 1),
        (UsageError, 2),
        (DataError, 3),
        (CheckpointError, 4),
        (ResourceError, 5),
        (DeviceError, 6),
        (RunBusy, 7),
        (Interrupted, 130),
    ],
)
def test_an_error_is_one_line_an_exit_code_and_json_where_asked(place, call, ending, kind, code):
    ending(kind("notes.txt:3: two\nlines, naïve; do this."))
    plain, asked = call(*PRESETS), call(*PRESETS, "--json")
    assert (plain.code, plain.out) == (code, "")
    assert plain.err == "error: notes.txt:3: two lines, naïve; do this.\n"
    assert (asked.code, asked.err) == (code, plain.err)
    assert asked.json == {
        "error": "notes.txt:3: two lines, naïve; do this.",
        "kind": kind.__name__,
        "exit_code": code,
    }


def test_a_name_that_is_not_utf8_is_still_a_sentence_and_valid_json(place):
    command = [sys.executable, "-m", "ondevice", "status", b"\xff", "--json"]
    found = subprocess.run(command, capture_output=True, cwd=place)
    assert found.returncode == 2
    assert json.loads(found.stdout)["error"].startswith("\udcff: no such run")
    assert found.stderr.startswith(b"error: \\udcff: no such run") and found.stderr.count(b"\n") == 1


def test_a_terminal_without_unicode_gets_escapes_not_a_crash(place):
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "ondevice", "status", "naïve"]
    found = subprocess.run(command, capture_output=True, text=True, env=env, cwd=place)
    assert (found.returncode, found.stderr.partition(":")[0]) == (2, "error")
    assert "na\\xefve: no such run" in found.stderr


def test_a_bug_leaves_one_line_and_its_traceback_in_a_log(place, call, ending):
    ending(ZeroDivisionError("that should not happen"))
    result = call(*PRESETS, "--json")
    assert (result.code, result.out) == (1, "")
    log = Path(result.err.strip().removeprefix("This is a bug in ondevice; the details are in ").rstrip("."))
    assert log.parent == place / "home" / "logs"
    text = log.read_text("utf-8")
    assert "Traceback" in text and "ZeroDivisionError: that should not happen" in text
    assert str([*PRESETS, "--json"]) in text and __version__ in text


def test_a_bug_where_no_log_can_be_written_shows_the_traceback(place, call, ending, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(place / "words.txt" / "home"))
    ending(ZeroDivisionError("that should not happen"))
    result = call(*PRESETS)
    assert result.code == 1
    assert "ZeroDivisionError: that should not happen" in result.err
    assert result.err.endswith("This is a bug in ondevice; the details are in the lines above.\n")


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (errno.ENOSPC, 5, "/some/file: the disk is full; free some space and repeat the command."),
        (errno.EDQUOT, 5, "/some/file: the disk is full"),
        (errno.EACCES, 3, "/some/file: the system refuses access (Permission denied); check its permissions"),
        (errno.EROFS, 3, "/some/file: the system refuses access (Read-only file system)"),
    ],
)
def test_what_the_system_refuses_is_no_bug(place, call, ending, number, code, says):
    ending(OSError(number, os.strerror(number), "/some/file"))
    result = call(*PRESETS)
    assert result.code == code
    assert result.error.startswith(says)
    assert not (place / "home").exists()


def test_another_oserror_is_a_bug(place, call, ending):
    ending(FileNotFoundError(errno.ENOENT, "No such file", "/some/file"))
    assert call(*PRESETS).code == 1


def test_ctrl_c_is_exit_code_130(place, call, ending):
    ending(KeyboardInterrupt())
    result = call(*PRESETS)
    assert (result.code, result.error) == (130, "Interrupted.")


def test_ctrl_c_under_which_tidying_up_fails_is_no_bug(place, call, ending):
    error = AttributeError("save_nargs")
    error.__context__ = KeyboardInterrupt()
    ending(error)
    result = call(*PRESETS)
    assert (result.code, result.error) == (130, "Interrupted.")


@pytest.mark.parametrize("way", ["module", "script"])
def test_ctrl_c_while_it_is_still_imported_is_no_traceback(place, way):
    """A module that it imports first interrupts it, and would then take for ever."""
    late = "import os, time\nprint('importing', flush=True)\nos.kill(os.getpid(), 2)\ntime.sleep(100)\n"
    (place / "argparse.py").write_text(late, "utf-8")
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    module, _, function = pyproject["project"]["scripts"]["ondevice"].partition(":")
    script = f"import sys; from {module} import {function}; sys.exit({function}())"
    words = ["-m", "ondevice"] if way == "module" else ["-c", script]
    found = subprocess.run([sys.executable, *words, *PRESETS], capture_output=True, cwd=place, text=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (130, "importing\n", "error: Interrupted.\n")


def test_sigterm_ends_a_command_as_ctrl_c_does_and_the_old_handler_comes_back(place, call, monkeypatch):
    monkeypatch.setattr(config_command, "run", lambda args: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert call(*PRESETS).code == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_works_in_a_thread(place):
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["--version"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_reader_that_leaves_ends_the_command_quietly(place):
    command = [sys.executable, "-m", "ondevice", "config", "explain"]
    reading, writing = os.pipe()
    os.close(reading)
    found = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=place)
    os.close(writing)
    assert (found.returncode, found.stderr) == (0, b"")


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1, 2)])
def test_closed_standard_streams_are_no_bug(place, closed):
    """``ondevice status >&-``, and schedulers that start programs without any."""
    again = "import os, sys\n" + "".join(f"os.close({number})\n" for number in closed)
    again += f"os.execv(sys.executable, [sys.executable, '-m', 'ondevice', *{PRESETS!r}])"
    found = subprocess.run([sys.executable, "-c", again], capture_output=True, cwd=place)
    assert found.returncode == 0 and not found.stderr
    assert bool(found.stdout) == (1 not in closed)
    assert not (place / "home" / "logs").exists()


def test_a_folder_that_was_deleted_is_told(place, call, monkeypatch):
    gone = place / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = call("train", "--data", "words.txt")
    assert result.code == 2 and result.error.startswith("The folder you are in was deleted; `cd` to another")
    monkeypatch.chdir(place)


def test_mute_sends_the_rest_nowhere(tmp_path):
    with open(tmp_path / "out", "w") as file:
        print("before", file=file, flush=True)
        mute(file)
        print("after", file=file, flush=True)
    assert (tmp_path / "out").read_text() == "before\n"


def test_windows_is_shown_the_way_to_wsl(call, monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    try:
        result = call("--help")
    finally:
        monkeypatch.undo()
    assert (result.code, result.out) == (6, "")
    assert "wsl --install" in result.err
