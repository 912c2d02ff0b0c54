"""What a launch costs more on 10,000 chunks, and on 10,000 parts, than on 10.

    python tools/bench/chain_start.py [--many 10000] [--rounds 5]

Everything a launch does up to its first batch (papers read, dataset opened, state and order made, the records of the
launch written, the schedule folded), for the same text in few and in many chunks, and as a chain of few and of many
parts, at its begin and as if it went on near its end. Wanted: less than 1 s more. Median and least processor seconds,
each round in a new process, the kinds taking turns.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTEXT, BATCH = 32, 4
CHUNK_TOKENS = 1024
KINDS = ("few chunks", "many chunks", "few parts", "many parts", "near the end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", metavar="RUN", help=argparse.SUPPRESS)
    parser.add_argument("--late", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(*start(args.child, late=args.late))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONDEVICE_HOME"] = home
        prepare_all(Path(home), args.many)
        report(args)


def prepare_all(home: Path, many: int) -> None:
    """A run of each kind over the same made-up text."""
    rng = random.Random(3)
    lines = many * CHUNK_TOKENS // 64
    (home / "text.txt").write_text("\n".join("".join(rng.choices("abc de", k=63)) for _ in range(lines)))
    for name, parts, chunk_tokens in (
        ("few-chunks", 0, many * CHUNK_TOKENS // 10),
        ("many-chunks", 0, CHUNK_TOKENS),
        ("few-parts", 10, many * CHUNK_TOKENS // 10),
        ("many-parts", many, CHUNK_TOKENS),
    ):
        make(home, name, parts=parts, chunk_tokens=min(chunk_tokens, 1 << 24))


def make(home: Path, name: str, *, parts: int, chunk_tokens: int) -> None:
    from ondevice.run.config import parse_config
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    wish = f"""
        name = "{name}"
        [data]
        split = "tail:0.001"
        chunk_tokens = {chunk_tokens}
        [[data.sources]]
        path = "text.txt"
        [chain]
        parts = {parts}
        [tokenizer]
        kind = "byte"
        [model]
        layers = 1
        width = 16
        heads = 2
        context = {CONTEXT}
        [train]
        batch = {BATCH}
        lr = 1e-3
        precision = "fp32"
        {"" if parts else "steps = 1000"}
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
    make_run(config, prepare(config, dataset, cores=1, android=False, rate=1.0), dataset)


class Quiet:
    """A display that shows nothing."""

    def status(self, status: dict[str, object]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def start(name: str, *, late: bool) -> tuple[float, float]:
    """Seconds and processor seconds of a launch up to its first batch; ``late``: at the begin of its last part."""
    from ondevice.run.directory import RunLock, find_run
    from ondevice.train.launch import make_loop

    run = find_run(name)
    began, cpu = time.perf_counter(), time.process_time()
    lock = RunLock(run)
    loop = make_loop(run, display=Quiet())
    cursor = loop.state.cursor
    if late:
        cursor.position = loop.recipe.train.planned_steps * BATCH - BATCH
        cursor.load_state_dict(cursor.state_dict())
    cursor.next()
    cursor.exposure()
    cursor.state_dict()
    took = time.perf_counter() - began, time.process_time() - cpu
    loop.telemetry.close()
    lock.release()
    return took


def report(args: argparse.Namespace) -> None:
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(args.rounds):
        for kind in KINDS:
            name = "many-parts" if kind == "near the end" else kind.replace(" ", "-")
            command = [sys.executable, __file__, "--child", name, *(["--late"] if kind == "near the end" else [])]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            times[kind].append((float(said[-2]), float(said[-1])))
    for kind, found in times.items():
        wall, cpu = statistics.median(each[0] for each in found), min(each[1] for each in found)
        print(f"{kind:<14} {wall:.3f} s median, {cpu:.3f} s of processor time at least", flush=True)


if __name__ == "__main__":
    main()
