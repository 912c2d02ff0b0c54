"""``ondevice tokenizer train``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ondevice.cli.common import add_data_flags, config_from, print_json
from ondevice.cli.folding import tell
from ondevice.errors import UsageError

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice tokenizer train --data ~/notes --out notes-tokenizer
  ondevice tokenizer train --data ~/notes --out t --set tokenizer.kind=sentencepiece-bpe --set tokenizer.vocab_size=4096

Use it with tokenizer.path in a config. `ondevice data build` trains one by itself where none is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="train")
    train = actions.add_parser("train", help="train a tokenizer on text")
    train.add_argument("target", nargs="?", help="a config file (.toml) or a preset")
    train.add_argument("--out", required=True, metavar="FOLDER", help="where to write it")
    add_data_flags(train, example="tokenizer.vocab_size=4096")
    train.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.data.build import train_from_sources

    folder = Path(os.path.expanduser(args.out)).absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder with --out.")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: exists and is not empty; choose another --out.")
    config = config_from(args, args.target)
    if config.tokenizer.path:
        raise UsageError(
            f"tokenizer.path names a finished tokenizer, {config.tokenizer.path}, and this command trains a new one; "
            "add --set tokenizer.path= to leave it out."
        )
    tokenizer = train_from_sources(config.data, config.tokenizer, base=Path.cwd(), folder=folder)
    if args.json:
        print_json(
            {
                "path": str(folder),
                "kind": tokenizer.kind,
                "vocab_size": tokenizer.vocab_size,
                "sha256": tokenizer.sha256,
            }
        )
    else:
        tell(f"{folder}: {tokenizer.kind}, vocabulary {tokenizer.vocab_size:,}.")
    return 0
