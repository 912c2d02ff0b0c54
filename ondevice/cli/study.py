"""``ondevice study``: runs a study (arms x seeds), tells how far it is, and lists what there is."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from ondevice.cli.build_progress import built
from ondevice.cli.common import at_least, cores, for_terminal, print_json
from ondevice.cli.folding import tell
from ondevice.cli.phone import on_a_phone
from ondevice.cli.progress import QuietDisplay, make_display
from ondevice.device.host import on_android
from ondevice.errors import Interrupted, OndeviceError, UsageError
from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.studies import StudyDir, find_study, list_studies

__all__ = ["EXAMPLES", "add_arguments", "run"]

_TRAINED = "trained, and still to be judged"

EXAMPLES = """examples:
  ondevice study run unique-tokens.toml        every arm with every seed; the same command goes on after a kill
  ondevice study run mine.toml --lr-range 1e-5..1e-1 --steps 200
                                               which learning rate, before the real runs
  ondevice study run code-order.toml --base /usr
                                               relative paths of the file count from /usr
  ondevice study status unique-tokens
  ondevice study list
  ondevice report unique-tokens                what came of it, as Markdown and HTML

Finished seeds are never trained again. A study file has seeds, [config] for all arms, and [[arms]]."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|status|list")
    begin = actions.add_parser("run", help="train what is left of a study")
    begin.add_argument("file", help="the study file (.toml)")
    begin.add_argument("--base", metavar="FOLDER", help="where relative paths of the file count from")
    begin.add_argument("--retry", action="store_true", help="train runs again that failed")
    begin.add_argument(
        "--lr-range", metavar="LOW..HIGH", help="only a range test of the learning rate, such as 1e-5..0.1"
    )
    begin.add_argument("--steps", type=at_least(10), metavar="N", help="steps of a range test (100)")
    begin.add_argument("--quiet", action="store_true", help="print only the result")
    begin.add_argument("--json", action="store_true", help="print JSON lines, and the record last")
    status = actions.add_parser("status", help="how far a study is and what it says")
    status.add_argument("study", help="name or path of the study")
    status.add_argument("--json", action="store_true", help="print the record as JSON")
    listed = actions.add_parser("list", help="the studies there are")
    listed.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.action == "run":
        return _conduct(args)
    if args.action == "list":
        return _list(as_json=args.json)
    study = find_study(args.study)
    record = study.read()
    if args.json:
        print_json({**record, "live": _live(study, record)})
    else:
        _show(study, record)
    return 0


def _conduct(args: argparse.Namespace) -> int:
    if args.steps is not None and args.lr_range is None:
        raise UsageError("--steps is for a range test; give one with --lr-range LOW..HIGH.")
    from ondevice.study.design import read_design

    design = read_design(args.file, base=Path(os.path.expanduser(args.base)).absolute() if args.base else None)
    from ondevice.study.conduct import Study  # after the file was read: a wrong name is told at once
    from ondevice.study.lr_range import parse_ramp
    from ondevice.train.chain import train

    ramp = parse_ramp(args.lr_range, steps=int(args.steps or 100)) if args.lr_range else None
    display = make_display(quiet=args.quiet, as_json=args.json)

    def train_one(run_dir: RunDir) -> Any:
        with on_a_phone(run_dir, display) as told:
            return train(run_dir, display=told)

    study = Study(
        design,
        build=lambda config: built(config, quiet=args.quiet or args.json),
        train=train_one,
        say=display.say,
        cores=cores(),
        android=on_android(os.environ),
    )
    try:
        with study.held():
            if ramp is not None:
                study.range_rates(ramp)
            else:
                _train_all(study, args, display)
    finally:
        display.close()
    record = study.folder.read()
    if args.json:
        print_json(record)
    elif ramp is not None:
        _show_rates(record)
    else:
        _show(study.folder, record)
    return 0


