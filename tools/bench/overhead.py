"""What the trainer adds to the bare forward-backward-step of the same model: data, telemetry, control, status.

    python tools/bench/overhead.py [--minutes 2] [--width 320] [--layers 6]

One process, one model of about 10 M parameters. Plain engine steps on ready batches alternate with the loop's own steps
(evaluation, samples and saves off), so that both meet the same noisy machine; prints the median of the paired ratios,
and, free of most noise, the time the loop's steps spend outside the engine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

BLOCK = 1  # steps; short, so that both sides of a pair meet the same neighbours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--layers", type=int, default=6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONDEVICE_HOME"] = home
        ratios, outside = measure(args, Path(home))
    print(f"overhead: median {100 * (statistics.median(ratios) - 1):+.2f} % over {len(ratios)} pairs of {BLOCK} steps")
    print(f"outside the engine: median {100 * statistics.median(outside):.2f} % of a step")
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"quartiles of the ratio: {quartiles[0]:.4f} {quartiles[1]:.4f} {quartiles[2]:.4f}")


def measure(args: argparse.Namespace, home: Path) -> tuple[list[float], list[float]]:
    from ondevice.model.counts import count_parameters

    loop = make_loop(args, home)
    shape = loop.recipe.model
    print(f"{count_parameters(shape):,} parameters, {loop.recipe.train.batch} x {shape.context} tokens a step")
    batches = [loop.state.cursor.next() for _ in range(BLOCK)]
    for _ in range(2):
        bare(loop, batches)
        through_loop(loop)
    ratios: list[float] = []
    outside: list[float] = []
    inside = clock_of(loop.engine)
    until = time.monotonic() + 60 * args.minutes
    while time.monotonic() < until or len(ratios) < 4:
        plain = bare(loop, batches) if len(ratios) % 2 else None
        inside[0] = 0.0
        whole = through_loop(loop)
        outside.append(1 - inside[0] / whole)
        ratios.append(whole / (plain or bare(loop, batches)))
    return ratios, outside


def clock_of(engine) -> list[float]:
    """Seconds spent in the engine's methods from now on, in a list of one."""
    spent = [0.0]
    for name in ("begin", "accumulate", "update"):
        setattr(engine, name, timed(getattr(engine, name), spent))
    return spent


def timed(method, spent: list[float]):
    """The method, adding its seconds to ``spent[0]``."""

    def call(*args):
        began = time.perf_counter()
        try:
            return method(*args)
        finally:
            spent[0] += time.perf_counter() - began

    return call


def bare(loop, batches) -> float:
    """Forward, backward and update on ready batches."""
    began = time.perf_counter()
    for batch in batches:
        loop.engine.begin(batch.y_BT)
        for first in range(0, len(batch.x_BT), loop.fit.micro_batch):
            rows = slice(first, first + loop.fit.micro_batch)
            loop.engine.accumulate(batch.x_BT[rows], batch.y_BT[rows])
        loop.engine.update(1e-5)
    return time.perf_counter() - began


def through_loop(loop) -> float:
    """The same number of steps as the loop does them, between-step work included."""
    began = time.perf_counter()
    for _ in range(BLOCK):
        loop._between_steps()
        loop._step()
    return time.perf_counter() - began


def make_loop(args: argparse.Namespace, home: Path):
    """A loop over the standard library's sources, as `launch` makes it."""
    import sysconfig

    from ondevice.cli.progress import PlainDisplay
    from ondevice.run.config import parse_config
    from ondevice.run.schema import SourceConfig
    from ondevice.train.launch import make_loop as launch_loop
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    text = f"""
    name = "overhead"
    [tokenizer]
    kind = "byte"
    [model]
    width = {args.width}
    layers = {args.layers}
    context = 256
    [train]
    steps = 1000000
    batch = 4
    lr = 1e-5
    [eval]
    count = 0
    [sample]
    count = 0
    [limits]
    save_every_s = 1e6
    """
    import dataclasses

    config = parse_config(text, where="bench", base=home)
    source = SourceConfig(path=str(Path(sysconfig.get_paths()["stdlib"]) / "asyncio"), name="asyncio", format="code")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=(source,)))
    dataset = make_dataset(config)
    run = make_run(config, prepare(config, dataset, cores=os.cpu_count() or 1, android=False, rate=1.0), dataset)
    return launch_loop(run, display=PlainDisplay())


if __name__ == "__main__":
    main()
