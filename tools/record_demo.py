"""Records the demo of the terminal UI: a real run on the simulated phone through a warm night, killed three times.

    python tools/record_demo.py shakespeare.txt [--out tui/demo_night.jsonl.gz]

Trains a small character model with `ondevice train --device sim:...`, sends SIGKILL when the step counter reaches the
marks, starts it again, and packs what it left: papers, telemetry and the status at each record, in one file of lines.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ondevice.governor.presets import resolve
from ondevice.run.config import load_config

ROOT = Path(__file__).parents[1]
STEPS = 2400
KILLS_AT = (520, 1290, 1900)
DEVICE = "sim:galaxy-s25plus,start=22:12,ambient=27..33@7200,percent=81,piece=3,unplug@10800,plug@13500,seed=5"
SETTINGS = (
    f"train.steps={STEPS}",
    "train.warmup_steps=60",
    "model.layers=3",
    "model.width=96",
    "model.hidden=256",
    "eval.count=16",
    "eval.max_tokens=20000",
    "sample.count=8",
    "sample.max_new_tokens=160",
)
LIMITS = ('limits.hours="22:30-06:45"', 'limits.preset="balanced"', "limits.save_every_steps=150", "limits.keep_last=4")
DROPPED = frozenset(
    {"v", "chain", "t", "sim", "sha256", "bits_per_byte", "val_tokens", "trained_tokens", "trained_epochs"}
)
LAUNCH = frozenset({"kind", "step", "sim_t", "launch", "resumed_step", "steps", "fit"})  # the rest is of this machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "tui" / "demo_night.jsonl.gz")
    parser.add_argument("--speed", type=float, default=400.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "runs" / "night"
        record(args.text.resolve(), run, args.speed)
        pack(run, args.out)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


def record(text: Path, run: Path, speed: float) -> None:
    """Trains until the end, through kills."""
    env = {**os.environ, "ONDEVICE_HOME": str(run.parents[1]), "OMP_NUM_THREADS": "1"}
    base = [sys.executable, "-m", "ondevice", "train"]
    device = ["--device", DEVICE, "--speed", f"{speed:g}", "--quiet"]
    changes = [word for setting in (*SETTINGS, *LIMITS) for word in ("--set", setting)]
    first = [*base, "shakespeare-char", "--data", str(text), "--name", run.name, *changes, *device]
    for kill_at in (*KILLS_AT, None):
        trainer = subprocess.Popen(first, env=env, cwd=ROOT)
        first = [*base, run.name, *device]
        while trainer.poll() is None:
            time.sleep(0.05)
            if kill_at is not None and step_of(run) >= kill_at:
                trainer.send_signal(signal.SIGKILL)
        print(f"step {step_of(run)}, exit code {trainer.returncode}", flush=True)
        if kill_at is None and trainer.returncode:
            raise SystemExit("The last launch failed.")


def step_of(run: Path) -> int:
    try:
        return int(json.loads((run / "status.json").read_text())["step"])
    except (OSError, ValueError, KeyError):
        return 0


def pack(run: Path, out: Path) -> None:
    """A header, then one line a record: the file it was in and its fields, numbers rounded to what a screen shows."""
    train = json.loads((run / "recipe.json").read_text())["train"]
    header = {
        "device": DEVICE,
        "steps": train["steps"],
        "tokens": train["tokens"],
        "limits": "\n".join(setting.partition(".")[2] for setting in LIMITS),
        "policy": dataclasses.asdict(resolve(load_config(None, changes=LIMITS).limits, handheld=True)),
    }
    lines = [header, *records(run)]
    data = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    out.write_bytes(gzip.compress(data, 9, mtime=0))


def records(run: Path) -> Iterator[dict[str, Any]]:
    for launch, path in enumerate(sorted((run / "telemetry").glob("*.jsonl")), 1):
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            kept = LAUNCH if record["kind"] == "launch" else record.keys() - DROPPED
            yield {"file": launch, **{key: rounded(value) for key, value in record.items() if key in kept}}


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < 1e6 else round(value, 1)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


if __name__ == "__main__":
    main()
