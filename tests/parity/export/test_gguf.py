"""GGUF files through the gguf package's own reader, and llama.cpp itself where node-llama-cpp is at hand (slow)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ondevice.data.tokenizer import Tokenizer, train_tokenizer
from ondevice.errors import ResourceError, UsageError
from ondevice.export.gguf import export_gguf
from ondevice.export.gguf_tensors import rope_factors
from ondevice.export.hf_tokenizer import HARD_TEXTS
from ondevice.infer.generate import generate
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.decoder import Decoder
from ondevice.model.rope import rotation_tables
from ondevice.run.recipe import ModelShape, RopeScaling
from ondevice.run.schema import TokenizerConfig
from tests.parity.export.models import perturbed

gguf = pytest.importorskip("gguf")

_LLAMA = ModelShape(
    arch="llama", vocab_size=512, context=128, layers=2, width=128, heads=4, kv_heads=2, hidden=192, tied=True
)
_LLAMA3 = RopeScaling(kind="llama3", factor=8.0, low_frequency=1.0, high_frequency=4.0, original_context=64)
SHAPES = {
    "gpt2": replace(_LLAMA, arch="gpt2", kv_heads=4),
    "gpt2-untied": replace(_LLAMA, arch="gpt2", kv_heads=4, tied=False),
    "llama": _LLAMA,
    "llama-untied": replace(_LLAMA, tied=False, rope_theta=500.0),
    "qwen2": replace(_LLAMA, qkv_bias=True),
    "llama3-rope": replace(_LLAMA, rope_scaling=_LLAMA3),
    "linear-rope": replace(_LLAMA, rope_scaling=RopeScaling(kind="linear", factor=2.0)),
}
TEXT = ["The cat sat on the mat, naïve and happy.\n\tIt ran home 12 times; don't ask! 🙂 " * 40]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    pytest.importorskip("tokenizers")
    pytest.importorskip("sentencepiece")
    made = {}
    for kind, size in (("byte", None), ("char", None), ("bpe", 300), ("sentencepiece-bpe", 380)):
        config = TokenizerConfig(kind=kind, vocab_size=size, min_frequency=1)
        made[kind] = train_tokenizer(config, TEXT, tmp_path_factory.mktemp("tokenizer"), vocab_size=size)
    return made


def export(model: Decoder, tokenizer: Tokenizer, folder: Path, kind: str = "f32"):
    return export_gguf(
        model.shape, dict(model.named_parameters()), folder, tokenizer=tokenizer, name="small", kind=kind
    )


def fields(folder: Path) -> dict:
    return {name: each.contents() for name, each in gguf.GGUFReader(folder / "model.gguf").fields.items()}


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("name", ["gpt2", "llama-untied", "qwen2"])
def test_tensors_come_back(name: str, kind: str, tokenizers, tmp_path: Path) -> None:
    model = perturbed(SHAPES[name])
    info = export(model, tokenizers["bpe"], tmp_path / "x", kind)
    bits = {"f32": 32, "f16": 16, "q8_0": 8.5, "q4_0": 6.5}[kind]
    assert info.bytes < sum(each.numel() for each in model.parameters()) * bits / 8 * 1.25 + 30_000
    assert (info.worst_error == 0) == (kind == "f32") and info.worst_error < 0.2
    tensors = {each.name: each for each in gguf.GGUFReader(tmp_path / "x" / "model.gguf").tensors}
    down = tensors["blk.1.ffn_down.weight"]
    assert down.tensor_type.name.lower() == kind and list(down.shape) == [192, 128]
    got = gguf.quants.dequantize(down.data, down.tensor_type)
    wanted = model.state_dict()["blocks.1.mlp.down.weight"].numpy()
    assert np.abs(got - wanted).max() <= {"f32": 0, "f16": 1e-3, "q8_0": 0.01, "q4_0": 0.15}[kind]


def test_keys_say_what_the_model_is(tokenizers, tmp_path: Path) -> None:
    export(perturbed(SHAPES["linear-rope"]), tokenizers["sentencepiece-bpe"], tmp_path / "x")
    told = fields(tmp_path / "x")
    assert told["general.architecture"] == "llama"
    assert (told["llama.context_length"], told["llama.attention.head_count_kv"]) == (128, 2)
    assert (told["llama.rope.scaling.type"], told["llama.rope.scaling.factor"]) == ("linear", 2.0)
    assert told["tokenizer.ggml.model"] == "llama" and len(told["tokenizer.ggml.tokens"]) == 512
    assert told["tokenizer.ggml.add_space_prefix"] is False and told["tokenizer.ggml.eos_token_id"] == 1
    export(perturbed(SHAPES["qwen2"]), tokenizers["bpe"], tmp_path / "y")
    told = fields(tmp_path / "y")
    assert (told["general.architecture"], told["tokenizer.ggml.pre"]) == ("qwen2", "gpt-2")


def test_the_factors_of_llama3_divide_the_frequencies() -> None:
    shape = SHAPES["llama3-rope"]
    factors = rope_factors(shape)
    angle = np.arcsin(rotation_tables(2, 32, shape.rope_theta, shape.rope_scaling)[1][1, 0, 16:].numpy())
    plain = shape.rope_theta ** -(np.arange(0, 32, 2) / 32)
    assert factors is not None and factors.min() == 1 and factors.max() == 8
    assert np.allclose(plain[1:] / factors[1:], angle[1:], rtol=1e-5)


def test_tokenizers_that_llama_cpp_has_not_are_refused(tokenizers, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="char"):
        export(perturbed(SHAPES["llama"]), tokenizers["char"], tmp_path / "x")
    with pytest.raises(UsageError, match="q3"):
        export(perturbed(SHAPES["llama"]), tokenizers["bpe"], tmp_path / "x", "q3")
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_nothing(tokenizers, tmp_path: Path, monkeypatch) -> None:
    def short(writer, tensor) -> None:
        raise OSError("768 requested and 512 written")  # what numpy says, without a number

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", short)
    with pytest.raises(ResourceError, match="disk is full"):
        export(perturbed(SHAPES["llama"]), tokenizers["bpe"], tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


LLAMA_CPP = """
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
import fs from "node:fs";
const {path, texts, prompt, count} = JSON.parse(fs.readFileSync(process.argv[2]));
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: path});
const ids = texts.map((text) => model.tokenize(text, false));
const context = await model.createContext({contextSize: 128, threads: 1});
const sequence = context.getSequence();
const out = [];
for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
    out.push(token);
    if (out.length >= count) break;
}
fs.writeFileSync(process.argv[3], JSON.stringify({ids, out}));
process.exit(0);
"""


def llama_cpp(folder: Path, prompt: list[int], count: int, place: Path) -> dict:
    """What llama.cpp does with a file: ids of the hard texts and greedy tokens."""
    modules = os.environ.get("ONDEVICE_NODE_LLAMA_CPP", "")
    if not modules or not shutil.which("node"):
        pytest.skip("set ONDEVICE_NODE_LLAMA_CPP to a folder with node_modules/node-llama-cpp")
    (place / "node_modules").symlink_to(Path(modules) / "node_modules")
    (place / "run.mjs").write_text(LLAMA_CPP)
    wish = {"path": str(folder / "model.gguf"), "texts": list(HARD_TEXTS), "prompt": prompt, "count": count}
    (place / "in.json").write_text(json.dumps(wish))
    done = subprocess.run(
        ["node", "run.mjs", "in.json", "out.json"], cwd=place, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((place / "out.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "bpe") for name in SHAPES), ("llama", "byte"), ("llama", "sentencepiece-bpe"), ("gpt2", "byte")],
)
def test_llama_cpp_gives_our_ids_and_our_text(name: str, kind: str, tokenizers, tmp_path: Path) -> None:
    model, tokenizer = perturbed(SHAPES[name]), tokenizers[kind]
    export(model, tokenizer, tmp_path / "x")
    prompt = tokenizer.encode("The cat sat")
    told = llama_cpp(tmp_path / "x", prompt, 24, tmp_path)
    # llama.cpp ends every text at a zero byte
    for text, ids in zip(HARD_TEXTS, told["ids"], strict=True):
        if "\0" not in text and "\u2581" not in text:
            assert ids == tokenizer.encode(text), text
    ours = list(generate(TorchBackend(model), prompt, settings=Sampling(temperature=0.0), max_new_tokens=24))
    assert told["out"][: len(ours)] == ours
