"""``ondevice generate TARGET [PROMPT]``: streaming text from a run, a checkpoint or an export."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import add_sampling_flags, at_least, for_terminal, given_sampling, print_json

if TYPE_CHECKING:
    from ondevice.infer.open import Opened
    from ondevice.infer.sampling import Sampling

__all__ = ["EXAMPLES", "add_arguments", "run", "write_text"]

EXAMPLES = """examples:
  ondevice generate notes "Dear diary,"
  ondevice generate notes --step 1200 --temperature 0 "def main("
  ondevice generate ~/ondevice/runs/notes/exports/onnx-00001200 "Once" --stop "THE END"
  echo "Once upon" | ondevice generate notes -"""


LENGTH = 128  # tokens, where --max-new-tokens is not given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run, the folder of a checkpoint, or an export folder")
    parser.add_argument("prompt", nargs="?", default="", help="text to go on from; - reads it from standard input")
    parser.add_argument("--step", type=int, help="use this checkpoint instead of the best by validation loss")
    parser.add_argument("--threads", type=at_least(1), help="threads of the arithmetic")
    defaults = (
        "where not given: 128 tokens, and what a sweep found (generation_config.json), else temperature 0.8, top k 50, "
        "top p 0.95, no penalty, seed 1"
    )
    add_sampling_flags(parser, defaults=defaults)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of streaming")


def run(args: argparse.Namespace) -> int:
    from ondevice.infer.generation_config import describe, read_generation_config
    from ondevice.infer.open import open_target
    from ondevice.infer.sampling import Sampling

    opened = open_target(args.target, step=args.step, threads=args.threads)
    recommended = read_generation_config(opened.settings)
    chosen = {**recommended, **given_sampling(args)}
    length = given_sampling(args).get("max_new_tokens", LENGTH)
    chosen.pop("max_new_tokens", None)
    prompt = sys.stdin.read().rstrip("\n") if args.prompt == "-" else args.prompt
    if not args.json:
        print(f"[{opened.what}]", file=sys.stderr)
        if recommended:
            print(f"[recommended by a sweep: {describe(recommended)}]", file=sys.stderr)
    settings = Sampling(**chosen)
    result = write_text(opened, prompt, settings, max_new_tokens=length, stop=args.stop, stream=not args.json)
    if args.json:
        print_json({"what": opened.what, "backend": opened.backend.name, "prompt": prompt, **result})
    return 0


def write_text(
    opened: Opened, prompt: str, settings: Sampling, *, max_new_tokens: int, stop: list[str], stream: bool
) -> dict[str, Any]:
    """Generates and, if asked, prints the pieces as they come. Gives text, ids, how it ended and the rate."""
    from ondevice.infer.text import stream_text

    began = time.monotonic()
    pieces = stream_text(
        opened.backend,
        opened.tokenizer,
        prompt,
        settings=settings,
        max_new_tokens=max_new_tokens,
        stop=stop,
    )
    if pieces.note and stream:
        print(pieces.note, file=sys.stderr)
    if stream:
        print(for_terminal(prompt), end="", flush=True)
    text = ""
    for piece in pieces:
        text += piece
        if stream:
            print(for_terminal(piece), end="", flush=True)
    if stream:
        print()
    seconds = time.monotonic() - began
    return {
        "text": text,
        "ids": pieces.ids,
        "finish": pieces.finish,
        "note": pieces.note,
        "tok_s": round(len(pieces.ids) / seconds, 1) if seconds else None,
    }
