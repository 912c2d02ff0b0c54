"""``ondevice sweep TARGET``: tries ways to choose tokens, and makes the best the default of ``ondevice generate``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ondevice.cli.common import add_step_flag, add_threads_flag, for_terminal, print_json
from ondevice.cli.eval_target import add_panel_flags, wish_from
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.study.sweep_record import surely_differs

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice sweep notes                                   the presets, on prompts of its validation text
  ondevice sweep notes --try-temperature 0.5 0.7 0.9 --try-top-p 0.9 0.95
  ondevice sweep notes --prompts tune.jsonl --holdout held.jsonl --presets balanced precise

The winner is judged again on prompts that were held out."""

_GRID = ("temperature", "top_k", "top_p", "repetition_penalty")
_DEFAULT_PRESETS = ("balanced", "creative", "precise", "greedy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run, the folder of a checkpoint, or an export folder")
    add_step_flag(parser)
    parser.add_argument("--presets", nargs="*", metavar="NAME", help="of balanced, creative, precise, greedy (all)")
    for name in _GRID:
        flag = f"--try-{name.replace('_', '-')}"
        parser.add_argument(flag, nargs="+", type=float, default=[], metavar="X", help=f"values of {name} in the grid")
    parser.add_argument("--holdout", metavar="FILE", help="JSONL of prompts held out (default: every other prompt)")
    parser.add_argument("--no-apply", action="store_true", help="do not make the winner the default")
    add_threads_flag(parser)
    add_panel_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.infer.generation_config import write_generation_config
    from ondevice.study.prompts import read_prompts
    from ondevice.study.sweep import arms_of, sweep
    from ondevice.study.target import open_target

    if any(getattr(args, name) is not None for name in _GRID):
        raise UsageError("A sweep tries settings itself; use --try-temperature and the like.")
    if any(not value.is_integer() for value in args.try_top_k):
        raise UsageError("--try-top-k: write whole numbers.")
    seed = 1 if args.seed is None else args.seed
    presets = _DEFAULT_PRESETS if args.presets is None else args.presets
    arms = arms_of(presets, {name: getattr(args, f"try_{name}") for name in _GRID}, seed=seed)
    holdout = read_prompts(Path(os.path.expanduser(args.holdout))) if args.holdout else None
    with open_target(args.target, step=args.step, threads=args.threads) as target:
        result = sweep(target, wish_from(args), arms, holdout=holdout, progress=_say)
        folder, evals = target.settings, target.evals
    if not args.no_apply:
        write_generation_config(folder, result["generation_config"])
    if args.json:
        print_json({**result, "applied": None if args.no_apply else str(folder), "folder": str(evals)})
        return 0
    _show(result)
    tell(f"Leaderboards: {evals / result['files'][0]} and {result['files'][1]}")
    if not args.no_apply:
        tell(f"`ondevice generate {for_terminal(args.target)}` and later exports use these settings from now on.")
    return 0


def _say(text: str) -> None:
    tell(text, sys.stderr)


def _show(result: dict[str, Any]) -> None:
    for row in result["leaderboard"]:
        repeats = f"diversity {row['diversity']:.3f}, looping {row['loop_rate']:.0%}"
        tell(f"{row['quality']:6.1f}  {row['arm']}: {repeats}")
    held, difference = result["holdout"], result["holdout_difference"]
    print()
    tell(
        f"{result['winner']['arm']} wins with {result['tuning']['quality']:.1f} on {result['tuning']['n']} tuning "
        f"prompts, and has {held['quality']:.1f} on {held['n']} held out (default {result['holdout_of_default']:.1f})."
    )
    if difference["low"] is not None and result["winner"]["arm"] != "default":
        sure = "surely" if surely_differs(difference) else "not surely"
        tell(
            f"On those held out it differs {sure} from the default: {difference['estimate']:+.1f}, 95 % between "
            f"{difference['low']:+.1f} and {difference['high']:+.1f}."
        )
