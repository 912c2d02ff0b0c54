"""``ondevice schedule grow RUN``: looks once, or again and again, for files that are new in the folders of a run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from ondevice.cli.build_progress import BuildProgress
from ondevice.cli.common import at_least, print_json_line
from ondevice.cli.folding import tell
from ondevice.errors import RunBusy
from ondevice.run.directory import RunDir, offline_lock
from ondevice.run.recipe import Recipe

__all__ = ["add_flags", "rate_hint", "run"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", type=at_least(1), metavar="N", help="cut it into N parts")
    parser.add_argument(
        "--settle", type=at_least(0), default=10, metavar="S", help="files left alone for S seconds (10)"
    )
    parser.add_argument("--watch", action="store_true", help="look again and again, while no trainer is at work")
    parser.add_argument("--every", type=at_least(1), default=60, metavar="S", help="with --watch: seconds between (60)")


def run(run_dir: RunDir, args: argparse.Namespace, *, sleep: Callable[[float], object] = time.sleep) -> int:
    said: set[str] = set()
    while True:
        try:
            _look(run_dir, args, said)
        except RunBusy as error:
            if not args.watch:
                raise
            _say_once(f"{error} Waiting for that.", said, quiet=args.json)
        if not args.watch:
            return 0
        sleep(args.every)


def _look(run_dir: RunDir, args: argparse.Namespace, said: set[str]) -> None:
    from ondevice.train.grow import grow

    with BuildProgress(quiet=args.json) as progress, offline_lock(run_dir, what="ondevice schedule"):
        grown = grow(run_dir, parts=args.parts, settle_s=float(args.settle), progress=progress)
    recipe = run_dir.read_recipe()
    if args.json:
        told: dict[str, Any] = {"added": [part.name for part in grown.added], "files": grown.files}
        revision = {"revision": len(recipe.revises) + 1, "steps": recipe.train.steps}
        if grown.added or not args.watch:
            print_json_line({"run": run_dir.name, **revision, **told, "notes": list(grown.notes)})
        return
    for note in grown.notes:
        _say_once(note, said)
    if grown.added:
        names = f"{grown.added[0].name} to {grown.added[-1].name}" if len(grown.added) > 1 else grown.added[0].name
        tell(
            f"{run_dir.name}: {len(grown.added)} part{'s' * (len(grown.added) > 1)} added ({names}) of {grown.files:,} "
            f"new file{'s' * (grown.files > 1)}. Recipe revision {len(recipe.revises) + 1}, {recipe.train.steps:,} "
            f"steps in all. Train them with `ondevice train {run_dir.name}`."
            f"{rate_hint(recipe)}"
        )
    else:
        _say_once(f"{run_dir.name}: nothing new to learn from.", said)


def rate_hint(recipe: Recipe) -> str:
    """What to know of the learning rate of parts that came after the schedule had come to its end; else empty."""
    train = recipe.train
    if not train.anchors or train.schedule == "constant" or train.anchors[-1].lr > 1.01 * train.lr_min:
        return ""
    return (
        f" They are learned at the lowest rate, {train.anchors[-1].lr:.2g}, to which the schedule had come; for text "
        'that keeps coming take train.schedule = "wsd" or "constant" in a new run.'
    )


def _say_once(text: str, said: set[str], *, quiet: bool = False) -> None:
    if text not in said and not quiet:
        tell(text)
    said.add(text)
