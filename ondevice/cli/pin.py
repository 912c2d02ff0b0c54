"""``ondevice pin RUN [STEP]``: checkpoints that retention never deletes nor lightens, each with its reason."""

from __future__ import annotations

import argparse
from typing import Any

from ondevice.cli.common import at_least, print_json
from ondevice.cli.control import ask
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.audit import end_of_story
from ondevice.run.directory import RunDir, find_run, lock_holder, offline_lock
from ondevice.run.store import Store

__all__ = ["EXAMPLES", "add_arguments", "change_pin", "run"]

_LONGEST_REASON = 200

EXAMPLES = """examples:
  ondevice pin notes                                what is pinned, and why
  ondevice pin notes 1200 --reason "before the new text"
  ondevice pin notes 1200 --remove"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("step", nargs="?", type=at_least(0), help="step of the checkpoint; left out: list the pins")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--reason", metavar="TEXT", help="why, for whoever looks at it later")
    what.add_argument("--remove", action="store_true", help="unpin it; retention decides about it from now on")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="seconds to wait for a live trainer (30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    if args.step is None:
        if args.remove or args.reason is not None:
            raise UsageError(
                f"ondevice pin {run_dir.name}: name the step too; `ondevice pin {run_dir.name}` lists them."
            )
        return _list(run_dir, as_json=args.json)
    reason = None if args.remove else _reason(args.reason)
    done = change_pin(run_dir, args.step, reason, wait_s=args.wait)
    if args.json:
        print_json({"ok": True if done else None, "step": args.step, "reason": reason})
    elif not done:
        tell(f"{run_dir.name}: asked; the trainer answers when its micro-batch is done.")
    elif reason is None:
        tell(f"{run_dir.name}: step {args.step} is no longer pinned.")
    else:
        tell(f"{run_dir.name}: step {args.step} is pinned ({reason}).")
    return 0


def _reason(text: str | None) -> str:
    reason = "asked for" if text is None else " ".join(text.split())
    if not reason or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise UsageError(f"--reason: write one line of at most {_LONGEST_REASON} printable characters.")
    return reason


def change_pin(run_dir: RunDir, step: int, reason: str | None, *, wait_s: float) -> bool:
    """Through the live trainer, else under its lock. False where the trainer was asked and has not answered yet."""
    store = Store(run_dir.checkpoints)
    if lock_holder(run_dir) is not None:
        arguments: dict[str, Any] = {"step": step, "reason": reason}
        return ask(run_dir, "pin", arguments, wait_s=wait_s) is not None
    with offline_lock(run_dir, what="ondevice pin"):
        store.pin(step, reason, after=end_of_story(run_dir.telemetry))
    return True


def _list(run_dir: RunDir, *, as_json: bool) -> int:
    store = Store(run_dir.checkpoints)
    pins, there, whole = store.pins(), store.steps(), store.complete_steps()
    if as_json:
        rows = [
            {"step": step, "reason": reason, "exists": step in there, "complete": step in whole}
            for step, reason in pins.items()
        ]
        print_json({"run": run_dir.name, "pins": rows})
        return 0
    if not pins:
        tell(f"{run_dir.name}: nothing is pinned; checkpoints: {', '.join(map(str, there)) or 'none yet'}.")
    for step, reason in pins.items():
        note = "" if step in whole else " (light)" if step in there else " (gone)"
        tell(f"{step:>10}{note}  {reason}")
    return 0
