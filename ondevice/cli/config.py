"""``ondevice config explain|presets|check``."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from ondevice.cli.common import print_json
from ondevice.errors import UsageError, nearest
from ondevice.run.config import explain, load_config, preset_folder, preset_names, to_toml

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice config explain             every key, its default, unit and meaning
  ondevice config explain train       only the keys of [train]
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
        wanted = [
            row for row in rows if row["key"] == args.key or row["key"].startswith((args.key + ".", args.key + "["))
        ]
        if not wanted:
            tables = {row["key"].split(".")[0].rstrip("[]") for row in rows}
            same = [row["key"] for row in rows if row["key"].rpartition(".")[2] == args.key]
            hint = f" (did you mean {', '.join(same)}?)" if same else nearest(args.key, [*_keys(rows), *tables])
            raise UsageError(f"'{args.key}': no such key{hint}; `ondevice config explain` lists all.")
        rows = wanted
    if args.json:
        print_json({"keys": rows})
        return 0
    for row in rows:
        default = "required" if row["required"] else "derived" if row["default"] is None else repr(row["default"])
        unit = f" {row['unit']}" if row["unit"] else ""
        print(f"{row['key']} = {default}   ({row['type']}{unit})")
        allowed = f" One of: {', '.join(row['choices'])}." if row["choices"] else ""
        if row["bounds"]:
            allowed = f" {row['bounds'].capitalize()}."
        print(textwrap.fill(row["doc"] + "." + allowed, 76, initial_indent="    ", subsequent_indent="    "))
    return 0


def _keys(rows: list[dict[str, Any]]) -> list[str]:
    return [row["key"] for row in rows]


def _presets(args: argparse.Namespace) -> int:
    rows = [{"name": name, "about": _about(name)} for name in preset_names()]
    if args.json:
        print_json({"presets": rows, "folder": str(preset_folder())})
        return 0
    for row in rows:
        print(f"{row['name']:<18} {row['about']}")
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
