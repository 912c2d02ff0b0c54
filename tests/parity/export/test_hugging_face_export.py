"""Folders that we write, loaded by the real transformers: our logits, our ids, our text."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from ondevice.data.chat import encode_chat, end_ids
from ondevice.data.tokenizer import Tokenizer, import_tokenizer, train_tokenizer
from ondevice.errors import CheckpointError, ResourceError, UsageError
from ondevice.export.hf_tokenizer import HARD_TEXTS
from ondevice.export.hugging_face import export_hugging_face
from ondevice.infer.generate import generate
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.decoder import Decoder
from ondevice.run import files
from ondevice.run.recipe import ModelShape, RopeScaling
from ondevice.run.schema import TokenizerConfig
from tests.parity.export.models import perturbed

_LLAMA = ModelShape(
    arch="llama", vocab_size=400, context=64, layers=2, width=48, heads=4, kv_heads=2, hidden=80, tied=True
)
SHAPES = {
    "gpt2": replace(_LLAMA, arch="gpt2", kv_heads=4),
    "gpt2-untied": replace(_LLAMA, arch="gpt2", kv_heads=4, tied=False),
    "llama": replace(_LLAMA, tied=False, rope_theta=500.0),
    "qwen2": replace(_LLAMA, qkv_bias=True),
    "llama3-rope": replace(
        _LLAMA,
        rope_scaling=RopeScaling(kind="llama3", factor=8.0, low_frequency=1.0, high_frequency=4.0, original_context=16),
    ),
    "linear-rope": replace(_LLAMA, rope_scaling=RopeScaling(kind="linear", factor=2.0)),
}
TEXT = [
    "The cat sat on the mat, naïve and happy.\n\tIt ran home 12 times; don't ask! 🙂 " * 30,
    "Se telefonando io potessi dirti addio, ti chiamerei è ò à | ".join("abcdefgh") * 20,
]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    pytest.importorskip("tokenizers")
    made = {}
    for kind, size in (("byte", None), ("char", None), ("bpe", 350), ("sentencepiece-bpe", 400)):
        if kind.startswith("sentencepiece"):
            pytest.importorskip("sentencepiece")
        folder = tmp_path_factory.mktemp("tokenizer") / kind
        config = TokenizerConfig(kind=kind, vocab_size=size, min_frequency=1)
        made[kind] = train_tokenizer(config, TEXT, folder, vocab_size=size)
    return made


def export(model: Decoder, tokenizer: Tokenizer, folder: Path, **settings) -> dict[str, int]:
    state = dict(model.named_parameters())
    return export_hugging_face(model.shape, state, folder, tokenizer=tokenizer, card="# card\n", **settings)


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_gives_our_logits_and_text(name: str, tokenizers, tmp_path: Path) -> None:
    model = perturbed(SHAPES[name])
    files = export(model, tokenizers["bpe"], tmp_path / "hf")
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} < set(files)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    ids = torch.randint(350, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model.logits(model(ids)), rtol=0, atol=1e-4)
    prompt = tokenizers["bpe"].encode("The cat")
    stop = tokenizers["bpe"].eot_id
    ours = list(generate(TorchBackend(model), prompt, settings=Sampling(temperature=0.0), max_new_tokens=20))
    got = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :].tolist()
    assert got == ours[: ours.index(stop) + 1] if stop in ours else got == ours
    assert theirs.generation_config.eos_token_id == stop


@pytest.mark.parametrize("kind", ["byte", "char", "bpe", "sentencepiece-bpe"])
@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_the_tokenizer_is_the_same_there(kind: str, arch: str, tokenizers, tmp_path: Path) -> None:
    ours = tokenizers[kind]
    export(perturbed(replace(SHAPES[arch], vocab_size=max(ours.vocab_size, 300))), ours, tmp_path / "hf")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert isinstance(theirs, transformers.PreTrainedTokenizerFast)
    for text in (*HARD_TEXTS, *TEXT):
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == ours.decode(ids)
        if kind != "char":  # which has no letters but those it learned
            assert theirs.decode(ids) == text
    assert (theirs.eos_token_id, theirs.model_max_length) == (ours.eot_id, 64)
    assert theirs.decode([*ours.encode("end"), ours.eot_id], skip_special_tokens=True) == ours.decode(
        ours.encode("end")
    )


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_shards(name: str, tokenizers, tmp_path: Path) -> None:
    model = perturbed(SHAPES[name])
    files = export(model, tokenizers["bpe"], tmp_path / "hf", shard_bytes=60_000)
    shards = [name for name in files if name.startswith("model-")]
    assert len(shards) > 2 and "model.safetensors" not in files
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    ids = torch.arange(30)[None]
    with torch.no_grad():
        assert np.abs((theirs(ids).logits - model.logits(model(ids))).numpy()).max() < 1e-4


def test_a_full_disk_leaves_nothing(tokenizers, tmp_path: Path, monkeypatch) -> None:
    left, write_all = [60_000], files.write_all

    def short_of_space(fd: int, data: bytes | memoryview) -> None:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(fd, data)

    monkeypatch.setattr(files, "write_all", short_of_space)
    with pytest.raises(ResourceError, match="disk is full"):
        export(perturbed(SHAPES["llama"]), tokenizers["bpe"], tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_refused_export(tokenizers, tmp_path: Path) -> None:
    model = perturbed(SHAPES["gpt2"])
    with pytest.raises(CheckpointError, match=r"blocks\.0"):
        export_hugging_face(
            model.shape,
            {name: each for name, each in model.named_parameters() if name != "blocks.0.attn.qkv.weight"},
            tmp_path / "hf",
            tokenizer=tokenizers["bpe"],
            card="",
        )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "hf").mkdir()
    with pytest.raises(UsageError, match="not an export"):
        export(model, tokenizers["bpe"], tmp_path / "hf", overwrite=True)


def test_a_chat_template_goes_along(tmp_path: Path) -> None:
    """transformers renders and encodes a conversation as we do, and stops where we do."""
    engines = pytest.importorskip("tokenizers")
    engine = engines.Tokenizer(engines.models.BPE())
    engine.pre_tokenizer = engines.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = engines.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = engines.pre_tokenizers.ByteLevel.alphabet()
    trainer = engines.trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    engine.train_from_iterator(["user assistant hello"] * 5, trainer)
    (tmp_path / "theirs").mkdir()
    engine.save(str(tmp_path / "theirs" / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (tmp_path / "theirs" / "tokenizer_config.json").write_text(json.dumps(config))
    ours = import_tokenizer(tmp_path / "theirs")
    model = perturbed(replace(SHAPES["llama"], vocab_size=ours.vocab_size))
    export(model, ours, tmp_path / "hf")
    talk = [{"role": "user", "content": " hello  è"}, {"role": "assistant", "content": "x"}]
    again = AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = again.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert list(ids) == encode_chat(talk, ours)
    settings = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == sorted(end_ids(ours)) and len(settings["eos_token_id"]) == 2
