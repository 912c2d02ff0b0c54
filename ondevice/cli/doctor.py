"""``ondevice doctor``: can this machine train, and if not, what to type. With a run's name it mends the run instead.

Reads facts, tries the storage of the home folder and imports the native packages in child processes; imports no torch
itself and writes nothing that stays.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ondevice.cli.doctor_finding import Finding
from ondevice.cli.doctor_rules import judge
from ondevice.cli.folding import HelpFormatter
from ondevice.device.facts import DeviceFacts, read_facts
from ondevice.device.packages import TRIALS, Trial, try_statement
from ondevice.device.readings import Reading, settled_reading
from ondevice.device.storage import StorageFacts, probe_storage
from ondevice.device.upkeep import Upkeep, read_upkeep
from ondevice.errors import DeviceError, UsageError

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice doctor            the report, with the command that mends each problem
  ondevice doctor --quick    without the trial imports (a few seconds less)
  ondevice doctor --json     the same for programs: facts, storage, reading, findings
  ondevice doctor notes      mends the run 'notes', and says what it did
  ondevice doctor notes --dry-run

exit code: 0 when training is possible here, 6 when it is not; of a run 0 when it is sound now, 4 when it is not"""

_INDENT = 8  # the width of "problem "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of this command."""
    parser.epilog = EXAMPLES
    parser.formatter_class = HelpFormatter
    parser.add_argument("run", nargs="?", help="a run to mend, by name or path")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be mended in the run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="do not try whether the native packages can be imported")


def run(args: argparse.Namespace) -> int:
    """Prints the report. Returns 0 when training is possible, else the exit code of DeviceError."""
    if args.run is not None:
        from ondevice.cli.doctor_run import doctor_run

        return doctor_run(args.run, dry_run=args.dry_run, as_json=args.json)
    if args.dry_run:
        raise UsageError("--dry-run needs the name of a run: `ondevice doctor RUN --dry-run`.")
    home = _home()
    facts, storage, reading = read_facts(home), probe_storage(home), settled_reading(home)
    upkeep = read_upkeep(os.environ)
    findings = judge(facts, storage, reading, {} if args.quick else _try_imports(facts), upkeep=upkeep)
    possible = not any(finding.level == "problem" for finding in findings)
    if args.json:
        print(json.dumps(_as_json(possible, facts, storage, reading, upkeep, findings), indent=1, ensure_ascii=False))
    else:
        width = min(max(shutil.get_terminal_size((76, 24)).columns, 40), 100)
        print("\n".join(_report(findings, width=width)))
    return 0 if possible else DeviceError.exit_code


def _home() -> Path:
    from ondevice.run.directory import home

    return home()


def _try_imports(facts: DeviceFacts) -> dict[str, Trial]:
    """One child after another: together they would need the memory of all."""
    return {name: try_statement(code) for name, code in TRIALS.items() if facts.packages.get(name)}


def _as_json(
    possible: bool,
    facts: DeviceFacts,
    storage: StorageFacts,
    reading: Reading,
    upkeep: Upkeep | None,
    findings: Sequence[Finding],
) -> dict[str, Any]:
    return {
        "v": 1,
        "possible": possible,
        "facts": facts.to_json(),
        "storage": storage.to_json(),
        "reading": reading.to_json() | reading.details(),
        "upkeep": upkeep and upkeep.to_json(),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def _report(findings: Sequence[Finding], *, width: int) -> Iterator[str]:
    """Lines no wider than ``width``, but for commands, which must stay whole to be pasted."""
    topic = None
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            yield topic.capitalize()
        yield from _lines(finding, width=width)
    problems = sum(finding.level == "problem" for finding in findings)
    yield ""
    yield from textwrap.wrap(_verdict(problems), width)


def _lines(finding: Finding, *, width: int) -> Iterator[str]:
    blank = " " * _INDENT
    yield from textwrap.wrap(finding.text, width, initial_indent=f"{finding.level:<{_INDENT}}", subsequent_indent=blank)
    if finding.remedy:
        yield from textwrap.wrap(finding.remedy, width, initial_indent=blank, subsequent_indent=blank)
    if finding.command:
        yield f"{blank}{finding.command}"


def _verdict(problems: int) -> str:
    if not problems:
        return "This machine can train."
    return f"Training is not possible yet: {problems} problem{'s' if problems > 1 else ''} above."
