"""``ondevice harness TARGET --tasks FILE``: tasks of lm-evaluation-harness on a model, from local task files."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ondevice.cli.common import add_step_flag, add_threads_flag, at_least, for_terminal, print_json

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice harness notes --tasks mine.yaml             the best checkpoint of a run
  ondevice harness notes/exports/onnx-00000800 --tasks mine.yaml other.yaml --limit 100 --json
  ondevice harness models/SmolLM2-135M --tasks mine.yaml

Needs a laptop and `pip install 'ondevice[harness]'`. Nothing is downloaded: a task's data are files of yours
(dataset_path: json, dataset_kwargs: {data_files: ...}). A task file may name Python functions, which are run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run, the folder of a checkpoint, an export, or a folder of Hugging Face")
    parser.add_argument("--tasks", nargs="+", required=True, metavar="FILE", help="task files (YAML)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N rows of each task")
    add_step_flag(parser)
    parser.add_argument("--context", type=at_least(2), metavar="N", help="Hugging Face: tokens seen at once")
    add_threads_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.study.harness import run_tasks
    from ondevice.study.target import open_target

    files = [Path(os.path.expanduser(name)).absolute() for name in args.tasks]
    with open_target(args.target, step=args.step, threads=args.threads, context=args.context) as target:
        found = run_tasks(target, files, limit=None if args.limit is None else int(args.limit))
    if args.json:
        print_json(found)
    else:
        _show(found)
    return 0


def _show(found: dict[str, Any]) -> None:
    step = "" if found["step"] is None else f" step {found['step']:,}"
    print(f"{for_terminal(found['target'])}{step} ({found['backend']}, lm-evaluation-harness {found['harness']})")
    for task, metrics in found["results"].items():
        for name, value in metrics.items():
            if isinstance(value, float):
                print(f"  {value:12.4f} {for_terminal(f'{task} {name}')} (n {found['n'].get(task, 0)})")
