"""Compiled blocks: where they are refused, what their cache goes by, what a failing compiler does, and exactness."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.errors import DeviceError, UsageError
from ondevice.model import safetensors
from ondevice.model.build import build_model
from ondevice.run.config import parse_config
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train import checkpoint, compiler
from ondevice.train.compiler import Compiler, cache_folder, check_compile, no_compiler
from ondevice.train.engine import Engine
from ondevice.train.fitting import ways
from ondevice.train.fork import ForkWish, fork_run, plan_fork
from ondevice.train.launch import launch
from ondevice.train.memory import estimate_run
from ondevice.train.optimizer import optimizer_of
from ondevice.train.probe import time_gradients
from ondevice.train.refit import smaller
from ondevice.train.replay import replay
from tests.displays import Crash, DiesAt, Silent

SHAPE = ModelShape(arch="llama", vocab_size=64, context=32, layers=2, width=32, heads=2, kv_heads=2, hidden=48)
FIT = Fit(micro_batch=2, threads=1, activation_checkpointing=False, loss_chunk_tokens=64)
TINY = ("eval.max_tokens=64", "sample.count=0", "train.steps=6", "eval.count=3", "limits.save_every_steps=3")
PHONE = {"ANDROID_ROOT": "/system", "ANDROID_DATA": "/data"}


def wish(*changes):
    return parse_config("", where="x.toml", base=Path(), changes=["train.compile=true", *changes])


@pytest.fixture
def with_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


def called(monkeypatch, version):
    for module in (compiler, checkpoint):
        monkeypatch.setattr(module, "compiler_version", lambda: version)


@pytest.fixture
def interpreted(monkeypatch):
    """The compiler's way through a run, without its time: what would be compiled is called as it is."""
    monkeypatch.setattr(compiler, "_compiled_pass", lambda: compiler._through)
    called(monkeypatch, "g++ 12")
    monkeypatch.setattr(compiler, "no_compiler", lambda: "")


def test_a_phone_and_a_machine_without_a_compiler_say_so(monkeypatch, with_compiler):
    check_compile(wish(), examples=False)
    with monkeypatch.context() as phone, pytest.raises(DeviceError, match=r"^'train\.compile' is set, and .*Termux.*;"):
        for name, value in PHONE.items():
            phone.setenv(name, value)
        check_compile(wish(), examples=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match=r"this machine has no C\+\+ compiler \((g|clang)\+\+\); leave it out\.$"):
        check_compile(wish(), examples=False)
    monkeypatch.setenv("CXX", "my-compiler")
    assert "my-compiler" in no_compiler()
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert no_compiler() == "TORCHDYNAMO_DISABLE=1 turns torch's compiler off"
    check_compile(parse_config("", where="x", base=Path()), examples=False)


@pytest.mark.parametrize(
    "key", ["train.top_layers=1", 'train.weights="bf16"', "fit.layerwise=true", 'adapter.method="lora"']
)
def test_what_has_no_plain_step_is_refused(with_compiler, key):
    with pytest.raises(UsageError, match=f"does not go with '{key.partition('=')[0]}'; leave it out"):
        check_compile(wish(key), examples=False)
    with pytest.raises(UsageError, match="does not go with data with examples"):
        check_compile(wish(), examples=True)


def test_the_cache_goes_by_code_torch_compiler_processor_and_shape(tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "compiler_version", lambda: "g++ 12")
    first = cache_folder(SHAPE, 1)
    folders = [first, cache_folder(dataclasses.replace(SHAPE, layers=3), 1), cache_folder(SHAPE, 2)]
    assert first == cache_folder(SHAPE, 1) and first.parent == tmp_path / "compiled"
    for where, name, value in (
        (torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT"),
        (torch, "__version__", "0.0"),
        (compiler.ondevice, "__version__", "0.0"),
        (compiler, "_processor_flags", lambda: "flags : none"),
        (compiler, "compiler_version", lambda: "g++ 13"),
    ):
        monkeypatch.setattr(where, name, value)
        folders.append(cache_folder(SHAPE, 1))
    assert len(set(folders)) == 8


def test_what_a_compilation_left_that_was_cut_off_is_thrown_away(tmp_path):
    folder = tmp_path / "compiled" / "a"
    with pytest.raises(Crash), compiler._cache(folder):
        (folder / "half.so").write_bytes(b"half")
        raise Crash
    assert (folder / "half.so").exists()
    with compiler._cache(folder):
        assert not (folder / "half.so").exists() and os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
        (folder / "all.so").write_bytes(b"all")
    with compiler._cache(folder):
        assert (folder / "all.so").exists()


def test_the_fits_of_compiled_runs_are_plain_or_recomputing(interpreted, make):
    fits = [way.fit for way in ways(wish('train.optimizer="adamw"'), SHAPE, batch=4, threads=1)]
    assert {fit.layerwise for fit in fits} == {False} and {fit.activation_checkpointing for fit in fits} == {
        False,
        True,
    }
    recipe = make(*TINY, 'train.optimizer="adamw"', "train.compile=true").read_recipe()
    plain = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compile=False))
    assert estimate_run(recipe, FIT).total_mb > estimate_run(plain, FIT).total_mb + 100
    least = smaller(dataclasses.replace(FIT, micro_batch=1), recipe, limit_mb=1.0)
    assert least.activation_checkpointing and not least.layerwise


