"""What bf16 gains over fp32 on this machine: whole steps of one model in turn, and the matrix products beside them.

    python tools/bench/precision.py [--size 124M] [--batch 4x256] [--threads 2] [--rounds 7]

The sizes are those of tools/bench/step.py. Prints tokens a second of both, the median of the rounds' ratios, and
whether the fit's own probe would let bf16 into its race (``train.precision = "auto"``).
"""

from __future__ import annotations

import argparse
from statistics import median

from step_sides import SHAPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="124M")
    parser.add_argument("--batch", default="4x256", metavar="BxT")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    measure(args)


def measure(args: argparse.Namespace) -> None:
    import dataclasses

    import torch

    from ondevice.run.recipe import Fit
    from ondevice.train.probe import StepTimer, matmul_rates

    torch.set_flush_denormal(True)
    torch.set_num_threads(args.threads)
    rates, (rows, context) = matmul_rates(), (int(part) for part in args.batch.split("x"))
    products, tried = rates.bf16_flops_s / rates.fp32_flops_s, "tried" if rates.bf16_is_worth_trying else "not tried"
    print(f"products: fp32 {rates.fp32_flops_s / 1e9:.0f} GFLOP/s, bf16 {products:.2f} times that; bf16 is {tried}")
    fit = Fit(micro_batch=rows, threads=args.threads, activation_checkpointing=False, loss_chunk_tokens=512)
    shape = dataclasses.replace(SHAPES[args.size], context=context)
    timer = StepTimer(shape, fit, optimizer="adamw", most_rows=rows)
    ratios = []
    for number in range(args.rounds + 1):
        plain, half = (timer.time(fit, precision=name, rows=rows, batch=rows).rate for name in ("fp32", "bf16"))
        if number:  # the first warms up
            ratios.append(half / plain)
            print(f"round {number}: fp32 {plain:,.0f}, bf16 {half:,.0f} tokens/s, {half / plain:.2f}", flush=True)
    print(f"bf16 over fp32, {args.size} {args.batch}, {args.threads} threads: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
