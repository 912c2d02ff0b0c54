"""Our training step beside transformers' Trainer, a bare nanoGPT-like loop and the machine's fp32 matrix products.

    python tools/bench/step.py                                        the settings that count, two threads, some minutes
    python tools/bench/step.py --all --rounds 3 --json FILE           every size and batch, 1 and 2 threads, both ISAs
    python tools/bench/step.py --isa avx2                             the same, as on a processor without AVX-512
    python tools/bench/step.py --sizes 10M 124M --batches 4x256 --threads 1 --isa native --rounds 8
    python tools/bench/step.py --profile --sizes 10M --batches 4x256 --threads 1 --isa native

Every side is a process of its own that waits for its turn: one step of each a round, so that all meet the same
neighbours. Wall time and processor time are medians of the rounds, after two that warm up. With one thread processor
time says what a quiet machine would do even where others take the cores; ratios are theirs over ours, of processor time
with one thread, of wall time with more. MFU is the arithmetic of `ondevice.model.counts.flops_per_token` over what the
fastest square product did in the same rounds. The profile names where our step spends its processor time, forward and
backward; data and telemetry, outside the engine, are measured by tools/bench/overhead.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import IO, Any

from step_sides import SHAPES

from ondevice.model.counts import flops_per_token

BATCHES = ("1x128", "4x128", "4x256", "8x512")
WARM = 2  # rounds that are not counted
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
SIDES = ("ours", "trainer", "bare")
COUNTS = (  # what is measured where no size and batch is asked for
    ("1M", "4x128"),
    ("10M", "1x128"),
    ("10M", "4x256"),
    ("124M", "1x128"),
    ("124M", "4x256"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole grid, but for what other flags narrow")
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=_batch, metavar="BxT")
    parser.add_argument("--threads", nargs="+", type=int)
    parser.add_argument("--isa", nargs="+", choices=["native", "avx2"])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), help="ours, muon, compiled, trainer, bare")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, help="file to which a line is added for every setting")
    args = parser.parse_args()
    jobs = jobs_of(args)
    if not args.profile:
        print(f"{'setting':<26} {'side':<8} {'wall s':>8} {'cpu s':>8} {'tokens/s':>9} {'MFU':>5}   theirs / ours")
    for job in jobs:
        name = f"{job['size']} {job['batch']}x{job['tokens']} {job['threads']}t {job['isa']}"
        found = race(job, ("profile",) if args.profile else (*args.sides, "gemm"), args.rounds)
        (show_profile if args.profile else show)(name, job, found)
        if args.json:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**job, "found": found}) + "\n")


def jobs_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The settings that are asked for, sizes outermost."""
    whole = args.all or args.sizes is not None or args.batches is not None
    settings = [(size, batch) for size in args.sizes or SHAPES for batch in args.batches or BATCHES]
    threads = args.threads or ([1, 2] if args.all else [2])
    isas = args.isa or (["native", "avx2"] if args.all else ["native"])
    return [
        {"size": size, "batch": int(batch.split("x")[0]), "tokens": int(batch.split("x")[1]), "threads": n, "isa": isa}
        for size, batch in (settings if whole else COUNTS)
        for n in threads
        for isa in isas
    ]


def _batch(text: str) -> str:
    rows, _, tokens = text.partition("x")
    if not (rows.isdecimal() and tokens.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}' is no batch; write rows x tokens, as 4x256")
    return text


def race(job: dict[str, Any], sides: tuple[str, ...], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each side said of each counted step, one step of each in turn."""
    runners = {side: Runner({**job, "side": side}) for side in sides}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    try:
        for number in range(WARM + rounds):
            # The order turns around every round, so that nobody always follows the same neighbour.
            for side in sides if number % 2 else reversed(sides):
                said = runners[side].step()
                if number >= WARM:
                    found[side].append(said)
    finally:
        for runner in runners.values():
            runner.stop()
    return dict(found)


class Runner:
    """A process that does one step whenever it is told to."""

    def __init__(self, job: dict[str, Any]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"]), "OMP_WAIT_POLICY": "PASSIVE"}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        environment |= AVX2 if job["isa"] == "avx2" else {}
        self._side = job["side"]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("step_sides.py")), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def step(self) -> dict[str, Any]:
        """Seconds of wall and processor time of one step; raises RuntimeError if the process is gone."""
        given, said = self._pipes()
        given.write("go\n")
        given.flush()
        line = said.readline()
        if not line:
            raise RuntimeError(f"side '{self._side}' ended; BENCH_VERBOSE=1 shows why")
        result: dict[str, Any] = json.loads(line)
        return result

    def stop(self) -> None:
        """Ends the process."""
        for pipe in self._pipes():
            pipe.close()
        self._process.kill()
        self._process.wait()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def show(name: str, job: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> None:
    """One line a side: medians, and the median of the ratios within the rounds."""
    clock = "cpu_s" if job["threads"] == 1 else "wall_s"
    tokens = job["batch"] * job["tokens"]
    work = flops_per_token(SHAPES[job["size"]], job["tokens"]) * tokens
    peak = median(item["flops"] / item[clock] for item in found["gemm"])
    for side in (side for side in found if side != "gemm"):
        wall, cpu, counted = (median(item[key] for item in found[side]) for key in ("wall_s", "cpu_s", clock))
        pairs = zip(found[side], found.get("ours", []), strict=False)
        ratios = [theirs[clock] / ours[clock] for theirs, ours in pairs] if side != "ours" else []
        ratio = f"   {median(ratios):.2f}x" if ratios else ""
        line = f"{name:<26} {side:<8} {wall:>8.3f} {cpu:>8.3f} {tokens / counted:>9.0f} {work / counted / peak:>5.0%}"
        compiled = found[side][0].get("compile_s")
        print(line + ratio + (f", compiled in {compiled:.0f} s" if compiled else ""), flush=True)
    print(f"{name:<26} {'gemm':<8} {peak / 1e9:.0f} GFLOP/s", flush=True)


def show_profile(name: str, job: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> None:
    """Median processor time of each region of our step."""
    steps = found["profile"]
    print(f"{name}: {median(item['cpu_s'] for item in steps):.3f} s of processor time")
    regions = {region: median(item["regions"].get(region, 0.0) for item in steps) for region in steps[-1]["regions"]}
    whole = sum(regions.values())
    for region, seconds in sorted(regions.items(), key=lambda item: -item[1]):
        print(f"  {region:<24} {1e3 * seconds:>9.1f} ms {seconds / whole:>6.1%}", flush=True)


if __name__ == "__main__":
    main()
