"""What autotune takes and finds here: seconds, the choice, and whether the choice is the same each time.

    python tools/bench/autotune.py [--times 3] [--width 320] [--layers 6] [--context 256] [--batch 16]

Times precision, threads and micro-batch of one model shape from scratch, several times, in a home of its own, and then
once more from what it remembered. On a noisy machine the choice should be the same, or cost little where it is not.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONDEVICE_HOME"] = home
        measure(args)


def measure(args: argparse.Namespace) -> None:
    from ondevice.model.counts import count_parameters
    from ondevice.run.recipe import Fit
    from ondevice.train.autotune import candidates, micro_batches_to_try, threads_to_try
    from ondevice.train.tuned import tuned_choice

    cores, shape = os.cpu_count() or 1, shape_of(args)
    fit = Fit(
        micro_batch=args.micro_batch, threads=min(4, cores), activation_checkpointing=False, loss_chunk_tokens=512
    )
    wanted = candidates(precisions=["fp32", "bf16"], threads=threads_to_try(fit.threads, cores))
    sizes = micro_batches_to_try(fit, batch=args.batch, has_room=lambda _: True)
    print(f"{count_parameters(shape):,} parameters, {cores} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"{len(wanted)} ways x {len(sizes)} micro-batches; the plain one: {wanted[0].threads} threads, {sizes[0]} rows"
    )
    for turn in range(args.times + 1):
        began = time.perf_counter()
        choice, known = tuned_choice(
            shape, fit, wanted, sizes, batch=args.batch, optimizer="adamw", again=turn < args.times
        )
        print(
            f"{time.perf_counter() - began:6.2f} s  {choice.precision}  {choice.threads} threads  micro-batch "
            f"{choice.micro_batch}  {choice.tok_s:10,.0f} tokens/s{'  (remembered)' if known else ''}"
        )


def shape_of(args: argparse.Namespace):
    from ondevice.run.recipe import ModelShape

    heads = max(1, args.width // 32)
    return ModelShape(
        arch="llama",
        vocab_size=args.vocab,
        context=args.context,
        layers=args.layers,
        width=args.width,
        heads=heads,
        kv_heads=heads,
        hidden=args.width * 8 // 3 // 32 * 32,
    )


if __name__ == "__main__":
    main()
