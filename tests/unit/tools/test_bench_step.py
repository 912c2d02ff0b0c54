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
    from tokens_to_loss import shares_to

    curve, whole = [[0, 4.0, 0.0], [100, 3.0, 2.0], [200, 2.0, 4.0], [400, 1.5, 6.0]], (400, 12.0)
    assert shares_to(curve, 2.5, whole) == pytest.approx((150 / 400, 3 / 12))
    assert shares_to(curve, 1.5, whole) == (1.0, 0.5)
    assert shares_to(curve, 1.0, whole) == (math.inf, math.inf)


def test_growth_is_beside_the_operations_and_drift_beside_the_first_steps():
    from growth import drift, growth, rows

    settings = rows()["context"]
    assert [setting.shape.context for setting in settings] == [128, 256, 512, 1024, 2500]
    assert growth(settings, [setting.flops for setting in settings]) == pytest.approx([1.0] * 5)
    assert growth(settings[:2], [settings[0].flops, 1.25 * settings[1].flops]) == pytest.approx([1.0, 1.25])
    points = [(step, 100.0 + (step >= 9000) + 50.0 * (step < 100)) for step in range(0, 10_001, 10)]
    assert drift(points, 10_000) == (100.0, 101.0)
    parameters = rows()["parameters"]
    assert len({setting.batch * setting.shape.context for setting in parameters}) == 1
    assert len({setting.shape.vocab_size for setting in parameters}) == 4


def test_what_is_done_is_found_again_and_a_torn_line_is_not(tmp_path):
    from tokens_to_loss import found

    out, wish = tmp_path / "rows.jsonl", {"side": "peer", "seed": 0, "steps": 3, "set": []}
    assert found(out, wish) is None
    out.write_text('{"wish": {"side": "peer", "seed": 0, "steps": 3, "set": []}, "loss": 2.0}\n{"wish": {"si')
    assert found(out, wish) == {"wish": wish, "loss": 2.0}
    assert found(out, {**wish, "seed": 1}) is None
