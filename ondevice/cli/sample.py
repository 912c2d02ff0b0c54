"""``ondevice sample RUN [PROMPT]``: from the live trainer, or from the checkpoint of a run that is not training."""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

from ondevice.cli.common import add_sampling_flags, for_terminal, given_sampling, print_json
from ondevice.cli.control import ask
from ondevice.errors import OndeviceError, UsageError
from ondevice.run.directory import RunDir, find_run
from ondevice.run.liveness import read_liveness
from ondevice.run.telemetry import read_records

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice sample notes "Dear diary,"    asks the trainer where one lives, else uses the best checkpoint
  ondevice sample notes "Dear" --temperature 0.5 --max-new-tokens 200
  ondevice sample notes --last           the samples the run wrote so far"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("prompt", nargs="?", default="", help="text to go on from")
    parser.add_argument("--last", action="store_true", help="show the samples the run wrote so far")
    parser.add_argument("--wait", type=float, default=120.0, metavar="S", help="seconds to wait for the trainer (120)")
    add_sampling_flags(parser, defaults="where not given, as the run's recipe says")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    if args.last:
        return _show([r for r in read_records(run_dir.telemetry) if r["kind"] == "sample"], args)
    if read_liveness(run_dir).holder is not None:
        return _show([_from_trainer(run_dir, args)], args)
    return _from_checkpoint(run_dir, args)


def _from_checkpoint(run_dir: RunDir, args: argparse.Namespace) -> int:
    from ondevice.cli.generate import write_text
    from ondevice.infer.open import open_target
    from ondevice.train.samples import sampling_of

    recipe = dataclasses.replace(run_dir.read_recipe().sample, **given_sampling(args))
    settings, length = sampling_of(recipe), recipe.max_new_tokens
    opened = open_target(str(run_dir.path))
    result = write_text(opened, args.prompt, settings, max_new_tokens=length, stop=args.stop, stream=not args.json)
    if args.json:
        print_json({"samples": [{"prompt": args.prompt, "what": opened.what, **result}]})
    return 0


def _from_trainer(run_dir: RunDir, args: argparse.Namespace) -> dict[str, Any]:
    """What the trainer writes when it is asked. Raises UsageError for flags it would refuse, before it is asked."""
    from ondevice.train.sample_request import read_request

    if "" in args.stop:
        raise UsageError("A stop string is empty, which would stop everywhere; leave it out.")
    letter = {"prompt": args.prompt, **given_sampling(args)}
    read_request(letter)
    answer = ask(run_dir, "sample", letter, wait_s=args.wait)
    until = time.monotonic() + args.wait
    while answer is not None and time.monotonic() < until:
        for record in read_records(run_dir.telemetry):
            if record.get("letter") != answer["id"]:
                continue
            if record["kind"] == "note":
                raise OndeviceError(f"{run_dir.name}: {record['text']}")
            return {**record, "text": _before(args.stop, record["text"])}
        time.sleep(0.2)
    raise OndeviceError(f"{run_dir.name}: no sample within {args.wait:.0f} s; try again with a longer --wait.")


def _before(stop: list[str], text: str) -> str:
    """The text up to the first of the stop strings."""
    return text[: min((at for each in stop if (at := text.find(each)) >= 0), default=len(text))]


def _show(samples: list[dict[str, Any]], args: argparse.Namespace) -> int:
    if args.json:
        print_json({"samples": samples})
        return 0
    for record in samples:
        print(f"[step {record['step']}]")
        print(for_terminal(f"{record['prompt']}{record['text']}"))
    if not samples:
        print("The run has written no sample yet.")
    return 0
