"""``ondevice train``: start a run from a config, a preset or text; or go on with one."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.cli.baseline import prepare_decision
from ondevice.cli.build_progress import built
from ondevice.cli.common import add_config_flags, at_least, config_from, cores, looks_like_config, print_json_line
from ondevice.cli.phone import on_a_phone
from ondevice.cli.progress import QuietDisplay, make_display, rate_words
from ondevice.device.host import on_android
from ondevice.errors import Interrupted, OndeviceError, UsageError, nearest
from ondevice.run.directory import RunDir, find_run, home, list_runs
from ondevice.run.schema import Config

if TYPE_CHECKING:
    from ondevice.device.simulate_wish import DeviceWish

__all__ = ["EXAMPLES", "add_arguments", "run", "start_run", "train_run"]

EXAMPLES = """examples:
  ondevice train --data ~/notes --minutes 30          a model of your notes in half an hour
  ondevice train shakespeare-char --data shakespeare.txt
  ondevice train my.toml --set train.lr=1e-3 --name second
  ondevice train second                               go on with the run 'second'
  ondevice train big --parts 3                        three more parts of a chain (chain.parts), then stop
  ondevice train second --set limits.keep_last=5      go on, and keep more checkpoints from now on
  ondevice train second --device sim:galaxy-s25plus,ambient=25..36@900,unplug@1200 --speed 60
                                                      watch how it would behave on a phone that gets warm

Ctrl-C finishes the step, saves and leaves; the same command goes on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", help="a run, a config file (.toml) or a preset")
    add_config_flags(parser)
    parser.add_argument("--parts", type=at_least(1), metavar="N", help="train N parts of a chain, then stop")
    parser.add_argument("--keep-hold", action="store_true", help="stay paused if it was (for automatic restarts)")
    parser.add_argument("--no-baseline", action="store_true", help="with a contract: do not score the base first")
    parser.add_argument("--refit", action="store_true", help="choose threads and micro-batch anew for this device")
    parser.add_argument(
        "--device",
        metavar="SIM",
        help="train on a simulated phone: sim:NAME, sim:NAME,ambient=33 ..., or replay:FILE",
    )
    parser.add_argument("--speed", type=float, metavar="X", help="let its time pass so many times faster (1)")
    parser.add_argument("--quiet", action="store_true", help="print only the result")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def run(args: argparse.Namespace) -> int:
    device = _simulated(args)
    display = make_display(quiet=args.quiet, as_json=args.json)
    try:
        run_dir = _find_or_start(args, display, handheld=device.handheld if device else on_android(os.environ))
        prepare_decision(run_dir, display, skip=args.no_baseline)
        return train_run(
            run_dir,
            display=display,
            parts=args.parts,
            keep_hold=args.keep_hold,
            refit=args.refit,
            device=device,
            as_json=args.json,
            final=True,
        )
    finally:
        display.close()


def _simulated(args: argparse.Namespace) -> DeviceWish | None:
    """The device of ``--device``; None for this machine. Raises UsageError."""
    if args.device is None:
        if args.speed is not None:
            raise UsageError("--speed is for a simulated device; name one with --device, such as sim:galaxy-s25plus.")
        return None
    from ondevice.device.simulate_wish import parse_device

    return parse_device(args.device, speed=1.0 if args.speed is None else args.speed)


def _find_or_start(args: argparse.Namespace, display: QuietDisplay, *, handheld: bool) -> RunDir:
    changed = args.data or args.set or args.name or args.minutes is not None or args.memory is not None
    if args.target and not changed:
        try:
            return find_run(args.target)
        except UsageError:
            if not looks_like_config(args.target):
                return _named_run(args.target)
    if args.target and not looks_like_config(args.target):
        return _changed_run(_named_run(args.target), args, display)
    config, quiet = config_from(args, args.target), args.quiet or args.json
    return start_run(config, display, changes=args.set, quiet=quiet, handheld=handheld)


