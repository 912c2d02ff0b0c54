"""How long the answers take that need no torch, and what a training launch weighs before it has a model.

    python tools/bench/start.py [--runs 15]

Medians of whole processes, interleaved; memory is VmHWM of a fresh process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REST = """
import ondevice.train.launch, torch
torch.set_flush_denormal(True)
torch.ones(256, 256) @ torch.ones(256, 256)
print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--home", type=Path, help="a home with runs, so that status has something to tell")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        home = str(args.home or empty)
        commands = {"--help": ["--help"], "status": ["status"], "python alone": None}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(args.runs):
            for name, words in commands.items():
                times[name].append(seconds(words, home))
    for name, values in times.items():
        print(f"{name:<14} median {statistics.median(values):.3f} s, {min(values):.3f} to {max(values):.3f}")
    rest = [int(subprocess.check_output([sys.executable, "-c", REST])) / 1024 for _ in range(3)]
    print(f"training launch at rest: {statistics.median(rest):.0f} MiB")


def seconds(words: list[str] | None, home: str) -> float:
    command = [sys.executable, "-c", "pass"] if words is None else [sys.executable, "-m", "ondevice", *words]
    began = time.monotonic()
    subprocess.run(command, env={**os.environ, "ONDEVICE_HOME": home}, capture_output=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
