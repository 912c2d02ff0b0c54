"""The plan's memory estimate against the peak RSS of whole training processes.

    python tools/bench/memory.py                all configurations, some minutes
    python tools/bench/memory.py --only small   those whose name holds "small"

Each run is `ondevice train` in a process of its own, with evaluation, samples and saves, one thread, fp32, on a
dataset that an earlier process built. Prints estimate, peak and their ratio (wanted 0.9 to 1.1). Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

CONFIGS = {
    "small llama muon": "model.layers=3 model.width=96 train.optimizer=muon train.batch=8",
    "small llama adamw": "model.layers=3 model.width=96 train.optimizer=adamw train.batch=8",
    "small gpt2 bytes": "model.arch=gpt2 model.layers=4 model.width=128 model.context=64 train.batch=12 "
    "tokenizer.kind=byte train.optimizer=adamw",
    "medium llama muon": "model.layers=6 model.width=320 train.optimizer=muon train.batch=8",
    "medium llama adamw": "model.layers=6 model.width=320 train.optimizer=adamw train.batch=8",
    "medium gpt2 muon": "model.arch=gpt2 model.layers=6 model.width=256 train.optimizer=muon train.batch=16",
    "medium recomputed": "model.layers=6 model.width=320 train.optimizer=muon train.batch=8 "
    "fit.activation_checkpointing=true",
    "large gpt2 muon": "model.arch=gpt2 model.layers=10 model.width=512 train.optimizer=muon train.batch=4",
    "large llama narrow": "model.layers=10 model.width=512 train.optimizer=adamw train.batch=4 fit.micro_batch=2 "
    "train.weights=bf16",
    "large llama narrow int8 layerwise": "model.layers=10 model.width=512 train.optimizer=adamw train.batch=4 "
    "fit.micro_batch=2 train.weights=bf16 train.optimizer_state=int8 fit.layerwise=true train.clip_scope=tensor",
    "large gpt2 narrow int8": "model.arch=gpt2 model.layers=10 model.width=512 train.optimizer=adamw train.batch=2 "
    "fit.micro_batch=2 train.weights=bf16 train.optimizer_state=int8 fit.activation_checkpointing=true",
    "large llama adamw": "model.layers=10 model.width=512 train.optimizer=adamw train.batch=4 fit.micro_batch=2",
}
ADAPTERS = {  # a base of tools/bench/bases.py and changes
    "adapter small fp32": "small train.batch=4 fit.micro_batch=4",
    "adapter small nf4 all": "small train.batch=4 fit.micro_batch=4 adapter.base_format=nf4 "
    "adapter.targets=['q_proj','k_proj','v_proj','o_proj','gate_proj','up_proj','down_proj'] adapter.dropout=0.05",
    "adapter gpt2 fp32": "gpt2 train.batch=4 fit.micro_batch=4",
    "adapter gpt2 fp32 recomputed": "gpt2 train.batch=4 fit.micro_batch=4 fit.activation_checkpointing=true",
    "adapter gpt2 int8": "gpt2 train.batch=4 fit.micro_batch=2 adapter.base_format=int8 fit.loss_chunk_tokens=128",
    "adapter gpt2 nf4 lean": "gpt2 train.batch=4 fit.micro_batch=1 adapter.base_format=nf4 fit.loss_chunk_tokens=64 "
    "fit.activation_checkpointing=true",
    "adapter smollm int4": "smollm train.batch=2 fit.micro_batch=2 adapter.base_format=int4 "
    "adapter.targets=['q_proj','v_proj','up_proj']",
    "adapter smollm bf16 recomputed": "smollm train.batch=2 fit.micro_batch=2 adapter.base_format=bf16 "
    "fit.activation_checkpointing=true",
    "adapter qwen nf4": "qwen train.batch=1 fit.micro_batch=1 adapter.base_format=nf4 "
    "fit.activation_checkpointing=true fit.loss_chunk_tokens=64",
}
COMMON = "train.precision=fp32 fit.threads=1 train.steps=6 eval.count=2 eval.max_tokens=8192 sample.count=1"
CHILD = """
import sys
from ondevice.cli.main import main
from ondevice.device.memory import peak_rss_mb
code = main(sys.argv[1:])
print(peak_rss_mb())
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a name")
    args = parser.parse_args()
    print(f"{'configuration':<32} {'estimate MB':>12} {'peak MB':>9} {'ratio':>6}")
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as home:
        for name in [name for name in (*CONFIGS, *ADAPTERS) if args.only in name]:
            estimate, peak = measure(Path(home), name)
            print(f"{name:<32} {estimate:>12.0f} {peak:>9.0f} {estimate / peak:>6.2f}", flush=True)


def measure(home: Path, name: str) -> tuple[float, float]:
    """The plan's estimate and the peak of the training process, both in MiB."""
    text = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    changes = [f"--set={change}" for change in f"model.context=256 {COMMON} {_changes(home, name)}".split()]
    flags = [*changes, f"--data={text}", f"--name={name.replace(' ', '-')}"]
    planned = json.loads(ondevice(home, "-m", "ondevice", "plan", *flags, "--json"))  # builds the dataset
    peak = float(ondevice(home, "-c", CHILD, "train", *flags, "--quiet").split()[-1])
    return float(planned["estimate"]["memory"]["total_mb"]), peak


def _changes(home: Path, name: str) -> str:
    if name in CONFIGS:
        return CONFIGS[name]
    base, changes = ADAPTERS[name].split(" ", 1)
    bases = Path(__file__).with_name("bases.py")
    folder = ondevice(home, str(bases), str(home / "bases"), base).strip()
    return f"model.base={folder} adapter.method=lora eval.max_tokens=512 train.steps=3 {changes}"


def ondevice(home: Path, *command: str) -> str:
    environment = {
        **os.environ,
        "ONDEVICE_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return subprocess.run(
        [sys.executable, *command], check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
