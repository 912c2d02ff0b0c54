"""The real onnxruntime-genai loads the folder: our greedy tokens, our ids, for both architectures and in four bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ondevice.data.tokenizer_bpe import train_bpe
from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.errors import OndeviceError, UsageError
from ondevice.export.genai import export_genai
from ondevice.infer.generate import generate
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import ModelShape
from tests.parity.export.models import perturbed

genai = pytest.importorskip("onnxruntime_genai")

_LLAMA = ModelShape(
    arch="llama", vocab_size=257, context=96, layers=2, width=64, heads=8, kv_heads=2, hidden=128, tied=True
)
SHAPES = {
    "gpt2": replace(_LLAMA, arch="gpt2", kv_heads=8),
    "llama": _LLAMA,
    "llama-untied": replace(_LLAMA, tied=False, kv_heads=4),
}


def exported(model: Decoder, folder: Path, **options: object) -> Path:
    given = {"tokenizer": ByteTokenizer(), "settings": Sampling(), "reference": TorchBackend(model).logits, **options}
    export_genai(model.shape, dict(model.named_parameters()), folder, **given)  # type: ignore[arg-type]
    return folder


def theirs(folder: Path, prompt: list[int], length: int) -> list[int]:
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=length, repetition_penalty=1.0)
    generator, tokens = genai.Generator(model, params), []
    generator.append_tokens(np.array(prompt, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_tokens_are_ours_up_to_the_end_of_the_context(name: str, tmp_path: Path) -> None:
    model = perturbed(SHAPES[name], by=0.15)
    folder, prompt = exported(model, tmp_path / "x"), [5, 9, 100, 33]
    ours = generate(TorchBackend(model), prompt, settings=Sampling(temperature=0.0), stop_ids=[256], max_new_tokens=92)
    wanted = list(ours)
    got = theirs(folder, prompt, 96)
    assert got[: len(wanted)] == wanted and len(set(wanted)) > 3
    assert len(got) == len(wanted) + (ours.finish == "stop")
    told = json.loads((folder / "parity.json").read_text())
    assert told["checked"] and told["onnxruntime_genai"]["greedy_tokens_same"] is True


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_fewer_bits_are_loaded_too(kind: str, tmp_path: Path) -> None:
    model = perturbed(_LLAMA, by=0.15)
    folder = exported(model, tmp_path / "x", quantize=kind)
    assert len(theirs(folder, [5, 9, 100, 33], 20)) >= 1
    assert (folder / "model.onnx").stat().st_size < 200_000


def test_its_tokenizer_gives_our_ids(tmp_path: Path) -> None:
    lines = ["the cat sat on a mat", "naïve café, don't 1234", "def f(x):\n\treturn x  # 🙂"] * 40
    tokenizer = train_bpe(lines, vocab_size=400, exact=False, min_frequency=1)
    folder = exported(
        perturbed(replace(_LLAMA, vocab_size=tokenizer.vocab_size), by=0.15), tmp_path / "x", tokenizer=tokenizer
    )
    reader = genai.Tokenizer(genai.Model(str(folder)))
    for text in ("the cat", " two  spaces", "naïve café", "def f(x):\n\treturn x\n", "don't 1234 🙂 日本"):
        assert list(reader.encode(text)) == tokenizer.encode(text)
        assert reader.decode(np.array(tokenizer.encode(text), np.int32)) == text


def test_what_a_sweep_recommends_is_its_default(tmp_path: Path) -> None:
    settings = Sampling(temperature=0.6, top_k=0, top_p=0.9, repetition_penalty=1.1)
    folder = exported(perturbed(_LLAMA, by=0.15), tmp_path / "x", settings=settings)
    search = json.loads((folder / "genai_config.json").read_text())["search"]
    assert (search["do_sample"], search["temperature"], search["top_k"], search["top_p"]) == (True, 0.6, 257, 0.9)
    greedy = exported(perturbed(_LLAMA, by=0.15), tmp_path / "y", settings=Sampling(temperature=0.0))
    assert json.loads((greedy / "genai_config.json").read_text())["search"]["do_sample"] is False


def test_a_wrong_folder_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = perturbed(_LLAMA, by=0.15)
    with monkeypatch.context() as patch:
        patch.setattr("ondevice.export.genai._greedy", lambda *_: [1, 2, 3])
        with pytest.raises(OndeviceError, match="gives other tokens"):
            exported(model, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    exported(model, tmp_path / "x")
    with pytest.raises(UsageError, match="exists already"):
        exported(model, tmp_path / "x")
