"""How a training run grows: time with tokens, parameters and context, memory with steps.

    python tools/bench/growth.py time [--threads 1] [--rounds 5]     tokens, parameters, context; a minute or two
    python tools/bench/growth.py memory [--steps 10000] --text FILE  a whole tiny run, RSS read as it goes

Time is processor time of whole steps (forward, backward, clip, AdamW), the settings of a row in turn within a round;
medians, each beside what its floating-point operations say, the first setting being 1. Wanted: at most 1.25 for
contexts from 128 to 2,500, about 1 or less for tokens and parameters (small models have a fixed cost a step). Memory is
the resident set of `ondevice train` with evaluations, samples and saves; the drift is the median over the last tenth of
the steps beside that from step 100 to the first tenth's end. Wanted: less than 1 %. Told apart are pages of the
process's own, which only it can give back, and pages of mapped files (libraries, chunks), which the system takes where
others need memory: the first alone tells whether anything grows. Linux only.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from step_sides import SHAPES

from ondevice.model.counts import flops_per_token
from ondevice.run.recipe import Fit, ModelShape

CONTEXTS = (128, 256, 512, 1024, 2500)
CONTEXT_TOKENS = 5_000  # a step, as nearly as whole sequences allow
BATCHES = (1, 2, 4, 8, 16)
SIZES = ("1M", "4.26M", "10M", "30M")
SETTLED = 100  # steps after which everything has been made once
TINY = (
    'tokenizer.kind="byte" model.layers=1 model.width=32 model.heads=2 model.context=32 train.batch=2 '
    "train.precision=fp32 fit.threads=1 eval.count=51 eval.max_tokens=512 sample.count=20 limits.save_every_steps=500"
)
EVERY_S = 0.2
KINDS = ("all", "own", "of files")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Steps of ``batch`` whole contexts of a shape."""

    name: str
    shape: ModelShape
    batch: int

    @property
    def flops(self) -> float:
        return float(self.batch * self.shape.context * flops_per_token(self.shape, self.shape.context))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "memory"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="time: part of a row's name")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--text", type=Path)
    args = parser.parse_args()
    if args.what == "memory":
        if args.text is None:
            parser.error("memory needs --text FILE")
        show_memory(args.text, steps=args.steps)
        return
    for name, settings in rows().items():
        if args.only in name:
            show_row(name, settings, seconds_of(settings, threads=args.threads, rounds=args.rounds))


def rows() -> dict[str, list[Setting]]:
    """What grows in each row of the table; nothing else does."""
    middle = shape(width=256, context=256)
    return {
        "tokens": [Setting(name=f"{batch} x 256", shape=middle, batch=batch) for batch in BATCHES],
        "parameters": [
            Setting(name=size, shape=dataclasses.replace(SHAPES[size], context=256), batch=4) for size in SIZES
        ],
        "context": [
            Setting(
                name=str(context),
                shape=shape(width=256, context=context),
                batch=max(1, round(CONTEXT_TOKENS / context)),
            )
            for context in CONTEXTS
        ],
    }


def shape(*, width: int, context: int) -> ModelShape:
    heads = width // 32
    return ModelShape(
        arch="llama",
        vocab_size=1024,
        context=context,
        layers=4,
        width=width,
        heads=heads,
        kv_heads=heads,
        hidden=width * 8 // 3 // 32 * 32,
    )


def seconds_of(settings: Sequence[Setting], *, threads: int, rounds: int) -> list[float]:
    """The median processor seconds of a step of each; one round before them warms up."""
    import torch

    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    steps = [make_step(setting) for setting in settings]
    times: list[list[float]] = [[] for _ in settings]
    for number in range(rounds + 1):
        for step, found in zip(steps, times, strict=True):
            began = time.process_time()
            step()
            if number:
                found.append(time.process_time() - began)
    return [median(found) for found in times]


