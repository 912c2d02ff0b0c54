"""``ondevice plan``: what a run would take, without starting it."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import TYPE_CHECKING

from ondevice.cli.build_progress import built
from ondevice.cli.common import add_config_flags, at_least, config_from, cores, print_json
from ondevice.cli.data_text import dataset_lines, inventory_lines
from ondevice.cli.folding import tell
from ondevice.cli.foresight import Foresight, experience, foresee, has_battery, heat_warning
from ondevice.cli.plan_text import plan_lines
from ondevice.device.host import on_android
from ondevice.run.directory import home

if TYPE_CHECKING:
    from ondevice.run.schema import Config
    from ondevice.train.prepare import Prepared

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice plan --data ~/notes --minutes 30
  ondevice plan my.toml --memory 800 --json
  ondevice plan my.toml --probe         ... and let one real step show its memory
  ondevice plan my.toml --rate 900      use this many tokens/s instead of a timed probe
  ondevice plan my.toml --price 0.30    ... and what it will cost at that price of a kWh"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", help="a config file (.toml) or a preset")
    add_config_flags(parser)
    parser.add_argument(
        "--rate", type=at_least(1, float), metavar="TOK_S", help="tokens a second, instead of timing a few steps"
    )
    parser.add_argument(
        "--price", type=at_least(0, float), metavar="MONEY", help="of a kWh; else what limits.price_per_kwh says"
    )
    parser.add_argument("--probe", action="store_true", help="measure one real step in a process of its own")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    config = config_from(args, args.target)
    if args.probe:
        config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, probe=True))
    from ondevice.data.inventory import take_inventory  # after the config: what is wrong with it is told at once
    from ondevice.train.prepare import prepare

    dataset = built(config, quiet=args.json)
    prepared = prepare(config, dataset, cores=cores(), android=on_android(os.environ), rate=args.rate, always_time=True)
    warnings = [*prepared.warnings]
    if unwatched := heat_warning(home(), handheld=on_android(os.environ)):
        warnings.append(unwatched)
    inventory = take_inventory(dataset.sources, prepared.recipe.model.context)
    expected = _foresight(config, prepared, price=args.price)
    if args.json:
        print_json(
            {
                "recipe": prepared.recipe.to_json(),
                "fit": prepared.fit.to_json(),
                "estimate": {
                    **dataclasses.asdict(prepared.estimate),
                    "memory": {
                        **dataclasses.asdict(prepared.estimate.memory),
                        "total_mb": prepared.estimate.memory.total_mb,
                    },
                },
                "expected": dataclasses.asdict(expected) if expected else None,
                "ways": [
                    {"fit": way.fit.to_json(), "memory_mb": way.memory.total_mb, "time": way.time}
                    for way in prepared.ways
                ],
                "memory_mb": prepared.memory_mb,
                "measured": None if prepared.measured is None else prepared.measured.to_json(),
                "saving": dataclasses.asdict(prepared.saving),
                "tok_s": prepared.tok_s,
                "inventory": dataclasses.asdict(inventory),
                "warnings": warnings,
            }
        )
        return 0
    tell(
        "\n".join(
            [*dataset_lines(dataset), *plan_lines(prepared, expected, all_ways=True), *inventory_lines(inventory)]
        )
    )
    for text in warnings:
        tell(f"Warning: {text}")
    return 0


def _foresight(config: Config, prepared: Prepared, *, price: float | None) -> Foresight | None:
    """None where the rate is not known."""
    if prepared.tok_s is None:
        return None
    return foresee(
        config.limits,
        experience(),
        tokens=prepared.estimate.tokens,
        tok_s=prepared.tok_s,
        handheld=on_android(os.environ),
        battery=has_battery(home()),
        price=price,
    )
