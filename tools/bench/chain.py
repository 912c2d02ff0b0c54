"""What a part of a chain costs beside its steps, its evaluation and its save.

    python tools/bench/chain.py [--parts 120] [--steps 5] [--layers 2] [--width 64]

One real chain over made-up text. From its story: the time between the end of a part's last step and the begin of the
next step, less what the evaluation and the save (written, fsynced, read back, pruned) took. What remains is telling of
the part, hashing, and writing the schedule. Wanted: at most 1.5 s.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

CONTEXT, BATCH = 64, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=120)
    parser.add_argument("--steps", type=int, default=5, help="steps of a part")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONDEVICE_HOME"] = home
        report(train(args, Path(home)), args)


class Quiet:
    """A display that shows nothing."""

    def status(self, status: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def train(args: argparse.Namespace, home: Path) -> list[dict[str, Any]]:
    """The story of the whole chain."""
    from ondevice.run.config import parse_config
    from ondevice.run.telemetry import read_records
    from ondevice.train.chain import train as train_chain
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    rng = random.Random(3)
    size = int(args.parts * args.steps * CONTEXT * BATCH * 1.1)
    (home / "text.txt").write_text("\n".join("".join(rng.choices("abc de", k=63)) for _ in range(size // 64 + 40)))
    wish = f"""
        name = "chain"
        [data]
        split = "tail:0.02"
        max_unique_tokens = {args.parts * args.steps * CONTEXT * BATCH}
        [[data.sources]]
        path = "text.txt"
        [chain]
        parts = {args.parts}
        [tokenizer]
        kind = "byte"
        [model]
        layers = {args.layers}
        width = {args.width}
        heads = 4
        context = {CONTEXT}
        [train]
        batch = {BATCH}
        lr = 1e-3
        precision = "fp32"
        [eval]
        max_tokens = 1024
        [sample]
        count = 0
        [fit]
        micro_batch = {BATCH}
        threads = 1
        [limits]
        min_free_disk_mb = 0
    """
    config = parse_config(wish, where="bench", base=home)
    dataset = make_dataset(config)
    run = make_run(config, prepare(config, dataset, cores=1, android=False, rate=1.0), dataset)
    train_chain(run, display=Quiet())
    return list(read_records(run.telemetry))


def report(records: list[dict[str, Any]], args: argparse.Namespace) -> None:
    steps = {record["step"]: record for record in records if record["kind"] == "step"}
    saves = {record["step"]: record for record in records if record["kind"] == "checkpoint"}
    evaluations = {record["step"]: record for record in records if record["kind"] == "eval"}
    costs, told = [], []
    for part in (record for record in records if record["kind"] == "part"):
        end = part["step"]
        told.append(part["t"] - saves[end]["t"])
        if end + 1 in steps:
            between_s = steps[end + 1]["t"] - steps[end + 1]["step_s"] - steps[end]["t"]
            costs.append(between_s - evaluations[end]["eval_s"] - saves[end]["save_s"])
    costs.sort()
    save_s = statistics.median(record["save_s"] for record in saves.values())
    eval_s = statistics.median(record["eval_s"] for record in evaluations.values())
    worst = costs[-1]
    print(f"{args.parts} parts of {args.steps} steps: save {save_s:.3f} s, evaluation {eval_s:.3f} s")
    print(
        f"beside these a part takes {statistics.median(costs):.3f} s (median), {worst:.3f} s at most, wanted <= 1.5 s"
    )
    print(f"of which telling of it {statistics.median(told):.3f} s; the last ten {statistics.mean(told[-10:]):.3f} s")


if __name__ == "__main__":
    main()
