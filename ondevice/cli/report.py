"""``ondevice report RUN|STUDY``: what came of it, as Markdown and one HTML file; its telemetry for other tools."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from ondevice.cli.common import for_terminal, print_json
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.directory import RunDir, home
from ondevice.run.studies import StudyDir, find_run_or_study

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice report notes                        report.md and report.html of a run, alive or not
  ondevice report unique-tokens --out docs/unique-tokens
  ondevice report notes --csv notes-csv        steps, evaluations and readings for a spreadsheet
  ondevice report notes --tensorboard notes-tb

The HTML file needs no network and opens on a phone. Reports go to $ONDEVICE_HOME/reports/NAME without --out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run or a study: its name or path")
    parser.add_argument("--out", metavar="FOLDER", help="where to write the report")
    parser.add_argument("--csv", metavar="FOLDER", help="only write the telemetry of a run as CSV files")
    parser.add_argument("--tensorboard", metavar="FOLDER", help="only write the telemetry of a run as event files")
    parser.add_argument("--json", action="store_true", help="print the names of the files as JSON")


def run(args: argparse.Namespace) -> int:
    found = find_run_or_study(args.target)
    if args.csv or args.tensorboard:
        if isinstance(found, StudyDir):
            raise UsageError(
                f"{args.target} is a study; --csv and --tensorboard are for one of its runs, such as "
                f"{found.runs / 'ARM-SEED'}."
            )
        return _telemetry(found, args)
    from ondevice.report.write import write_page

    folder = Path(os.path.expanduser(args.out)) if args.out else home() / "reports" / found.name
    markdown, html = write_page(_page(found), folder)
    if args.json:
        print_json({"markdown": str(markdown), "html": str(html)})
    else:
        tell(f"Wrote {for_terminal(str(html))} and {for_terminal(markdown.name)} beside it.")
        if shutil.which("termux-open"):
            tell(f"  termux-open {shlex.quote(str(html))}")
    return 0


def _page(found: RunDir | StudyDir) -> Any:
    if isinstance(found, StudyDir):
        from ondevice.report.study_page import study_page

        return study_page(found)
    from ondevice.report.gather import gather_run
    from ondevice.report.run_page import run_page

    return run_page(gather_run(found))


def _telemetry(run_dir: RunDir, args: argparse.Namespace) -> int:
    told: dict[str, Any] = {}
    if args.csv:
        from ondevice.report.csv_files import write_csv

        told["csv"] = [str(path) for path in write_csv(run_dir, Path(os.path.expanduser(args.csv)))]
    if args.tensorboard:
        from ondevice.report.tensorboard import write_tensorboard

        told["tensorboard"] = {"numbers": write_tensorboard(run_dir, Path(os.path.expanduser(args.tensorboard)))}
    if args.json:
        print_json(told)
        return 0
    for path in told.get("csv", ()):
        tell(f"Wrote {for_terminal(path)}.")
    if args.tensorboard:
        tell(
            f"Wrote {told['tensorboard']['numbers']:,} numbers; see them with "
            f"`tensorboard --logdir {args.tensorboard}`."
        )
    return 0
