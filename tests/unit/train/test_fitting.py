"""Every way to cut the work, and the cheapest in time that fits."""

from dataclasses import replace

import pytest

from ondevice.errors import ResourceError
from ondevice.run.config import parse_config
from ondevice.run.recipe import Fit, ModelShape
from ondevice.train.fitting import choose_fit, fastest, frontier, time_of, ways
from ondevice.train.memory import estimate_memory
from ondevice.train.sizing import Machine

GPT2 = ModelShape(arch="gpt2", vocab_size=50257, context=256, layers=12, width=768, heads=12, kv_heads=12, hidden=3072)
LEAN = ("train.optimizer=adamw", "train.optimizer_state=int8")


def wish(tmp_path, *changes):
    text = '[model]\nbase = "x"\n[[data.sources]]\npath = "x.txt"\n'
    return parse_config(text, where="x.toml", base=tmp_path, changes=changes)


def chosen(config, memory_mb, batch=4):
    return choose_fit(config, GPT2, Machine(flops_s=1e9, memory_mb=memory_mb, cores=2), batch=batch, why={})


def test_less_memory_costs_more_time_and_never_less(tmp_path):
    known = ways(wish(tmp_path, *LEAN), GPT2, batch=4, threads=2)
    times = [fastest(known, memory_mb).time for memory_mb in range(1350, 3000, 50)]
    assert times == sorted(times, reverse=True) and times[-1] == 1.0 < 1.5 < times[0]
    best = frontier(known)
    assert [way.time for way in best] == sorted(way.time for way in best)
    assert [way.memory.total_mb for way in best] == sorted((way.memory.total_mb for way in best), reverse=True)


def test_what_is_taken_fits_and_nothing_quicker_does(tmp_path):
    config = wish(tmp_path, *LEAN)
    for memory_mb in (1350, 1434, 1600, 1800, 2200, 2600):
        fit = chosen(config, memory_mb)
        assert estimate_memory(GPT2, fit, optimizer="adamw-int8", batch=4).total_mb <= memory_mb
        known = ways(config, GPT2, batch=4, threads=2)
        mine = next(way for way in known if way.fit == fit)
        assert not [way for way in known if way.time < mine.time - 1e-6 and way.memory.total_mb <= memory_mb]


def test_plenty_of_memory_takes_the_plainest(tmp_path):
    assert chosen(wish(tmp_path, *LEAN), 4000) == Fit(
        micro_batch=4, threads=2, activation_checkpointing=False, loss_chunk_tokens=512
    )


@pytest.mark.parametrize(("changes", "repeats"), [((), True), (("train.clip=0",), False)])
def test_gradients_are_computed_twice_only_where_a_norm_is_waited_for(tmp_path, changes, repeats):
    known = ways(wish(tmp_path, *LEAN, *changes), GPT2, batch=4, threads=2)
    assert any(way.fit.repeated_blocks for way in known) == repeats
    assert min(way.memory.total_mb for way in known) < 1350
    tensor = ways(wish(tmp_path, *LEAN, "train.clip_scope=tensor"), GPT2, batch=4, threads=2)
    assert not any(way.fit.repeated_blocks for way in tensor)


def test_what_the_config_fixes_stays(tmp_path):
    fit = chosen(wish(tmp_path, *LEAN, "fit.layerwise=true", "fit.kept_blocks=2", "fit.repeated_blocks=5"), 3000)
    assert (fit.layerwise, fit.kept_blocks, fit.repeated_blocks) == (True, 2, 5)
    plain = ways(wish(tmp_path, *LEAN, "fit.layerwise=false"), GPT2, batch=4, threads=2)
    assert not any(way.fit.layerwise for way in plain)
    with_muon = ways(wish(tmp_path), GPT2, batch=4, threads=2)
    assert not any(way.fit.layerwise for way in with_muon)


def test_too_little_for_anything_says_what_would_fit(tmp_path):
    with pytest.raises(
        ResourceError, match=r"model\.vocabulary \(trimmed\) or train\.optimizer_state \(int8\) smaller"
    ):
        chosen(wish(tmp_path, "train.optimizer=adamw"), 1000)


def test_time_counts_what_is_computed_twice():
    plain = Fit(micro_batch=4, threads=1, activation_checkpointing=False, loss_chunk_tokens=512)
    again = replace(plain, activation_checkpointing=True)
    whole = replace(plain, layerwise=True, kept_blocks=12)
    twice = replace(plain, layerwise=True, kept_blocks=12, repeated_blocks=12)
    times = [time_of(fit, GPT2, start=4, chunk=512) for fit in (plain, again, whole, twice)]
    # Blocks are 85 of the 124 million multiplications of a token, a forward pass a third of a step.
    assert times == pytest.approx([1.0, 1 + 85 / 124 / 3, 1.03, 1.03 + 85 / 124], abs=0.01)
