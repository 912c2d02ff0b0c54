"""``ondevice COMMAND``: finds the command's module, and turns every error into one sentence and an exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import ondevice
from ondevice.cli.common import mute
from ondevice.cli.folding import HelpFormatter, folded, tell
from ondevice.errors import DataError, Interrupted, OndeviceError, ResourceError, UsageError, nearest

__all__ = ["COMMANDS", "main", "make_parser", "parse"]

# name -> module, one line. The module is imported only when its command is used, so that --help answers at once.
COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("quickstart", "train, measure, export and try a first model, in one command"),
    "doctor": ("doctor", "can this machine train; with a run: repair its files"),
    "train": ("train", "start a run from a config or text, or go on with a run"),
    "status": ("status", "how a run is doing"),
    "pause": ("control", "let a live run wait, keeping its place"),
    "resume": ("control", "let a paused run go on"),
    "stop": ("control", "let a live run finish its step, save and leave"),
    "save": ("control", "let a live run save a checkpoint now"),
    "eval": ("eval", "how good a model is: its losses and what it writes"),
    "sample": ("sample", "text from a run: from the live trainer, or from its checkpoint"),
    "generate": ("generate", "text from a run, a checkpoint or an export"),
    "chat": ("chat", "talk with a model"),
    "serve": ("serve", "a model behind OpenAI's API, for any client on this machine"),
    "select": ("select", "which checkpoint to keep: by loss, by its text, for use"),
    "average": ("average", "a new run whose weights are the mean of several checkpoints"),
    "sweep": ("sweep", "which decoding settings write best; makes them the default"),
    "harness": ("harness", "tasks of lm-evaluation-harness, from local files (a laptop extra)"),
    "study": ("study", "arms x seeds, one run after another, and what they say"),
    "report": ("report", "a run or a study as Markdown and HTML; telemetry as CSV"),
    "export": ("export", "write a run's model as ONNX, for transformers or llama.cpp"),
    "plan": ("plan", "what a run would take: parameters, steps, memory, time"),
    "compare": ("compare", "two or more runs: what differs, and what came of it"),
    "decide": ("decide", "keep, iterate or discard what was tuned, by a rule stated before"),
    "package": ("package", "a tuned model with its proof in one folder"),
    "fork": ("fork", "a new run from a checkpoint, with something changed"),
    "schedule": ("schedule", "the parts of a chain: shown, reordered, added, skipped"),
    "limit": ("limit", "how politely a run behaves: heat, battery, hours; shown or changed"),
    "pin": ("pin", "checkpoints that are never deleted"),
    "verify": ("verify", "re-check every byte of a run or package, or replay steps"),
    "watch": ("watch", "follow a run; with --restart bring it back after a kill"),
    "pack": ("pack", "a run with its data in one file, to carry it elsewhere"),
    "unpack": ("pack", "make a run of a packed file"),
    "inspect": ("inspect", "tell what a foreign weights file is, and whether it is safe"),
    "advise": ("advise", "should this task be trained at all; a few questions"),
    "pull": ("pull", "fetch a model from the Hugging Face hub, to train from"),
    "data": ("data", "build or inspect a dataset"),
    "tokenizer": ("tokenizer", "train a tokenizer"),
    "completion": ("completion", "a script that completes words in bash, zsh or fish"),
    "config": ("config", "explain every key, list presets, check a file"),
    "runs": ("runs", "list, rename, remove runs; what they take on disk"),
}

_GROUPS = {
    "To begin with": "quickstart doctor train status generate chat",
    "While it trains": "sample pause resume save stop limit watch",
    "How good is it": "eval select sweep report compare harness",
    "Take it elsewhere": "export serve pack unpack",
    "Runs and checkpoints": "runs pin verify fork average schedule study",
    "Text and settings": "plan data tokenizer config completion",
    "From another's model": "advise pull inspect decide package",
}

_SYSTEM_SAYS_NO = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving the program; flags are never guessed from their beginnings."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        if choice := re.search(r"invalid choice: '([^']*)' \(choose from (.+)\)", message):
            message += nearest(choice[1], re.findall(r"[\w-]+", choice[2]))
        elif number := re.fullmatch(r"argument (\S+): invalid (int|float) value: (.*)", message):
            message = f"{number[1]}: {number[3]} is not a {'whole ' if number[2] == 'int' else ''}number"
        command = " ".join(self.prog.split()[:2])  # examples stand under a command, not under each of its actions
        raise UsageError(f"{self.prog}: {message}; `{command} --help` shows examples.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if os.name == "nt":
        print("ondevice needs Linux, Android or macOS; on Windows use WSL: `wsl --install`.", file=sys.stderr)
        return 6
    # Threads that wait for each other must sleep, not spin: spinning heats a phone, and where other programs want the
    # cores too it makes a step several times slower. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character the terminal lacks must not end a run
            stream.reconfigure(errors="backslashreplace")
    before = _stop_on(signal.SIGTERM)
    try:
        _refuse_nowhere()
        return _run(words)
    except OndeviceError as error:
        return _report(error, as_json="--json" in words)
    except KeyboardInterrupt:
        return _report(Interrupted("Interrupted."), as_json="--json" in words)
    except BrokenPipeError:
        mute(sys.stdout)  # the reader of a pipe (head, less) left
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _SYSTEM_SAYS_NO:
            return _report(_refusal(error), as_json="--json" in words)
        if isinstance(error.__context__, KeyboardInterrupt):  # argparse fails to tidy up where it was broken off
            return _report(Interrupted("Interrupted."), as_json="--json" in words)
        print(f"This is a bug in ondevice; the details are in {_log_crash(words)}.", file=sys.stderr)
        return 1
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _open_streams() -> None:
    """Gives closed standard streams, as some schedulers leave them, an end that takes everything.

    Else the next file that is opened gets their number, and what libraries print goes into it.
    """
    for name in ("stdin", "stdout", "stderr"):  # in this order: each gets the lowest number that is free, its own
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))


def _refuse_nowhere() -> None:
    """Raises UsageError in a folder that was deleted, where no relative path leads anywhere and MKL aborts."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("The folder you are in was deleted; `cd` to another and repeat the command.") from None


