"""``ondevice config explain|presets|check``."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from typing import Any

from ondevice.cli.common import print_json
from ondevice.cli.explain_text import by_preset, key_lines, table_line
from ondevice.cli.folding import tell
from ondevice.errors import UsageError, nearest
from ondevice.run.config import explain, load_config, preset_folder, preset_names, to_toml

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice config explain             every key, its default, unit and meaning
  ondevice config explain train       only the keys of [train]
  ondevice config explain max_skin_c  one key, closely; its table may be left out
  ondevice config presets
  ondevice config check my.toml       prints the config as it is understood"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="explain|presets|check")
    keys = actions.add_parser("explain", help="every key of a config file")
    keys.add_argument("key", nargs="?", help="a key or a table, such as train.lr or train")
    presets = actions.add_parser("presets", help="the shipped presets")
    check = actions.add_parser("check", help="parse a file and print it as it is understood")
    check.add_argument("file")
    for action in (keys, presets, check):
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    return {"explain": _explain, "presets": _presets, "check": _check}[args.action](args)


def _explain(args: argparse.Namespace) -> int:
    rows = list(explain())
    if args.key:
        rows = _asked_for(args.key.strip("[]") if "." not in args.key else args.key, rows)
    if args.json:
        print_json({"keys": [row | {"presets": by_preset(row["key"])} for row in rows]})
        return 0
    print("\n".join(_explained(rows, shutil.get_terminal_size().columns)))
    return 0


def _explained(rows: list[dict[str, Any]], width: int) -> Iterator[str]:
    """Key by key, under the tables they are written in; a single one closely."""
    closely, table = len(rows) == 1, ""
    for number, row in enumerate(rows):
        if not closely and (now := table_line(row["key"])) != table:
            yield from ([""] if number else [])
            yield now
            table = now
        yield from key_lines(row, width, closely=closely)


def _asked_for(key: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a key or of a table. Raises UsageError with the nearest."""
    if wanted := [row for row in rows if row["key"] == key or row["key"].startswith((key + ".", key + "["))]:
        return wanted
    tables = {row["key"].split(".")[0].rstrip("[]") for row in rows}
    same = [row["key"] for row in rows if row["key"].rpartition(".")[2] == key]
    if len(same) == 1:
        return [row for row in rows if row["key"] == same[0]]
    hint = f" (did you mean {', '.join(same)}?)" if same else nearest(key, [*_keys(rows), *tables])
    raise UsageError(f"'{key}': no such key{hint}; `ondevice config explain` lists all.")


def _keys(rows: list[dict[str, Any]]) -> list[str]:
    return [row["key"] for row in rows]


def _presets(args: argparse.Namespace) -> int:
    rows = [{"name": name, "about": _about(name)} for name in preset_names()]
    if args.json:
        print_json({"presets": rows, "folder": str(preset_folder())})
        return 0
    for row in rows:
        tell(f"{row['name']:<20} {row['about']}")
    return 0


def _about(name: str) -> str:
    """A preset's first comment line."""
    first = (preset_folder() / f"{name}.toml").read_text("utf-8").splitlines()[0]
    return first.lstrip("# ").strip()


def _check(args: argparse.Namespace) -> int:
    config = load_config(args.file)
    if args.json:
        import dataclasses

        print_json(dataclasses.asdict(config))
    else:
        print(to_toml(config), end="")
    return 0
