"""Exports in fewer bits and for other programs, by their commands."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

GREEDY = ("--temperature", "0", "--max-new-tokens", "12", "--json")


@pytest.mark.parametrize("kind", ["int8", "int4", "auto"])
def test_fewer_bits_are_judged_by_validation_text_and_generate(own, call, kind):
    pytest.importorskip("onnxruntime")
    result = call("export", "tiny", "--quantize", kind)
    assert (result.code, result.err) == (0, "")
    assert "of validation text" in result.out and "x the size" in result.out
    (made,) = (own / "runs" / "tiny" / "exports").iterdir()
    assert made.name == f"onnx-{kind}-00000012"
    told = json.loads((made / "parity.json").read_text())
    assert told["perplexity"]["tokens"] > 100 and told["perplexity"]["before"] > 1
    if kind == "auto":
        assert told["perplexity"]["change"] <= 0.03
    run, export = (call("generate", target, "the cat", *GREEDY).json for target in ("tiny", made))
    assert export["backend"] == "onnxruntime" and len(export["ids"]) > 0
    assert export["ids"][:1] == run["ids"][:1]
    assert call("verify", "tiny").code == 0


def test_without_its_data_bits_are_named_not_chosen(own, call):
    pytest.importorskip("onnxruntime")
    shutil.rmtree(own / "datasets")
    result = call("export", "tiny", "--quantize", "auto")
    assert result.code == 2 and "name int8 or int4" in result.error
    result = call("export", "tiny", "--quantize", "int4")
    assert result.code == 0 and "not measured" in result.err
    (made,) = (own / "runs" / "tiny" / "exports").iterdir()
    assert json.loads((made / "parity.json").read_text())["perplexity"] is None


def test_a_hugging_face_folder_speaks_as_the_run_does(own, call):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    result = call("export", "tiny", "--format", "hf", "--json").json
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} < set(result["files"])
    model = transformers.AutoModelForCausalLM.from_pretrained(result["path"], dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(result["path"])
    ids = tokenizer("the cat", return_tensors="pt")
    got = model.generate(**ids, do_sample=False, max_new_tokens=12)[0, ids["input_ids"].shape[1] :].tolist()
    run = call("generate", "tiny", "the cat", *GREEDY).json
    stop = tokenizer.eos_token_id
    assert [each for each in got if each != stop] == run["ids"]
    card = (own / "runs" / "tiny" / "exports" / "hf-00000012" / "README.md").read_text()
    assert "| words |" in card and "validation loss" in card and "shuffled" in card and "not known" in card
    assert "library_name: transformers" in card and "None" not in card
    again = call("export", "tiny", "--format", "hf")
    assert again.code == 2 and "exists already" in again.error
    assert call("generate", result["path"], "the cat", *GREEDY).json["ids"] == run["ids"]


@pytest.mark.parametrize("kind", [None, "q4_0"])
def test_a_gguf_file(own, call, kind):
    gguf = pytest.importorskip("gguf")
    result = call("export", "tiny", "--format", "gguf", "--json", *(("--type", kind) if kind else ())).json
    assert result["path"].endswith(f"gguf-{kind}-00000012" if kind else "gguf-00000012")
    reader = gguf.GGUFReader(f"{result['path']}/model.gguf")
    assert reader.fields["general.name"].contents() == "tiny"
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == 257
    assert all(np.isfinite(gguf.quants.dequantize(each.data, each.tensor_type)).all() for each in reader.tensors)


def test_gguf_without_its_package_says_what_to_install(reading, call, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    result = call("export", "tiny", "--format", "gguf", "--out", tmp_path / "x")
    assert "pip install gguf" in result.error and not (tmp_path / "x").exists()


def test_a_cache_in_place_by_its_command(own, call):
    pytest.importorskip("onnxruntime")
    told = call("export", "tiny", "--in-place", "--json").json
    assert told["form"] == "in place" and told["parity"]["max_abs_error"] < 1e-4
    run, export = (call("generate", target, "the cat", *GREEDY).json for target in ("tiny", told["path"]))
    assert export["ids"] == run["ids"] and export["backend"] == "onnxruntime"
    assert call("verify", "tiny").code == 0


def test_a_genai_folder_by_its_command(own, call):
    genai = pytest.importorskip("onnxruntime_genai")
    result = call("export", "tiny", "--format", "genai", "--json")
    assert {"genai_config.json", "model.onnx", "tokenizer.json"} < set(result.json["files"])
    model = genai.Model(result.json["path"])
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, repetition_penalty=1.0, max_length=19)
    generator, tokens = genai.Generator(model, params), []
    generator.append_tokens(genai.Tokenizer(model).encode("the cat"))
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    assert [each for each in tokens if each != 256] == call("generate", "tiny", "the cat", *GREEDY).json["ids"]
    assert "for other programs" in call("generate", result.json["path"], "x").error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "hf", "--quantize", "int4"), "--quantize is for --format onnx, genai and bundle"),
        (("--format", "gguf", "--in-place"), "--native and --in-place are for --format onnx"),
        (("--type", "q4_0"), "--type is for --format gguf"),
        (("--separate-adapter",), "of a run that trained an adapter"),
    ],
)
def test_flags_of_another_format_are_refused(reading, call, words, said):
    result = call("export", "tiny", *words)
    assert result.code == 2 and said in result.error
