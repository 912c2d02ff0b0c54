"""What 8-bit states of AdamW cost in loss: the same steps on the same real text as with fp32 states.

    python tools/bench/finetune.py --loss 200 --text $ONDEVICE_TEST_DATA            a GPT-2 of 18 M, B1 x T256
    python tools/bench/finetune.py --loss 200 --text FOLDER --shape gpt2 --batch 4  GPT-2 124 M, as Y's script feeds it

FOLDER holds ``help_en.txt`` and ``gpt2_tokenizer``: the vocabulary is GPT-2's whole one, as rows of the embedding that
are rarely met are what states in blocks find hardest. Weights begin random, so that there is more to learn, and more to
lose, than in a fine-tune. Validation is text that was not trained on, the same windows for both. A row is printed
every 20 steps as it is known, beside fp32's of the same steps, so that a run that is stopped has told what it found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKENS, WARMUP, LAST, VALIDATION = 256, 20, 20, 16
LR = 5e-4
STATES = ("adamw-fp32", "adamw-int8")
WANTED = 0.01


@dataclass(frozen=True)
class Outcome:
    """Nats a token: means of steps, and on windows not trained on."""

    trains: list[float]  # of every 20 steps
    validation: float


def compare(steps: int, text: Path, base: Path, batch: int, threads: int, engine_of: Callable[[Any], Any]) -> None:
    """Runs both and prints what is left between them."""
    rows = windows(text, steps * batch + VALIDATION)
    print(f"{'states':<12} {'steps':>9} {'loss':>9}   of fp32", flush=True)
    found: dict[str, Outcome] = {}
    for state in STATES:
        job = {"base": str(base), "threads": threads, "ours": {"micro": batch, "state": state}}
        beside = found.get(STATES[0])
        found[state] = train(engine_of(job), rows, steps, batch, state, beside)
        tell(state, "validate", found[state].validation, beside.validation if beside else None)
    print(json.dumps({"steps": steps, "within": abs(ratio(found) - 1) <= WANTED, "ratio": round(ratio(found), 5)}))


def tell(state: str, what: str, loss: float, beside: float | None) -> None:
    """One row; ``beside`` is what fp32 had at the same place."""
    share = "" if beside is None else f"   {loss / beside - 1:+.3%}"
    print(f"{state:<12} {what:>9} {loss:>9.4f}{share}", flush=True)


def ratio(found: dict[str, Outcome]) -> float:
    """Validation loss with 8-bit states of that with fp32 states."""
    return found[STATES[1]].validation / found[STATES[0]].validation


def windows(text: Path, count: int) -> Any:
    """``[count, 257]`` ids of text, in an order that a seed shuffles."""
    import numpy as np

    from ondevice.data.tokenizer import import_tokenizer

    tokenizer = import_tokenizer(text / "gpt2_tokenizer")
    words = (text / "help_en.txt").read_text("utf-8")[: count * (TOKENS + 1) * 8]
    ids = np.asarray(tokenizer.encode(words), dtype=np.int64)
    rows = ids[: len(ids) // (TOKENS + 1) * (TOKENS + 1)].reshape(-1, TOKENS + 1)
    if len(rows) < count:
        raise SystemExit(f"{text}: {len(rows)} windows of text, and {count} are needed; make fewer steps.")
    return np.random.default_rng(3).permutation(rows)[:count]


def train(engine: Any, rows: Any, steps: int, batch: int, state: str, beside: Outcome | None) -> Outcome:
    """So many steps from the model's beginning, told as they go."""
    import numpy as np

    losses: list[float] = []
    trains: list[float] = []
    for step in range(steps):
        part = rows[VALIDATION + step * batch : VALIDATION + (step + 1) * batch]
        x_BT, y_BT = np.ascontiguousarray(part[:, :-1]), np.ascontiguousarray(part[:, 1:])
        engine.begin(y_BT)
        engine.accumulate(x_BT, y_BT)
        losses.append(engine.update(LR * min(1.0, (step + 1) / WARMUP)).loss)
        if (step + 1) % LAST == 0 or step + 1 == steps:
            trains.append(float(np.mean(losses[-LAST:])))
            tell(state, str(step + 1), trains[-1], beside.trains[len(trains) - 1] if beside else None)
    return Outcome(trains, validate(engine.model, rows[:VALIDATION]))


def validate(model: Any, rows: Any) -> float:
    import torch

    from ondevice.model.loss import linear_cross_entropy

    model.eval()
    total = 0.0
    with torch.no_grad():
        for row in rows:
            hidden_BTC = model(torch.from_numpy(row[None, :-1].copy()))
            targets_N = torch.from_numpy(row[1:].copy())
            loss = linear_cross_entropy(hidden_BTC.flatten(0, 1), model.head_weight, targets_N, chunk_tokens=TOKENS)
            total += loss.item()
    return total / (len(rows) * TOKENS)
