"""``ondevice verify PACKAGE``: every byte of a package, its decision from the raw outputs, its answers anew."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from ondevice.cli.common import for_terminal, print_json
from ondevice.errors import CheckpointError
from ondevice.run.finding import DAMAGE

__all__ = ["is_package", "verify_package_folder"]


def is_package(target: str) -> bool:
    return (Path(os.path.expanduser(target)) / "package.json").is_file()


def verify_package_folder(args: argparse.Namespace) -> int:
    """4 where anything is not what it was."""
    from ondevice.cli.verify import finding_lines
    from ondevice.export.package_check import answer_again, verify_package

    folder = Path(os.path.expanduser(args.run)).absolute()
    findings = verify_package(folder)
    if args.again and not any(each.level == DAMAGE for each in findings):
        base = Path(os.path.expanduser(args.base)).absolute() if args.base else None
        findings += answer_again(folder, base=base)
    sound = not any(each.level == DAMAGE for each in findings)
    if args.json:
        print_json(
            {"package": str(folder), "sound": sound, "findings": [dataclasses.asdict(each) for each in findings]}
        )
        return 0 if sound else CheckpointError.exit_code
    print(for_terminal("\n".join(finding_lines(findings))))
    print(f"{folder.name}: {'sound' if sound else 'not what was packed'}.")
    return 0 if sound else CheckpointError.exit_code
