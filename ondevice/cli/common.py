"""What several commands share: flags that make a config, JSON output, and sizes and times for people."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ondevice.errors import UsageError

if TYPE_CHECKING:
    from ondevice.run.schema import Config, SourceConfig

__all__ = [
    "add_config_flags",
    "add_data_flags",
    "add_sampling_flags",
    "add_step_flag",
    "add_threads_flag",
    "at_least",
    "config_from",
    "cores",
    "duration",
    "for_terminal",
    "given_sampling",
    "looks_like_config",
    "mute",
    "print_json",
    "print_json_line",
    "text_source",
    "text_sources",
]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and line ends


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """``--data --set --name --minutes --memory``, for commands that plan a run."""
    add_data_flags(parser, example="train.lr=1e-3")
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--minutes", type=float, metavar="N", help="time to spend (budget.minutes)")
    parser.add_argument(
        "--memory", type=_megabytes, metavar="MB", help="memory to use, such as 800 or 1.2GB (budget.memory_mb)"
    )


def add_data_flags(parser: argparse.ArgumentParser, *, example: str) -> None:
    """``--data --set``, for commands that only read text."""
    parser.add_argument("--data", action="append", default=[], metavar="PATH", help="text to learn from (repeatable)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help=f"change any key, such as {example}"
    )


def looks_like_config(name: str) -> bool:
    """Whether a word names a config file or preset."""
    from ondevice.run.config import preset_names

    return name.endswith(".toml") or name in preset_names()


def config_from(args: argparse.Namespace, name: str | None) -> Config:
    """The config of a file or preset with the flags applied. ``--data`` replaces the sources of the file."""
    from ondevice.run.config import load_config
    from ondevice.run.directory import safe_name

    changes = list(args.set)
    for key, flag in (("budget.minutes", "minutes"), ("budget.memory_mb", "memory")):
        value = getattr(args, flag, None)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{flag} must be more than 0, not {value:g}.")
        if value is not None:
            changes.append(f"{key}={value}")
    config = load_config(name, changes=changes)
    if getattr(args, "name", None):
        config = dataclasses.replace(config, name=args.name)
    elif name is not None and not config.name:
        config = dataclasses.replace(config, name=safe_name(Path(name).stem))
    if args.data:
        sources = text_sources(args.data)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=sources))
    if not config.data.sources:
        raise UsageError(
            "No text to learn from: add --data PATH (a file or folder), or [[data.sources]] to the config."
        )
    return config


def text_sources(paths: Sequence[str]) -> tuple[SourceConfig, ...]:
    """The sources a person named; those of one base name are called after more of their path, ``one-a`` and ``two-a``.

    Raises UsageError for an empty name, or one that was given twice.
    """
    sources = [text_source(path) for path in paths]
    files = [Path(source.path) for source in sources]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise UsageError(f"{twice}: named twice with --data; name it once.")
    names = zip(_names(files, 1), _names(files, max(len(file.parts) for file in files)), strict=True)
    given = ["" if plain == distinct else distinct for plain, distinct in names]
    return tuple(dataclasses.replace(source, name=name) for source, name in zip(sources, given, strict=True))


def _names(files: list[Path], depth: int) -> list[str]:
    """Names of sources from the last parts of their paths: as few as tell them apart, at most ``depth``."""
    from ondevice.data.sources_find import slug

    if depth == 1:
        return [slug(file, direct=not file.is_dir()) for file in files]
    names = _names(files, depth - 1)
    longer = [slug(Path("-".join(file.parts[-depth:])), direct=not file.is_dir()) for file in files]
    return [more if names.count(name) > 1 else name for name, more in zip(names, longer, strict=True)]


def text_source(path: str) -> SourceConfig:
    """The source a person named on the command line. Raises UsageError for an empty name."""
    if not path.strip():
        raise UsageError("The path of the text is empty; name a file or folder.")
    from ondevice.run.schema import SourceConfig

    return SourceConfig(path=str(Path(os.path.expanduser(path)).absolute()))


def at_least(low: int, kind: type[int] | type[float] = int, *, most: float = math.inf) -> Callable[[str], float]:
    """The type of a flag whose number has a lower bound, and may have an upper one.

    >>> parser.add_argument("--batch", type=at_least(1))
    """

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {'whole ' if kind is int else ''}number") from None
        if not low <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be at least {low}, not {text}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most:,}, not {text}")
        return value

    return parse


def add_step_flag(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint of a run a command takes."""
    parser.add_argument(
        "--step", type=at_least(0), metavar="N", help="this checkpoint instead of the best by validation loss"
    )


def add_threads_flag(parser: argparse.ArgumentParser) -> None:
    """With the bound of fit.threads: thousands are minutes of a machine that does nothing else."""
    parser.add_argument("--threads", type=at_least(1, most=256), metavar="N", help="processor threads to use")


def _megabytes(text: str) -> float:
    """MiB, as all MB of this program are, from a number that may have a unit."""
    found = re.fullmatch(r"(.*?)\s*(MB|MiB|M|GB|GiB|G)?", text.strip(), re.IGNORECASE)
    try:
        number = float(found[1] if found else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no size; give MB, such as 800, or 1.2GB") from None
    return number * (1024 if found and (found[2] or "").lower().startswith("g") else 1)


def add_sampling_flags(parser: argparse.ArgumentParser, *, defaults: str) -> None:
    """How tokens are chosen. A flag that is not given stays None; ``defaults`` says what holds then."""
    group = parser.add_argument_group("how tokens are chosen", defaults)
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="length of the text, in tokens")
    group.add_argument("--temperature", type=float, metavar="X", help="0 always takes the likeliest token")
    group.add_argument("--top-k", type=int, metavar="K", help="choose among the k likeliest tokens; 0 means all")
    group.add_argument("--top-p", type=float, metavar="P", help="... that share this probability")
    group.add_argument("--repetition-penalty", type=float, metavar="X", help="above 1 repeats less")
    group.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text (repeatable)")


def given_sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_sampling_flags` that a person gave, by their names in ``[sample]``; without ``--stop``."""
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def for_terminal(text: str, stream: IO[str] | None = None) -> str:
    """Text of a stranger as it may be shown: on a terminal its control characters are written out, elsewhere they stay.

    A young model, or the name of a file, must not command the terminal. ``stream`` is standard output by default.
    """
    if not (stream or sys.stdout).isatty():
        return text
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1))


def print_json_line(value: Any) -> None:
    """One JSON object on one line, for commands that print several."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def mute(stream: IO[str]) -> None:
    """Sends what is still to come nowhere: its reader left, and Python would complain when it flushes at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def duration(seconds: float | None) -> str:
    """``95 -> '1m35s'``; ``None -> '?'``."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