def _refusal(error: OSError) -> OndeviceError:
    """What the system refused, in a sentence: no bug, but something a person can mend."""
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"{place}the disk is full; free some space and repeat the command.")
    advice = "check its permissions, and where ONDEVICE_HOME leads if it is set"
    return DataError(f"{place}the system refuses access ({error.strerror}); {advice}.")


def _stop_on(number: signal.Signals) -> Any:
    """Lets a signal end the command as Ctrl-C does, so that it cleans up. Gives the handler that was there before."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(number, signal.default_int_handler)


def _run(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        print(f"ondevice {ondevice.__version__}")
        return 0
    if words[:1] == ["help"] and words[1:]:
        words = [words[1], "--help"]
    if not words or words[0] in ("--help", "-h", "help"):
        print(_help())
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise UsageError(f"'{name}' is not a command{nearest(name, COMMANDS)}; `ondevice --help` lists them.")
    module = importlib.import_module(f"ondevice.cli.{COMMANDS[name][0]}")
    parser = make_parser(name)
    args, unknown = parse(parser, words[1:])
    if unknown:
        raise UsageError(f"ondevice {name}: unknown argument '{unknown[0]}'{_nearest_flag(unknown[0], parser, args)}.")
    args.command = name
    code: int = module.run(args)
    return code


def make_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one of `COMMANDS`."""
    module = importlib.import_module(f"ondevice.cli.{COMMANDS[name][0]}")
    text = COMMANDS[name][1]
    parser = _Parser(prog=f"ondevice {name}", description=f"{text[0].upper()}{text[1:]}.", epilog=module.EXAMPLES)
    module.add_arguments(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            _describe(action, f"Examples: `ondevice {name} --help`.")
    return parser


def _describe(actions: argparse._SubParsersAction[Any], where: str) -> None:
    """Each action's own help begins with the words that its command's help has for it."""
    for listed in actions._choices_actions:
        parser, text = actions.choices[listed.dest], listed.help or ""
        parser.description = f"{text[:1].upper()}{text[1:]}."
        parser.epilog = parser.epilog or where


def parse(parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Values, and the words nobody knows. A prompt may come before the flags or after them."""
    if any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
        return parser.parse_known_args(words)
    return parser.parse_known_intermixed_args(words)


def _nearest_flag(word: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    return nearest(word.partition("=")[0], _flags(parser, args)) if word.startswith("-") else ""


def _flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Iterator[str]:
    """The flags of a parser and of the action that was chosen under it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            yield from _flags(action.choices[getattr(args, action.dest)], args)


def _help() -> str:
    lines = ["ondevice: train small language models on the machine in front of you."]
    for title, names in _GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<11} {COMMANDS[name][1]}" for name in names.split())]
    lines += [
        "",
        "Start with `ondevice quickstart`, or with your own folder:",
        "`ondevice quickstart ~/notes`.",
        "`ondevice COMMAND --help` shows the flags of a command, with examples.",
    ]
    return folded("\n".join(lines), shutil.get_terminal_size().columns)


def _report(error: OndeviceError, *, as_json: bool) -> int:
    sentence = " ".join(str(error).splitlines())
    with suppress(OSError):  # the terminal may be closed, which must not change the exit code
        if as_json:
            body: dict[str, Any] = {"error": sentence, "kind": type(error).__name__, "exit_code": error.exit_code}
            print(json.dumps(body, ensure_ascii=False), flush=True)
        tell(f"error: {sentence}", sys.stderr)
    return error.exit_code


def _log_crash(words: list[str]) -> str:
    """Writes the traceback of the current exception where it can be found, and says where."""
    from ondevice.run.directory import home

    text = f"ondevice {ondevice.__version__}, python {sys.version}\n{words}\n{traceback.format_exc()}"
    path: Path = home() / "logs" / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError:
        print(text, file=sys.stderr)
        return "the lines above"
    return str(path)
