"""Losses per source against a plain computation over the whole validation text, and the baselines."""

import math
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ondevice.data.build import build_dataset
from ondevice.evaluate.baselines import baselines, unigram_nats
from ondevice.evaluate.losses import Evaluation, SourceLoss, mixed_loss
from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "è", "naïve"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("losses")
    rng = random.Random(4)
    sources = []
    for name, count in (("short", 120), ("long", 130)):
        path = folder / f"{name}.txt"
        path.write_text("\n".join(" ".join(rng.choices(WORDS, k=9)) for _ in range(count)), "utf-8")
        sources.append(SourceConfig(path=str(path), name=name, document="line"))
    data = DataConfig(sources=tuple(sources), split="hash:0.2", deduplicate=False)
    return build_dataset(data, TokenizerConfig(kind="byte"), base=folder, folder=folder / "dataset")


@pytest.fixture(scope="module")
def model():
    shape = ModelShape(arch="llama", vocab_size=257, context=16, layers=1, width=16, heads=2, kv_heads=2, hidden=32)
    return build_model(shape, seed=1)


def measure(model, dataset, **changes):
    evaluation = Evaluation(model, dataset, **{"max_tokens": 0, "batch": 3, "loss_chunk_tokens": 16, **changes})
    for _ in evaluation.batches():
        pass
    return evaluation.losses


def plainly(model, dataset, name):
    """Every token but the first, each predicted within its window."""
    stream = dataset.stream(name, "val")
    ids = torch.from_numpy(stream.read(0, len(stream)).astype(np.int64))
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(ids) - 1, 16):
            window = ids[start : start + 17]
            logits = model.logits(model(window[None, :-1]))[0]
            total += F.cross_entropy(logits, window[1:], reduction="sum").item()
    real = [token for token in ids[1:].tolist() if token != dataset.tokenizer().eot_id]
    return total, len(ids) - 1, len(real)


def test_losses_equal_a_plain_computation_over_all_tokens(model, dataset):
    losses = measure(model, dataset)
    assert set(losses) == {"short", "long"}
    for name, loss in losses.items():
        total, tokens, size = plainly(model, dataset, name)
        assert loss.tokens == tokens
        assert loss.bytes == size  # the byte tokenizer: one byte a token
        assert loss.nats == pytest.approx(total / tokens, rel=1e-5)
        assert loss.bits_per_byte == pytest.approx(total / math.log(2) / size, rel=1e-5)
        assert loss.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-4)


def test_batch_size_does_not_matter_and_the_mode_is_evaluation(model, dataset):
    model.train()
    first, second = (measure(model, dataset, batch=size) for size in (1, 7))
    assert first["long"].nats == pytest.approx(second["long"].nats, rel=1e-6)


def test_a_limit_takes_evenly_spread_windows(model, dataset):
    limited = measure(model, dataset, max_tokens=64)
    assert all(48 < loss.tokens <= 64 for loss in limited.values())
    assert measure(model, dataset, max_tokens=64) == limited


def test_mixed_loss_weighs_each_source_equally_unless_told():
    losses = {"a": SourceLoss(nats=1.0, tokens=10, bytes=10), "b": SourceLoss(nats=4.0, tokens=1000, bytes=10)}
    assert mixed_loss(losses) == 2.5
    assert mixed_loss(losses, {"a": 3.0, "b": 1.0}) == pytest.approx(1.75)
    assert mixed_loss({}) is None


def test_unigram_loss_by_hand():
    counts = np.array([2, 0, 1], np.int64)  # add one: 3, 1, 2 of 6
    expected = -(math.log(3 / 6) + math.log(1 / 6)) / 2
    assert unigram_nats(counts, np.array([0, 1])) == pytest.approx(expected)


def test_baselines_compress_the_same_text(dataset):
    known = baselines(dataset)
    stream = dataset.stream("long", "val")
    ids = [int(t) for t in stream.read(0, len(stream)) if t != dataset.tokenizer().eot_id]
    text = bytes(ids)
    assert known["long"].bytes == len(text)
    assert known["long"].zlib_bits_per_byte == pytest.approx(8 * len(zlib.compress(text, 9)) / len(text))
    assert 1.0 < known["long"].unigram_nats < math.log(257)
