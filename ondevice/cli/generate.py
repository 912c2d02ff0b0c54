"""``ondevice generate TARGET [PROMPT]``: text as it comes, of one prompt or of many."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import add_sampling_flags, add_threads_flag, at_least, for_terminal, given_sampling, print_json
from ondevice.cli.folding import tell
from ondevice.errors import UsageError

if TYPE_CHECKING:
    from ondevice.infer.open import Opened
    from ondevice.infer.sampling import Sampling
    from ondevice.run.schema import Limits

__all__ = ["EXAMPLES", "add_arguments", "run", "write_text"]

EXAMPLES = """examples:
  ondevice generate notes "Dear diary,"
  ondevice generate notes --step 1200 --temperature 0 "def main("
  ondevice generate ~/ondevice/runs/notes/exports/onnx-00001200 "Once" --stop "THE END"
  ondevice generate ~/models/SmolLM2-135M --adapter ~/tickets-v1/adapter "Hello"
  echo "Once upon" | ondevice generate notes -
  ondevice generate notes --prompts rows.jsonl --out texts.jsonl      the same command goes on after a kill
  ondevice generate notes --bench            tokens a second, time to the first, memory"""


LENGTH = 128  # tokens, where --max-new-tokens is not given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", help="a run, the folder of a checkpoint or an export, or a folder of Hugging Face or PEFT"
    )
    parser.add_argument("prompt", nargs="?", default="", help="text to go on from; - reads it from standard input")
    parser.add_argument("--adapter", metavar="FOLDER", help="a PEFT adapter to merge into a folder of Hugging Face")
    parser.add_argument(
        "--step", type=int, metavar="N", help="use this checkpoint instead of the best by validation loss"
    )
    add_threads_flag(parser)
    defaults = (
        "where not given: 128 tokens, and what a sweep found (generation_config.json), else temperature 0.8, top k 50, "
        "top p 0.95, no penalty, seed 1"
    )
    add_sampling_flags(parser, defaults=defaults)
    parser.add_argument("--preset", metavar="NAME", help="balanced, creative, precise, greedy or default")
    many = parser.add_argument_group("many prompts", "heat and charge of the device are respected, as in training")
    many.add_argument("--prompts", metavar="FILE", help='JSONL, one {"prompt": "..."} a line; other fields are kept')
    many.add_argument("--out", metavar="FILE", help="JSONL to write; rows that are there already are not written again")
    many.add_argument("--batch", type=at_least(1), default=16, metavar="N", help="prompts at a time (16)")
    many.add_argument("--limit", action="append", default=[], metavar="KEY=VALUE", help="as in `ondevice limit`")
    parser.add_argument("--bench", action="store_true", help="measure speed and memory instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of streaming")


def run(args: argparse.Namespace) -> int:
    from ondevice.infer.open import open_target
    from ondevice.infer.presets import choose_settings

    _check(args)
    many = _many(args) if args.prompts else None
    adapter = Path(os.path.expanduser(args.adapter)) if args.adapter else None
    opened = open_target(args.target, step=args.step, threads=args.threads, adapter=adapter)
    if args.bench:
        return _bench(opened, args)
    given = given_sampling(args)
    chosen = choose_settings(opened.settings, preset_name=args.preset, given=given)
    length = given.get("max_new_tokens", LENGTH)
    if not args.json:
        tell(f"[{opened.what}]", sys.stderr)
        if chosen.note:
            tell(f"[{chosen.note}]", sys.stderr)
    if many:
        return _write_rows(opened, args, *many, chosen.sampling, length)
    prompt = sys.stdin.read().rstrip("\n") if args.prompt == "-" else args.prompt
    result = write_text(opened, prompt, chosen.sampling, max_new_tokens=length, stop=args.stop, stream=not args.json)
    if args.json:
        print_json({"what": opened.what, "backend": opened.backend.name, "prompt": prompt, **result})
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that do not go together."""
    if bool(args.prompts) != bool(args.out):
        raise UsageError("--prompts FILE and --out FILE belong together.")
    if args.prompts and (args.prompt or args.bench or args.stop):
        raise UsageError("--prompts goes without a prompt, --bench and --stop.")
    if args.limit and not args.prompts:
        raise UsageError("--limit is for --prompts; a single text is written at once.")
    if args.bench and args.prompt:
        raise UsageError("--bench reads arbitrary tokens; leave the prompt out.")


def _bench(opened: Opened, args: argparse.Namespace) -> int:
    from ondevice.infer.bench import measure_speed

    context = opened.backend.context
    new = given_sampling(args).get("max_new_tokens", min(64, context // 2))
    speed = measure_speed(opened.backend, prompt_tokens=min(128, context - new), new_tokens=new)
    if args.json:
        print_json({"what": opened.what, "backend": opened.backend.name, **speed.to_json()})
        return 0
    tell(opened.what)
    tell(f"  read      {speed.prefill_tok_s:,.1f} tokens a second ({speed.prompt_tokens} at once)")
    tell(f"  written   {speed.decode_tok_s:,.1f} tokens a second ({speed.new_tokens} one by one)")
    tell(f"  first     after {1000 * speed.first_token_s:,.0f} ms")
    if speed.peak_rss_mb is not None:
        tell(f"  memory    {speed.peak_rss_mb:,.0f} MiB at most, all of Python included")
    return 0


def _many(args: argparse.Namespace) -> tuple[list[dict[str, Any]], Limits]:
    """The rows and limits of many prompts, before a model is opened for them. Raises DataError, UsageError."""
    from ondevice.cli.limit import device_limits
    from ondevice.infer.rows import read_rows

    return read_rows(Path(os.path.expanduser(args.prompts))), device_limits(args.limit)


def _write_rows(
    opened: Opened,
    args: argparse.Namespace,
    rows: list[dict[str, Any]],
    limits: Limits,
    settings: Sampling,
    length: int,
) -> int:
    from ondevice.infer.manners import on_this_machine
    from ondevice.infer.rows import done_rows, way_of, write_rows

    out = Path(os.path.expanduser(args.out)).absolute()
    way = way_of(opened.what, settings, length)
    done = done_rows(out, rows, way)
    manners = on_this_machine(limits, out.parent, tell=_say)
    if done and not args.json:
        _say(f"{done} of {len(rows)} are there already.")
    manners.began()
    for count in write_rows(
        opened.backend,
        opened.tokenizer,
        rows[done:],
        out,
        way=way,
        settings=settings,
        max_new_tokens=length,
        batch=int(args.batch),
        pause=manners.pause,
    ):
        if not args.json:
            _say(f"{done + count} of {len(rows)}")
    if args.json:
        print_json({"what": opened.what, "backend": opened.backend.name, "out": str(out), "rows": len(rows)})
    else:
        print(f"{out}: {len(rows)} texts.")
    return 0


def _say(text: str) -> None:
    tell(text, sys.stderr)


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
        tell(pieces.note, sys.stderr)
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
