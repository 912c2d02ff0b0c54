"""Greedy decoding of a GPT-2 of 124 M parameters through onnxruntime, beside transformers' ``generate`` and llama.cpp;
what an export and its use cost in time and memory.

    python tools/bench/infer.py --threads 1 --rounds 5 --llama-cpp FOLDER

FOLDER is one in which ``npm install node-llama-cpp`` was run (it brings llama.cpp built); without it that peer is left
out. Weights are random: speed and size do not depend on them. Peers take turns, so that a busy machine slows all alike;
rates are medians of the rounds, ratios medians of the ratios within a round. Needs transformers and onnxruntime.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from llama_cpp import LlamaCpp

from ondevice.run.recipe import ModelShape

SHAPE = ModelShape(
    arch="gpt2", vocab_size=50257, context=1024, layers=12, width=768, heads=12, kv_heads=12, hidden=3072, tied=True
)
Clock = Callable[[], float]
PROMPT = list(range(100, 116))
FORMS = ("portable", "native", "in place")
# "mixed" keeps the tables in 8 bits, as our GGUF files of Q4_0 do; "q4_0 whole" has them in Q4_0 too.
PLANS = tuple(
    f"{bits} {form}"
    for bits, forms in (("fp32", FORMS), ("int8", FORMS[::2]), ("int4", FORMS), ("mixed", FORMS[2:]))
    for form in forms
)
GGUF = ("f32", "f16", "q8_0", "q4_0", "q4_0 whole")
EQUAL_BITS = {"fp32": "f32", "int8": "q8_0", "int4": "q4_0 whole", "mixed": "q4_0"}

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
from ondevice.export.plan import CANDIDATES, PLANS
PLANS["mixed"] = next(plan for plan in CANDIDATES if plan.name == "int4, tables int8")
bits, _, form = sys.argv[3].partition(" ")
count = 0 if bits == "fp32" else text_tokens(parameters) // 256
text = [np.random.default_rng(i).integers(0, shape.vocab_size, 257) for i in range(count)]
began = time.monotonic()
info = export_onnx(shape, dict(model.named_parameters()), Path(sys.argv[2]), metadata={},
                   reference=TorchBackend(model).logits, quantize=bits, form=form, text=text,
                   threads=int(sys.argv[4]))
assert info.trial.form == form, info.trial.not_native
print(json.dumps({"export_s": time.monotonic() - began, "bytes": info.bytes}))
"""
EXPORT_GGUF = """
import json, sys, time
from pathlib import Path
from ondevice.data.tokenizer import train_tokenizer
from ondevice.export import gguf
from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape
from ondevice.run.schema import TokenizerConfig
place = Path(sys.argv[2])
model = build_model(ModelShape(**json.loads(sys.argv[1])), seed=1).eval()
tokenizer = train_tokenizer(TokenizerConfig(kind="byte"), ["x"], place / "tokenizer", vocab_size=None)
told = {}
gguf._read_back = lambda *words: 0.0  # takes longer than writing, and is no part of what is compared
for name in sys.argv[3:]:
    kind, _, whole = name.partition(" ")
    if whole:
        gguf._TABLES = ()
    info = gguf.export_gguf(model.shape, dict(model.named_parameters()), place / name, tokenizer=tokenizer, name="x",
                            kind=kind)
    told[name] = info.bytes
print(json.dumps(told))
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


Run = Callable[[], float]


def with_transformers(threads: int, tokens: int, clock: Clock) -> Run:
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


def with_onnxruntime(folder: Path, threads: int, tokens: int, clock: Clock) -> Run:
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


def with_llama_cpp(peer: LlamaCpp, name: str, tokens: int, *, cpu_time: bool) -> Run:
    """Seconds of one greedy generation by llama.cpp."""

    def run() -> float:
        told = peer.decode(name, PROMPT, tokens)
        assert len(told["ids"]) == tokens
        return float(told["cpu_s" if cpu_time else "wall_s"])

    return run


def race(runs: dict[str, Run], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round, after one round that is not counted; the order turns around every round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in list(runs.items())[:: 1 if index % 2 else -1]:
            took = run()
            if index:
                seconds[name].append(took)
    return seconds


def times(seconds: dict[str, list[float]], name: str, peer: str) -> float:
    """How many times as fast as a peer: the median of the ratios within a round."""
    return round(median(theirs / ours for ours, theirs in zip(seconds[name], seconds[peer], strict=True)), 2)


def exported(place: Path, threads: int) -> dict[str, Path]:
    """The folder of every plan; what it cost to make and what its use costs is printed."""
    shape = json.dumps({key: value for key, value in dataclasses.asdict(SHAPE).items() if value is not None})
    folders = {plan: place / plan for plan in PLANS}
    for plan, folder in folders.items():
        told = child(EXPORT, shape, str(folder), plan, str(threads))
        print(json.dumps({"export": plan, "bits": bits(told["bytes"]), **told}), flush=True)
        used = child(GENERATE, str(folder), str(threads))
        print(json.dumps({"generate": plan, **used, "beyond_import_mb": used["peak_mb"] - used["import_mb"]}))
    return folders


def exported_gguf(place: Path) -> dict[str, Path]:
    """The GGUF file of every kind."""
    shape = json.dumps({key: value for key, value in dataclasses.asdict(SHAPE).items() if value is not None})
    told = child(EXPORT_GGUF, shape, str(place), *GGUF)
    print(json.dumps({"gguf_bits": {name: bits(told[name]) for name in GGUF}}), flush=True)
    return {name: place / name / "model.gguf" for name in GGUF}


def bits(size: int) -> float:
    """Of a file, for each parameter."""
    parameters = SHAPE.vocab_size * SHAPE.width + SHAPE.context * SHAPE.width + 2 * SHAPE.width
    block = 4 * SHAPE.width**2 + 2 * SHAPE.width * SHAPE.hidden + 9 * SHAPE.width + SHAPE.hidden
    return round(8 * size / (parameters + SHAPE.layers * block), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--llama-cpp", type=Path, metavar="FOLDER", help="has node_modules/node-llama-cpp")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, for a busy machine and one thread")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    peer = None
    with tempfile.TemporaryDirectory() as place:
        folders = exported(Path(place), args.threads)
        runs = {"transformers": with_transformers(args.threads, args.tokens, clock)}
        runs |= {plan: with_onnxruntime(folder, args.threads, args.tokens, clock) for plan, folder in folders.items()}
        if args.llama_cpp:
            files = exported_gguf(Path(place))
            peer = LlamaCpp(args.llama_cpp, files, threads=args.threads, context=SHAPE.context)
            print(json.dumps({"llama_cpp": peer.about}), flush=True)
            runs |= {name: with_llama_cpp(peer, name, args.tokens, cpu_time=args.cpu_time) for name in files}
        try:
            seconds = race(runs, rounds=args.rounds)
        finally:
            if peer:
                peer.stop()
    rate = {name: round(args.tokens / median(took), 1) for name, took in seconds.items()}
    ratios = {name: times(seconds, name, "transformers") for name in seconds}
    print(json.dumps({"threads": args.threads, "tok_s": rate, "times_transformers": ratios}))
    if args.llama_cpp:
        beside = {plan: times(seconds, plan, EQUAL_BITS[plan.split()[0]]) for plan in PLANS}
        print(json.dumps({"times_llama_cpp_of_equal_bits": beside, "equal_bits": EQUAL_BITS}))


if __name__ == "__main__":
    main()