def test_a_recipe_of_an_earlier_version_was_not_compiled(make):
    recipe = dataclasses.replace(make(*TINY).read_recipe(), v=7)
    raw = recipe.to_json()
    del raw["train"]["compile"]
    assert type(recipe).from_json(raw, where="r") == recipe
    compiled = dataclasses.replace(recipe, v=8, train=dataclasses.replace(recipe.train, compile=True))
    assert compiled.sha256 != dataclasses.replace(recipe, v=8).sha256


class Blocks(Counter):
    """Counts what goes through the compiled pass."""

    def __call__(self, block, x_BTC, place):
        self[block.training, torch.is_grad_enabled(), tuple(x_BTC.shape)] += 1
        return block(x_BTC, place)


def test_only_steps_go_through_the_compiled_pass(interpreted, monkeypatch, make):
    seen, how = Blocks(), (*TINY, "sample.count=2", "fit.activation_checkpointing=true")
    monkeypatch.setattr(compiler, "_compiled_pass", lambda: seen)
    runs = [make(*how, "train.compile=true"), make(*how, name="plain")]
    for run in runs:
        display = Silent()
        assert launch(run, display=display).outcome == "finished"
        notes = [record for record in read_records(run.telemetry) if "compile_s" in record]
        assert len(notes) == (run is runs[0]) and (notes == [] or notes[0]["text"] in display.said)
    assert equal(*runs)
    blocks = 2  # and once more to compile, one of them; pieces of 4 and 2 rows, each forward twice
    assert seen == {(True, again, (rows, 32, 32)): 6 * blocks + 1 for rows in (4, 2) for again in (False, True)}
    facts = [Store(run.checkpoints).open(6).facts for run in runs]
    assert facts[0]["compiler"] == "g++ 12" and "compiler" not in facts[1]


def test_a_run_never_goes_on_plainly_by_itself(interpreted, monkeypatch, make):
    run = make(*TINY, "train.compile=true")
    die(run)
    with monkeypatch.context() as without:
        without.setattr(compiler, "no_compiler", lambda: "this machine has no C++ compiler (g++)")
        with pytest.raises(DeviceError) as caught:
            launch(run, display=Silent())
        assert str(caught.value) == (
            "tiny: trains with 'train.compile', and this machine has no C++ compiler (g++); train it where torch "
            "can compile, or go on without, as a child run: `ondevice fork tiny --set train.compile=false`."
        )
        child = fork_run(plan_fork(run, Store(run.checkpoints).open(3), ForkWish(changes=["train.compile=false"])))
        assert launch(child, display=Silent()).outcome == "finished"

    def fails(*args):
        raise RuntimeError("C++ compile error\nfoo.cpp:3: fatal error: Python.h: No such file or directory\nmore")

    monkeypatch.setattr(compiler, "_compiled_pass", lambda: fails)
    with pytest.raises(DeviceError, match=r"could not be compiled \(foo\.cpp:3: fatal error: Python\.h: No such file"):
        launch(run, display=Silent())
    ends = [record for record in read_records(run.telemetry) if record["kind"] == "end"]
    assert ends[-1]["outcome"] == "failed" and "Python.h" in ends[-1]["why"]


def test_another_compiler_is_named_where_exactness_ends(interpreted, monkeypatch, make):
    run = make(*TINY, "train.compile=true")
    die(run)
    called(monkeypatch, "g++ 13")
    assert launch(run, display=Silent()).outcome == "finished"
    launches = [record for record in read_records(run.telemetry) if record["kind"] == "launch"]
    assert launches[1]["inexact"] == ["compiler: g++ 12 -> g++ 13"]


