"""Fine-tuning beside transformers' Trainer and Trainer + PEFT: tokens a second and peak memory of whole processes.

    python tools/bench/finetune.py                  all settings, each side in turn, two rounds
    python tools/bench/finetune.py --only lora --rounds 1 --steps 4

Every side of a setting has a process of its own, the same base (tools/bench/bases.py: the shape is real, weights and
text are random), the same windows of tokens and the same threads; the first step warms up and is not counted, memory
is the peak of the process (VmHWM), imports included. Every process has its row as it ends, and the medians follow when
a setting is through, so that a run that is stopped has told what it found. What other programs do at the same time hits
both sides, so ratios of neighbouring processes mean more than the rates. Linux only. ``instruction`` counts tokens that
are learned from, of examples of natural lengths (finetune_examples.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import finetune_loss
from bases import make_base

TOKENS, EXAMPLE_TOKENS = 256, 512
# name -> base, sequences a step, and each side's settings; "trainer" and "peft" are theirs
SETTINGS: dict[str, dict[str, Any]] = {
    "full fp32 fast": {"base": "gpt2", "batch": 4, "ours": {"micro": 4}},
    "full fp32": {"base": "gpt2", "batch": 4, "ours": {"micro": 4, "chunk": 128, "kept": 3, "repeated": 8}},
    "full int8": {
        "base": "gpt2",
        "batch": 4,
        "ours": {"micro": 4, "chunk": 128, "kept": 6, "repeated": 5, "state": "adamw-int8"},
    },
    "full int8 trimmed": {  # model.vocabulary = "trimmed": as many tokens as a megabyte of plain English has
        "base": "gpt2",
        "batch": 4,
        "ours": {"micro": 4, "chunk": 128, "kept": 12, "repeated": 0, "state": "adamw-int8", "tokens": 12_000},
    },
    "lora fast": {"base": "gpt2", "batch": 4, "adapter": "fp32", "ours": {"micro": 4}},
    "lora lean fp32": {
        "base": "gpt2",
        "batch": 4,
        "adapter": "fp32",
        "ours": {"micro": 1, "chunk": 64, "recompute": True},
    },
    "lora lean int8": {
        "base": "gpt2",
        "batch": 4,
        "adapter": "int8",
        "ours": {"micro": 1, "chunk": 64, "recompute": True},
    },
    "lora lean nf4": {
        "base": "gpt2",
        "batch": 4,
        "adapter": "nf4",
        "ours": {"micro": 1, "chunk": 64, "recompute": True},
    },
    "qlora qwen nf4": {
        "base": "qwen",
        "batch": 1,
        "adapter": "nf4",
        "ours": {"micro": 1, "chunk": 64, "recompute": True},
        "theirs": False,  # bitsandbytes' NF4 is not installed here; in fp32 they need five times as much
    },
    "instruction": {"base": "gpt2", "batch": 8, "adapter": "fp32", "examples": True, "ours": {"micro": 4}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="counted steps of a process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=("ours", "theirs"), help="this side alone")
    parser.add_argument(
        "--loss", type=int, metavar="STEPS", help="8-bit states against fp32, by loss (finetune_loss.py)"
    )
    parser.add_argument("--text", type=Path, default=Path(os.environ.get("ONDEVICE_TEST_DATA", ".")), help="for --loss")
    parser.add_argument("--shape", choices=("gpt2", "gpt2-18m"), default="gpt2-18m", help="for --loss")
    parser.add_argument("--batch", type=int, default=1, help="for --loss")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(json.loads(args.child))
        return
    if args.loss:
        with tempfile.TemporaryDirectory(prefix="bench-finetune-") as home:
            base = make_base(args.shape, Path(home) / args.shape)
            finetune_loss.compare(args.loss, args.text, base, args.batch, args.threads, _engine)
        return
    print(f"{'setting':<18} {'side':<8} {'tokens/s':>9} {'peak MiB':>9}   ours / theirs")
    with tempfile.TemporaryDirectory(prefix="bench-finetune-") as home:
        for name in [name for name in SETTINGS if args.only in name]:
            compare(name, Path(home), args.rounds, args.steps, args.threads, args.side)


def compare(name: str, home: Path, rounds: int, steps: int, threads: int, only: str | None = None) -> None:
    """Runs both sides in turn, or one, prints each process, and the medians in the end."""
    setting = SETTINGS[name]
    base = make_base(setting["base"], home / setting["base"])
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    sides = ("ours", "theirs") if setting.get("theirs", True) else ("ours",)
    sides = tuple(side for side in sides if only in (None, side))
    common = {"base": str(base), "steps": steps, "threads": threads, "home": str(home)}
    for number in range(rounds):
        for side in sides:
            one = _run({**setting, **common, "side": side, "round": number})
            found[side].append(one)
            print(f"{name:<18} {side:<8} {one['tok_s']:>9.1f} {one['peak_mb']:>9.0f}   round {number + 1}", flush=True)
    rates = {side: median(item["tok_s"] for item in items) for side, items in found.items()}
    for side in sides:
        peak = max(item["peak_mb"] for item in found[side])
        ratio = f"   {rates['ours'] / rates['theirs']:.2f}x" if side == "theirs" and not only else ""
        print(f"{name:<18} {side:<8} {rates[side]:>9.1f} {peak:>9.0f}   median{ratio}", flush=True)


def _run(job: dict[str, Any]) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"]), "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(job)],
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if not os.environ.get("BENCH_VERBOSE") else None,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _child(job: dict[str, Any]) -> None:
    from ondevice.device.memory import peak_rss_mb

    if job.get("examples"):
        import finetune_examples

        if job["side"] == "ours":
            rate = finetune_examples.ours(job, _engine(job))
        else:
            rate = finetune_examples.theirs(job, lambda rows, collate: _theirs(job, rows, collate))
    else:
        times = _ours(job) if job["side"] == "ours" else _theirs(job, _their_rows(job))
        rate = job["batch"] * TOKENS / median(times)
    print(json.dumps({"tok_s": rate, "peak_mb": peak_rss_mb()}))


def _windows(job: dict[str, Any]) -> Any:
    """The same for both sides: ``[steps + 1, batch, 257]``."""
    import numpy as np

    return np.random.default_rng(5).integers(0, 250, (job["steps"] + 1, job["batch"], TOKENS + 1))


def _engine(job: dict[str, Any]) -> Any:
    """Our engine, on a model put together as a launch does."""
    import torch

    from ondevice.device.memory import give_back_large_blocks
    from ondevice.run.recipe import Fit
    from ondevice.train.engine import Engine
    from ondevice.train.optimizer import optimizer_of

    torch.set_num_threads(job["threads"])
    torch.set_flush_denormal(True)
    wish = job["ours"]
    if wish.get("recompute"):
        give_back_large_blocks()
    model = _model(job)
    how = {"lr": 1e-4, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    optimizer = optimizer_of(wish.get("state", "adamw-fp32"), model, **how)
    engine = Engine(model, optimizer, clip=1.0, precision="fp32", loss_chunk_tokens=wish.get("chunk", 512))
    engine.use(
        Fit(
            micro_batch=wish["micro"],
            threads=job["threads"],
            activation_checkpointing=bool(wish.get("recompute")),
            loss_chunk_tokens=wish.get("chunk", 512),
            layerwise="kept" in wish,
            kept_blocks=wish.get("kept", 0),
            repeated_blocks=wish.get("repeated", 0),
        )
    )
    return engine


def _ours(job: dict[str, Any]) -> list[float]:
    """Seconds of each counted step."""
    import numpy as np

    engine, wish = _engine(job), job["ours"]
    times = []
    for window in _windows(job):
        x_BT, y_BT = np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])
        began = time.perf_counter()
        engine.begin(y_BT)
        for first in range(0, job["batch"], wish["micro"]):
            rows = slice(first, first + wish["micro"])
            engine.accumulate(x_BT[rows], y_BT[rows])
        engine.update(1e-4)
        times.append(time.perf_counter() - began)
    return times[1:]


def _model(job: dict[str, Any]) -> Any:
    """Base and adapter, without the check of the base's hash."""
    from ondevice.device.memory import give_back_large_blocks, give_back_memory
    from ondevice.model.build import build_model
    from ondevice.model.frozen_decoder import build_frozen, fill, seal
    from ondevice.model.hugging_face import open_hugging_face
    from ondevice.model.lora import add_lora
    from ondevice.model.vocabulary import TABLES, Vocabulary
    from ondevice.run.recipe import AdapterRecipe

    base = open_hugging_face(Path(job["base"]), context=EXAMPLE_TOKENS if job.get("examples") else TOKENS)
    size, form = base.shape.vocab_size, job.get("adapter", "fp32")
    vocabulary = Vocabulary(range(job["ours"].get("tokens", size)), size)
    shape = dataclasses.replace(base.shape, vocab_size=len(vocabulary.kept))
    if form == "fp32":
        model = build_model(shape, seed=None)
    else:
        give_back_large_blocks()
        model = build_frozen(shape, form)
    for name, first, part in base.tensors():
        if name in TABLES:
            first, part = vocabulary.part(first, part)
        if len(part):
            fill(model, name, first, part)
    seal(model)
    give_back_memory()
    if "adapter" in job:
        targets = ("c_attn",) if base.shape.arch == "gpt2" else ("q_proj", "v_proj")
        add_lora(model, AdapterRecipe(rank=8, alpha=16.0, dropout=0.0, targets=targets, base_format=form), seed=1)
    return model


def _their_rows(job: dict[str, Any]) -> list[dict[str, Any]]:
    import torch

    rows = [torch.from_numpy(row[:-1].copy()) for window in _windows(job) for row in window]
    return [{"input_ids": row, "labels": row} for row in rows]


def _theirs(job: dict[str, Any], rows: list[dict[str, Any]], collate: Any = None) -> list[float]:
    """Seconds of each counted step of transformers' Trainer, with PEFT for adapters, as its makers set it up."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    if "adapter" in job:
        import peft

        names = ["c_attn"] if job["base"].endswith("gpt2") else ["q_proj", "v_proj"]
        settings = peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, settings)
    times: list[float] = []

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *args: Any, **keys: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **keys: Any) -> None:
            times.append(time.perf_counter() - self.began)

    arguments = TrainingArguments(
        output_dir=str(Path(job["home"]) / "trainer"),
        per_device_train_batch_size=job["batch"],
        max_steps=job["steps"] + 1,
        learning_rate=1e-4,
        max_grad_norm=1.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    clock = [Clock()]
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=clock).train()
    return times[1:]


if __name__ == "__main__":
    main()
