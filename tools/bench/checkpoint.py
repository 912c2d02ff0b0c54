"""What saving costs: share of the time at the default policy, and the memory it takes beside training.

    python tools/bench/checkpoint.py [--saves 5] [--steps 3] [--sizes 10M,124M]

For each size one model with AdamW states, one real loop. Steps are timed between saves; each save is the product's own:
written, fsynced, hashed, read back from the disk, older ones pruned. The policy waits save_s / 0.02, at least 300 s and
at most 30 minutes, so the share is what the saves measured here take of that interval. Peak memory is the kernel's high
water mark (reset before each save) over the resident size before it; for a save in the background it includes the copy.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

SIZES = {  # the first is the trainer's own shape at 10 M; the second GPT-2's
    "10M": {"arch": "llama", "vocab_size": 16_000, "layers": 6, "width": 320, "heads": 5, "kv_heads": 5, "hidden": 864},
    "124M": {
        "arch": "gpt2",
        "vocab_size": 50_257,
        "layers": 12,
        "width": 768,
        "heads": 12,
        "kv_heads": 12,
        "hidden": 3072,
    },
}
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--sizes", default="10M,124M")
    args = parser.parse_args()
    for size in args.sizes.split(","):
        with tempfile.TemporaryDirectory() as home:
            os.environ["ONDEVICE_HOME"] = home
            measure(size, args, Path(home))


def measure(size: str, args: argparse.Namespace, home: Path) -> None:
    from ondevice.device.memory import give_back_memory
    from ondevice.model.counts import count_parameters
    from ondevice.run.schema import Limits
    from ondevice.train.saving import save_interval_s

    loop = make_loop(size, home)
    limits = Limits()
    print(f"{size}: {count_parameters(loop.recipe.model):,} parameters")
    step_s: list[float] = []
    saves: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for turn in range(2 * args.saves):
        background = bool(turn % 2)
        for _ in range(args.steps):
            began = time.perf_counter()
            loop._step()
            step_s.append(time.perf_counter() - began)
        give_back_memory()
        before_mb = reset_peak()
        saved = save(loop, background=background, limits=limits)
        saves[background].append((saved.save_s, saved.stall_s, peak_mb() - before_mb))
    loop.keeper.close()
    print(f"  a step {statistics.median(step_s):.2f} s, a checkpoint {saved.bytes / MIB:,.0f} MB")
    for background, rows in saves.items():
        took, stalled, extra = (statistics.median(column) for column in zip(*rows, strict=True))
        interval = save_interval_s(took, limits.save_every_s)
        share = (stalled if background else took) / interval
        print(
            f"  {'background' if background else 'foreground'}: save {took:.2f} s, stands still {stalled:.2f} s,"
            f" every {interval:.0f} s = {100 * share:.2f} % of the time; peak memory +{extra:,.0f} MB (of {len(rows)})"
        )


def save(loop, *, background: bool, limits):
    saved = loop.keeper.save(loop.state, loop.origin, limits=limits, background=background)
    saved = loop.keeper.settle() if background else saved
    assert saved is not None, loop.keeper.fault
    return saved


def reset_peak() -> float:
    """Forgets the high water mark; gives the resident size in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_mb("VmRSS")


def peak_mb() -> float:
    return status_mb("VmHWM")


def status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def make_loop(size: str, home: Path):
    """A loop of that shape over the standard library's sources, its vocabulary padded to the shape's."""
    import sysconfig

    from ondevice.cli.progress import QuietDisplay
    from ondevice.run.config import parse_config
    from ondevice.run.recipe import ModelShape
    from ondevice.run.schema import SourceConfig
    from ondevice.train import launch, prepare
    from ondevice.train.order import with_order
    from ondevice.train.wish import make_dataset

    text = """
    name = "checkpoint"
    [tokenizer]
    kind = "byte"
    [model]
    width = 64
    layers = 1
    context = 64
    [train]
    steps = 1000000
    batch = 1
    optimizer = "adamw"
    lr = 1e-5
    precision = "fp32"
    [eval]
    count = 0
    [sample]
    count = 0
    [limits]
    save_every_s = 1e6
    """
    config = parse_config(text, where="bench", base=home)
    source = SourceConfig(path=str(Path(sysconfig.get_paths()["stdlib"]) / "asyncio"), name="asyncio", format="code")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=(source,)))
    dataset = make_dataset(config)
    prepared = prepare.prepare(config, dataset, cores=os.cpu_count() or 1, android=False, rate=1.0)
    shape = ModelShape(**SIZES[size], context=1024 if size == "124M" else 256)
    recipe = with_order(dataclasses.replace(prepared.recipe, model=shape), config, dataset)
    run = prepare.make_run(config, dataclasses.replace(prepared, recipe=recipe), dataset)
    return launch.make_loop(run, display=QuietDisplay())


if __name__ == "__main__":
    main()
