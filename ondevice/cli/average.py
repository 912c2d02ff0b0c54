"""``ondevice average RUN``: a new run whose weights are the mean of several checkpoints of another."""

from __future__ import annotations

import argparse

from ondevice.cli.common import at_least, print_json
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.directory import find_run
from ondevice.run.store import Store

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice average notes --last 5                    the newest five checkpoints
  ondevice average notes --from 800 --to 1200 --name soup
  ondevice average notes --last 3 --to 1200 --json

The average is a run of its own: measure it, generate from it, export it, or train it on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("--last", type=at_least(2), metavar="N", help="the newest N of the window")
    parser.add_argument("--from", dest="first", type=at_least(0), metavar="STEP", help="not before this step")
    parser.add_argument("--to", type=at_least(0), metavar="STEP", help="not after this step")
    parser.add_argument("--name", help="name of the new run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.study.average import average_run, window

    parent = find_run(args.run)
    if args.last is None and args.first is None and args.to is None:
        raise UsageError("Say which checkpoints: --last N, or --from STEP and --to STEP.")
    steps = window(Store(parent.checkpoints).steps(), first=args.first, last=args.to, count=args.last)
    child = average_run(parent, steps, name=args.name or "")
    if args.json:
        print_json({"run": child.name, "path": str(child.path), "steps": steps})
    else:
        tell(f"{child.name}: the mean of {len(steps)} checkpoints, steps {', '.join(map(str, steps))}.")
        tell(f"Measure it: ondevice eval {child.name}")
    return 0
