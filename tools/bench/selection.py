"""How long `select` takes over many checkpoints of one run, what evaluation costs a run, and what batches gain.

    python tools/bench/selection.py [--checkpoints 20] [--prompts 50] [--new-tokens 64] [--threads 2]
    python tools/bench/selection.py --only cost --threads 1
    python tools/bench/selection.py --only batch --threads 1

A model of about 10 M parameters over real text (code of the standard library). Wanted:
20 checkpoints, 50 prompts of 64 tokens, in under 180 s. ``cost`` gives the share of a run of 2,000 steps that its
evaluations take as the plan sizes them (losses and generation panel), from the processor time of steps and evaluations
that take turns in one process; wanted at most 5 %. ``batch`` is the processor time of generating after the prompts one
by one over that of all at once, from a model of the same shape with random weights; wanted at least 4.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE = ("model.arch=llama", "model.layers=6", "model.width=320", "model.heads=5", "model.context=256")
COMMON = (*SHAPE, "tokenizer.kind=bpe", "tokenizer.vocab_size=4096", "train.batch=8", "train.precision=fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8, help="of the cost")
    parser.add_argument("--only", choices=("select", "cost", "batch"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONDEVICE_HOME"] = home
        text = write_text(Path(home))
        if args.only in (None, "select"):
            print(json.dumps(time_select(text, args)))
        if args.only in (None, "cost"):
            print(json.dumps(share_of_evaluations(text, args)))
        if args.only in (None, "batch"):
            print(json.dumps(gain_of_batches(args)))


def write_text(home: Path) -> Path:
    """Some megabytes of real Python."""
    library, folder = Path(sysconfig.get_paths()["stdlib"]), home / "text"
    for package in ("asyncio", "email", "json", "unittest", "xml", "importlib", "concurrent", "logging"):
        shutil.copytree(library / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def make(text: Path, name: str, *changes: str):
    """A run that is ready to be trained."""
    import dataclasses

    from ondevice.run.config import parse_config
    from ondevice.run.schema import SourceConfig
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    wishes = (*COMMON, f"name={name}", "limits.min_free_disk_mb=0", "sample.count=0", *changes)
    config = parse_config("", where="bench", base=text.parent, changes=wishes)
    source = SourceConfig(path=str(text), name="code", format="code")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=(source,)))
    dataset = make_dataset(config)
    return make_run(config, prepare(config, dataset, cores=os.cpu_count() or 1, android=False, rate=1.0), dataset)


def time_select(text: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Of a run with so many kept checkpoints; the training before it is not timed."""
    from ondevice.cli.progress import QuietDisplay
    from ondevice.model.counts import count_parameters
    from ondevice.study.evaluation import Wish
    from ondevice.study.select_run import select_run
    from ondevice.train.launch import launch

    run = make(
        text,
        "ten",
        f"train.steps={args.checkpoints}",
        "train.batch=2",
        "eval.count=3",
        f"fit.threads={args.threads}",
        "limits.save_every_steps=1",
        "limits.keep_every_steps=1",
    )
    launch(run, display=QuietDisplay())
    wish = Wish(per_source=args.prompts, max_new_tokens=args.new_tokens)
    wall, cpu = time.perf_counter(), time.process_time()
    found = select_run(run, wish, threads=args.threads)
    return {
        "what": "select",
        "parameters": count_parameters(run.read_recipe().model),
        "checkpoints": len(found["checkpoints"]),
        "prompts": found["prompts"]["n"],
        "new_tokens": args.new_tokens,
        "threads": args.threads,
        "wall_s": round(time.perf_counter() - wall, 1),
        "processor_s": round(time.process_time() - cpu, 1),
        "wanted_s": 180,
    }


def share_of_evaluations(text: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Of the processor time of a run of 2,000 steps with everything about evaluation left at its default."""
    from ondevice.cli.progress import QuietDisplay
    from ondevice.model.counts import count_parameters
    from ondevice.train.launch import make_loop

    loop = make_loop(make(text, "cost", "train.steps=2000", f"fit.threads={args.threads}"), display=QuietDisplay())
    recipe = loop.recipe
    steps, evaluations = [], []
    loop._step()
    for _ in range(args.rounds):
        steps += [seconds_of(loop._step) for _ in range(2)]
        evaluations.append(seconds_of(loop._evaluate))
    spent = len(recipe.eval.steps) * statistics.median(evaluations)
    return {
        "what": "cost",
        "parameters": count_parameters(recipe.model),
        "evaluations": len(recipe.eval.steps),
        "tokens_each": recipe.eval.max_tokens,
        "texts_each": len(recipe.eval.panel_prompts),
        "threads": args.threads,
        "step_s": round(statistics.median(steps), 3),
        "evaluation_s": round(statistics.median(evaluations), 3),
        "share": round(spent / (spent + recipe.train.steps * statistics.median(steps)), 4),
        "wanted": 0.05,
    }


def gain_of_batches(args: argparse.Namespace) -> dict[str, Any]:
    """The same texts both ways."""
    import numpy as np
    import torch

    from ondevice.infer.batch import generate_batch
    from ondevice.infer.generate import generate
    from ondevice.infer.sampling import Sampling
    from ondevice.infer.torch_backend import TorchBackend
    from ondevice.model.build import build_model
    from ondevice.model.counts import count_parameters
    from ondevice.run.recipe import ModelShape

    torch.set_num_threads(args.threads)
    shape = ModelShape(arch="llama", vocab_size=4096, context=256, layers=6, width=320, heads=5, kv_heads=5, hidden=864)
    backend, settings = TorchBackend(build_model(shape, seed=1)), Sampling()
    prompts = np.random.default_rng(1).integers(0, shape.vocab_size, (args.prompts, 48)).tolist()
    rules = {"settings": settings, "max_new_tokens": args.new_tokens}
    texts: dict[str, list[tuple[int, ...]]] = {}

    def alone() -> None:
        texts["alone"] = [tuple(generate(backend, prompt, stop_ids=(), **rules)) for prompt in prompts]

    def together() -> None:
        texts["together"] = [each.ids for each in generate_batch(backend, prompts, batch=len(prompts), **rules)]

    alone_s, together_s = seconds_of(alone), seconds_of(together)
    return {
        "what": "batch",
        "parameters": count_parameters(shape),
        "prompts": args.prompts,
        "new_tokens": args.new_tokens,
        "threads": args.threads,
        "same_texts": sum(a == b for a, b in zip(texts["alone"], texts["together"], strict=True)),
        "one_by_one_s": round(alone_s, 2),
        "together_s": round(together_s, 2),
        "gain": round(alone_s / together_s, 2),
        "wanted": 4,
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Of the processor."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
