"""``ondevice train``: start a run from a config, a preset or text; or go on with one."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from ondevice.cli.build_progress import BuildProgress
from ondevice.cli.common import add_config_flags, config_from, cores, is_android, looks_like_config, print_json_line
from ondevice.cli.progress import QuietDisplay, make_display
from ondevice.errors import Interrupted, OndeviceError, UsageError
from ondevice.run.directory import RunDir, find_run, home
from ondevice.run.schema import Config

__all__ = ["EXAMPLES", "add_arguments", "run", "start_run", "train_run"]

EXAMPLES = """examples:
  ondevice train --data ~/notes --minutes 30          a model of your notes in half an hour
  ondevice train shakespeare-char --data shakespeare.txt
  ondevice train my.toml --set train.lr=1e-3 --name second
  ondevice train second                               go on with the run 'second'
  ondevice train second --set limits.keep_last=5      go on, and keep more checkpoints from now on

Ctrl-C finishes the step, saves and leaves; the same command goes on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", help="a run, a config file (.toml) or a preset")
    add_config_flags(parser)
    parser.add_argument("--keep-hold", action="store_true", help="stay paused if it was (for automatic restarts)")
    parser.add_argument("--refit", action="store_true", help="choose threads and micro-batch anew for this device")
    parser.add_argument("--quiet", action="store_true", help="print only the result")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def run(args: argparse.Namespace) -> int:
    display = make_display(quiet=args.quiet, as_json=args.json)
    try:
        run_dir = _find_or_start(args, display)
        return train_run(
            run_dir, display=display, keep_hold=args.keep_hold, refit=args.refit, as_json=args.json, final=True
        )
    finally:
        display.close()


def _find_or_start(args: argparse.Namespace, display: QuietDisplay) -> RunDir:
    changed = args.data or args.set or args.name or args.minutes is not None or args.memory is not None
    if args.target and not changed:
        try:
            return find_run(args.target)
        except UsageError:
            if not looks_like_config(args.target):
                _refuse_text(args.target)
                raise
    if args.target and not looks_like_config(args.target):
        _refuse_text(args.target)
        return _changed_run(find_run(args.target), args, display)
    return start_run(config_from(args, args.target), display, changes=args.set, quiet=args.quiet or args.json)


def _changed_run(run_dir: RunDir, args: argparse.Namespace, display: QuietDisplay) -> RunDir:
    """A run that was named with flags: its limits may change, all else is refused."""
    from ondevice.run.config import load_config

    behaviour = all(change.partition(".")[0].strip() in ("limits", "fit") for change in args.set)
    if not behaviour or args.data or args.name or args.minutes is not None or args.memory is not None:
        raise UsageError(
            f"{args.target} is a run, and a run's recipe never changes; leave --data, --set ... out "
            "(but for --set limits.KEY=VALUE)."
        )
    load_config(None, changes=args.set)  # refuses keys that do not exist
    _tell_changes(run_dir, args.set, display)
    return run_dir


def _tell_changes(run_dir: RunDir, changes: Sequence[str], display: QuietDisplay) -> None:
    from ondevice.train.wish import change_run

    for sentence in change_run(run_dir, changes):
        display.say(sentence)


def _refuse_text(target: str) -> None:
    """Raises UsageError where the target is text rather than a run."""
    path = Path(os.path.expanduser(target))
    if path.exists() and not (path / "run.json").is_file() and not (home() / "runs" / target / "run.json").is_file():
        raise UsageError(
            f"{target} is not a run; to learn from it, write `ondevice train --data {shlex.quote(target)}`."
        )


def start_run(config: Config, display: QuietDisplay, *, changes: Sequence[str], quiet: bool) -> RunDir:
    """The run of a config: found if the same command made it before, else built, planned and made.

    ``changes`` are those of ``--set``, for limits of a run that exists."""
    from ondevice.cli.data_text import dataset_lines
    from ondevice.cli.plan_text import plan_lines
    from ondevice.train.wish import make_dataset, resume_or_refuse

    existing = resume_or_refuse(config)
    if existing is not None:
        _tell_changes(existing, changes, display)
        return existing
    progress = BuildProgress(quiet=quiet)
    try:
        dataset = make_dataset(config, progress)
    finally:
        progress.close()
    for line in dataset_lines(dataset):
        display.say(line)
    from ondevice.train.prepare import make_run, prepare  # torch, which the build has no need of

    prepared = prepare(config, dataset, cores=cores(), android=is_android())
    for line in plan_lines(prepared):
        display.say(line)
    for warning in prepared.warnings:
        display.say(f"Warning: {warning}")
    return make_run(config, prepared, dataset)


def train_run(
    run_dir: RunDir,
    *,
    display: QuietDisplay,
    keep_hold: bool = False,
    refit: bool = False,
    as_json: bool = False,
    final: bool = False,
) -> int:
    """Trains to the end; ``final``: the outcome is the command's result.

    Raises Interrupted when a signal ended it, OndeviceError when the run failed."""
    from ondevice.run.liveness import read_status
    from ondevice.train.launch import launch

    outcome = launch(run_dir, display=display, keep_hold=keep_hold, refit=refit)
    status = read_status(run_dir)
    display.close()
    if as_json:
        print_json_line({"kind": "outcome", "run": run_dir.name, **vars(outcome)})
    else:
        tell = display.result if final else display.say
        tell(
            f"{run_dir.name} {outcome.outcome} at step {outcome.step} of {status.get('steps')}: {outcome.why}. "
            + (f"{status['tok_s']:,.0f} tok/s. " if status.get("tok_s") else "")
            + _next_hint(run_dir, outcome.outcome)
        )
    if outcome.outcome == "failed":
        raise OndeviceError(f"{run_dir.name}: {outcome.why}")
    if outcome.why.startswith("asked by SIG"):
        state = f"saved at step {outcome.step}" if outcome.step else "has not made its first step"
        raise Interrupted(f"{run_dir.name} {state}; go on with `ondevice train {run_dir.name}`.")
    return 0


def _next_hint(run_dir: RunDir, outcome: str) -> str:
    if outcome == "finished":
        return f"Try `ondevice generate {run_dir.name}` and `ondevice export {run_dir.name}`."
    return f"Go on with `ondevice train {run_dir.name}`."
