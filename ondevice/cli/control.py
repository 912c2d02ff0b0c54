"""``ondevice pause|resume|stop|save RUN``: a letter to the live trainer, and its answer."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ondevice.cli.common import print_json
from ondevice.cli.folding import tell
from ondevice.errors import OndeviceError, UsageError
from ondevice.run import control
from ondevice.run.directory import RunDir, find_run
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.telemetry import read_file

__all__ = ["EXAMPLES", "add_arguments", "ask", "run"]

EXAMPLES = """examples:
  ondevice pause notes      ondevice resume notes
  ondevice save notes       ondevice stop notes --wait 120"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="seconds to wait for the answer (30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    answer = ask(run_dir, args.command, {}, wait_s=args.wait)
    if args.json:
        print_json(answer or {"ok": None, "verb": args.command})
    elif answer is None:
        tell(f"{run_dir.name}: asked; the trainer answers when its micro-batch is done.")
    else:
        tell(f"{run_dir.name}: {args.command} accepted.")
    return 0


def ask(run_dir: RunDir, verb: str, args: dict[str, Any], *, wait_s: float) -> dict[str, Any] | None:
    """Sends a letter and waits for the trainer's ``control`` record; None if it has not come in time.

    Raises UsageError when no trainer lives, OndeviceError when the trainer refused.
    """
    alive = read_liveness(run_dir)
    if alive.holder is None:
        name, finished = run_dir.name, alive.state == "finished"
        then = f"`ondevice fork {name} --tokens +1M` goes on" if finished else f"start it with `ondevice train {name}`"
        raise UsageError(f"{name}: no trainer is running ({alive.state}); {then}.")
    letter = control.send(run_dir, verb, args, sender="command line")
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        answer = _answer(run_dir, letter)
        if answer is not None:
            if not answer.get("ok"):
                raise OndeviceError(f"{run_dir.name}: {verb} refused: {str(answer.get('why')).rstrip('.')}.")
            return answer
        time.sleep(0.1)
    return None


def _answer(run_dir: RunDir, letter: str) -> dict[str, Any] | None:
    launch = int(read_status(run_dir).get("launch") or 0)
    path = run_dir.telemetry / f"{launch:04d}.jsonl"
    if not path.exists():
        return None
    return next((r for r in read_file(path) if r["kind"] == "control" and r.get("id") == letter), None)