def die(run):
    """A launch that is killed after the checkpoint of step 3."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr("ondevice.train.pulse.STATUS_EVERY_S", 0.0)
        launch(run, display=DiesAt(4))


def tensors(run, name):
    with safetensors.open_file(Store(run.checkpoints).open(6).path / f"{name}.safetensors") as file:
        return {key: file.tensor(key).clone() for key in file.names}


def equal(one, other):
    return all(
        torch.equal(each, tensors(other, file)[name])
        for file in ("model", "optimizer")
        for name, each in tensors(one, file).items()
    )


needs_compiler = pytest.mark.skipif(bool(no_compiler()), reason="no C++ compiler")


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("how", ["llama", "gpt2", "recomputed", "bf16"])
def test_a_compiled_run_resumes_to_the_bit_and_learns_what_a_plain_one_does(make, how):
    changes = {
        "llama": ("model.dropout=0.1",),
        "gpt2": ('model.arch="gpt2"', "model.dropout=0.1", 'train.optimizer="adamw"'),
        "recomputed": ("fit.activation_checkpointing=true", "model.dropout=0.1"),
        "bf16": ('train.precision="bf16"',),
    }[how]
    runs = [make(*TINY, *changes, "train.compile=true", name=name) for name in ("straight", "killed")]
    die(runs[1])
    for run in runs:
        assert launch(run, display=Silent()).outcome == "finished"
    assert equal(*runs)
    assert replay(runs[0]).identical
    notes = [record for run in runs for record in read_records(run.telemetry) if "compile_s" in record]
    assert len(notes) == 3 and all(note["compile_s"] > 0 for note in notes)
    plain = make(*TINY, *changes, name="plain")
    launch(plain, display=Silent())
    losses = [[r["loss"] for r in read_records(run.telemetry) if r["kind"] == "step"] for run in (runs[0], plain)]
    np.testing.assert_allclose(*losses, rtol=0.02)  # dropout draws in another order


@pytest.fixture
def pair(home):
    """``pair(shape, fit)`` -> an engine that is compiled and one that is not, of the same weights."""

    def build(shape, fit):
        engines = []
        for compiled in (True, False):
            model = build_model(shape, seed=3)
            settings = {"lr": 1e-4, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
            engine = Engine(
                model, optimizer_of("adamw", model, **settings), clip=1.0, precision="fp32", loss_chunk_tokens=64
            )
            engine._compiler = Compiler(model, batch=3, precision="fp32") if compiled else None
            engine.use(fit)
            engines.append(engine)
        return engines

    return build


def graph_count():
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def gradients(engine, shape):
    """Of three rows, two and one at a time."""
    ids = np.random.default_rng(1).integers(0, shape.vocab_size, (3, shape.context + 1))
    x_BT, y_BT = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    torch.manual_seed(4)
    engine.begin(y_BT)
    for piece in (slice(0, 2), slice(2, 3)):
        engine.accumulate(x_BT[piece], y_BT[piece])
    return {name: p.grad.clone() for name, p in engine.model.named_parameters()}


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_compiled_gradients_are_the_plain_ones_and_nothing_is_compiled_later(pair, arch):
    shape = dataclasses.replace(SHAPE, arch=arch, width=384, hidden=1024, heads=4, kv_heads=4, context=128)  # large
    before = torch.get_rng_state()
    compiled, plain = pair(shape, FIT)
    assert torch.equal(before, torch.get_rng_state())
    graphs = graph_count()
    found, wanted = gradients(compiled, shape), gradients(plain, shape)
    for name, each in found.items():
        torch.testing.assert_close(each, wanted[name], atol=1e-6, rtol=1e-3)
    compiled.abort()
    time_gradients(compiled, shape, rows=1)
    compiled.model.eval()
    compiled.model(torch.zeros(1, 5, dtype=torch.int64))
    assert graph_count() == graphs


@pytest.mark.slow
@needs_compiler
def test_blocks_that_are_recomputed_draw_the_masks_of_dropout_alike(pair):
    shape = dataclasses.replace(SHAPE, dropout=0.3)
    kept, _ = pair(shape, FIT)
    wanted = gradients(kept, shape)
    recomputed, _ = pair(shape, dataclasses.replace(FIT, activation_checkpointing=True))
    graphs = graph_count()
    for name, each in gradients(recomputed, shape).items():
        torch.testing.assert_close(each, wanted[name], atol=1e-6, rtol=1e-3)
    assert graph_count() == graphs
