"""What the benchmarks of the step rely on: the peer is the same model, and a loss is found between two evaluations."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[3] / "tools" / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])


def test_the_bare_decoder_computes_what_ours_does():
    from plain_decoder import PlainDecoder
    from step_sides import SHAPES

    from ondevice.model.build import build_model

    for shape in (SHAPES["1M"], SHAPES["124M"]):
        shape = dataclasses.replace(shape, layers=2, width=32, heads=2, kv_heads=2, hidden=48, vocab_size=50)
        ours, bare = build_model(shape, seed=3), PlainDecoder(shape)
        for theirs, mine in zip(bare.blocks, ours.blocks, strict=True):
            up = mine.mlp.up if shape.arch == "gpt2" else mine.mlp.gate_up
            pairs = [(theirs.qkv, mine.attn.qkv), (theirs.out, mine.attn.out), (theirs.up, up)]
            for to, source in [*pairs, (theirs.down, mine.mlp.down)]:
                to.load_state_dict(source.state_dict())
        bare.embed.load_state_dict(ours.embed.state_dict())
        if bare.position is not None:
            bare.position.load_state_dict(ours.position.state_dict())
        ids = torch.randint(0, 50, (2, 9))
        torch.testing.assert_close(bare(ids), ours.logits(ours(ids)), rtol=1e-4, atol=1e-4)


def test_tokens_to_a_loss_are_interpolated():
    from tokens_to_loss import share_to

    curve = [[0, 4.0], [100, 3.0], [200, 2.0], [400, 1.5]]
    assert share_to(curve, 2.5) == pytest.approx(150 / 400)
    assert share_to(curve, 1.5) == 1.0
    assert share_to(curve, 1.0) == math.inf


def test_what_is_done_is_found_again_and_a_torn_line_is_not(tmp_path):
    from tokens_to_loss import found

    out, wish = tmp_path / "rows.jsonl", {"side": "peer", "seed": 0, "steps": 3, "set": []}
    assert found(out, wish) is None
    out.write_text('{"wish": {"side": "peer", "seed": 0, "steps": 3, "set": []}, "loss": 2.0}\n{"wish": {"si')
    assert found(out, wish) == {"wish": wish, "loss": 2.0}
    assert found(out, {**wish, "seed": 1}) is None
