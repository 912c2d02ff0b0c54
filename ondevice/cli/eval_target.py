"""The evaluation of a model that is not training, for ``ondevice eval TARGET``: flags, progress, words or JSON."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import (
    add_sampling_flags,
    add_step_flag,
    add_threads_flag,
    at_least,
    for_terminal,
    given_sampling,
    print_json,
)
from ondevice.cli.folding import tell

if TYPE_CHECKING:
    from ondevice.study.evaluation import Wish

__all__ = ["add_panel_flags", "add_target_flags", "eval_target", "wish_from"]


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `eval_target` but for ``target`` and ``--json``."""
    add_step_flag(parser)
    add_threads_flag(parser)
    parser.add_argument("--data", metavar="DATASET", help="measure on this dataset, or that of this run")
    parser.add_argument(
        "--context",
        type=at_least(2),
        metavar="N",
        help="Hugging Face: tokens seen at once (what it was made for, 1,024 at most)",
    )
    parser.add_argument("--no-losses", action="store_true", help="only generate and judge")
    add_panel_flags(parser)


def add_panel_flags(parser: argparse.ArgumentParser) -> None:
    """Which prompts, and how tokens are chosen."""
    parser.add_argument("--prompts", metavar="FILE", help="JSONL of prompts (default: cut from the validation text)")
    parser.add_argument("--per-source", type=at_least(1), default=20, metavar="N", help="prompts cut a source (20)")
    parser.add_argument(
        "--loss-tokens",
        type=at_least(0),
        metavar="N",
        help="validation tokens a source, 0 for all (eval: all; select: as many as the run measured)",
    )
    add_sampling_flags(parser, defaults="where not given: 64 tokens, temperature 0.8, top k 50, top p 0.95, seed 1")


def wish_from(args: argparse.Namespace) -> Wish:
    """What the flags ask for. Raises UsageError and DataError."""
    from ondevice.errors import UsageError
    from ondevice.infer.sampling import Sampling
    from ondevice.study.evaluation import Wish
    from ondevice.study.prompts import read_prompts

    if args.stop:
        raise UsageError("--stop: texts that are judged end by themselves or by their length; leave it out.")
    chosen = given_sampling(args)
    length = chosen.pop("max_new_tokens", 64)
    if length < 1:
        raise UsageError(f"--max-new-tokens {length}: must be 1 or more.")
    return Wish(
        prompts=read_prompts(Path(os.path.expanduser(args.prompts))) if args.prompts else None,
        per_source=args.per_source,
        max_new_tokens=length,
        sampling=Sampling(**chosen),
        loss_tokens=None if args.loss_tokens is None else int(args.loss_tokens),
        losses=not getattr(args, "no_losses", False),
    )


def eval_target(target: str, args: argparse.Namespace) -> int:
    """Evaluates a run's checkpoint, the folder of one, an export, or a folder of Hugging Face, and shows the result."""
    from ondevice.study.evaluation import evaluate
    from ondevice.study.target import open_target

    wish = wish_from(args)
    options = {"step": args.step, "threads": args.threads, "data": args.data, "context": args.context}
    with open_target(target, **options) as opened:
        result = evaluate(opened, wish, progress=lambda text: print(f"{text} ...", file=sys.stderr))
        place = opened.evals / result["generations"]["file"]
        reason = opened.no_dataset
    if args.json:
        print_json({**result, "folder": str(place.parent)})
        return 0
    _show(result)
    if reason:
        tell(f"Not measured: losses and quality. {for_terminal(reason)}")
    tell(f"Generations: {place}")
    return 0


def _show(result: dict[str, Any]) -> None:
    step = "" if result["step"] is None else f" step {result['step']:,}"
    tell(f"{for_terminal(result['target'])}{step} ({result['backend']})")
    for source, loss in result["val_loss"].items():
        bits = result["bits_per_byte"][source]
        more = "" if bits is None else f", {bits:.4f} bits a byte"
        tell(f"  val       {loss:.4f} {for_terminal(source)}{more}")
    if result["own_tokenizer"] is False:
        tell("            the model's tokenizer is not the dataset's: compare bits a byte, not nats a token")
    languages = result["val_loss_by_language"]
    for language, loss in languages.items() if 1 < len(languages) < len(result["val_loss"]) else ():
        tell(f"  val       {loss:.4f} {for_terminal(language)}, all its sources")
    if result["val_loss_mixed"] is not None:
        tell(f"  all       {result['val_loss_mixed']:.4f} nats a token")
    group = result["degeneration"]["all"]
    tell(
        f"  texts     {group['n']}: diversity {group['diversity']:.3f}, looping {group['loop_rate']:.0%}, "
        f"repeated 4-grams {group['repeated_4gram_ratio']:.3f}"
    )
    for name, score in result["quality"].get("groups", {}).items():
        tell(f"  quality   {score['score']:5.1f} of 100, {for_terminal(name)} (n {score['n']})")
    if result["probes"]:
        probe = result["probes"]["all"]
        tell(f"  probes    median rank {probe['median_rank']:g}, probability {probe['mean_probability']:.4f}")
    for name, found in (result["task"] or {}).items():
        if isinstance(found, dict):
            interval = f"95 % between {found['low']:.0%} and {found['high']:.0%}"
            tell(f"  task      {found['estimate']:.0%} {for_terminal(name)}, {interval} (n {found['n']})")
    for note in result["notes"]:
        tell(f"  note      {for_terminal(note)}")
    use = result["language_use"]
    if "skipped" in use:
        tell(f"  language  not identified: {use['skipped']}")
    elif use["consistency"] is not None:
        tell(f"  language  {use['consistency']:.0%} as the prompt, {use['switch_rate']:.0%} switch (n {use['n']})")
