"""``ondevice schedule show|reorder|add|grow|skip|sample RUN``: the parts of a chain, and changes of those not begun."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ondevice.cli import schedule_grow, schedule_sample
from ondevice.cli.build_progress import BuildProgress
from ondevice.cli.common import at_least, print_json, text_sources
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.directory import RunDir, find_run, offline_lock
from ondevice.run.schedule import Part, Schedule, chain_recipe, schedule_of
from ondevice.run.telemetry import read_records

__all__ = ["EXAMPLES", "add_arguments", "parts_lines", "run"]

EXAMPLES = """examples:
  ondevice schedule show notes                      every part: stage, state, steps, losses
  ondevice schedule reorder notes 012 010           012 next, then 010, then the others
  ondevice schedule add notes --data ~/new --parts 3 --stage news
  ondevice schedule grow notes                      parts of what is new in its folders
  ondevice schedule grow notes --watch              look every minute until Ctrl-C
  ondevice schedule sample notes --prompts mine.jsonl     what each part's checkpoint writes
  ondevice schedule skip notes                      leave out the rest of the part at work

Parts are made with chain.parts, or `ondevice data build --parts N` shows them before. Only parts that no checkpoint
has begun can change; stop the trainer first."""

_MARKS = {"done": "+", "training": ">", "failed": "!", "skipped": "-"}
_WIDE = 72  # columns from which on the sources are shown too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="show|reorder|add|grow|skip|sample")
    show = actions.add_parser("show", help="every part of a chain")
    reorder = actions.add_parser("reorder", help="which parts come next")
    add = actions.add_parser("add", help="parts of new text, after all others")
    grow = actions.add_parser("grow", help="parts of files that are new in the folders of its text")
    skip = actions.add_parser("skip", help="leave out what is left of the part at work")
    sample = actions.add_parser("sample", help="what each part's checkpoint writes, and what got worse")
    every = (show, reorder, add, grow, skip, sample)
    for action in every:
        action.add_argument("run", help="name or path of the run")
    reorder.add_argument("parts", nargs="+", metavar="PART", help="names of parts in the order wished for")
    add.add_argument("--data", action="append", default=[], metavar="PATH", help="file or folder (repeatable)")
    add.add_argument("--parts", type=at_least(1), metavar="N", help="cut it into N parts (as long as those there are)")
    add.add_argument("--stage", default="", metavar="NAME", help="name of its stage (that of the text)")
    skip.add_argument("--reason", default="as asked", metavar="TEXT", help="why, for whoever looks at it later")
    schedule_grow.add_flags(grow)
    schedule_sample.add_flags(sample)
    for action in every:
        action.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    actions = {
        "show": _show,
        "reorder": _reorder,
        "add": _add,
        "grow": schedule_grow.run,
        "skip": _skip,
        "sample": schedule_sample.run,
    }
    return actions[args.action](run_dir, args)


def _schedule(run_dir: RunDir) -> Schedule:
    return schedule_of(chain_recipe(run_dir), read_records(run_dir.telemetry))


def _show(run_dir: RunDir, args: argparse.Namespace) -> int:
    schedule = _schedule(run_dir)
    if args.json:
        print_json({"run": run_dir.name, **schedule.to_json()})
        return 0
    revised = f", revision {schedule.revision}" if schedule.revision > 1 else ""
    tell(f"{run_dir.name}: {schedule.done} of {len(schedule.parts)} parts done{revised}")
    for line in parts_lines(schedule):
        tell(line)
    return 0


def parts_lines(schedule: Schedule) -> Iterator[str]:
    """A row a part, under the name of its stage."""
    stage = None
    for part in schedule.parts:
        if part.stage != stage:
            stage = part.stage
            yield f"{stage}:"
        yield _row(part)
        if part.error and part.state in ("failed", "skipped"):
            yield f"      {part.error}"


def _row(part: Part) -> str:
    loss = part.results.get("val_loss_mixed")
    told = f"loss {loss:.3f}" if loss is not None else f"{part.tries} tries" if part.tries else ""
    sources = f"  {', '.join(part.sources)}" if shutil.get_terminal_size((80, 24)).columns >= _WIDE else ""
    row = f"{_MARKS.get(part.state, ' ')} {part.name:>4} {part.state:8} {part.planned_steps:>6,} steps  {told}{sources}"
    return row.rstrip()


def _reorder(run_dir: RunDir, args: argparse.Namespace) -> int:
    from ondevice.train.revise import reorder

    with _changing(run_dir):
        names = reorder(run_dir, args.parts)
    return _tell(
        run_dir, args, f"next come {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}.", next=list(names)
    )


def _add(run_dir: RunDir, args: argparse.Namespace) -> int:
    from ondevice.train.revise import add_text

    if not args.data:
        raise UsageError(f"ondevice schedule add {run_dir.name}: name the new text with --data PATH.")
    with BuildProgress(quiet=args.json) as progress, _changing(run_dir):
        added = add_text(
            run_dir, text_sources(args.data), parts=args.parts, stage=args.stage.strip(), progress=progress
        )
    first, last = added[0].name, added[-1].name
    names = first if first == last else f"{first} to {last}"
    return _tell(
        run_dir,
        args,
        f"{len(added)} part{'s' * (len(added) > 1)} added ({names}), stage '{added[0].stage}'. "
        f"Train them with `ondevice train {run_dir.name}`.{schedule_grow.rate_hint(run_dir.read_recipe())}",
        added=[part.name for part in added],
    )


def _skip(run_dir: RunDir, args: argparse.Namespace) -> int:
    from ondevice.train.revise import skip_part

    with _changing(run_dir):
        part = skip_part(run_dir, " ".join(args.reason.split())[:200] or "as asked")
    return _tell(run_dir, args, f"what was left of part {part.name} is left out.", skipped=part.name)


@contextmanager
def _changing(run_dir: RunDir) -> Iterator[None]:
    with offline_lock(run_dir, what="ondevice schedule"):
        yield


def _tell(run_dir: RunDir, args: argparse.Namespace, text: str, **facts: Any) -> int:
    recipe = run_dir.read_recipe()
    if args.json:
        print_json({"run": run_dir.name, "revision": len(recipe.revises) + 1, "steps": recipe.train.steps, **facts})
    else:
        tell(f"{run_dir.name}: {text} Recipe revision {len(recipe.revises) + 1}, {recipe.train.steps:,} steps in all.")
    return 0
