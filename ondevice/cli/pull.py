"""``ondevice pull MODEL``: a model from the Hugging Face hub, to train from."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.cli.common import for_terminal, print_json
from ondevice.cli.folding import tell
from ondevice.run.directory import home

if TYPE_CHECKING:
    from ondevice.model.hub import HubFile, Listing

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice pull gpt2
  ondevice pull HuggingFaceTB/SmolLM2-135M-Instruct --dry-run      sizes only
  ondevice pull Qwen/Qwen2.5-0.5B --to ~/models/qwen

Takes safetensors, tokenizer and JSON files, never a pickle; each is checked by its hash. What was interrupted goes on
where it was. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured. Needs `pip install huggingface_hub`."""

_SHOWN = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="its name on the hub: gpt2, or owner/model")
    parser.add_argument("--revision", metavar="NAME", help="a branch, tag or commit instead of the newest")
    parser.add_argument("--to", metavar="FOLDER", help="where to put it ($ONDEVICE_HOME/models/MODEL)")
    parser.add_argument("--dry-run", action="store_true", help="show sizes and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.model.hub import look_up
    from ondevice.model.hub_fetch import check_room

    listing = look_up(args.model, revision=args.revision)
    folder = home() / "models" / args.model.replace("/", "--")
    if args.to:
        folder = Path(os.path.expanduser(args.to)).absolute()
    if not args.json:
        print(for_terminal("\n".join(_listing_lines(listing))), flush=True)
    check_room(listing, folder)
    if not args.dry_run:
        _fetch_all(listing, folder, shown=sys.stderr.isatty() and not args.json)
    if args.json:
        files = {file.name: file.size for file in listing.files}
        facts = {"model": listing.repository, "revision": listing.revision, "bytes": listing.size, "files": files}
        print_json({**facts, "left_out": list(listing.left_out), "path": None if args.dry_run else str(folder)})
    elif not args.dry_run:
        tell(f"In {folder}; {_use(folder)}.")
    return 0


def _use(folder: Path) -> str:
    if (folder / "config.json").exists():
        return f"`ondevice train --data TEXT --set model.base={folder}` trains from it"
    return f"`ondevice generate BASE --adapter {folder}` speaks with this adapter"


def _listing_lines(listing: Listing) -> Iterator[str]:
    yield f"{listing.repository} at {listing.source}, revision {listing.revision[:12]}:"
    for file in listing.files:
        yield f"  {_size(file.size):>10}  {file.name}"
    yield f"  {_size(listing.size):>10}  in all"
    if listing.left_out:
        more = f" and {len(listing.left_out) - _SHOWN} more" if len(listing.left_out) > _SHOWN else ""
        yield f"Not taken: {', '.join(listing.left_out[:_SHOWN])}{more}."


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _fetch_all(listing: Listing, folder: Path, *, shown: bool) -> None:
    """Small files first: a model that cannot be trained here is refused before its weights are fetched."""
    from ondevice.model.hub_fetch import fetch, note_source

    note_source(listing, folder)
    weights = [file for file in listing.files if file.name.endswith(".safetensors")]
    for file in listing.files:
        if file not in weights:
            fetch(listing, file, folder)
    _refuse_unknown(folder)
    for file in weights:

        def progress(have: int, file: HubFile = file) -> None:
            if shown:
                text = f"{file.name}: {have / 1e6:,.1f} of {file.size / 1e6:,.1f} MB"
                print(f"\r{text} ", end="" if have < file.size else "\n", file=sys.stderr, flush=True)

        fetch(listing, file, folder, progress=progress)


def _refuse_unknown(folder: Path) -> None:
    """Raises CheckpointError for an architecture that is not ours. An adapter has no config of a model."""
    from ondevice.model.hugging_face import shape_of
    from ondevice.model.untrusted import read_object

    path = folder / "config.json"
    if path.exists() or not (folder / "adapter_config.json").exists():
        shape_of(read_object(path, at_most=1_000_000, refusal="not the config of a model."), where=str(path))