def _named_run(target: str) -> RunDir:
    """The run of that name. Raises UsageError for text, and for what is nearly a preset's name."""
    from ondevice.run.config import preset_names

    _refuse_text(target)
    try:
        return find_run(target)
    except UsageError as error:
        preset = nearest(target, preset_names())
        if preset and not nearest(target, [run.name for run in list_runs()]):
            raise UsageError(f"{target}: no such run, and no preset of that name{preset}.") from error
        raise


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
    from ondevice.cli.limit import change_run

    for sentence in change_run(run_dir, changes):
        display.say(sentence)


def _refuse_text(target: str) -> None:
    """Raises UsageError where the target is text rather than a run."""
    path = Path(os.path.expanduser(target))
    if path.exists() and not (path / "run.json").is_file() and not (home() / "runs" / target / "run.json").is_file():
        raise UsageError(
            f"{target} is not a run; to learn from it, write `ondevice train --data {shlex.quote(target)}`."
        )


def start_run(
    config: Config, display: QuietDisplay, *, changes: Sequence[str], quiet: bool, handheld: bool | None = None
) -> RunDir:
    """The run of a config: found if the same command made it before, else built, planned and made.

    ``changes`` are those of ``--set``, for limits of a run that exists; ``handheld``: the device is a phone, None:
    look."""
    from ondevice.cli.data_text import dataset_lines
    from ondevice.cli.plan_text import plan_lines
    from ondevice.train.wish import resume_or_refuse

    existing = resume_or_refuse(config)
    if existing is not None:
        _tell_changes(existing, changes, display)
        return existing
    dataset = built(config, quiet=quiet)
    for line in dataset_lines(dataset):
        display.say(line)
    from ondevice.train.prepare import make_run, prepare  # torch, which the build has no need of

    android = on_android(os.environ) if handheld is None else handheld
    prepared = prepare(config, dataset, cores=cores(), android=android)
    for line in plan_lines(prepared):
        display.say(line)
    for warning in prepared.warnings:
        display.say(f"Warning: {warning}")
    made = make_run(config, prepared, dataset)
    display.say(f"Run      {made.name}")  # where no name was given, the one that other commands want
    return made


def train_run(
    run_dir: RunDir,
    *,
    display: QuietDisplay,
    parts: int | None = None,
    keep_hold: bool = False,
    refit: bool = False,
    device: DeviceWish | None = None,
    as_json: bool = False,
    final: bool = False,
) -> int:
    """Trains to the end, or so many ``parts`` of a chain; ``final``: the outcome is the command's result.

    Raises Interrupted when a signal ended it, OndeviceError when the run failed."""
    from ondevice.run.liveness import read_status
    from ondevice.train.chain import train

    if device is not None:
        display.say(f"Training on a simulated device ({device.name}), whose time goes {device.speed:g} times as fast.")
    with on_a_phone(run_dir, display) as told:
        outcome = train(run_dir, display=told, parts=parts, keep_hold=keep_hold, refit=refit, device=device)
    status = read_status(run_dir)
    display.close()
    if as_json:
        told_outcome = {key: getattr(outcome, key) for key in ("outcome", "step", "why")}
        print_json_line({"kind": "outcome", "run": run_dir.name, **told_outcome})
    else:
        tell = display.result if final else display.say
        tell(
            f"{run_dir.name} {outcome.outcome} at step {outcome.step} of {status.get('steps')}: {outcome.why}. "
            + (f"{rate}. " if (rate := rate_words(status)) else "")
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
    from ondevice.run.liveness import read_liveness

    if read_liveness(run_dir).left is None:
        return f"Go on with `ondevice train {run_dir.name}`."
    if on_android(os.environ):
        looks = "Android looks about every 15 minutes whether it may go on"
    else:
        looks = f"`ondevice watch {run_dir.name} --restart` brings it back when it may go on"
    return f"{looks}; `ondevice train {run_dir.name}` starts it now."
