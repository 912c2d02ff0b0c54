"""The processes that tools/bench/step.py lets take turns: each does one training step when it reads a line.

All sides have the same shape, batch and made-up windows of tokens, the same clipping and AdamW in fp32. "trainer" is
transformers' Trainer over its own model as its makers set it up, "bare" a loop as nanoGPT writes it, "gemm" square
products. A result is one JSON line: ``wall_s``, ``cpu_s``, and what the side adds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ondevice.run.recipe import ModelShape

__all__ = ["SHAPES", "Turns", "windows"]


def _llama(vocab: int, layers: int, width: int, heads: int, hidden: int) -> ModelShape:
    return ModelShape(
        arch="llama",
        vocab_size=vocab,
        context=512,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        hidden=hidden,
    )


SHAPES = {
    "1M": _llama(1024, 4, 128, 4, 336),
    "4.26M": _llama(1216, 5, 256, 4, 688),
    "10M": _llama(4096, 7, 320, 5, 864),
    "30M": _llama(8192, 8, 512, 8, 1376),
    "124M": ModelShape(
        arch="gpt2", vocab_size=50257, context=1024, layers=12, width=768, heads=12, kv_heads=12, hidden=3072
    ),
}
_OPTIMIZER = {"lr": 1e-4, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}


class Turns:
    """Waits for a line before each step and tells what the one before cost."""

    def __init__(self) -> None:
        self._told = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is not for the parent
        self._began: tuple[float, float] | None = None

    def wait(self, **more: Any) -> None:
        """Between two steps. The process ends when nobody asks any more."""
        if self._began is not None:
            wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
            print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, **more}), file=self._told, flush=True)
        if not sys.stdin.readline():
            os._exit(0)
        self._began = (time.perf_counter(), time.process_time())


def windows(job: dict[str, Any]) -> Any:
    """Token ids ``[32, B, T + 1]``, the same for every side."""
    import numpy as np

    size = (32, job["batch"], job["tokens"] + 1)
    return np.random.default_rng(5).integers(0, SHAPES[job["size"]].vocab_size, size)


def _endless(job: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    import numpy as np

    ready = windows(job)
    while True:
        for window in ready:
            yield np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])


def _engine(job: dict[str, Any], name: str) -> Any:
    """Model, optimizer and engine as a launch makes them."""
    from ondevice.model.build import build_model
    from ondevice.train.engine import Engine
    from ondevice.train.optimizer import optimizer_of

    model = build_model(SHAPES[job["size"]], seed=1)
    optimizer = optimizer_of(name, model, **_OPTIMIZER)
    return Engine(model, optimizer, clip=1.0, precision="fp32", loss_chunk_tokens=512)


def _ours(job: dict[str, Any], turns: Turns) -> None:
    engine = _engine(job, "muon" if job["side"] == "muon" else "adamw-fp32")
    more = {"compile_s": _compiled(engine, job)} if job["side"] == "compiled" else {}
    for x_BT, y_BT in _endless(job):
        turns.wait(**more)
        engine.begin(y_BT)
        engine.accumulate(x_BT, y_BT)
        engine.update(1e-4)


def _compiled(engine: Any, job: dict[str, Any]) -> float:
    """Seconds that compiling took, without kernels of an earlier time."""
    from ondevice.run.recipe import Fit
    from ondevice.train.compiler import Compiler

    engine.model.shape = dataclasses.replace(SHAPES[job["size"]], context=job["tokens"])  # as steps of a run have it
    fit = Fit(micro_batch=job["batch"], threads=job["threads"], activation_checkpointing=False, loss_chunk_tokens=512)
    with tempfile.TemporaryDirectory(prefix="bench-step-") as home:
        os.environ["ONDEVICE_HOME"] = home
        return Compiler(engine.model, batch=job["batch"], precision="fp32").use(fit)


def _profile(job: dict[str, Any], turns: Turns) -> None:
    from step_regions import Regions

    engine = _engine(job, "adamw-fp32")
    regions = Regions(engine)
    for x_BT, y_BT in _endless(job):
        turns.wait(regions=regions.taken())
        with regions.named("zero gradients"):
            engine.begin(y_BT)
        engine.accumulate(x_BT, y_BT)
        with regions.named("clip"):
            engine.update(1e-4)


def _bare(job: dict[str, Any], turns: Turns) -> None:
    import torch
    from plain_decoder import PlainDecoder
    from torch.nn import functional as F

    model = PlainDecoder(SHAPES[job["size"]])
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    for x_BT, y_BT in _endless(job):
        turns.wait()
        logits_BTV = model(torch.from_numpy(x_BT))
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), torch.from_numpy(y_BT).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()


def _trainer(job: dict[str, Any], turns: Turns) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from ondevice.model.names import hugging_face_config

    wanted = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, **hugging_face_config(SHAPES[job["size"]])}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**wanted), attn_implementation="sdpa")
    model = model.float()

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **keys: Any) -> None:
            turns.wait()

    with tempfile.TemporaryDirectory(prefix="bench-step-") as home:
        arguments = TrainingArguments(
            output_dir=home,
            per_device_train_batch_size=job["batch"],
            max_steps=1_000_000,
            learning_rate=1e-4,
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        rows = [torch.from_numpy(row[:-1].copy()) for window in windows(job) for row in window]
        data = [{"input_ids": row, "labels": row} for row in rows]
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()


def _gemm(job: dict[str, Any], turns: Turns) -> None:
    """Square products of 1024, by torch's own BLAS and by oneDNN where torch has it; the faster of both counts."""
    import torch

    a, b, out = (torch.randn(1024, 1024) for _ in range(3))
    one_dnn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    best: dict[str, float] = {}
    while True:
        turns.wait(**best)
        ways = [lambda: torch.mm(a, b, out=out)]
        ways += [lambda: one_dnn(a, b, None, "none", [], "")] if one_dnn is not None else []
        best = max((_rate(way) for way in ways), key=lambda found: found["flops"] / found["cpu_s"])


def _rate(product: Any) -> dict[str, float]:
    product()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(4):
        product()
    return {
        "flops": 4 * 2 * 1024.0**3,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }


def main() -> None:
    job = json.loads(sys.argv[1])
    turns = Turns()
    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    if job["side"] in ("ours", "muon", "compiled", "profile"):
        torch.set_flush_denormal(True)  # as a launch does
    sides = {**dict.fromkeys(("ours", "muon", "compiled"), _ours), "profile": _profile}
    sides |= {"bare": _bare, "trainer": _trainer, "gemm": _gemm}
    sides[job["side"]](job, turns)


if __name__ == "__main__":
    main()
