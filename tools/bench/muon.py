"""What Muon costs beside the rest of a step, and whether it learns as well now that its updates cost less.

    python tools/bench/muon.py share [--rounds 5] [--only 10M ...]  its share of the step
    python tools/bench/muon.py learn --text FILE [--steps 400]      validation loss by each way, same batches

"before" is Newton-Schulz on whole matrices, as recipes before version 7 have it, "now" what new runs do. One thread,
processor time, medians; both take a step in turn, each with a model of its own. The share counts momentum, orthogonal
factors and update of the matrices inside blocks, of the whole step. Settings are batches as presets have them or the
plan derives them for such models, then smaller ones. "bound" is what two products of each matrix with its smaller
square take of the step's arithmetic: the Gram matrix, and its root times the matrix. With free roots and products at
the model's rate the share would still be about that.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import growth
import numpy as np
import torch

from ondevice.model.build import build_model
from ondevice.model.counts import count_parameters, flops_per_token
from ondevice.model.loss import linear_cross_entropy
from ondevice.run.recipe import ModelShape
from ondevice.train.engine import Engine
from ondevice.train.muon import row_parts
from ondevice.train.optimizer import optimizer_of

WAYS = {"before": "muon-adamw-fp32", "now": "muon"}
HOW = {"weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}


class Setting(growth.Setting):
    """With the least share that the updates of its matrices can have."""

    @property
    def tokens(self) -> int:
        return self.batch * self.shape.context

    @property
    def bound(self) -> float:
        """Arithmetic of two products of each matrix with the square of its smaller side, over the model's own."""
        model = build_model(self.shape, seed=None)
        sides = [
            (rows, parameter.shape[1])
            for name, parameter in model.named_parameters()
            for rows in row_parts(name, self.shape) or []
            for rows in [rows if rows > 0 else parameter.shape[0]]
        ]
        work = sum(4.0 * min(rows, columns) * rows * columns for rows, columns in sides)
        return work / (self.tokens * flops_per_token(self.shape, self.shape.context))


def llama(vocab: int, layers: int, width: int, hidden: int, context: int) -> ModelShape:
    heads = max(1, width // (64 if width >= 512 else 32))
    return ModelShape(
        arch="llama",
        vocab_size=vocab,
        context=context,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        hidden=hidden,
    )


CHARACTERS = llama(65, 4, 128, 336, 64)
SETTINGS = [
    Setting(name="shakespeare-char", shape=CHARACTERS, batch=12),
    Setting(name="plan, 5 minutes", shape=llama(2048, 3, 96, 256, 128), batch=16),
    Setting(name="plan, 1.3 M", shape=llama(4096, 4, 128, 352, 256), batch=8),
    Setting(name="plan, 2.6 M", shape=llama(4096, 4, 192, 512, 256), batch=8),
    Setting(name="plan, 5 M", shape=llama(4096, 5, 256, 672, 256), batch=16),
    Setting(name="plan, 9 M", shape=llama(4096, 6, 320, 864, 256), batch=32),
    Setting(name="4.26M 4x256", shape=llama(1216, 5, 256, 688, 256), batch=4),
    Setting(name="10M 4x256", shape=llama(4096, 7, 320, 864, 256), batch=4),
    Setting(name="10M 16x256", shape=llama(4096, 7, 320, 864, 256), batch=16),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("share", "learn"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], help="share: parts of settings' names")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if args.what == "share":
        show_shares([each for each in SETTINGS if any(part in each.name for part in args.only)], args.rounds)
    elif args.text is None:
        parser.error("learn needs --text FILE")
    else:
        show_losses(args.text, steps=args.steps, seed=args.seed)


def show_shares(settings: list[Setting], rounds: int) -> None:
    print(
        f"{'setting':<18} {'M':>6} {'tokens':>7} {'bound':>6} {'before':>7} {'now':>6} {'Muon':>6} {'step':>6}   / now"
    )
    for setting in settings:
        times = spent(setting, rounds)
        share = {way: median(muon / whole for muon, whole in found) for way, found in times.items()}
        pairs = list(zip(times["before"], times["now"], strict=True))
        less = [median(was[index] / now[index] for was, now in pairs) for index in (0, 1)]
        size = count_parameters(setting.shape) / 1e6
        told = f"{setting.name:<18} {size:>6.2f} {setting.tokens:>7,} {setting.bound:>6.1%} {share['before']:>7.1%}"
        print(f"{told} {share['now']:>6.1%} {less[0]:>5.2f}x {less[1]:>5.2f}x", flush=True)


def spent(setting: Setting, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Processor seconds of Muon's part and of the whole step, for each round after the first two."""
    steps = {way: timed_step(setting, name) for way, name in WAYS.items()}
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in steps}
    for number in range(rounds + 2):
        for way in list(steps) if number % 2 else reversed(steps):
            taken = steps[way]()
            if number >= 2:
                found[way].append(taken)
    return found


def timed_step(setting: Setting, name: str) -> Callable[[], tuple[float, float]]:
    """A step on random tokens by the run's own engine."""
    model = build_model(setting.shape, seed=0)
    optimizer: Any = optimizer_of(name, model, lr=1e-3, **HOW)
    engine = Engine(model, optimizer, clip=1.0, precision="fp32", loss_chunk_tokens=512)
    optimizer.step, muon = _clocked(optimizer.step)
    optimizer._adamw.step, adamw = _clocked(optimizer._adamw.step)
    ids = np.random.default_rng(0).integers(0, setting.shape.vocab_size, (setting.batch, setting.shape.context + 1))
    x_BT, y_BT = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])

    def step() -> tuple[float, float]:
        began = time.process_time()
        engine.begin(y_BT)
        engine.accumulate(x_BT, y_BT)
        engine.update(1e-3)
        return muon.pop() - adamw.pop(), time.process_time() - began

    return step


