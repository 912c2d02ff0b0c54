"""Folders of Hugging Face of known shapes with random weights and the tokenizer of bytes, for benchmarks.

    python tools/bench/bases.py FOLDER gpt2 qwen      writes FOLDER/gpt2 and FOLDER/qwen

What is measured with them (memory, speed) does not depend on what the weights know.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.model.build import build_model
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import write
from ondevice.run.files import write_json
from ondevice.run.recipe import ModelShape

__all__ = ["SHAPES", "make_base"]

SHAPES = {
    "gpt2": ModelShape(
        arch="gpt2", vocab_size=50257, context=1024, layers=12, width=768, heads=12, kv_heads=12, hidden=3072
    ),
    "gpt2-18m": ModelShape(
        arch="gpt2", vocab_size=50257, context=512, layers=6, width=256, heads=4, kv_heads=4, hidden=1024
    ),
    "smollm": ModelShape(
        arch="llama", vocab_size=49152, context=2048, layers=30, width=576, heads=9, kv_heads=3, hidden=1536
    ),
    "qwen": ModelShape(
        arch="llama",
        vocab_size=151_936,
        context=2048,
        layers=24,
        width=896,
        heads=14,
        kv_heads=2,
        hidden=4864,
        norm_eps=1e-6,
        rope_theta=1e6,
        qkv_bias=True,
    ),
    "small": ModelShape(
        arch="llama", vocab_size=8192, context=512, layers=6, width=384, heads=6, kv_heads=2, hidden=1024
    ),
}


def make_base(name: str, folder: Path) -> Path:
    """The folder, made unless it is there. Weights of qwen are stored in bf16, as its makers do."""
    if (folder / "config.json").exists():
        return folder
    shape = SHAPES[name]
    save_tokenizer(ByteTokenizer(), folder)
    state = to_hugging_face(shape, build_model(shape, seed=7).state_dict())
    if name == "qwen":
        state = {key: tensor.to(torch.bfloat16) for key, tensor in state.items()}
    write(folder / "model.safetensors", state, {"format": "pt"})
    write_json(folder / "config.json", hugging_face_config(shape))
    return folder


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        print(make_base(wanted, Path(sys.argv[1]) / wanted))
