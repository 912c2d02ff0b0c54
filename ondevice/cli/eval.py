"""``ondevice eval TARGET``: how good a model is. A live trainer measures its own, anything else is measured here."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ondevice.cli.common import print_json
from ondevice.cli.control import ask
from ondevice.cli.eval_target import add_target_flags, eval_target
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.directory import RunDir, find_run
from ondevice.run.liveness import read_liveness
from ondevice.run.telemetry import as_number, launch_files, read_file

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice eval notes              losses and generations of the best checkpoint
  ondevice eval notes --step 800 --prompts my.jsonl
  ondevice eval notes/exports/onnx-00000800 --no-losses
  ondevice eval models/SmolLM2-135M --data notes       a folder of Hugging Face, on the text of a dataset
  ondevice eval notes --wait 600 --json      a run that trains: the loss of each source, as the model is now

A run that trains is asked to measure itself; a paused one stays paused, and the losses also go into its story."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run, the folder of a checkpoint, an export, or a folder of Hugging Face")
    parser.add_argument("--wait", type=float, default=120.0, metavar="S", help="live run: seconds to wait (120)")
    add_target_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = _live(args)
    if run_dir is None:
        return eval_target(args.target, args)
    until = time.monotonic() + args.wait
    answer = ask(run_dir, "eval", {}, wait_s=args.wait)
    found = None if answer is None else _measured(run_dir, answer["id"], until)
    if args.json:
        print_json(found or {"ok": None, "verb": "eval"})
    elif found is None:
        tell(f"{run_dir.name}: asked; the losses will be in `ondevice status {run_dir.name}`.")
    else:
        _show(run_dir, found)
    return 0


def _live(args: argparse.Namespace) -> RunDir | None:
    """The run, where the target is one that trains, and neither a checkpoint of it nor another dataset was named."""
    try:
        run_dir = find_run(args.target)
    except UsageError:  # an export or a checkpoint, which the evaluation looks for itself
        return None
    return None if args.step is not None or args.data is not None or read_liveness(run_dir).holder is None else run_dir


def _measured(run: RunDir, letter: str, until: float) -> dict[str, Any] | None:
    """The first evaluation after the answer to a letter, None if it has not come in time."""
    while time.monotonic() < until:
        answered = False
        for record in read_file(launch_files(run.telemetry)[-1]):
            if answered and record["kind"] == "eval":
                return record
            if answered and record["kind"] == "end":
                return None
            answered = answered or record.get("id") == letter
        time.sleep(0.2)
    return None


def _show(run: RunDir, found: dict[str, Any]) -> None:
    tell(f"{run.name}: step {found['step']:,}")
    losses, bits = found.get("val_loss") or {}, found.get("bits_per_byte") or {}
    for source, loss in losses.items():
        more = f", {bits[source]:.4f} bits a byte" if as_number(bits.get(source)) is not None else ""
        tell(f"  val       {loss:.4f} {source}{more}")
    if as_number(found.get("val_loss_mixed")) is not None:
        best = ", the best so far" if found.get("best_step") == found["step"] else ""
        tell(f"  all       {found['val_loss_mixed']:.4f} nats a token{best}")
