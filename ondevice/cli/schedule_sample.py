"""``ondevice schedule sample RUN --prompts FILE``: what each part's checkpoint writes, and what got worse since."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ondevice.cli.common import add_sampling_flags, add_threads_flag, given_sampling, print_json
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.directory import RunDir

__all__ = ["add_flags", "run"]

_SHOWN = 8


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", metavar="FILE", help='JSONL: {"prompt", and "expected" or "contains" as wanted}')
    add_threads_flag(parser)
    add_sampling_flags(parser, defaults="where not given: 64 tokens, always the likeliest (temperature 0)")


def run(run_dir: RunDir, args: argparse.Namespace) -> int:
    if not args.prompts:
        raise UsageError(f"ondevice schedule sample {run_dir.name}: name a JSONL file of prompts with --prompts FILE.")
    if args.stop:
        raise UsageError("--stop: texts that are judged end by themselves or by their length; leave it out.")
    from ondevice.infer.sampling import Sampling
    from ondevice.study.part_samples import sample_parts
    from ondevice.study.prompts import read_prompts

    chosen = {"temperature": 0.0, **given_sampling(args)}
    length = chosen.pop("max_new_tokens", 64)
    if length < 1:
        raise UsageError(f"--max-new-tokens {length}: must be 1 or more.")
    result = sample_parts(
        run_dir,
        read_prompts(Path(os.path.expanduser(args.prompts))),
        sampling=Sampling(**chosen),
        max_new_tokens=length,
        threads=args.threads,
        progress=lambda text: print(f"{text} ...", file=sys.stderr),
    )
    if args.json:
        print_json({**result, "folder": str(run_dir.evals)})
        return 0
    for line in _lines(result):
        tell(line)
    tell(f"Generations: {run_dir.evals}")
    return 0


def _lines(result: dict[str, Any]) -> Iterator[str]:
    changes = {change["after"]: change for change in result["changes"]}
    for part in result["parts"]:
        measured, answers = part["degeneration"], part["answers"]
        right = f", {answers['right']} of {answers['n']} right" if answers else ""
        yield (
            f"{part['part']:>4} step {part['step']:>7,}  diversity {measured['diversity']:.3f}, "
            f"looping {measured['loop_rate']:.0%}{right}"
        )
        yield from (f"      {line}" for line in _worse(changes.get(part["part"])))
    regressed = sum(any(True for _ in _worse(change)) for change in result["changes"])
    yield f"{regressed} of {len(result['changes'])} parts made something worse."


def _worse(change: dict[str, Any] | None) -> Iterator[str]:
    """What regressed; prompts are counted from 1, as lines of the file are."""
    if change is None:
        return
    for name, difference in change["worse"].items():
        yield f"worse: {name.replace('_', ' ')} {difference['estimate']:+.3f} on the mean"
    for numbers, words in ((change["lost"], "no longer right"), (change["looping"], "now in circles")):
        if numbers:
            more = " ..." if len(numbers) > _SHOWN else ""
            yield f"{words}: prompt {', '.join(str(number + 1) for number in numbers[:_SHOWN])}{more}"
