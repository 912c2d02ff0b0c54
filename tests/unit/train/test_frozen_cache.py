"""What frozen blocks give is kept on the disk: the same bits as without it, after a kill and with a torn file too."""

import dataclasses
import json
import shutil
from collections import namedtuple
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.errors import UsageError
from ondevice.model.build import build_model
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import write
from ondevice.model.top_layers import freeze_below
from ondevice.run.config import parse_config
from ondevice.run.files import write_json
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.store import Store
from ondevice.run.verify_present import strange
from ondevice.train import frozen_cache as kept
from ondevice.train.below import Below, Row
from ondevice.train.caching import check_cache, plan_cache, told_cache
from ondevice.train.engine import Engine
from ondevice.train.frozen_cache import FrozenCache
from ondevice.train.launch import launch
from ondevice.train.optimizer import optimizer_of
from ondevice.train.prepare import make_run, prepare
from ondevice.train.wish import make_dataset
from tests.displays import Crash, DiesAt, Silent

SHAPE = ModelShape(
    arch="llama", vocab_size=257, context=96, layers=3, width=32, heads=4, kv_heads=2, hidden=48, tied=False
)
TINY = """
[data]
split = "hash:0.1"
[[data.sources]]
path = "rows.jsonl"
[model]
context = 96
[train]
optimizer = "adamw"
top_layers = 1
epochs = 2
batch = 4
lr = 3e-3
precision = "fp32"
[eval]
count = 0
[sample]
count = 0
[fit]
micro_batch = 2
threads = 1
[limits]
min_free_disk_mb = 0
save_every_steps = 3
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """``make("fit.frozen_cache=true", name="x")`` -> a run of examples of which the last block learns."""
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    base = tmp_path / "base"
    save_tokenizer(ByteTokenizer(), base)
    write(base / "model.safetensors", to_hugging_face(SHAPE, build_model(SHAPE, seed=7).state_dict()), {"format": "pt"})
    write_json(base / "config.json", hugging_face_config(SHAPE))
    rows = [{"instruction": "Count", "input": "ab"[i % 2] * i, "output": str(i)} for i in range(1, 31)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(*changes, name):
        config = parse_config(TINY, where="tiny.toml", base=tmp_path, changes=[f"model.base={base}", *changes])
        config = dataclasses.replace(config, name=name)
        dataset = make_dataset(config)
        return make_run(config, prepare(config, dataset, cores=1, android=False, rate=1000.0), dataset)

    return build


def weights(run):
    files = Store(run.checkpoints).latest(complete=True)[0].files
    return [files[name]["sha256"] for name in ("model.safetensors", "optimizer.safetensors")]


def test_a_run_with_its_cache_learns_the_same_bits_after_a_kill_too(make, monkeypatch):
    plain, killed = make(name="plain"), make("fit.frozen_cache=true", name="killed")
    read, real = [], FrozenCache.read
    monkeypatch.setattr(FrozenCache, "read", lambda *args: [real(*args), read.append(args[1])][0])
    launch(plain, display=Silent())
    assert read == [] and "off; with true up to" in plain.read_recipe().why["fit.frozen_cache"]
    with pytest.raises(Crash):
        launch(killed, display=DiesAt(5))
    assert (killed.path / "cache" / "frozen.bin").stat().st_size > 0 and not list(strange(killed))
    with open(killed.path / "cache" / "frozen.bin", "r+b") as file:  # a page that never reached the disk
        file.seek(40)
        file.write(bytes(64))
    launch(killed, display=Silent())
    assert len(read) > len(set(read)) > 3 and not (killed.path / "cache").exists()
    assert weights(plain) == weights(killed)


@pytest.mark.parametrize("layerwise", [False, True])
def test_a_step_from_the_cache_is_a_step_without_it(tmp_path, layerwise):
    fit = Fit(micro_batch=2, threads=1, activation_checkpointing=False, loss_chunk_tokens=16, layerwise=layerwise)
    rows, ids = (Row(0, (7, 13)), Row(1, (40,))), np.random.default_rng(0).integers(0, 257, (1, 61))
    x, y = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    found = []
    with closing(FrozenCache(tmp_path, {}, rows=2, tokens=64, width=32, room_mb=1.0)) as kept_states:
        for cached in (None, kept_states, kept_states):
            model = build_model(SHAPE, seed=1)
            freeze_below(model, 1)
            how = {"lr": 1e-2, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
            engine = Engine(
                model, optimizer_of("adamw", model, **how), clip=0.5, precision="fp32", loss_chunk_tokens=16
            )
            engine.use(fit)
            engine.below.cache = cached
            engine.begin(y)
            engine.accumulate(x, y, (7, 13, 40), rows)
            found.append((engine.update(1e-2), [p.detach().clone() for p in model.parameters()]))
        assert (kept_states.written_rows, kept_states.read_rows) == (2, 2)
    for result, parameters in found[1:]:
        assert result == found[0][0]
        assert all(torch.equal(one, other) for one, other in zip(parameters, found[0][1], strict=True))


@pytest.fixture
def cache():
    """``cache(folder, key="a")`` -> six places of 8 tokens x 4."""
    opened = []

    def make(folder, *, key="a", rows=6, room_mb=1.0, **more):
        opened.append(FrozenCache(folder, {"recipe": key}, rows=rows, tokens=8, width=4, room_mb=room_mb, **more))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_rows_come_back_and_no_other_ones(tmp_path, cache):
    states = torch.randn(6, 8, 4)
    one = cache(tmp_path / "c")
    for row in (0, 5, 3):
        one.write(row, states[row, : 8 - row])
    one.close()
    again = cache(tmp_path / "c")
    assert all(torch.equal(again.read(row, 8 - row), states[row, : 8 - row]) for row in (0, 3, 5))
    assert again.read(3, 8) is None and again.read(1, 8) is None and again.read(6, 8) is None
    assert (again.read_rows, again.written_rows) == (3, 0)
    other = cache(tmp_path / "c", key="b")
    assert other.read(0, 8) is None
    other.remove()
    assert not (tmp_path / "c").exists() and other.read(0, 8) is None
    other.write(0, states[0])


@pytest.mark.parametrize("name", ["frozen.bin", "frozen.index", "frozen.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "swap"])
def test_torn_files_are_noticed(tmp_path, cache, name, harm):
    states = torch.randn(6, 8, 4)
    one, path = cache(tmp_path), tmp_path / name
    for row in range(6):
        one.write(row, states[row])
    one.close()
    data = bytearray(path.read_bytes())
    if harm == "swap":  # two rows, each whole, in the other's place
        size = len(data) // 6
        data[:size], data[size : 2 * size] = data[size : 2 * size], data[:size]
    elif harm == "flip":
        data[len(data) // 2] ^= 4
    path.write_bytes(data[: len(data) // 2] if harm == "cut" else data)
    again = cache(tmp_path)
    found = [again.read(row, 8) for row in range(6)]
    assert any(each is None for each in found)
    assert all(each is None or torch.equal(each, states[row]) for row, each in enumerate(found))
    again.write(1, states[1])
    assert torch.equal(again.read(1, 8), states[1])


def test_the_disk_bounds_it(tmp_path, cache, monkeypatch):
    slot_mb = 8 * 4 * 4 / 2**20
    part = cache(tmp_path / "part", room_mb=2.5 * slot_mb)
    assert part.places == 2 and cache(tmp_path / "none", room_mb=-5.0).places == 0
    assert not (tmp_path / "none").exists()
    part.write(2, torch.zeros(8, 4))
    assert part.read(2, 8) is None
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(kept, "shutil", SimpleNamespace(disk_usage=lambda _: usage(10, 9, 1), rmtree=shutil.rmtree))
    part.write(1, torch.zeros(8, 4))
    assert part.read(1, 8) is None and part.written_rows == 0


def test_a_full_disk_ends_nothing(tmp_path, cache):
    one = cache(tmp_path)
    one._data.close()
    one._data = open(tmp_path / "frozen.bin", "rb", buffering=0)  # noqa: SIM115 - every write fails from here on
    one.write(0, torch.zeros(8, 4))
    assert one.read(0, 8) is None and one.written_rows == 0
    one.close()


def test_states_of_a_row_do_not_depend_on_its_neighbours():
    model = build_model(SHAPE, seed=1)
    assert Below.of(model) is None
    freeze_below(model, 1)
    below, ids = Below.of(model), torch.randint(257, (1, 60))
    rows = (Row(0, (7, 13)), Row(1, (40,)))
    together = below.entering(ids, rows)
    assert together.block == below.count == 2 and not together.x_BTC.requires_grad
    apart = [below.entering(part, (row,)).x_BTC for part, row in zip(ids.split([20, 40], dim=1), rows, strict=True)]
    assert torch.equal(together.x_BTC, torch.cat(apart, dim=1))
    want = model(ids, lengths=(7, 13, 40))
    assert torch.allclose(model(ids, lengths=(7, 13, 40), entering=together), want, atol=1e-5)


def test_where_training_draws_or_nothing_is_frozen_there_is_none():
    drawing = build_model(dataclasses.replace(SHAPE, dropout=0.1), seed=1)
    freeze_below(drawing, 1)
    all_blocks = build_model(SHAPE, seed=1)
    freeze_below(all_blocks, 3)
    assert Below.of(drawing) is None and Below.of(all_blocks) is None


@pytest.mark.parametrize(
    ("changes", "packed", "says"),
    [
        (["fit.frozen_cache=true"], True, "blocks below train.top_layers give; give that too"),
        (["fit.frozen_cache=true", "train.top_layers=1"], False, "is for examples: every pass over plain text"),
        (["fit.frozen_cache=true", "train.top_layers=1", "model.dropout=0.1"], True, "blocks that draw nothing"),
    ],
)
def test_a_cache_of_nothing_is_refused(tmp_path, changes, packed, says):
    config = parse_config("", where="x.toml", base=tmp_path, changes=changes)
    with pytest.raises(UsageError, match=says):
        check_cache(config, packed=packed)
    check_cache(parse_config("", where="x.toml", base=tmp_path), packed=packed)


def test_the_plan_says_what_it_takes_and_whether_it_pays():
    fit = Fit(micro_batch=2, threads=1, activation_checkpointing=False, loss_chunk_tokens=64)
    shape = dataclasses.replace(SHAPE, layers=12, width=768, hidden=2048, context=256)
    train = SimpleNamespace(top_layers=2, planned_steps=300, batch=4)
    recipe = SimpleNamespace(model=shape, trained=shape, train=train)
    plan = plan_cache(recipe, fit, rows=400)
    assert plan.size_mb == 400 * 256 * 768 * 4 / 2**20 and plan.passes == 3.0
    assert 0.3 < plan.spared < 0.67  # two thirds of what blocks below take, which is most of a step
    assert told_cache(plan, wished=False).startswith("off; with true up to 300 MB")
    once = plan_cache(recipe, fit, rows=1200)
    assert once.spared == 0.0 and told_cache(once, wished=True).startswith("does not pay")
    train.top_layers = 12
    assert plan_cache(recipe, fit, rows=400) is None
