"""``ondevice data build|inspect|order|check``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ondevice.cli.build_progress import built
from ondevice.cli.common import add_data_flags, at_least, config_from, print_json
from ondevice.cli.data_check import add_check_arguments, check
from ondevice.cli.data_order import show_order
from ondevice.cli.data_parts import USUAL_CONTEXT, part_rows, planned_parts
from ondevice.cli.data_text import dataset_lines, inventory_lines
from ondevice.cli.folding import tell

if TYPE_CHECKING:
    from ondevice.data.dataset import Dataset
    from ondevice.run.recipe import PartRecipe

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice data build --data ~/notes              reads the text, trains a tokenizer, writes token chunks
  ondevice data build my.toml --json
  ondevice data build my.toml --parts 120         ... and shows the parts that a chain would have
  ondevice data inspect notes-1f2e3d4c            sources, tokens, what was dropped and why
  ondevice data inspect notes-1f2e3d4c --verify   re-reads every chunk against its hash
  ondevice data order my.toml                     which source is read when; an order is half the lesson
  ondevice data order my.toml --set data.order=alphabetical
  ondevice data check tickets.jsonl --held-out judged.jsonl   examples: broken rows, copies, leaks, labels, secrets
  ondevice data check contract.toml --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|inspect|order|check")
    build = actions.add_parser("build", help="text to token chunks")
    build.add_argument("target", nargs="?", help="a config file (.toml) or a preset")
    add_data_flags(build, example="tokenizer.vocab_size=4096")
    build.add_argument("--parts", type=at_least(1), metavar="N", help="show the parts of a chain of N (chain.parts)")
    inspect = actions.add_parser("inspect", help="what a dataset holds")
    inspect.add_argument("dataset", help="a dataset or a run, by name or path")
    inspect.add_argument("--context", type=at_least(1), default=256, help="context for the inventory of windows (256)")
    inspect.add_argument("--verify", action="store_true", help="re-read every chunk against its hash")
    order = actions.add_parser("order", help="which source is read when")
    order.add_argument("target", nargs="?", help="a run, a config file (.toml) or a preset")
    add_data_flags(order, example="data.order=source_balanced")
    check_action = actions.add_parser("check", help="what is wrong with examples (.jsonl)")
    add_check_arguments(check_action)
    for action in (build, inspect, order, check_action):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    return {"build": _build, "inspect": _inspect, "order": show_order, "check": check}[args.action](args)


def _build(args: argparse.Namespace) -> int:
    if args.parts is not None:
        args.set = [*args.set, f"chain.parts={args.parts}"]
    config = config_from(args, args.target)
    dataset = built(config, quiet=args.json)
    _show(dataset, args, context=config.model.context or USUAL_CONTEXT, parts=planned_parts(config, dataset))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from ondevice.data.parcel import named_dataset

    dataset = named_dataset(args.dataset)
    if args.verify:
        dataset.verify()
    _show(dataset, args, context=args.context)
    return 0


def _show(dataset: Dataset, args: argparse.Namespace, *, context: int, parts: Sequence[PartRecipe] = ()) -> None:
    from ondevice.data.inventory import take_inventory

    if dataset.examples is not None:
        _show_examples(dataset, args)
        return
    inventory = take_inventory(dataset.sources, context)
    if args.json:
        told: dict[str, Any] = {"inventory": dataclasses.asdict(inventory)}
        told |= {"parts": [dataclasses.asdict(part) for part in parts]} if parts else {}
        print_json({"path": str(dataset.folder), **dataset.manifest, **told})
        return
    tell(str(dataset.folder))
    for line in [*dataset_lines(dataset), *inventory_lines(inventory), *part_rows(parts, context=context)]:
        tell(line)


def _show_examples(dataset: Dataset, args: argparse.Namespace) -> None:
    """Examples are packed by their lengths, so windows say nothing of them."""
    if args.json:
        print_json({"path": str(dataset.folder), **dataset.manifest})
        return
    for line in [str(dataset.folder), *dataset_lines(dataset)]:
        tell(line)
