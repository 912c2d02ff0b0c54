"""``ondevice decide RUN``: keep, iterate or discard what was tuned, by the rule stated before."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ondevice.cli.common import add_step_flag, add_threads_flag, print_json
from ondevice.cli.folding import tell
from ondevice.cli.progress import make_display
from ondevice.errors import UsageError
from ondevice.run.directory import RunDir, find_run

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice decide tickets                     the best checkpoint against the baseline, on the held-out rows
  ondevice decide tickets --step 120 --json
  ondevice decide old --late contract.toml    for a run that began without a rule; the decision says so

The rule, the held-out rows and the baseline are fixed by `ondevice train` before the first step, where data.contract
names a contract with a [decision]. The decision and its reasons are in evals/task/decision.md of the run; raw outputs
are beside it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    add_step_flag(parser)
    parser.add_argument(
        "--late", nargs="?", const="", metavar="CONTRACT", help="state the rule and score the baseline now, if missing"
    )
    add_threads_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.infer.open import choose_checkpoint
    from ondevice.study.task_decision import DECISION_TEXT, decide_run, decision_text
    from ondevice.study.task_rule import task_folder

    run_dir = find_run(args.run)
    if args.threads:
        import torch

        torch.set_num_threads(int(args.threads))
    _state_late(run_dir, args)
    checkpoint, _ = choose_checkpoint(run_dir, args.step)
    record = decide_run(run_dir, checkpoint.step, load_tokenizer(run_dir.tokenizer))
    folder = task_folder(run_dir)
    if args.json:
        print_json({**record, "folder": str(folder)})
        return 0
    tell(decision_text(folder, record))
    tell(f"Written to {folder / DECISION_TEXT}")
    return 0


def _state_late(run_dir: RunDir, args: argparse.Namespace) -> None:
    """Raises UsageError where there is no rule, unless a contract for it is named."""
    from ondevice.cli.baseline import state_and_score
    from ondevice.study.task_rule import RULE_FILE, task_folder

    stated = (task_folder(run_dir) / RULE_FILE).exists()
    if args.late is None:
        if not stated:
            raise UsageError(
                f"{run_dir.name}: no rule was stated before it was trained; train with data.contract, or state it now "
                "with --late contract.toml, which the decision will say."
            )
        return
    if not stated and not args.late:
        raise UsageError("--late: name the contract that states the rule, such as --late contract.toml.")
    display = make_display(quiet=bool(args.json), as_json=False)
    try:
        state_and_score(run_dir, Path(os.path.expanduser(args.late)).absolute(), display)
    finally:
        display.close()
