"""``ondevice eval RUN``: asks a live trainer to measure the validation text now, and shows what it found."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ondevice.cli.common import print_json
from ondevice.cli.control import ask
from ondevice.errors import UsageError
from ondevice.run.directory import RunDir, find_run
from ondevice.run.liveness import read_liveness
from ondevice.run.telemetry import as_number, launch_files, read_file

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice eval notes              the loss of each source, as the model is now
  ondevice eval notes --wait 600 --json

A paused run is measured too, and stays paused. The losses also go into the run's story."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of a run that is training")
    parser.add_argument("--wait", type=float, default=120.0, metavar="S", help="seconds to wait for the losses (120)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    alive = read_liveness(run_dir)
    if alive.holder is None:
        raise UsageError(
            f"{run_dir.name}: no trainer is running ({alive.state}), and only a live one can measure; "
            f"`ondevice status {run_dir.name}` shows the losses so far, `ondevice train {run_dir.name}` goes on."
        )
    until = time.monotonic() + args.wait
    answer = ask(run_dir, "eval", {}, wait_s=args.wait)
    found = None if answer is None else _measured(run_dir, answer["id"], until)
    if args.json:
        print_json(found or {"ok": None, "verb": "eval"})
    elif found is None:
        print(f"{run_dir.name}: asked; the losses will be in `ondevice status {run_dir.name}`.")
    else:
        _show(run_dir, found)
    return 0


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
    print(f"{run.name}: step {found['step']:,}")
    losses, bits = found.get("val_loss") or {}, found.get("bits_per_byte") or {}
    for source, loss in losses.items():
        more = f", {bits[source]:.4f} bits a byte" if as_number(bits.get(source)) is not None else ""
        print(f"  val       {loss:.4f} {source}{more}")
    if as_number(found.get("val_loss_mixed")) is not None:
        best = ", the best so far" if found.get("best_step") == found["step"] else ""
        print(f"  all       {found['val_loss_mixed']:.4f} nats a token{best}")
