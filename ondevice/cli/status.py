"""``ondevice status [RUN]``: how a run is doing, from its files alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ondevice.cli.common import duration, for_terminal, print_json
from ondevice.errors import UsageError
from ondevice.run.digest import Digest, digest
from ondevice.run.directory import RunDir, find_run, list_runs
from ondevice.run.liveness import Liveness, read_liveness, read_status
from ondevice.run.postmortem import examine
from ondevice.run.telemetry import read_records

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice status            the run that was active last
  ondevice status notes --json"""

_WORDS = {
    "killed": "killed (its last launch ended without a word); `ondevice train {name}` goes on",
    "asleep": "asleep: the system froze the process",
    "new": "made, not started yet; `ondevice train {name}` starts it",
    "stopped": "stopped; `ondevice train {name}` goes on",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="name or path of the run; the latest where left out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run) if args.run else _latest()
    alive, status = read_liveness(run_dir), read_status(run_dir)
    story = digest(read_records(run_dir.telemetry))
    if args.json:
        print_json(_as_json(run_dir, alive, status, story))
    else:
        print(for_terminal("\n".join(_lines(run_dir, alive, status, story))))
    return 0


def _latest() -> RunDir:
    runs = list_runs()
    if not runs:
        raise UsageError("There are no runs yet; start with `ondevice quickstart`.")
    return max(runs, key=lambda item: max(p.stat().st_mtime for p in (item.status, item.identity) if p.exists()))


def _as_json(run_dir: RunDir, alive: Liveness, status: dict[str, Any], story: Digest) -> dict[str, Any]:
    return {
        "run": run_dir.name,
        "path": str(run_dir.path),
        "state": alive.state,
        "heartbeat_age_s": alive.age_s,
        "status": status,
        "launches": story.launches,
        "kills": story.kills,
        "best_step": story.best_step,
        "best_loss": story.best_loss,
        "val_loss": {name: series.last for name, series in story.val_loss.items() if name},
        "checkpoints": story.checkpoints,
    }


def _lines(run_dir: RunDir, alive: Liveness, status: dict[str, Any], story: Digest) -> Iterator[str]:
    yield f"{run_dir.name}: {_WORDS.get(alive.state, alive.state).format(name=run_dir.name)}"
    if alive.state == "killed" and (death := examine(run_dir)) is not None:
        yield f"  {death}"
    if status.get("hold"):
        yield f"  hold      {status['hold']}"
    if alive.holder and status.get("wait"):
        yield f"  wait      {status['wait']}"
    parent = run_dir.read_identity().get("parent")
    if isinstance(parent, dict):
        yield f"  fork      of {parent.get('run')} at step {parent.get('step')}"
    steps = story.steps or 0
    if steps:
        yield f"  step      {story.step:,} of {steps:,} ({100 * story.step / steps:.0f} %)"
    if story.loss.last is not None:
        yield f"  loss      {story.loss.last:.4f} nats a token"
    for name, series in story.val_loss.items():
        if name and series.last is not None:
            yield f"  val       {series.last:.4f} {name}"
    if story.best_loss is not None:
        yield f"  best      {story.best_loss:.4f} at step {story.best_step:,}"
    if alive.holder and status.get("tok_s"):
        yield f"  rate      {status['tok_s']:,.0f} tok/s, left {duration(status.get('eta_s'))}"
    if story.checkpoints:
        yield f"  saved     {', '.join(f'{step:,}' for step in story.checkpoints)}"
    if story.kills:
        yield f"  kills     {story.kills} survived"
    if status.get("last_error") and status["last_error"] != status.get("wait"):
        yield f"  trouble   {status['last_error']}"
