"""``ondevice select RUN``: scores the kept checkpoints, names the best by each role, pins them, and says why."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ondevice.cli.common import add_threads_flag, at_least, for_terminal, print_json
from ondevice.cli.eval_target import add_panel_flags, wish_from
from ondevice.cli.folding import tell
from ondevice.cli.pin import change_pin
from ondevice.errors import OndeviceError, UsageError
from ondevice.run.directory import RunDir, find_run
from ondevice.run.store import Store

__all__ = ["EXAMPLES", "add_arguments", "run"]

_REASON = "selected: "

EXAMPLES = """examples:
  ondevice select notes                        judge every kept checkpoint, pin the best
  ondevice select notes --steps 800 1000 1200 --prompts mine.jsonl
  ondevice select notes --no-pin --json

A checkpoint that was judged before is not judged again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("--steps", type=at_least(0), nargs="+", metavar="N", help="only these checkpoints")
    parser.add_argument(
        "--tolerance",
        type=at_least(0, float),
        default=0.02,
        metavar="SHARE",
        help="for use: how much more loss than the lowest (0.02)",
    )
    parser.add_argument("--no-pin", action="store_true", help="leave the pins as they are")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="seconds to wait for a live trainer (30)")
    add_threads_flag(parser)
    add_panel_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.study.select_run import select_run
    from ondevice.study.selection import SelectionRule

    if args.tolerance > 1:
        raise UsageError(f"--tolerance {args.tolerance:g}: a share of the lowest loss, from 0 to 1.")
    run_dir = find_run(args.run)
    result = select_run(
        run_dir,
        wish_from(args),
        rule=SelectionRule(loss_tolerance=args.tolerance),
        steps=args.steps,
        threads=args.threads,
        progress=lambda text: print(for_terminal(text, sys.stderr), file=sys.stderr),
    )
    pinned, trouble = ([], "") if args.no_pin else _pin(run_dir, result["roles"], wait_s=args.wait)
    if args.json:
        print_json({**result, "pinned": pinned, "not_pinned": trouble})
        return 0
    _show(result)
    _tell_how(run_dir, result["roles"]["practical"])
    if pinned:
        tell(f"Pinned: {', '.join(map(str, pinned))}.")
    if trouble:
        tell(f"Not pinned: {trouble}")
    return 0


def _pin(run_dir: RunDir, roles: dict[str, int], *, wait_s: float) -> tuple[list[int], str]:
    """Pins the winners and unpins those of an earlier selection; pins for other reasons stay. Gives what was pinned
    and why something was not."""
    wanted: dict[int, list[str]] = {}
    for role, step in roles.items():
        wanted.setdefault(step, []).append(role)
    pinned = []
    try:
        before = Store(run_dir.checkpoints).pins()
        for step, names in wanted.items():
            if before.get(step, _REASON).startswith(_REASON):
                change_pin(run_dir, step, _REASON + _named(names), wait_s=wait_s)
            pinned.append(step)
        for step, reason in before.items():
            if reason.startswith(_REASON) and step not in wanted:
                change_pin(run_dir, step, None, wait_s=wait_s)
    except OndeviceError as error:
        return pinned, str(error)
    return pinned, ""


def _named(roles: list[str]) -> str:
    from ondevice.study.selection import ROLE_NAMES

    return ", ".join(ROLE_NAMES[role] for role in roles)


def _told_average(each: dict[str, Any]) -> str:
    """The mean of some checkpoints beside the one for use."""
    loss = "-" if each["val_loss_mixed"] is None else f"{each['val_loss_mixed']:.4f}"
    text = f"{each['run']}, the mean of steps {', '.join(map(str, each['steps']))}: loss {loss}"
    found = each["against_practical"]
    if found is None or each["quality"] is None:
        return f"{text}."
    sure = "sure" if found["surely"] else "not sure"
    return f"{text}, quality {each['quality']:.1f} ({found['estimate']:+.1f} against the checkpoint for use, {sure})."


def _tell_how(run_dir: RunDir, step: int) -> None:
    """Where other commands would take another checkpoint by themselves."""
    from ondevice.infer.open import choose_checkpoint

    taken = choose_checkpoint(run_dir)[0].step
    if step != taken:
        name = run_dir.name
        tell(f"Other commands take step {taken:,} unless told: `ondevice export {name} --step {step}`.")


def _show(result: dict[str, Any]) -> None:
    roles: dict[int, list[str]] = {}
    for role, step in result["roles"].items():
        roles.setdefault(step, []).append(role)
    tell(f"{'step':>6}{'loss':>8}{'quality':>8}{'diversity':>10}{'looping':>8}")
    for row in result["checkpoints"]:
        loss = "-" if row["val_loss_mixed"] is None else f"{row['val_loss_mixed']:.4f}"
        quality = "-" if row["quality"] is None else f"{row['quality']:.1f}"
        tell(f"{row['step']:>6,}{loss:>8}{quality:>8}{row['diversity']:>10.3f}{row['loop_rate']:>8.0%}")
        if row["step"] in roles:
            tell(f"        {_named(roles[row['step']])}")
    for each in result["averages"]:
        tell(for_terminal(_told_average(each)))
    for each in result["regressions"]:
        tell(
            f"{each['before']:,} -> {each['after']:,}: {for_terminal(each['group'])} got worse by "
            f"{-each['difference']['estimate']:.1f} (at least {-each['difference']['high']:.1f})."
        )
    for each in result["skipped"]:
        tell(f"Left out: {for_terminal(each['why'])}")
    print()
    for sentence in result["sentences"]:
        tell(sentence)
