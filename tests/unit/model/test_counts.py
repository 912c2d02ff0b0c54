from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ondevice.model.build import build_model
from ondevice.model.counts import count_breakdown, count_parameters, flops_per_token
from ondevice.run.recipe import ModelShape


def gpt2(*, layers: int, width: int, heads: int, context: int, vocab_size: int) -> ModelShape:
    return ModelShape(
        arch="gpt2",
        vocab_size=vocab_size,
        context=context,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        hidden=4 * width,
    )


GPT2_124M = gpt2(layers=12, width=768, heads=12, context=1024, vocab_size=50257)
GPT2_6_LAYERS = gpt2(layers=6, width=768, heads=12, context=1024, vocab_size=50257)
LONG_12 = gpt2(layers=12, width=768, heads=12, context=2500, vocab_size=32000)
LONG_24 = gpt2(layers=24, width=1024, heads=16, context=2500, vocab_size=32000)
LLAMA_4M = ModelShape(arch="llama", vocab_size=4096, context=256, layers=4, width=256, heads=4, kv_heads=4, hidden=704)


@pytest.mark.parametrize(
    ("shape", "unique", "twice"),
    [
        (GPT2_124M, 124_439_808, 124_439_808 + 50257 * 768),
        (GPT2_6_LAYERS, 81_912_576, 81_912_576 + 50257 * 768),
        (LONG_12, 111_552_000, 136_128_000),
        (LONG_24, 337_639_424, 370_407_424),
        (LLAMA_4M, 4_262_144, 4_262_144 + 4096 * 256),
    ],
)
def test_declared_figures(shape, unique, twice):
    assert count_parameters(shape) == unique
    assert count_parameters(shape, head_twice=True) == twice
    assert real_count(shape) == unique


def real_count(shape: ModelShape) -> int:
    with torch.device("meta"):
        model = build_model(shape, seed=None)
    return sum(parameter.numel() for parameter in model.parameters())


def test_counts_are_those_of_the_module(shape):
    assert count_parameters(shape) == real_count(shape)


def test_breakdown_matches_the_names(shape):
    model = build_model(shape, seed=None)
    sums = dict.fromkeys(("embed", "position", "attn", "mlp", "norm", "head"), 0)
    for name, parameter in model.named_parameters():
        part = next(part for part in sums if part in name)
        sums[part] += parameter.numel()
    counts = count_breakdown(shape)
    assert sums == {
        "embed": counts.embedding,
        "position": counts.position,
        "attn": counts.attention,
        "mlp": counts.mlp,
        "norm": counts.norm,
        "head": counts.head,
    }


def test_an_untied_head_is_never_counted_twice(shape):
    again = shape.vocab_size * shape.width if shape.tied else 0
    assert count_parameters(shape, head_twice=True) == count_parameters(shape) + again


def test_flops_are_those_of_the_matrix_products(shape, monkeypatch):
    """6 for each weight of a product, as torch's own counter has it; attention is counted by hand."""
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr("ondevice.model.layers.layers_by_one_dnn", lambda: False)  # it counts only torch's own
    context, batch = 16, 2
    model = build_model(shape, seed=0)
    ids = torch.zeros(batch, context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.logits(model(ids)).sum().backward()
    products = sum(flops for op, flops in counter.get_flop_counts()["Global"].items() if op.__name__ in ("mm", "addmm"))
    attention = 6 * shape.layers * shape.width * (context + 1)
    assert flops_per_token(shape, context) - attention == products / (batch * context)


def test_attention_flops_grow_with_context():
    assert flops_per_token(LLAMA_4M, 512) - flops_per_token(LLAMA_4M, 256) == 6 * 4 * 256 * 256


def test_counting_needs_no_torch():
    code = "import sys, ondevice.model.counts, ondevice.model.shape; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
