"""``ondevice sample RUN [PROMPT]``: from the live trainer, or from the checkpoint of a run that is not training."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ondevice.cli.common import add_sampling_flags, print_json
from ondevice.cli.control import ask
from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, find_run
from ondevice.run.liveness import read_liveness
from ondevice.run.telemetry import read_records

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice sample notes "Dear diary,"    asks the trainer where one lives, else uses the best checkpoint
  ondevice sample notes --last           the samples the run wrote so far"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("prompt", nargs="?", default="", help="text to go on from")
    parser.add_argument("--last", action="store_true", help="show the samples the run wrote so far")
    parser.add_argument("--wait", type=float, default=120.0, metavar="S", help="seconds to wait for the trainer (120)")
    add_sampling_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    if args.last:
        return _show([r for r in read_records(run_dir.telemetry) if r["kind"] == "sample"], args)
    if read_liveness(run_dir).holder is not None:
        return _show([_from_trainer(run_dir, args)], args)
    from ondevice.cli.generate import write_text
    from ondevice.infer.open import open_target

    opened = open_target(str(run_dir.path))
    result = write_text(opened, args.prompt, args, stream=not args.json)
    if args.json:
        print_json({"samples": [{"prompt": args.prompt, "what": opened.what, **result}]})
    return 0


def _from_trainer(run_dir: RunDir, args: argparse.Namespace) -> dict[str, Any]:
    """The first sample of this prompt that the trainer writes after it was asked."""
    asked_t = time.time()
    ask(run_dir, "sample", {"prompt": args.prompt}, wait_s=args.wait)
    until = time.monotonic() + args.wait
    while time.monotonic() < until:
        for record in read_records(run_dir.telemetry):
            if record["kind"] == "sample" and record["t"] >= asked_t and record.get("prompt") == args.prompt:
                return record
        time.sleep(0.2)
    raise OndeviceError(f"{run_dir.name}: no sample within {args.wait:.0f} s; try again with a longer --wait.")


def _show(samples: list[dict[str, Any]], args: argparse.Namespace) -> int:
    if args.json:
        print_json({"samples": samples})
        return 0
    for record in samples:
        print(f"[step {record['step']}]")
        print(f"{record['prompt']}{record['text']}")
    if not samples:
        print("The run has written no sample yet.")
    return 0
