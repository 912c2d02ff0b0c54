"""``ondevice package RUN``: a tuned model with its proof in one folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ondevice.cli.common import at_least, print_json
from ondevice.cli.folding import tell
from ondevice.run.directory import find_run

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice package tickets                      what was decided to be kept, to runs/tickets/exports/package-<step>
  ondevice package tickets --out ~/tickets-v1 --with-data
  ondevice verify ~/tickets-v1                  every byte, and the decision from the raw outputs
  ondevice verify ~/tickets-v1 --again --base ~/models/SmolLM2-135M

Holds the adapter (or all weights), tokenizer, contract, held-out rows, raw outputs, the decision, and how
it was trained, with the hash of each file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument(
        "--step", type=at_least(0), metavar="N", help="this checkpoint instead of the newest decision's"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where to write")
    parser.add_argument("--with-data", action="store_true", help="put the training rows in too, not only their hashes")
    parser.add_argument("--anyway", action="store_true", help="also what was not decided to be kept")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier package in that place")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.errors import UsageError
    from ondevice.export.package import package_run
    from ondevice.study.task_decision import decisions
    from ondevice.study.task_rule import task_folder

    run_dir = find_run(args.run)
    step = args.step
    if step is None:
        made = decisions(task_folder(run_dir))
        if not made:
            raise UsageError(f"{run_dir.name}: nothing was decided yet; `ondevice decide {run_dir.name}` does.")
        step = made[-1]["step"]
    folder = run_dir.exports / f"package-{step:08d}"
    if args.out:
        folder = Path(os.path.expanduser(args.out)).absolute()
    body = package_run(run_dir, step, folder, with_data=args.with_data, anyway=args.anyway, overwrite=args.overwrite)
    if args.json:
        print_json({"path": str(folder), **body})
        return 0
    size = sum(each["bytes"] for each in body["files"].values())
    tell(f"{folder}: {len(body['files'])} files, {size / 1e6:,.1f} MB, decided to {body['verdict']}.")
    tell(f"Check it with `ondevice verify {folder}`.")
    return 0
