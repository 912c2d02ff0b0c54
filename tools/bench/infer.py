"""Greedy decoding of a GPT-2 of 124 M parameters through onnxruntime, beside transformers' ``generate``; what an
export and its use cost in time and memory.

    python tools/bench/infer.py --threads 1 --rounds 3

Weights are random: speed and size do not depend on them. Peers take turns, so that a busy machine slows all alike;
ratios are of the best round of each. Needs transformers and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.run.recipe import ModelShape

SHAPE = ModelShape(
    arch="gpt2", vocab_size=50257, context=1024, layers=12, width=768, heads=12, kv_heads=12, hidden=3072, tied=True
)
Clock = Callable[[], float]
PROMPT = list(range(100, 116))
PLANS = ("fp32", "fp32 native", "fp32 in place", "int8", "int4", "int4 native", "int4 in place")

EXPORT = """
import dataclasses, json, sys, time
from pathlib import Path
import numpy as np
from ondevice.run.recipe import ModelShape
shape = ModelShape(**json.loads(sys.argv[1]))
from ondevice.export.measure import text_tokens
from ondevice.export.onnx import export_onnx
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
import torch
torch.set_num_threads(int(sys.argv[4]))
model = build_model(shape, seed=1).eval()
parameters = sum(each.numel() for each in model.parameters())
count = 0 if sys.argv[3].startswith("fp32") else text_tokens(parameters) // 256
text = [np.random.default_rng(i).integers(0, shape.vocab_size, 257) for i in range(count)]
began = time.monotonic()
info = export_onnx(shape, dict(model.named_parameters()), Path(sys.argv[2]), metadata={},
                   reference=TorchBackend(model).logits, quantize=sys.argv[3].split()[0],
                   form=" ".join(sys.argv[3].split()[1:]) or "portable", text=text, threads=int(sys.argv[4]))
print(json.dumps({"export_s": time.monotonic() - began, "bytes": info.bytes}))
"""
GENERATE = """
import json, sys
from pathlib import Path
def kb(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
import onnxruntime
before = kb("VmRSS")
from ondevice.infer.generate import generate
from ondevice.infer.onnx_backend import OnnxBackend
from ondevice.infer.sampling import Sampling
backend = OnnxBackend(Path(sys.argv[1]), threads=int(sys.argv[2]))
for count in (16, 944):  # a short prompt, and one after which the new tokens fill the context
    ids = list(generate(backend, list(range(100, 100 + count)), settings=Sampling(temperature=0.0), max_new_tokens=80))
print(json.dumps({"import_mb": before / 1024, "resident_mb": kb("VmRSS") / 1024, "peak_mb": kb("VmHWM") / 1024}))
"""


def child(code: str, *words: str) -> dict[str, Any]:
    """The last line a program prints, with ``rss_peak_mb`` of the whole process."""
    tail = "\nprint(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    done = subprocess.run([sys.executable, "-c", code + tail, *words], capture_output=True, text=True, check=True)
    told, peak = done.stdout.strip().splitlines()[-2:]
    return {**json.loads(told), "rss_peak_mb": round(int(peak) / 1024, 1)}


def with_transformers(threads: int, tokens: int, clock: Clock) -> Callable[[], float]:
    """Seconds of one greedy generation by transformers."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    config = transformers.GPT2Config(vocab_size=SHAPE.vocab_size, bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.tensor([PROMPT])

    def run() -> float:
        began = clock()
        with torch.inference_mode():
            model.generate(ids, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0)
        return clock() - began

    return run


def with_onnxruntime(folder: Path, threads: int, tokens: int, clock: Clock) -> Callable[[], float]:
    """Seconds of one greedy generation by our own loop over onnxruntime."""
    from ondevice.infer.generate import generate
    from ondevice.infer.onnx_backend import OnnxBackend
    from ondevice.infer.sampling import Sampling

    backend = OnnxBackend(folder, threads=threads)

    def run() -> float:
        began = clock()
        made = list(generate(backend, PROMPT, settings=Sampling(temperature=0.0), max_new_tokens=tokens))
        assert len(made) == tokens
        return clock() - began

    return run


def rates(runs: dict[str, Callable[[], float]], *, rounds: int, tokens: int) -> dict[str, float]:
    """Tokens a second of the best round of each, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            took = run()
            if index:
                seconds[name].append(took)
    return {name: round(tokens / float(np.min(took)), 1) for name, took in seconds.items()}


def main() -> None:
    import dataclasses

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--cpu-time", action="store_true", help="processor time, for a busy machine and one thread")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    shape = json.dumps({key: value for key, value in dataclasses.asdict(SHAPE).items() if value is not None})
    with tempfile.TemporaryDirectory() as place:
        folders = {plan: Path(place) / plan for plan in PLANS}
        for plan, folder in folders.items():
            told = child(EXPORT, shape, str(folder), plan, str(args.threads))
            print(json.dumps({"export": plan, **told}), flush=True)
            used = child(GENERATE, str(folder), str(args.threads))
            print(json.dumps({"generate": plan, **used, "beyond_import_mb": used["peak_mb"] - used["import_mb"]}))
        runs = {"transformers": with_transformers(args.threads, args.tokens, clock)}
        runs |= {plan: with_onnxruntime(folder, args.threads, args.tokens, clock) for plan, folder in folders.items()}
        rate = rates(runs, rounds=args.rounds, tokens=args.tokens)
        ratios = {name: round(each / rate["transformers"], 2) for name, each in rate.items()}
        print(json.dumps({"threads": args.threads, "tok_s": rate, "times_transformers": ratios}))


if __name__ == "__main__":
    main()
