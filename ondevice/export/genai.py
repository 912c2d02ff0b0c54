"""A model as a folder that onnxruntime-genai loads: our ONNX file, its config, tokenizer files of Hugging Face.

The ``type`` in the config chooses how that library drives a decoder, not what it computes: our graphs of either
architecture take keys and values apart and positions as an input, which is what it calls llama (its gpt2 is an older
form with both in one tensor). Needs nothing of that library; where it is installed, the folder is tried with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.chat import end_ids
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import OndeviceError
from ondevice.export.hf_tokenizer import HARD_TEXTS, write_hf_tokenizer
from ondevice.export.place import check_place, folder_in_place
from ondevice.export.trial import Bench, Trial, graphs_for
from ondevice.export.verify import LogitsFn
from ondevice.infer.export_folder import MODEL_FILE, PARITY_FILE
from ondevice.infer.sampling import Sampling
from ondevice.run.files import write_json
from ondevice.run.recipe import ModelShape

__all__ = ["CONFIG", "GenaiInfo", "export_genai", "genai_config"]

CONFIG = "genai_config.json"
_TRIED_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class GenaiInfo:
    """``tried`` is what the installed onnxruntime-genai did with the folder; None where it is not installed."""

    files: dict[str, int]
    trial: Trial
    tried: dict[str, Any] | None


def genai_config(shape: ModelShape, *, eot_id: int, stops: Sequence[int], settings: Sampling) -> dict[str, Any]:
    """The content of ``genai_config.json``, with the settings as its defaults; ``stops`` end a text."""
    ends = {"bos_token_id": eot_id, "eos_token_id": list(stops), "pad_token_id": eot_id}
    names = {"key": "past_key_values.%d.key", "value": "past_key_values.%d.value"}
    return {
        "model": {
            "type": "llama",
            **ends,
            "context_length": shape.context,
            "vocab_size": shape.vocab_size,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": MODEL_FILE,
                "head_size": shape.head_dim,
                "hidden_size": shape.width,
                "inputs": {
                    **{name: name for name in ("input_ids", "attention_mask", "position_ids")},
                    **{f"past_{part}_names": name for part, name in names.items()},
                },
                "outputs": {
                    "logits": "logits",
                    **{f"present_{part}_names": f"present.%d.{part}" for part in names},
                },
                "num_attention_heads": shape.heads,
                "num_hidden_layers": shape.layers,
                "num_key_value_heads": shape.kv_heads,
            },
        },
        "search": {
            "do_sample": settings.temperature > 0.0,
            "temperature": settings.temperature or 1.0,
            "top_k": settings.top_k or shape.vocab_size,
            "top_p": settings.top_p,
            "repetition_penalty": settings.repetition_penalty,
            "max_length": shape.context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "early_stopping": True,
            "past_present_share_buffer": False,
        },
    }


def export_genai(
    shape: ModelShape,
    state: Mapping[str, Any],
    folder: Path,
    *,
    tokenizer: Tokenizer,
    settings: Sampling,
    reference: LogitsFn,
    quantize: str = "fp32",
    text: Sequence[np.ndarray] = (),
    threads: int = 1,
    overwrite: bool = False,
) -> GenaiInfo:
    """Writes the folder, its graph checked against ``reference`` before it appears.

    Raises as `export_onnx` and `export_hugging_face`, and OndeviceError where the installed onnxruntime-genai does not
    give the greedy tokens of the model in fp32; in each case nothing is left behind.
    """
    check_place(folder, marker=CONFIG, overwrite=overwrite)
    graphs = graphs_for(shape, state, quantize)
    parameters = sum(int(np.prod(tensor.shape)) for tensor in state.values())
    bench = Bench(shape=shape, parameters=parameters, reference=reference, text=text, threads=threads, external=None)
    with folder_in_place(folder, need_bytes=max(graph.data_bytes for _, graph in graphs)) as temporary:
        trial = bench.try_plans(graphs, temporary)
        write_hf_tokenizer(tokenizer, temporary, context=shape.context)
        stops = sorted(end_ids(tokenizer)) if tokenizer.chat is not None else [tokenizer.eot_id]
        config = genai_config(shape, eot_id=tokenizer.eot_id, stops=stops, settings=settings)
        write_json(temporary / CONFIG, config)
        tried = _tried(temporary, tokenizer, reference, shape, exact=not trial.plan.quantized)
        write_json(temporary / PARITY_FILE, {**trial.to_json(), "onnxruntime_genai": tried})
        return GenaiInfo(
            files={path.name: path.stat().st_size for path in sorted(temporary.iterdir())}, trial=trial, tried=tried
        )


def _tried(
    folder: Path, tokenizer: Tokenizer, reference: LogitsFn, shape: ModelShape, *, exact: bool
) -> dict[str, Any] | None:
    """The folder under the real library."""
    try:
        import onnxruntime_genai as genai
    except ImportError:
        return None
    try:
        model = genai.Model(str(folder))
        theirs = genai.Tokenizer(model)
        unlike = [text for text in HARD_TEXTS if text and list(theirs.encode(text)) != tokenizer.encode(text)]
        prompt = [int(each) for each in np.random.default_rng(0).integers(0, shape.vocab_size, 4)]
        tokens = _greedy(genai, model, prompt, min(_TRIED_TOKENS, shape.context - len(prompt)))
    except (RuntimeError, ValueError) as error:  # what its bindings raise
        raise OndeviceError(
            f"onnxruntime-genai {genai.__version__} does not load the folder ({error}); use --format onnx."
        ) from error
    same = _same(reference, prompt, tokens)
    if exact and not same:
        raise OndeviceError(
            "onnxruntime-genai gives other tokens than the model; this is a fault of ondevice, please report it with "
            "the model's shape."
        )
    return {"version": genai.__version__, "greedy_tokens_same": same, "texts_with_other_ids": unlike}


def _greedy(genai: Any, model: Any, prompt: list[int], count: int) -> list[int]:
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, repetition_penalty=1.0, max_length=len(prompt) + count)
    generator = genai.Generator(model, params)
    tokens: list[int] = []
    generator.append_tokens(np.array(prompt, dtype=np.int32))
    while not generator.is_done() and len(tokens) < count:
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


def _same(reference: LogitsFn, prompt: list[int], tokens: list[int]) -> bool:
    """Whether each token is the model's likeliest after those before it."""
    ids = np.array([[*prompt, *tokens[:-1]]], dtype=np.int64)
    return reference(ids)[0, len(prompt) - 1 :].argmax(-1).tolist() == tokens
