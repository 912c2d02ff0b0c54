"""The presets for phones under a hard limit of memory: they train, are killed half way, go on and finish.

    python tools/bench/finetune_limits.py                     50 steps of each, as root (a cgroup), half an hour
    python tools/bench/finetune_limits.py --only lora --steps 4

Each preset runs as a person would start it, but for so many steps, on a base of the real shape (tools/bench/bases.py:
random weights) and plain text, in a cgroup whose members the kernel kills beyond the limit; swap does not help. The
plan sees that limit, nothing else is told to it. Half way the trainer is killed (SIGKILL) and started again. Printed,
after each preset and for a preset that is interrupted, are the peak of the process (VmHWM), what the steps were made to
fit, and whether the kernel killed anything.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from bases import make_base  # noqa: E402

from ondevice.run.telemetry import read_records  # noqa: E402
from tools.faults.scarce import NoRoot, memory_cgroup, oom_kills  # noqa: E402
from tools.ticket_prose import make_prose  # noqa: E402

# name -> preset, base, hard limit in MB
LIMITS = {
    "full": ("finetune-gpt2-phone", "gpt2", 2000),
    "lora": ("lora-135m-phone", "smollm", 1200),
    "qlora": ("qlora-0.5b-phone", "qwen", 1200),
}


@dataclass(frozen=True)
class Outcome:
    """What a run under a limit came to."""

    steps: int
    launches: int
    peak_mb: float
    fit: dict[str, Any]
    killed_by_kernel: int
    interrupted: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = False
    print(
        f"{'preset':<22} {'limit MB':>8} {'peak MiB':>8} {'steps':>5} {'launches':>8} {'killed':>6}   fit", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="bench-limits-") as home:
        for name in [name for name in LIMITS if args.only in name]:
            preset, _, limit_mb = LIMITS[name]
            try:
                found = run_limited(name, Path(home), steps=args.steps, threads=args.threads)
            except NoRoot as error:
                print(f"{preset:<22} not run: {error}.")
                return 1
            failed |= found.steps < args.steps or found.killed_by_kernel > 0
            counts = f"{found.peak_mb:>8,.0f} {found.steps:>5} {found.launches:>8} {found.killed_by_kernel:>6}"
            told = "interrupted; " if found.interrupted else ""
            print(f"{preset:<22} {limit_mb:>8,} {counts}   {told}{found.fit}", flush=True)
            if found.interrupted:
                return 130
    return int(failed)


def run_limited(name: str, home: Path, *, steps: int, threads: int) -> Outcome:
    """Trains half of the steps, is killed, goes on; tells how far it came where Ctrl-C or SIGTERM ends it.

    Raises NoRoot where no cgroup can be made.

    The preset's passes over the text are replaced by steps, nothing else that shapes memory is.
    """
    preset, shape, limit_mb = LIMITS[name]
    base, text, half = make_base(shape, home / shape), home / "text.txt", steps // 2
    text.write_text(make_prose(4000, seed=1), "utf-8")
    wish = (ROOT / "configs" / f"{preset}.toml").read_text("utf-8")
    (home / f"{preset}.toml").write_text(re.sub("epochs = .*", f"steps = {steps}", wish), "utf-8")
    run = home / "home" / "runs" / name
    changes = (
        f"model.base={base}", f"limits.save_every_steps={half}", f"fit.threads={threads}", "train.warmup_steps=0",
        "eval.count=2", "eval.max_tokens=2048", "sample.count=0", "limits.preset=desk",
    )  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    with memory_cgroup(limit_mb=limit_mb) as cgroup:
        peak, interrupted = Peak(), False
        try:
            with _trainer(home, cgroup, home / f"{preset}.toml", "--data", text, "--name", name, *sets) as first:
                peak.watch(first, until=run / "checkpoints" / f"step-{half:08d}" / "manifest.json")
                if first.poll() is not None:
                    raise SystemExit(
                        f"{preset}: the trainer ended with {first.returncode} before its checkpoint {half}"
                    )
            with _trainer(home, cgroup, name) as second:
                peak.watch(second)
        except KeyboardInterrupt:
            interrupted = True
        killed = oom_kills(cgroup)
    return _outcome(run, peak.mib, killed, interrupted=interrupted)


@contextmanager
def _trainer(home: Path, cgroup: Path, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    """A trainer that joins the cgroup before it begins, and is killed (SIGKILL) in the end if it still runs."""
    command = [sys.executable, "-m", "ondevice", "train", *map(str, words), "--quiet"]
    env = {**os.environ, "ONDEVICE_HOME": str(home / "home"), "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    join = lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid()))  # noqa: E731
    trainer = subprocess.Popen(command, env=env, preexec_fn=join, stdout=subprocess.DEVNULL)
    try:
        yield trainer
    finally:
        trainer.kill()
        trainer.wait()


@dataclass
class Peak:
    """The most memory that any of the watched processes ever held, in MiB."""

    mib: float = 0.0

    def watch(self, trainer: subprocess.Popen[bytes], *, until: Path | None = None) -> None:
        """Waits for the end of a process, or for a file of it."""
        while trainer.poll() is None and not (until and until.exists()):
            with suppress(OSError):
                told = Path(f"/proc/{trainer.pid}/status").read_text().splitlines()
                held = [int(line.split()[1]) / 1024 for line in told if line.startswith("VmHWM")]
                self.mib = max(self.mib, *held, 0.0)
            time.sleep(0.2)


def _outcome(run: Path, peak_mb: float, killed: int, *, interrupted: bool) -> Outcome:
    records = list(read_records(run / "telemetry")) if run.exists() else []
    steps = [record["step"] for record in records if record["kind"] == "step"]
    launches = [record for record in records if record["kind"] == "launch"]
    fit = launches[-1]["fit"] if launches else {}
    return Outcome(steps[-1] if steps else 0, len(launches), peak_mb, fit, killed, interrupted)


if __name__ == "__main__":
    sys.exit(main())
