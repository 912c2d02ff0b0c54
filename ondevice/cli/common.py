"""What several commands share: flags that make a config, JSON output, and sizes and times for people."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ondevice.errors import UsageError

if TYPE_CHECKING:
    from ondevice.run.schema import Config, SourceConfig

__all__ = [
    "add_config_flags",
    "add_sampling_flags",
    "at_least",
    "config_from",
    "cores",
    "duration",
    "is_android",
    "looks_like_config",
    "mute",
    "print_json",
    "print_json_line",
    "text_source",
]


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """``--data --name --minutes --memory --set``."""
    parser.add_argument("--data", action="append", default=[], metavar="PATH", help="text to learn from (repeatable)")
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--minutes", type=float, help="time to spend (budget.minutes)")
    parser.add_argument("--memory", type=float, metavar="MB", help="memory to use (budget.memory_mb)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change any key, such as train.lr=1e-3"
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
    for key, value in (("budget.minutes", args.minutes), ("budget.memory_mb", args.memory)):
        if value is not None:
            changes.append(f"{key}={value}")
    config = load_config(name, changes=changes)
    if args.name:
        config = dataclasses.replace(config, name=args.name)
    elif name is not None and not config.name:
        config = dataclasses.replace(config, name=safe_name(Path(name).stem))
    if args.data:
        sources = tuple(text_source(path) for path in args.data)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=sources))
    if not config.data.sources:
        raise UsageError(
            "No text to learn from: add --data PATH (a file or folder), or [[data.sources]] to the config."
        )
    return config


def text_source(path: str) -> SourceConfig:
    """The source a person named on the command line. Raises UsageError for an empty name."""
    if not path.strip():
        raise UsageError("The path of the text is empty; name a file or folder.")
    from ondevice.run.schema import SourceConfig

    return SourceConfig(path=str(Path(os.path.expanduser(path)).absolute()))


def at_least(low: int, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """The type of a flag whose number has a lower bound.

    >>> parser.add_argument("--threads", type=at_least(1))
    """

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {'whole ' if kind is int else ''}number") from None
        if not low <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be at least {low}, not {text}")
        return value

    return parse


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How tokens are chosen; defaults are those of ``[sample]``."""
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="length of the text (128)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 always takes the likeliest token (0.8)")
    parser.add_argument("--top-k", type=int, default=50, help="choose among the k likeliest tokens; 0 means all (50)")
    parser.add_argument("--top-p", type=float, default=0.95, help="... that share this probability (0.95)")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1 repeats less (1.0)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same text (1)")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text (repeatable)")


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


def is_android() -> bool:
    return sys.platform == "android" or "com.termux" in os.environ.get("PREFIX", "")


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
