"""``ondevice fork``: a new run from a checkpoint of another, with something changed."""

from __future__ import annotations

import argparse
import re
import sys
from fractions import Fraction
from typing import TYPE_CHECKING

from ondevice.cli.build_progress import BuildProgress
from ondevice.cli.common import print_json, text_sources
from ondevice.cli.folding import tell
from ondevice.errors import CheckpointError, UsageError
from ondevice.run.directory import RunDir, find_run
from ondevice.run.files import read_json
from ondevice.run.schema import TAILS
from ondevice.run.schema_key import MANY_STEPS, MANY_TOKENS
from ondevice.run.store import Store

if TYPE_CHECKING:
    from ondevice.train.fork import Fork

__all__ = ["EXAMPLES", "add_arguments", "parse_count", "run"]

EXAMPLES = """examples:
  ondevice fork notes --tokens +5M             go on with 5 million tokens more
  ondevice fork notes --at 4000 --tail         let the rate decay from step 4000 on
  ondevice fork notes --at best --steps +500 --set train.lr=1e-4
  ondevice fork notes --data ~/more --tokens +2M
  ondevice fork notes --at 4000 --tail linear --dense 50 --name tail-4k

The optimizer is kept, the schedule begins anew, and the new run records its parent. The parent stays as it is."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MOST = {"--tokens": MANY_TOKENS, "--steps": MANY_STEPS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the parent: a run")
    parser.add_argument("--at", default="latest", metavar="STEP", help="a step with a checkpoint, best or latest")
    parser.add_argument("--name", help="name of the new run")
    parser.add_argument("--tokens", metavar="+N", help="tokens more than the checkpoint has seen, such as +5M")
    parser.add_argument("--steps", metavar="+N", help="steps more, such as +500")
    parser.add_argument(
        "--tail",
        nargs="?",
        const=TAILS[0],
        choices=TAILS,
        help="decay from the rate of that step to the lowest, a tenth of the steps so far if not said otherwise",
    )
    parser.add_argument(
        "--dense", type=int, metavar="N", help="save and keep a checkpoint at every multiple of N steps"
    )
    parser.add_argument("--data", action="append", default=[], metavar="PATH", help="add this text (repeatable)")
    parser.add_argument("--fresh-optimizer", action="store_true", help="begin the optimizer state anew")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.train.fork import ForkWish, fork_run, plan_fork

    if args.tokens is not None and args.steps is not None:
        raise UsageError("--tokens and --steps say the same thing; give only one of them.")
    if args.dense is not None and args.dense < 1:
        raise UsageError(f"--dense must be at least 1, not {args.dense}.")
    parent = find_run(args.run)
    store = Store(parent.checkpoints)
    step = _step(parent, store, args)
    with store.lease(step) as checkpoint:
        seen = {"--tokens": int(read_json(checkpoint.path / "state.json")["tokens"]), "--steps": step}
        wish = ForkWish(
            name=args.name or "",
            tokens=_more("--tokens", args.tokens, seen),
            steps=_more("--steps", args.steps, seen),
            tail=args.tail,
            dense_steps=args.dense,
            add_data=text_sources(args.data) if args.data else (),
            fresh_optimizer=args.fresh_optimizer,
            changes=args.set,
        )
        with BuildProgress(quiet=args.json) as progress:
            fork = plan_fork(parent, checkpoint, wish, progress=progress)
        child = fork_run(fork)
    _tell(child, fork, as_json=args.json)
    return 0


def _step(run: RunDir, store: Store, args: argparse.Namespace) -> int:
    """The step to fork at; what is skipped on the way is said. Raises CheckpointError or UsageError."""
    if args.at == "latest":
        return _latest_step(run, store, complete=not args.fresh_optimizer)
    if args.at == "best":
        return _best_step(run, store)
    if not re.fullmatch(r"[0-9]{1,18}", args.at):
        raise UsageError(f"--at {args.at}: say a step, 'best' or 'latest'.")
    if (step := int(args.at)) not in store.steps():
        raise CheckpointError(f"{run.name}: no checkpoint of step {step}; there are: {_known(store)}.")
    return step


def _known(store: Store) -> str:
    return ", ".join(map(str, store.steps())) or "none"


def _latest_step(run: RunDir, store: Store, *, complete: bool) -> int:
    checkpoint, damage = store.latest(complete=complete)
    if checkpoint is None and damage:
        raise CheckpointError(f"{run.name}: no checkpoint is left to fork ({damage[0].rstrip('.')}).")
    if checkpoint is None:
        raise CheckpointError(f"{run.name}: has no checkpoint yet; train it first.")
    for sentence in damage:
        tell(f"Skipped a damaged checkpoint: {sentence}", sys.stderr)
    return checkpoint.step


def _best_step(run: RunDir, store: Store) -> int:
    """The saved step with the lowest validation loss. Raises CheckpointError when none was measured."""
    from ondevice.run.digest import digest
    from ondevice.run.telemetry import read_records

    series = digest(read_records(run.telemetry)).val_loss.get("")
    saved = set(store.steps())
    measured = [(loss, int(step)) for step, loss in (series.points if series else []) if int(step) in saved]
    if not measured:
        raise CheckpointError(
            f"{run.name}: no checkpoint was measured; say which with --at STEP (there are: {_known(store)})."
        )
    return min(measured)[1]


def _more(flag: str, text: str | None, seen: dict[str, int]) -> int | None:
    """``+5M`` as it is; ``20M`` less what the checkpoint has seen."""
    if text is None:
        return None
    count = parse_count(text, flag)
    more = count if text.startswith("+") else count - seen[flag]
    if more < 1:
        raise UsageError(
            f"{flag} {text}: must be more than 0."
            if text.startswith("+")
            else f"{flag} {text}: the checkpoint has {seen[flag]:,} already; write {flag} +{text} to add to that."
        )
    if more > _MOST[flag]:
        raise UsageError(f"{flag} {text}: more than the {_MOST[flag]:,} that a run may have.")
    return more


def parse_count(text: str, flag: str) -> int:
    """``5M`` and ``+5M -> 5_000_000``; k, M and G count in thousands. Raises UsageError."""
    plain = text.strip().removeprefix("+").lower().replace(",", "").replace("_", "")
    match = re.fullmatch(r"([0-9]{1,13}(?:\.[0-9]{1,12})?)([kmg]?)", plain)
    count = Fraction(match[1]) * _UNITS[match[2]] if match else Fraction(1, 2)
    if count.denominator != 1:
        raise UsageError(f"{flag} {text}: write a whole number such as 500k, 5M or +5M.")
    return int(count)


def _tell(child: RunDir, fork: Fork, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run": child.name,
                "parent": fork.parent,
                "recipe": fork.recipe.to_json(),
                "optimizer_kept": fork.keeps_optimizer,
                "order_kept": fork.keeps_cursor,
                "notes": list(fork.notes),
            }
        )
        return
    train = fork.recipe.train
    tell(f"{child.name}: a fork of {fork.parent['run']} at step {fork.parent['step']:,}.")
    for note in fork.notes:
        tell(f"  {note}")
    more = train.tokens - train.start_tokens
    tell(f"  {f'{more / 1e6:,.2f} M' if more >= 1e6 else f'{more:,}'} tokens more: {fork.recipe.why['train.steps']}.")
    tell(f"Start it with `ondevice train {child.name}`.")
