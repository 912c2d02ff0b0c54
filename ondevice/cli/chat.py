"""``ondevice chat TARGET``: a conversation with a model, in a terminal of any width or over pipes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.chat_words import Wrapped
from ondevice.cli.common import (
    add_sampling_flags,
    add_step_flag,
    add_threads_flag,
    for_terminal,
    given_sampling,
    print_json_line,
)
from ondevice.cli.folding import tell
from ondevice.errors import DataError, OndeviceError, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ondevice.infer.conversation import Conversation

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice chat tuned
  ondevice chat tuned --system "Answer in one sentence." --preset precise
  ondevice chat tuned/exports/onnx-int4-00000800 --seed 7
  printf 'Hello\\nAnd then?\\n' | ondevice chat tuned --json

In a chat, /help lists the commands; Ctrl-C ends an answer, Ctrl-D the chat. A line that ends in \\ goes on below.
What no longer fits the context is dropped from the oldest turn on; the system's words stay."""

_HELP = """/retry         another answer
/undo          take the last turn back
/reset         forget what was said
/system TEXT   the system's words
/preset NAME   balanced, creative, ...
/set KEY=VALUE temperature, seed ...
/show          settings and tokens
/save FILE     keep the chat as JSON
/load FILE     go on with a kept chat
/quit          leave (or Ctrl-D)"""

_LENGTH = 256
_ATTENDED = ["battery_floor_percent=0", "pause_when_screen_on=false", "plugged_only=false"]
"""Somebody is there and wants an answer: only heat may make it wait."""
_SETTINGS = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run, the folder of a checkpoint, or an export folder")
    add_step_flag(parser)
    add_threads_flag(parser)
    parser.add_argument("--system", default="", metavar="TEXT", help="what the model is told before you speak")
    parser.add_argument("--preset", metavar="NAME", help="balanced, creative, precise, greedy or default")
    parser.add_argument("--load", metavar="FILE", help="go on with a chat that /save kept")
    add_sampling_flags(parser, defaults="where not given: 256 tokens an answer, and what a sweep recommends")
    parser.add_argument("--json", action="store_true", help="print one JSON object an answer")


def run(args: argparse.Namespace) -> int:
    from ondevice.cli.limit import device_limits
    from ondevice.infer.chat import chat_of
    from ondevice.infer.conversation import Conversation
    from ondevice.infer.manners import on_this_machine
    from ondevice.infer.open import open_target
    from ondevice.infer.presets import choose_settings

    manners = on_this_machine(device_limits(_ATTENDED), Path.cwd(), attended=True, tell=_tell_rest)
    opened = open_target(args.target, step=args.step, threads=args.threads)
    chosen = choose_settings(opened.settings, preset_name=args.preset, given=given_sampling(args))
    chat = chat_of(opened.tokenizer)
    talk = Conversation(
        opened.backend,
        opened.tokenizer,
        chat,
        settings=chosen.sampling,
        length=_LENGTH if chosen.length is None else max(1, chosen.length),
        system=args.system,
        stop=args.stop,
        pause=manners.pause,
    )
    session = _Session(talk, as_json=args.json)
    if args.load:
        session.command("load", args.load)
    if not args.json:
        session.note(f"[{opened.what}]", *(f"[{each}]" for each in (chosen.note, chat.what) if each))
    for line in _lines(prompt="" if args.json else "> "):
        manners.began()
        if not session.hear(line):
            break
    return 0


def _tell_rest(text: str) -> None:
    tell(f"\n[{text}]", sys.stderr)


def _lines(*, prompt: str) -> Iterator[str]:
    """What a person writes, until the end of the input; on a terminal with history and line editing."""
    terminal = sys.stdin.isatty()
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: F401, input() edits lines with it
    said = ""
    while True:
        try:
            line = input(prompt if terminal and not said else "")
        except EOFError:
            if terminal:
                print()
            break
        except KeyboardInterrupt:
            print()
            if not said and terminal:
                break
            said = ""
            continue
        except UnicodeDecodeError as error:
            raise DataError("Standard input is not UTF-8; convert it first.") from error
        said += line.removesuffix("\\") + "\n" if line.endswith("\\") else line
        if line.endswith("\\"):
            continue
        if said.strip():
            yield said
        said = ""
    if said.strip():
        yield said