def _clocked(function: Callable[[], None]) -> tuple[Callable[[], None], list[float]]:
    """The function, and processor seconds of its last call."""
    seconds: list[float] = []

    def call() -> None:
        began = time.process_time()
        function()
        seconds[:] = [time.process_time() - began]

    return call, seconds


def show_losses(text: Path, *, steps: int, seed: int) -> None:
    """Last weights after ``steps`` of the settings of shakespeare-char, the rate falling to nothing over them."""
    letters = text.read_text(encoding="utf-8")
    number = {letter: index for index, letter in enumerate(sorted(set(letters)))}
    ids = np.array([number[letter] for letter in letters])
    train, held_out = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    shape = dataclasses.replace(CHARACTERS, vocab_size=len(number))
    print(f"{steps} steps of 12 x {shape.context}, seed {seed}")
    for way, name in WAYS.items():
        engine = learned(name, train, shape, steps=steps, seed=seed)
        print(f"{way:<8} {held_out_loss(engine, held_out):.4f} nats", flush=True)


def learned(name: str, train: np.ndarray, shape: ModelShape, *, steps: int, seed: int) -> Engine:
    model = build_model(shape, seed=1337 + seed, init="fan-in")
    optimizer = optimizer_of(name, model, lr=5e-3, **HOW)
    engine = Engine(model, optimizer, clip=1.0, precision="fp32", loss_chunk_tokens=768)
    chance = np.random.default_rng(seed)
    for step in range(steps):
        starts = chance.integers(0, len(train) - shape.context, 12)
        rows = np.stack([train[start : start + shape.context + 1] for start in starts])
        y_BT = np.ascontiguousarray(rows[:, 1:])
        engine.begin(y_BT)
        engine.accumulate(np.ascontiguousarray(rows[:, :-1]), y_BT)
        engine.update(5e-3 * min((step + 1) / 40, (steps - step) / max(1, steps - 40)))
    return engine


@torch.no_grad()
def held_out_loss(engine: Engine, ids: np.ndarray) -> float:
    """Nats a letter over all whole windows."""
    context = engine.model.shape.context
    count = (len(ids) - 1) // context
    x, y = (torch.from_numpy(ids[first : first + count * context]).view(count, context) for first in (0, 1))
    engine.model.eval()
    sums = [
        linear_cross_entropy(
            engine.model(some).flatten(0, 1), engine.model.head_weight, other.flatten(), chunk_tokens=1024
        ).item()
        for some, other in zip(x.split(64), y.split(64), strict=True)
    ]
    return sum(sums) / y.numel()


if __name__ == "__main__":
    main()
