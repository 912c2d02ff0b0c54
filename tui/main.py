"""``ondevice-tui [RUN ...]``: finds the runs, and says in one sentence why it cannot start where it cannot."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import ondevice
from ondevice.errors import DeviceError, Interrupted, OndeviceError, UsageError

__all__ = ["main"]

EXAMPLES = """examples:
  ondevice-tui                 every run on this machine
  ondevice-tui notes           one run, by name or path
  ondevice-tui ~/backup/runs   the runs of a folder
  ondevice-tui --demo          a recorded hot night with kills, in fast time
  ondevice-tui --ascii         for terminals without Unicode"""


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; `{self.prog} --help` shows examples.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the terminal UI and gives its exit code."""
    if os.name == "nt":  # before anything that needs file locks of POSIX is imported
        print("ondevice needs Linux, Android or macOS; on Windows use WSL: `wsl --install`.", file=sys.stderr)
        return DeviceError.exit_code
    try:
        return _run(_parser().parse_args(argv))
    except OndeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code


def _parser() -> _Parser:
    parser = _Parser(
        prog="ondevice-tui",
        description="Watch and control runs from their files alone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a run's name or path, or a folder of runs; all if none")
    parser.add_argument("--demo", action="store_true", help="show a recorded night instead, in fast time")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument("--version", action="version", version=f"ondevice {ondevice.__version__}")
    return parser


def _run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("textual") is None:
        command = f"{sys.executable or 'python3'} -m pip install textual"
        raise DeviceError(f"The terminal UI needs the Textual package; install it with `{command}`.")
    if args.demo and args.runs:
        raise UsageError("--demo shows its own run: leave out the names of others.")
    from ondevice.run.directory import home

    folders = [_folder(name) for name in args.runs] or [home() / "runs"]
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # Textual paints on the last
        raise DeviceError("The terminal UI needs a terminal; `ondevice status` tells the same in a pipe.")
    if not args.demo:
        return _show(folders, ascii_only=args.ascii)
    from tui.demo import demo_runs

    with demo_runs() as folder:
        return _show(sorted(folder.iterdir()) or [folder], ascii_only=args.ascii)


def _show(folders: list[Path], *, ascii_only: bool) -> int:
    """The app over these folders, until it is left."""
    from tui.app import OndeviceTui
    from tui.feed import Feed
    from tui.look import ASCII, UNICODE, speaks_unicode

    opened = folders[0] if len(folders) == 1 and (folders[0] / "run.json").is_file() else None
    glyphs = ASCII if ascii_only or not speaks_unicode(os.environ) else UNICODE
    app = OndeviceTui(Feed(folders), opened=opened, glyphs=glyphs)
    app.run()
    return app.return_code or 0


def _folder(name: str) -> Path:
    """A run, or a folder that holds runs. Raises UsageError with the nearest name."""
    from ondevice.run.directory import find_run, list_runs

    try:
        return find_run(name).path
    except UsageError:
        folder = Path(name).expanduser().absolute()
        if list_runs(folder):
            return folder
        raise