class _Session:
    """Lines of a person become answers and commands become deeds; a mistake is told, and the chat goes on."""

    def __init__(self, talk: Conversation, *, as_json: bool) -> None:
        self._talk, self._as_json = talk, as_json

    def hear(self, line: str) -> bool:
        """False where the person leaves. Over pipes a mistake ends the program: nobody is there to read it."""
        try:
            if not line.startswith("/"):
                self._show(lambda: self._talk.say(line))
                return True
            name, _, words = line[1:].strip().partition(" ")
            return self.command(name, words.strip())
        except OndeviceError as error:
            if not sys.stdin.isatty():
                raise
            self.note(str(error))
            return True

    def command(self, name: str, words: str) -> bool:
        """Carries out what stands after a slash."""
        acts: dict[str, Callable[[str], None]] = {
            "help": lambda _: print(_HELP),
            "retry": lambda _: self._show(self._talk.retry),
            "undo": lambda _: self.note("Taken back." if self._talk.undo() else "Nothing was said yet."),
            "reset": lambda _: self._reset(),
            "system": self._system,
            "preset": self._preset,
            "set": self._set,
            "show": lambda _: self._tell(),
            "save": self._save,
            "load": self._load,
        }
        if name in ("quit", "exit", "bye"):
            return False
        if name not in acts:
            raise UsageError(f"/{name} is no command{nearest(name, acts)}; /help lists them.")
        acts[name](words)
        return True

    def note(self, *lines: str) -> None:
        """Not the model's words."""
        for line in lines:
            tell(line, sys.stderr)

    def _show(self, begin: Callable[[], Iterator[str]]) -> None:
        """The answer as it comes; Ctrl-C ends it, and what was said stays."""
        width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 0
        out = Wrapped(width)
        stopped = False
        pieces = begin()
        try:
            for piece in pieces:
                if not self._as_json:
                    print(out.feed(for_terminal(piece)), end="", flush=True)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            stopped = True
        reply = self._talk.last
        if self._as_json and reply is not None:
            print_json_line(
                {
                    "role": "assistant",
                    "content": reply.text,
                    "finish": reply.finish,
                    "prompt_tokens": reply.prompt_tokens,
                    "tokens": reply.tokens,
                    "dropped_messages": reply.dropped,
                }
            )
            return
        print(out.flush())
        if stopped:
            self.note("[ended by you]")
        elif reply is not None and reply.finish == "length":
            self.note("[cut here: as long as an answer may be; --max-new-tokens allows more]")
        if reply is not None and reply.dropped:
            self.note(f"[{reply.dropped} old messages no longer fit the context]")

    def _reset(self) -> None:
        self._talk.reset()
        self.note("Forgotten.")

    def _system(self, words: str) -> None:
        self._talk.system = words
        self.note("The system says that from now on." if words else "The system says nothing.")

    def _preset(self, words: str) -> None:
        from dataclasses import replace

        from ondevice.infer.presets import preset

        self._talk.settings = replace(preset(words), seed=self._talk.settings.seed)
        self._tell()

    def _set(self, words: str) -> None:
        from dataclasses import replace

        key, equals, value = (part.strip() for part in words.partition("="))
        if not equals or key not in _SETTINGS:
            raise UsageError(f"/set KEY=VALUE{nearest(key, _SETTINGS)}; KEY is one of {', '.join(_SETTINGS)}.")
        kind = int if key in ("top_k", "seed") else float
        try:
            number: Any = kind(value)
        except ValueError:
            raise UsageError(f"'{value}' is not a {'whole ' if kind is int else ''}number.") from None
        self._talk.settings = replace(self._talk.settings, **{key: number})
        self._tell()

    def _tell(self) -> None:
        from ondevice.infer.generation_config import describe

        self.note(describe(vars(self._talk.settings)))
        reply = self._talk.last
        if reply is not None:
            self.note(
                f"last: {reply.prompt_tokens} tokens read, {self._talk.reused} of them before, {reply.tokens} said"
            )

    def _save(self, words: str) -> None:
        from ondevice.run.files import write_json

        path = _path(words)
        write_json(path, {"system": self._talk.system, "messages": [each.to_json() for each in self._talk.messages]})
        self.note(f"Kept in {path}.")

    def _load(self, words: str) -> None:
        from ondevice.infer.chat import ROLES, Message
        from ondevice.run.files import read_json

        path = _path(words)
        raw = read_json(path)
        try:
            messages = [Message(role=each["role"], content=each["content"]) for each in raw["messages"]]
            if not all(each.role in ROLES and isinstance(each.content, str) for each in messages):
                raise ValueError("a message without role or content")
            system = str(raw.get("system", ""))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a chat that /save kept ({json.dumps(str(error))}).") from error
        self._talk.reset()
        self._talk.system, self._talk.messages = system, messages
        self.note(f"{len(messages)} messages.")


def _path(words: str) -> Path:
    if not words:
        raise UsageError("Name a file, such as /save talk.json.")
    return Path(os.path.expanduser(words)).absolute()
