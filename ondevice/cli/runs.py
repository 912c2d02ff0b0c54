"""``ondevice runs list|rename|rm|du``."""

from __future__ import annotations

import argparse

from ondevice.cli.common import print_json
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.create import remove_run, rename_run
from ondevice.run.digest import best_of, digest
from ondevice.run.directory import RunDir, disk_usage, find_run, list_runs
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.telemetry import read_records

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice runs list
  ondevice runs rename notes-1f2e notes
  ondevice runs rm notes --yes
  ondevice runs du --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|rename|rm|du")
    listing = actions.add_parser("list", help="every run with its state")
    rename = actions.add_parser("rename", help="give a run another name")
    rename.add_argument("run")
    rename.add_argument("new_name")
    remove = actions.add_parser("rm", help="delete a run")
    remove.add_argument("run")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    usage = actions.add_parser("du", help="what runs take on disk")
    usage.add_argument("run", nargs="?")
    for action in (listing, rename, remove, usage):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    return {"list": _list, "rename": _rename, "rm": _remove, "du": _usage}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    rows = [_row(run_dir) for run_dir in list_runs()]
    if args.json:
        print_json({"runs": rows})
    elif not rows:
        tell("There are no runs yet; start with `ondevice quickstart`.")
    for row in [] if args.json else rows:
        loss = f"{row['best_loss']:.3f}" if row["best_loss"] is not None else "-"
        tell(f"{row['state']:<9} {row['share']:>4.0%} best {loss:<5} {row['run']}")
    return 0


def _row(run_dir: RunDir) -> dict[str, object]:
    story = digest(read_records(run_dir.telemetry))
    best_step, best_loss = best_of(story, read_status(run_dir))
    return {
        "run": run_dir.name,
        "path": str(run_dir.path),
        "state": read_liveness(run_dir).state,
        "step": story.step,
        "steps": story.steps,
        "share": story.step / story.steps if story.steps else 0.0,
        "best_loss": best_loss,
        "best_step": best_step,
    }


def _rename(args: argparse.Namespace) -> int:
    renamed = rename_run(find_run(args.run), args.new_name)
    if args.json:
        print_json({"run": renamed.name, "path": str(renamed.path)})
    else:
        tell(f"Renamed to {renamed.name}.")
    return 0


def _remove(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    size_mb = disk_usage(run_dir.path) / 2**20
    if not args.yes and not _agreed(f"Delete {run_dir.path} ({size_mb:,.0f} MB) for ever? [y/N] "):
        raise UsageError(f"{run_dir.name}: not deleted; add --yes to delete without a question.")
    remove_run(run_dir)
    if args.json:
        print_json({"removed": run_dir.name, "freed_mb": round(size_mb, 1)})
    else:
        tell(f"Deleted {run_dir.name}, {size_mb:,.0f} MB are free again.")
    return 0


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _usage(args: argparse.Namespace) -> int:
    runs = [find_run(args.run)] if args.run else list_runs()
    rows = [
        {
            "run": run_dir.name,
            "total_mb": round(disk_usage(run_dir.path) / 2**20, 1),
            "checkpoints_mb": round(disk_usage(run_dir.checkpoints) / 2**20, 1),
            "exports_mb": round(disk_usage(run_dir.exports) / 2**20, 1),
        }
        for run_dir in runs
    ]
    if args.json:
        print_json({"runs": rows})
        return 0
    for row in rows:
        tell(f"{row['total_mb']:>9,.1f} MB {row['run']} (checkpoints {row['checkpoints_mb']:,.1f} MB)")
    return 0
