"""Tokens and seconds to a peer's final loss: tinyshakespeare's characters, 0.8 M parameters, context 64.

    python tools/bench/tokens_to_loss.py PATH_OF_TINYSHAKESPEARE --out FILE.jsonl [--seeds 3] [--set key=value ...]

The peer is a loop as nanoGPT writes it, with its settings for a CPU: 2000 steps of 12 x 64 tokens, AdamW, 1e-3 to 1e-4,
no dropout. Ours is the shipped character preset on the same tokens, split and batch. Peer and ours take turns, a seed
at a time, each on one thread; what is done is in FILE and is not done again, so a broken run goes on where it stopped.
Ours are told apart by their settings: other ``--set`` are other rows (another ``train.batch`` with ``train.steps`` for
the same tokens). Losses are over the whole validation text in windows of 64; between two evaluations the tokens and
seconds at which ours passes the target are interpolated, and given as shares of all of the peer's. Seconds are wall
time of the training steps alone: on a loaded machine only the tokens can be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

STEPS, BATCH, CONTEXT = 2000, 12, 64
PUBLISHED = 1.886  # nanoGPT's README, at these settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer for a trial; rows of other steps are apart")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    for seed in range(args.seeds):
        for side in ("peer", "ours"):
            wish = {"side": side, "seed": seed, "steps": args.steps, "set": args.set if side == "ours" else []}
            if found(args.out, wish) is None:
                done = peer(args.text, seed, args.steps) if side == "peer" else ours(args.text, wish)
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"wish": wish, **done}) + "\n")
    show(args)


def found(out: Path, wish: dict[str, Any]) -> dict[str, Any] | None:
    """The row of a wish that was done, None if it was not. A torn last line counts for nothing."""
    if not out.exists():
        return None
    for line in out.read_text(encoding="utf-8").splitlines():
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if row["wish"] == wish:
            return row
    return None


def show(args: argparse.Namespace) -> None:
    """Each seed's figures and the medians, at the peer's own final loss and at the published one."""
    print("shares of the peer's tokens and seconds, to the peer's own loss and to the published one")
    print(f"{'seed':<6} {'peer':>7} {'ours':>7} {'peer s':>7} {'ours s':>7} {'to peer':>15} {'to published':>15}")
    rows = []
    for seed in range(args.seeds):
        theirs = found(args.out, {"side": "peer", "seed": seed, "steps": args.steps, "set": []})
        mine = found(args.out, {"side": "ours", "seed": seed, "steps": args.steps, "set": args.set})
        assert theirs is not None and mine is not None
        whole = args.steps * BATCH * CONTEXT, theirs["wall_s"]
        shares = [share for target in (theirs["loss"], PUBLISHED) for share in shares_to(mine["curve"], target, whole)]
        rows.append((theirs["loss"], mine["curve"][-1][1], theirs["wall_s"], mine["wall_s"], *shares))
        print(line(str(seed), rows[-1]), flush=True)
    print(line("median", tuple(median(column) for column in zip(*rows, strict=True))))


def line(name: str, row: tuple[float, ...]) -> str:
    """Each share of tokens with its share of seconds; the peer takes all of both to its own loss."""
    theirs, mine, their_s, my_s, *shares = row
    told = [f"{tokens:>7.1%} {seconds:>7.1%}" for tokens, seconds in zip(shares[::2], shares[1::2], strict=True)]
    return f"{name:<6} {theirs:>7.4f} {mine:>7.4f} {their_s:>7.1f} {my_s:>7.1f} {' '.join(told)}"


def shares_to(curve: list[list[float]], target: float, whole: tuple[float, float]) -> tuple[float, float]:
    """Shares of the ``whole`` tokens and seconds at which the loss first is ``target``; infinite where it never is."""
    for (tokens, high, seconds), (later_tokens, low, later_s) in pairwise(curve):
        if low <= target:
            way = max(0.0, high - target) / max(1e-9, high - low)
            return (tokens + (later_tokens - tokens) * way) / whole[0], (seconds + (later_s - seconds) * way) / whole[1]
    return math.inf, math.inf


def ours(text: Path, wish: dict[str, Any]) -> dict[str, Any]:
    """Trains the preset; its evaluations, as [tokens, loss, seconds of steps until then], and the seconds of all."""
    command = [sys.executable, "-m", "ondevice", "train", "shakespeare-char", "--data", str(text.absolute()), "--quiet"]
    seed, steps = 1337 + wish["seed"], wish["steps"]
    changes = [f"train.seed={seed}", f"data.seed={seed}", f"train.steps={steps}", "eval.count=40", "sample.count=0"]
    for change in [*changes, *wish["set"]]:
        command += ["--set", change]
    with tempfile.TemporaryDirectory(prefix="bench-tokens-") as home:
        subprocess.run([*command, "--name", "run"], check=True, env=_environment(home), stdout=subprocess.DEVNULL)
        story = (Path(home) / "runs" / "run" / "telemetry" / "0001.jsonl").read_text(encoding="utf-8")
    records = [json.loads(each) for each in story.splitlines()]
    curve, spent_s = [], 0.0
    for each in records:
        if each["kind"] == "step":
            spent_s += each["step_s"]
        elif each["kind"] == "eval":
            curve.append([each["tokens"], each["val_loss_mixed"], spent_s])
    return {"curve": curve, "wall_s": spent_s}


def _environment(home: str) -> dict[str, str]:
    return {**os.environ, "ONDEVICE_HOME": home, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def peer(text: Path, seed: int, steps: int) -> dict[str, Any]:
    """Trains the bare loop; its final loss and the seconds of its steps."""
    import torch
    from plain_decoder import PlainDecoder
    from torch.nn import functional as F

    from ondevice.run.recipe import ModelShape

    torch.set_num_threads(1)
    torch.manual_seed(1337 + seed)
    train, held_out, vocabulary = _characters(text)
    shape = ModelShape(
        arch="gpt2", vocab_size=vocabulary, context=CONTEXT, layers=4, width=128, heads=4, kv_heads=4, hidden=512
    )
    model = PlainDecoder(shape)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.99),
        fused=True,
    )
    began = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps)
        starts = torch.randint(len(train) - CONTEXT, (BATCH,))
        windows = torch.stack([train[start : start + CONTEXT + 1] for start in starts])
        logits = model(windows[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    wall_s = time.perf_counter() - began
    return {"loss": _validation_loss(model, held_out), "wall_s": wall_s}


def _characters(text: Path) -> tuple[Any, Any, int]:
    """Token ids of the first 90 % and of the rest, and how many characters there are."""
    import torch

    whole = text.read_text(encoding="utf-8")
    number = {character: index for index, character in enumerate(sorted(set(whole)))}
    ids = torch.tensor([number[character] for character in whole])
    border = int(0.9 * len(ids))
    return ids[:border], ids[border:], len(number)


def _rate(step: int, steps: int) -> float:
    """nanoGPT's: 100 steps of warm-up, then a cosine from 1e-3 to 1e-4."""
    if step < 100:
        return 1e-3 * (step + 1) / 101
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))) * 9e-4


def _validation_loss(model: Any, held_out: Any) -> float:
    import torch
    from torch.nn import functional as F

    count = (len(held_out) - 1) // CONTEXT
    x_BT = held_out[: count * CONTEXT].view(count, CONTEXT)
    y_BT = held_out[1 : count * CONTEXT + 1].view(count, CONTEXT)
    with torch.no_grad():
        sums = [
            F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
            for x, y in zip(x_BT.split(64), y_BT.split(64), strict=True)
        ]
    return sum(sums) / y_BT.numel()


if __name__ == "__main__":
    main()
