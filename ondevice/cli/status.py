"""``ondevice status [RUN]``: how a run is doing, from its files alone; ``--watch`` stays, ``--line`` is one line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ondevice.cli.common import at_least, for_terminal, print_json
from ondevice.cli.folding import tell
from ondevice.cli.status_live import follow
from ondevice.cli.status_text import one_line, outlook, pace_lines, read_lines, story_lines
from ondevice.errors import UsageError
from ondevice.run.digest import Digest, best_of, digest
from ondevice.run.directory import RunDir, find_run, list_runs
from ondevice.run.liveness import Liveness, read_liveness, read_status
from ondevice.run.postmortem import examine
from ondevice.run.telemetry import read_records
from ondevice.run.usage import Usage

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice status            the run that was active last
  ondevice status notes --json
  ondevice status notes --watch           refreshed every second, until the run ends
  ondevice status --line --width 40       for tmux: set -g status-right '#(ondevice status --line)'
  ondevice status notes --price 0.30      what a million tokens cost at that price of a kWh"""

_WORDS = {
    "killed": "killed (its last launch ended without a word); `ondevice train {name}` goes on",
    "asleep": "asleep: the system froze the process",
    "new": "made, not started yet; `ondevice train {name}` starts it",
    "stopped": "stopped; `ondevice train {name}` goes on",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="name or path of the run; the latest where left out")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="stay and show it anew every second, until the run ends")
    how.add_argument("--line", action="store_true", help="one short line, for tmux bars and notifications")
    how.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--width", type=at_least(1), default=60, metavar="N", help="longest --line, in columns (60)")
    parser.add_argument(
        "--price", type=at_least(0, float), metavar="MONEY", help="of a kWh; else what limits.price_per_kwh says"
    )


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run) if args.run else _latest()
    if args.line:
        print(for_terminal(_line(run_dir, width=int(args.width))))
        return 0
    if args.watch and follow(run_dir):
        return 0
    alive, status = read_liveness(run_dir), read_status(run_dir)
    story = digest(read_records(run_dir.telemetry))
    found = outlook(alive, status, _usage(alive, status, story), price=args.price)
    if args.json:
        print_json(_as_json(run_dir, alive, status, story) | found)
    else:
        tell("\n".join(_lines(run_dir, alive, status, story, found)))
    return 0


def _line(run_dir: RunDir, *, width: int) -> str:
    alive, status = read_liveness(run_dir), read_status(run_dir)
    found = outlook(alive, status, Usage.from_json(status.get("usage")), price=None)
    return one_line(run_dir.name, alive.state, status, found, width=width)


def _usage(alive: Liveness, status: dict[str, Any], story: Digest) -> Usage:
    """The trainer's own count where one lives: what it foretells rests on that."""
    told = Usage.from_json(status.get("usage"))
    return told if alive.holder is not None and told.duty is not None else story.usage


def _latest() -> RunDir:
    runs = list_runs()
    if not runs:
        raise UsageError("There are no runs yet; start with `ondevice quickstart`.")
    return max(runs, key=lambda item: max(p.stat().st_mtime for p in (item.status, item.identity) if p.exists()))


def _as_json(run_dir: RunDir, alive: Liveness, status: dict[str, Any], story: Digest) -> dict[str, Any]:
    best_step, best_loss = best_of(story, status)
    return {
        "run": run_dir.name,
        "path": str(run_dir.path),
        "state": alive.state,
        "heartbeat_age_s": alive.age_s,
        "status": status,
        "launches": story.launches,
        "kills": story.kills,
        "best_step": best_step,
        "best_loss": best_loss,
        "val_loss": {name: series.last for name, series in story.val_loss.items() if name},
        "checkpoints": story.checkpoints,
    }


def _lines(
    run_dir: RunDir, alive: Liveness, status: dict[str, Any], story: Digest, found: dict[str, float | None]
) -> Iterator[str]:
    yield f"{run_dir.name}: {_WORDS.get(alive.state, alive.state).format(name=run_dir.name)}"
    if alive.state == "killed" and (death := examine(run_dir)) is not None:
        yield f"  {death}"
    if simulated := status.get("simulated"):
        yield f"  on        {simulated['device']}, simulated {simulated['speed']:g} times as fast"
    if status.get("hold"):
        yield f"  hold      {status['hold']}"
    if alive.holder and status.get("wait"):
        yield f"  wait      {status['wait']}"
    parent = run_dir.read_identity().get("parent")
    if isinstance(parent, dict):
        yield f"  fork      of {parent.get('run')} at step {parent.get('step')}"
    yield from story_lines(story, status)
    yield from read_lines(status, story)
    yield from pace_lines(status, found, live=alive.holder is not None)
    if story.checkpoints:
        yield f"  saved     {', '.join(f'{step:,}' for step in story.checkpoints)}"
    if story.kills:
        yield f"  kills     {story.kills} survived"
    if status.get("last_error") and status["last_error"] != status.get("wait"):
        yield f"  trouble   {status['last_error']}"
