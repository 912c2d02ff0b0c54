"""What the governor and the sensors cost: the share of a step's time that safe points take, sleeping not counted.

    python tools/bench/governor_cost.py [--minutes 1] [--width 320] [--layers 6]

A model of about 10 M parameters trains through the loop twice: on this machine as it is, and in an environment like
Termux's where every command of termux-api hangs, so that the poller waits for them all the time. Shares are of the
trainer's own processor time, so that neighbours on the machine do not count, and without what is done during rests,
which costs no work and is told apart; ``longest`` is the most that safe points of one step took by the clock on the
wall, sleep not counted, which would show one that waited for a command.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TARGET = 0.005
HANGING = ("termux-battery-status", "termux-wake-lock", "termux-notification", "termux-api-start")


@dataclass
class Cost:
    """Seconds of the processor, step by step. Of the wall: ``slept_s``, and ``longest_s`` in one step's safe points."""

    step_s: list[float] = field(default_factory=list)
    safe_s: list[float] = field(default_factory=list)
    governor_s: list[float] = field(default_factory=list)
    resting_s: list[float] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)
    longest_s: float = 0.0

    def share(self, spent_s: list[float]) -> float:
        return sum(spent_s) / sum(self.step_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="for each of the two")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--layers", type=int, default=6)
    args = parser.parse_args()
    within = True
    for name, hangs in (("as it is", False), ("termux-api hangs", True)):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["ONDEVICE_HOME"] = str(Path(folder) / "home")
            if hangs:
                hang(Path(folder))
            cost = measure(args, Path(folder))
        within &= tell(name, cost)
    raise SystemExit(0 if within else 1)


def tell(name: str, cost: Cost) -> bool:
    """Prints one line; gives whether the target is met."""
    share = cost.share(cost.governor_s)
    slept_s = sum(cost.slept_s)
    resting = f", {100 * sum(cost.resting_s) / slept_s:.3f} % of {slept_s:.0f} s of rest" if slept_s else ""
    print(
        f"{name:>17}: step {1000 * statistics.median(cost.step_s):,.0f} ms, {len(cost.step_s)} steps; governor and "
        f"sensors {100 * share:.3f} %, safe points in all {100 * cost.share(cost.safe_s):.3f} %, longest "
        f"{1000 * cost.longest_s:.0f} ms{resting}",
        flush=True,
    )
    return share <= TARGET


def hang(folder: Path) -> None:
    """A PATH whose termux-api never answers, and an environment that looks like Termux."""
    programs = folder / "usr" / "bin"
    programs.mkdir(parents=True)
    for name in HANGING:
        (programs / name).write_text("#!/bin/sh\nexec sleep 1000\n")
        (programs / name).chmod(0o755)
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    os.environ["TERMUX_VERSION"] = "0.118.3"
    os.environ["PREFIX"] = str(folder / "usr")


def measure(args: Namespace, folder: Path) -> Cost:
    from tools.bench.overhead import make_loop

    loop: Any = make_loop(args, folder)
    cost, slept, safe, governor, resting = Cost(), Spent(), Spent(), Spent(), Spent()
    slept.count(loop.world, "sleep")
    safe.count(loop.desk, "safe_point")
    resting.count(loop.desk, "_stand_still")
    for owner, name in ((loop.desk._pacer, "decide"), (loop.desk._pacer, "after"), (loop.desk, "_read_sensors")):
        governor.count(owner, name, but=resting)
    until = time.monotonic() + 60 * args.minutes
    loop._step()
    while time.monotonic() < until or len(cost.step_s) < 4:
        for spent in (slept, safe, governor, resting):
            spent.cpu_s = spent.wall_s = 0.0
        began = time.thread_time()
        loop._between_steps()
        loop._step()
        cost.step_s.append(time.thread_time() - began - resting.cpu_s)
        cost.safe_s.append(safe.cpu_s - resting.cpu_s)
        cost.resting_s.append(resting.cpu_s)
        cost.slept_s.append(slept.wall_s)
        cost.governor_s.append(governor.cpu_s)
        cost.longest_s = max(cost.longest_s, safe.wall_s - slept.wall_s)
    return cost


class Spent:
    """Seconds that methods took."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self.inside = False

    def count(self, owner: Any, name: str, *, but: Spent | None = None) -> None:
        """Counts a method from now on; ``but``: not while one of those is at work."""
        method = getattr(owner, name)

        def call(*given: Any, **keys: Any) -> Any:
            if but is not None and but.inside:
                return method(*given, **keys)
            cpu, wall, self.inside = time.thread_time(), time.perf_counter(), True
            try:
                return method(*given, **keys)
            finally:
                self.inside = False
                self.cpu_s += time.thread_time() - cpu
                self.wall_s += time.perf_counter() - wall

        setattr(owner, name, call)


if __name__ == "__main__":
    main()