def make_step(setting: Setting) -> Callable[[], None]:
    """One step on random tokens, by the run's own engine; the optimizer is AdamW, whose cost grows with parameters."""
    import numpy as np

    from ondevice.model.build import build_model
    from ondevice.train.engine import Engine
    from ondevice.train.optimizer import optimizer_of

    model = build_model(setting.shape, seed=0)
    optimizer = optimizer_of("adamw", model, lr=1e-4, weight_decay=0.1, beta1=0.9, beta2=0.99, eps=1e-8)
    engine = Engine(model, optimizer, clip=1.0, precision="fp32", loss_chunk_tokens=512)
    fit = Fit(micro_batch=setting.batch, threads=1, activation_checkpointing=False, loss_chunk_tokens=512)
    engine.use(fit)
    ids = np.random.default_rng(0).integers(0, setting.shape.vocab_size, (setting.batch, setting.shape.context + 1))
    x_BT, y_BT = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])

    def step() -> None:
        engine.begin(y_BT)
        engine.accumulate(x_BT, y_BT)
        engine.update(1e-4)

    return step


def growth(settings: Sequence[Setting], seconds: Sequence[float]) -> list[float]:
    """Time over floating-point operations, the first setting's being 1."""
    rates = [spent / setting.flops for setting, spent in zip(settings, seconds, strict=True)]
    return [rate / rates[0] for rate in rates]


def show_row(name: str, settings: Sequence[Setting], seconds: Sequence[float]) -> None:
    print(f"{name:<12} {'GFLOP':>8} {'cpu ms':>8} {'GFLOP/s':>8} {'time/FLOP':>10}")
    for setting, spent, ratio in zip(settings, seconds, growth(settings, seconds), strict=True):
        rate = setting.flops / spent / 1e9
        print(f"{setting.name:<12} {setting.flops / 1e9:>8.2f} {spent * 1e3:>8.1f} {rate:>8.1f} {ratio:>10.2f}")
    print(flush=True)


def show_memory(text: Path, *, steps: int) -> None:
    points = watch(text, steps=steps)
    for share in range(1, 11):
        bounds = max(SETTLED, (share - 1) * steps / 10), share * steps / 10
        found = [pages for step, pages in points if bounds[0] <= step <= bounds[1]]
        told = [f"{name} {_range([each[name] for each in found])}" for name in KINDS] if found else ["not read"]
        print(f"steps {bounds[0]:>7,.0f} to {bounds[1]:>7,.0f}, MB: {', '.join(told)}")
    for name in KINDS:
        early, late = drift([(step, pages[name]) for step, pages in points], steps)
        print(f"{name}: drift {late / early - 1:+.2%} ({early:.1f} to {late:.1f} MB; wanted less than 1 %)")


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def drift(points: Sequence[tuple[int, float]], steps: int) -> tuple[float, float]:
    """Medians of the memory from `SETTLED` steps to the first tenth's end and over the last tenth, in MB."""
    early = [mb for step, mb in points if SETTLED <= step <= steps / 10]
    last = [mb for step, mb in points if step >= 0.9 * steps]
    return median(early), median(last)


def watch(text: Path, *, steps: int) -> list[tuple[int, dict[str, float]]]:
    """Steps and resident memory of a whole run by kind, read five times a second."""
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as home:
        environment = {**os.environ, "ONDEVICE_HOME": home, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        changes = [f"--set={change}" for change in (*TINY.split(), f"train.steps={steps}")]
        command = [sys.executable, "-m", "ondevice", "train", "--data", str(text.absolute()), "--name", "grow"]
        process = subprocess.Popen([*command, *changes, "--quiet"], env=environment, stdout=subprocess.DEVNULL)
        points: list[tuple[int, dict[str, float]]] = []
        status = Path(home) / "runs" / "grow" / "status.json"
        while process.poll() is None:
            time.sleep(EVERY_S)
            try:
                points.append((int(json.loads(status.read_text("utf-8"))["step"]), _resident_mb(process.pid)))
            except (OSError, ValueError, KeyError):
                continue  # not begun, or over
        if process.returncode:
            raise SystemExit(f"ondevice train ended with {process.returncode}")
    return points


def _resident_mb(pid: int) -> dict[str, float]:
    """By `KINDS`: everything, the process's own pages, pages of files. Own ones are from ``smaps_rollup``, which counts
    them; ``status`` is some pages behind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return {"all": kb["Rss"] / 1024, "own": kb["Anonymous"] / 1024, "of files": (kb["Rss"] - kb["Anonymous"]) / 1024}


if __name__ == "__main__":
    main()