def _train_all(study: Any, args: argparse.Namespace, display: QuietDisplay) -> None:
    """Raises Interrupted or OndeviceError where it was not to train on."""
    name = study.design.name
    for cell in study.cells(retry=args.retry):
        run_dir = study.folder.run(cell.name)
        state = read_liveness(run_dir).state
        if state == "failed":
            display.say(f"{cell.name} failed; the others go on without it. Train it again with --retry.")
        elif state != "finished":
            raise Interrupted(
                f"{name}: stopped at step {read_status(run_dir).get('step', 0)} of {cell.name}; go on with "
                f"`{_again(args)}`."
            )


def _again(args: argparse.Namespace) -> str:
    """The command that goes on: relative paths must count from the same folder."""
    return shlex.join(["ondevice", "study", "run", args.file, *(["--base", args.base] if args.base else [])])


def _live(study: StudyDir, record: dict[str, Any]) -> dict[str, str]:
    """The present state of the cells that are not done."""
    open_cells = {cell["name"] for cell in record["cells"] if cell["state"] not in ("finished", "failed")}
    return {name: read_liveness(study.run(name)).state for name in sorted(open_cells)}


def _list(*, as_json: bool) -> int:
    rows = []
    for study in list_studies():
        try:
            record = study.read()
            done = sum(cell["state"] == "finished" for cell in record["cells"])
            rows.append({"study": study.name, "finished": done, "planned": len(record["planned"]), "trouble": ""})
        except OndeviceError as error:
            rows.append({"study": study.name, "finished": 0, "planned": 0, "trouble": str(error)})
    if as_json:
        print_json({"studies": rows})
        return 0
    for row in rows:
        told = row["trouble"] or f"{row['finished']} of {row['planned']} runs finished"
        tell(f"{for_terminal(str(row['study']))}: {for_terminal(str(told))}")
    if not rows:
        tell("There are no studies yet; begin one with `ondevice study run FILE.toml`.")
    return 0


def _show(study: StudyDir, record: dict[str, Any]) -> None:
    states = {cell["name"]: cell["state"] for cell in record["cells"]}
    done = sum(state == "finished" for state in states.values())
    states |= {name: _TRAINED if state == "finished" else state for name, state in _live(study, record).items()}
    held = " (under way)" if lock_holder(RunDir(study.path)) is not None else ""
    tell(f"{for_terminal(study.name)}: {done} of {len(record['planned'])} runs finished{held}")
    for name in record["planned"]:
        if states.get(name) not in ("finished", None):
            tell(f"  {name}: {states[name]}")
    for name, arm in record["results"]["arms"].items():
        if "end" in arm:
            tell(f"  {name}: {_arm_line(arm)}")
    for each in record["results"]["comparisons"]:
        tell(f"  {_comparison_line(each)}")
    for sentence in record["results"]["cannot"]:
        tell(f"  {sentence}")  # it may begin with the name of an arm
    tell(f"Report: `ondevice report {study.name}`")


def _arm_line(arm: dict[str, Any]) -> str:
    best, end, seeds = arm["best"], arm["end"], len(arm["seeds"])
    text = f"loss {end['loss']:.4f} after {end['tokens'] / 1e6:.2f} M tokens ({seeds} seed{'s' * (seeds > 1)})"
    if best["interval"] < end["interval"]:
        text += f", lowest {best['loss']:.4f} at {best['tokens'] / 1e6:.2f} M"
    return text


def _comparison_line(each: dict[str, Any]) -> str:
    found = each["loss"][""]
    text = f"{each['second']} - {each['first']}: {found['estimate']:+.4f} nats"
    if found["low"] is None:
        return text
    effect = "" if found["effect_size"] is None else f", effect size {found['effect_size']:+.2f}"
    return f"{text}, {found['level']:.1%} between {found['low']:+.4f} and {found['high']:+.4f}{effect}"


def _show_rates(record: dict[str, Any]) -> None:
    for name, found in record["lr_range"].items():
        tell(
            f"{name}: train.lr about {found['suggested']:.2g} ({found['lowest']:.2g} to {found['highest']:.2g} over "
            f"{len(found['seeds'])} seeds), from {found['ramp']['steps']} steps at {found['ramp']['low']:g} to "
            f"{found['ramp']['high']:g}."
        )
