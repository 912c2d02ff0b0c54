"""Full-validation loss of the shipped character preset over seeds, at its fixed budget of 1.536 M training tokens.

    python tools/bench/shakespeare.py PATH_OF_TINYSHAKESPEARE [--seeds 3] [--set key=value ...]

Prints loss per seed, the median, parameters and seconds. Runs in a temporary home.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    losses = []
    with tempfile.TemporaryDirectory() as home:
        for seed in range(args.seeds):
            loss, parameters, seconds = one(args.text, seed, args.set, Path(home))
            losses.append(loss)
            print(f"seed {seed}: validation loss {loss:.4f}, {parameters:,} parameters, {seconds:.0f} s", flush=True)
    print(f"median of {len(losses)}: {statistics.median(losses):.4f}")


def one(text: Path, seed: int, changes: list[str], home: Path) -> tuple[float, int, float]:
    """Trains one seed and reads the last evaluation, which covers the whole validation text."""
    name = f"seed-{seed}"
    command = [sys.executable, "-m", "ondevice", "train", "shakespeare-char", "--data", str(text.absolute()), "--quiet"]
    command += ["--name", name, "--set", f"train.seed={1337 + seed}", "--set", f"data.seed={1337 + seed}"]
    for change in changes:
        command += ["--set", change]
    began = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "ONDEVICE_HOME": str(home)}, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    run = home / "runs" / name
    recipe = json.loads((run / "recipe.json").read_text())
    assert recipe["eval"]["max_tokens"] == 0 and recipe["train"]["tokens"] == 2000 * 12 * 64
    last = [
        record
        for line in (run / "telemetry" / "0001.jsonl").read_text().splitlines()
        if (record := json.loads(line))["kind"] == "eval"
    ][-1]
    assert last["step"] == 2000
    from ondevice.model.counts import count_parameters
    from ondevice.run.recipe import ModelShape

    return last["val_loss_mixed"], count_parameters(ModelShape(**recipe["model"])), seconds


if __name__ == "__main__":
    main()
