"""What an adapter run is said to need, and that it is the adapter that is timed."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ondevice.errors import ResourceError
from ondevice.model.build import build_model
from ondevice.model.frozen_counts import frozen_bytes
from ondevice.model.frozen_decoder import build_frozen
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import write
from ondevice.run.config import parse_config
from ondevice.run.files import write_json
from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.train import autotune, prepare, probe
from ondevice.train.fitting import choose_fit
from ondevice.train.memory import estimate_memory
from ondevice.train.probe import StepTimer
from ondevice.train.race import Timing
from ondevice.train.refit import smaller
from ondevice.train.sizing import Machine
from tests.tiny import TRAIN

MIB = 2**20
COMMON = {"vocab_size": 500, "context": 64, "layers": 3, "width": 128, "heads": 4, "hidden": 320}
LLAMA = ModelShape(arch="llama", kv_heads=2, qkv_bias=True, **COMMON)
GPT2 = ModelShape(arch="gpt2", kv_heads=4, tied=False, **COMMON)
FIT = Fit(micro_batch=2, threads=1, activation_checkpointing=False, loss_chunk_tokens=32)
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QWEN = ModelShape(
    arch="llama", vocab_size=151_936, context=256, layers=24, width=896, heads=14, kv_heads=2, hidden=4864
)


def adapter_of(*targets, form="nf4", **changes):
    return AdapterRecipe(
        **{"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": targets, "base_format": form, **changes}
    )


@pytest.mark.parametrize("shape", [LLAMA, GPT2, replace(LLAMA, width=96, heads=4)], ids=["llama", "gpt2", "odd"])
@pytest.mark.parametrize("form", ["bf16", "int8", "int4", "nf4"])
def test_the_base_is_counted_to_the_byte(shape, form):
    held = sum(buffer.numel() * buffer.element_size() for buffer in build_frozen(shape, form).buffers())
    assert frozen_bytes(shape, form) == pytest.approx(held, rel=0.001)  # scales of joint matrices share a group


@pytest.mark.parametrize(
    ("shape", "targets", "dropout"),
    [
        (LLAMA, ("q_proj", "v_proj"), 0.0),
        (LLAMA, ALL, 0.1),
        (replace(LLAMA, layers=12), ("down_proj",), 0.0),
        (GPT2, ("c_attn",), 0.0),
    ],
)
@pytest.mark.parametrize("form", ["fp32", "nf4"])
def test_activations_are_what_backward_keeps(shape, targets, dropout, form):
    adapter = adapter_of(*targets, form=form, dropout=dropout)
    model = probe._model(shape, adapter)
    mine = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine and (tensor.is_floating_point() or tensor.dtype == torch.bool):
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model(torch.randint(500, (2, 64)))
    held_mb = (sum(size for size, _ in kept.values()) + hidden.untyped_storage().nbytes()) / MIB
    assert estimate_memory(shape, FIT, adapter=adapter).activations_mb == pytest.approx(held_mb, rel=0.12)


def test_half_a_billion_parameters_fit_a_small_phone():
    lean = Fit(micro_batch=1, threads=2, activation_checkpointing=True, loss_chunk_tokens=64)
    nf4, whole = (estimate_memory(QWEN, lean, adapter=adapter_of("q_proj", "v_proj", form=f)) for f in ("nf4", "fp32"))
    assert nf4.total_mb < 0.85 * 1024 < 2000 < whole.total_mb
    assert nf4.gradients_mb == pytest.approx(nf4.optimizer_mb / 2) and nf4.gradients_mb < 5


def wish(tmp_path, *changes):
    text = '[model]\nbase = "x"\n[adapter]\nmethod = "lora"\n[[data.sources]]\npath = "x.txt"\n'
    return parse_config(text, where="x.toml", base=tmp_path, changes=changes)


def test_the_fit_is_that_of_the_adapter(tmp_path):
    machine, why = Machine(flops_s=1e9, memory_mb=825.0, cores=2), {}
    fit = choose_fit(wish(tmp_path, "adapter.base_format=nf4"), QWEN, machine, batch=4, why=why)
    assert fit.activation_checkpointing and fit.micro_batch == 1
    need_mb = estimate_memory(QWEN, fit, adapter=adapter_of("q_proj", "v_proj", rank=8)).total_mb
    assert need_mb <= 825 and f"{need_mb:,.0f} of 825 MB" in why["fit"]
    with pytest.raises(ResourceError, match=r"adapter\.base_format \(nf4\) smaller"):
        choose_fit(wish(tmp_path), QWEN, machine, batch=4, why={})


def test_a_smaller_fit_is_looked_for_with_the_adapter():
    adapter = adapter_of("q_proj", "v_proj")
    fit = Fit(micro_batch=8, threads=2, activation_checkpointing=False, loss_chunk_tokens=512)
    less = smaller(fit, SimpleNamespace(model=QWEN, trained=QWEN, train=TRAIN, adapter=adapter), limit_mb=1000.0)
    assert estimate_memory(QWEN, less, adapter=adapter).total_mb <= 1000 < estimate_memory(QWEN, less).total_mb


@pytest.mark.parametrize("form", ["fp32", "int8", "nf4"])
def test_steps_of_the_adapter_are_timed(form):
    adapter = adapter_of("q_proj", form=form)
    assert all("lora_" in name for name, _ in probe._model(LLAMA, adapter).named_parameters())
    timer = StepTimer(LLAMA, FIT, optimizer="muon", most_rows=2, adapter=adapter)
    assert timer.time(FIT, precision="fp32", rows=2, batch=2).rate > 0


def test_the_plan_times_the_adapter_of_the_config(monkeypatch, tmp_path):
    seen = []

    class Timer:
        def __init__(self, shape, fit, *, optimizer, most_rows, adapter, top_layers):
            seen.append((adapter, optimizer))

        def time(self, fit, *, precision, rows, batch):
            return Timing(rate=1.0, seconds=0.01)

    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(autotune, "StepTimer", Timer)
    monkeypatch.setattr(autotune, "RATE_S", 0.001)
    config = wish(tmp_path, "adapter.base_format=int8", "train.precision=fp32", "fit.threads=1", "fit.micro_batch=1")
    machine = Machine(flops_s=1e9, memory_mb=1000.0, cores=1)
    prepare._choose(config, LLAMA, FIT, machine, ["fp32"], batch=2, sizes=[1], timed=True, why={})
    assert seen[0][0].base_format == "int8" and seen[0][0].targets == ("q_proj", "v_proj")
    assert seen[0][1] == "adamw-fp32"


CHILD = """
import sys
from ondevice.cli.main import main
from ondevice.device.memory import peak_rss_mb
code = main(sys.argv[1:])
print(peak_rss_mb())
sys.exit(code)
"""
LORA, WHOLE = "adapter.method=lora", "train.optimizer=adamw"
TWIN = ModelShape(
    arch="llama", vocab_size=16_384, context=512, layers=8, width=512, heads=8, kv_heads=4, hidden=1408, qkv_bias=True
)
TWIN2 = ModelShape(
    arch="gpt2", vocab_size=16_384, context=512, layers=8, width=512, heads=8, kv_heads=8, hidden=2048, tied=False
)
AGAIN = "fit.activation_checkpointing=true"


def save_learned_tokenizer(folder, size):
    """Of letters and pairs of letters: it holds as much as any of its size."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.product(letters, letters))[: size - 1 - len(letters)]
    names = [*letters, *map("".join, pairs), "<|endoftext|>"]
    made = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=pairs))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (TWIN, f"{LORA} adapter.base_format=fp32 fit.micro_batch=2"),
        (TWIN, f"{LORA} adapter.base_format=int8 fit.micro_batch=4"),
        (
            TWIN,
            f"{LORA} adapter.base_format=nf4 fit.micro_batch=2 adapter.targets=['q_proj','up_proj','down_proj']",
        ),
        (TWIN, f"{LORA} adapter.base_format=nf4 fit.micro_batch=1 {AGAIN} fit.loss_chunk_tokens=64"),
        (TWIN, f"{LORA} adapter.base_format=int4 fit.micro_batch=4 {AGAIN}"),
        (TWIN, f"{WHOLE} fit.micro_batch=2"),
        (TWIN, f"{WHOLE} fit.micro_batch=2 {AGAIN} train.optimizer_state=int8"),
        (TWIN, f"{WHOLE} fit.micro_batch=4 {AGAIN}"),
        (TWIN, f"{WHOLE} fit.micro_batch=2 {AGAIN} train.precision=bf16"),
        (TWIN, f"train.optimizer=muon fit.micro_batch=1 {AGAIN}"),
        (TWIN2, f"{WHOLE} fit.micro_batch=4 {AGAIN} train.optimizer_state=int8"),
        (TWIN2, f"{WHOLE} fit.micro_batch=2 {AGAIN} train.weights=bf16"),
        (TWIN, f"{WHOLE} fit.micro_batch=4 train.top_layers=3"),
        (
            TWIN,
            f"{WHOLE} fit.layerwise=true fit.micro_batch=4 fit.kept_blocks=1 fit.repeated_blocks=2 train.top_layers=4",
        ),
        (TWIN, f"{WHOLE} fit.layerwise=true fit.micro_batch=4 fit.kept_blocks=8 train.clip=0"),
        (TWIN, f"{WHOLE} fit.layerwise=true fit.micro_batch=4 fit.kept_blocks=4 fit.repeated_blocks=2"),
        (TWIN2, f"{WHOLE} fit.layerwise=true fit.micro_batch=2 fit.kept_blocks=2 fit.repeated_blocks=3"),
        (
            TWIN,
            f"{WHOLE} fit.layerwise=true fit.micro_batch=1 fit.kept_blocks=0 fit.repeated_blocks=8 "
            "fit.loss_chunk_tokens=64 train.optimizer_state=int8",
        ),
    ],
)
def test_the_estimate_is_the_peak_of_a_real_run(tmp_path, shape, changes):
    folder = tmp_path / "base"
    save_learned_tokenizer(folder, shape.vocab_size)
    tensors = to_hugging_face(shape, build_model(shape, seed=1).state_dict())
    write(folder / "model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "config.json", hugging_face_config(shape))
    (tmp_path / "text.txt").write_text("the cat sat on the mat and saw another dog\n" * 2000)
    common = (
        "model.context=256 train.steps=3 train.batch=4 train.precision=fp32 fit.threads=1 "
        f"eval.count=1 eval.max_tokens=256 sample.count=0 limits.min_free_disk_mb=0 model.base={folder}"
    )
    flags = [f"--set={change}" for change in f"{common} {changes}".split()]
    flags += [f"--data={tmp_path / 'text.txt'}", "--name=one"]
    env = {**os.environ, "ONDEVICE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def ondevice(*command):
        done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True, env=env)
        return done.stdout

    planned = json.loads(ondevice("-m", "ondevice", "plan", *flags, "--json"))["estimate"]["memory"]["total_mb"]
    peak = float(ondevice("-c", CHILD, "train", *flags, "--quiet").split()[-1])
    assert 0.9 < planned / peak < 1.1, (planned, peak)
