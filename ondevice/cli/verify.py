"""``ondevice verify RUN``: re-checks every byte of a run; with ``--replay`` its last steps are done again."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import print_json
from ondevice.cli.folding import tell
from ondevice.cli.verify_package import is_package, verify_package_folder
from ondevice.errors import CheckpointError, UsageError
from ondevice.run.directory import RunDir, find_run
from ondevice.run.finding import DAMAGE, NOTE, Finding

if TYPE_CHECKING:
    from ondevice.train.replay import Replay

__all__ = ["EXAMPLES", "add_arguments", "finding_lines", "run"]

EXAMPLES = """examples:
  ondevice verify notes              papers, story, checkpoints, data, exports: every byte
  ondevice verify notes --replay     and the last steps again, compared bit for bit
  ondevice verify ~/tickets-v1 --again      a package; its model answers the held-out rows once more
  ondevice verify notes --json
  ondevice verify notes/exports/bundle-00000800      a release bundle, on any machine

exit code: 0 when all is sound, 4 when something is damaged. Works beside a live trainer and writes nothing."""

_WIDTH = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run, or the folder of a package or release bundle")
    parser.add_argument("--again", action="store_true", help="of a package: answer its held-out rows on this machine")
    parser.add_argument("--base", metavar="FOLDER", help="with --again: where the base model lies here")
    parser.add_argument("--replay", action="store_true", help="do the steps between the last two checkpoints again")
    parser.add_argument(
        "--replay-anyway", action="store_true", help="also where torch, processor or threads are not the same"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if is_package(args.run):
        return verify_package_folder(args)
    from ondevice.infer.export_folder import BUNDLE_FILE
    from ondevice.train.verify import verify_run

    folder = Path(os.path.expanduser(args.run))
    if (folder / BUNDLE_FILE).is_file():
        return _verify_bundle(folder, args)

    run_dir = find_run(args.run, even_damaged=True)
    if args.again or args.base:
        raise UsageError(f"{args.run} is a run; --again and --base are for packages (of a run: --replay).")
    findings = [*verify_run(run_dir), *_task_findings(run_dir)]
    if not args.json:
        for line in finding_lines(findings):
            tell(line)
    replayed = _replay(run_dir, args) if args.replay or args.replay_anyway else None
    sound = not any(finding.level == DAMAGE for finding in findings) and _proves_nothing_bad(replayed)
    if args.json:
        print_json(_as_json(run_dir, sound, findings, replayed))
    else:
        for line in _replay_lines(replayed):
            tell(line)
        tell(_verdict(run_dir, findings, replayed))
    return 0 if sound else CheckpointError.exit_code


def _task_findings(run_dir: RunDir) -> list[Finding]:
    """Of a run with a rule; only there torch is loaded."""
    if not (run_dir.evals / "task" / "rule.json").exists():
        return []
    from ondevice.study.task_check import verify_task

    return verify_task(run_dir)


def _verify_bundle(folder: Path, args: argparse.Namespace) -> int:
    """Every byte of a release bundle, and whether its parts open."""
    from ondevice.export.bundle_check import bundle_findings

    if args.replay or args.replay_anyway:
        raise UsageError("--replay needs a run with its data; a bundle is only re-checked.")
    findings = bundle_findings(folder)
    damaged = sum(finding.level == DAMAGE for finding in findings)
    if args.json:
        found = [dataclasses.asdict(finding) for finding in findings]
        print_json({"bundle": str(folder), "sound": not damaged, "findings": found})
    else:
        for line in finding_lines(findings):
            tell(line)
        things = "sound" if not damaged else "1 thing is damaged" if damaged == 1 else f"{damaged} things are damaged"
        tell(f"{folder}: {things}{'; copy the bundle again' if damaged else ''}.")
    return CheckpointError.exit_code if damaged else 0


def finding_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """One line a finding, the remedy on a line of its own."""
    for finding in findings:
        place = f"{finding.file}: " if finding.file else ""
        yield f"{finding.level:<{_WIDTH}}{place}{finding.text}"
        if finding.remedy and finding.level == DAMAGE:
            yield " " * _WIDTH + finding.remedy


def _replay(run_dir: RunDir, args: argparse.Namespace) -> Replay:
    from ondevice.train.replay import replay

    shown = sys.stderr.isatty() and not args.json

    def progress(step: int, last: int) -> None:
        print(f"\rreplaying step {step + 1:,} of {last:,} ", end="", file=sys.stderr, flush=True)

    try:
        return replay(run_dir, anyway=args.replay_anyway, progress=progress if shown else None)
    finally:
        if shown:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


def _proves_nothing_bad(replayed: Replay | None) -> bool:
    """On another machine differences are to be expected."""
    return replayed is None or replayed.identical or bool(replayed.elsewhere)


def _replay_lines(replayed: Replay | None) -> Iterator[str]:
    if replayed is None:
        return
    level = "ok" if replayed.identical else NOTE if replayed.elsewhere else DAMAGE
    steps = f"replayed steps {replayed.first:,}..{replayed.last:,}"
    yield f"{level:<{_WIDTH}}{steps}: {'identical' if replayed.identical else 'not the same'}"
    for text in replayed.differences[:3]:
        yield " " * _WIDTH + text
    if replayed.elsewhere:
        yield f"{NOTE:<{_WIDTH}}not where it was trained: {'; '.join(replayed.elsewhere)}"
    if replayed.unheard:
        yield f"{NOTE:<{_WIDTH}}the losses of {len(replayed.unheard)} of these steps are not in telemetry"


def _verdict(run_dir: RunDir, findings: Sequence[Finding], replayed: Replay | None) -> str:
    damaged = sum(finding.level == DAMAGE for finding in findings)
    if damaged:
        things = "1 thing is" if damaged == 1 else f"{damaged} things are"
        return f"{run_dir.name}: {things} damaged; `ondevice doctor {run_dir.name}` mends what it can."
    if not _proves_nothing_bad(replayed):
        return f"{run_dir.name}: every byte is as written, but its steps cannot be repeated exactly."
    return f"{run_dir.name}: sound, {sum(finding.level == 'ok' for finding in findings)} things re-checked."


def _as_json(run_dir: RunDir, sound: bool, findings: Sequence[Finding], replayed: Replay | None) -> dict[str, Any]:
    return {
        "run": run_dir.name,
        "path": str(run_dir.path),
        "sound": sound,
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "replay": replayed and {**dataclasses.asdict(replayed), "identical": replayed.identical},
    }
