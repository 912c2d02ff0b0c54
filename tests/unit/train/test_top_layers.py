"""Only the last blocks learn: nothing is computed for the others, nothing of them changes, and a run stays exact."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.errors import ResourceError, UsageError
from ondevice.infer.open import load_decoder
from ondevice.model.build import build_model
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import open_file, write
from ondevice.model.top_layers import freeze_below
from ondevice.run.config import parse_config
from ondevice.run.files import write_json
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.store import Store
from ondevice.train.engine import Engine
from ondevice.train.fitting import choose_fit, fastest, ways
from ondevice.train.fork import ForkWish, fork_run, plan_fork
from ondevice.train.launch import launch
from ondevice.train.memory import estimate_memory
from ondevice.train.memory_layerwise import BlockFloats
from ondevice.train.optimizer import optimizer_of, state_tensors
from ondevice.train.sizing import Machine
from tests.displays import Silent

COMMON = {"vocab_size": 300, "context": 16, "layers": 4, "width": 32, "heads": 4, "hidden": 48}
LLAMA = ModelShape(arch="llama", kv_heads=2, qkv_bias=True, **COMMON)
GPT2 = ModelShape(arch="gpt2", kv_heads=4, tied=False, **COMMON)
PLAIN = Fit(micro_batch=4, threads=1, activation_checkpointing=False, loss_chunk_tokens=24)
HOW = {"lr": 1e-2, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
FITS = [
    replace(PLAIN, activation_checkpointing=True),
    replace(PLAIN, layerwise=True),
    replace(PLAIN, layerwise=True, kept_blocks=1, repeated_blocks=1),
    replace(PLAIN, layerwise=True, kept_blocks=4, repeated_blocks=4),
]


def engine(shape, fit, *, top_layers=2, optimizer="adamw", clip=0.5):
    model = build_model(shape, seed=3)
    if top_layers is not None:
        freeze_below(model, top_layers)
    e = Engine(model, optimizer_of(optimizer, model, **HOW), clip=clip, precision="fp32", loss_chunk_tokens=24)
    e.use(fit)
    return e


def step(e, seed=0):
    ids = np.random.default_rng(seed).integers(0, 300, (2, 17))
    x, y = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    e.begin(y)
    e.accumulate(x, y)
    return e.update(1e-2)


def learns(name, shape, top_layers=2):
    if name.startswith("blocks."):
        return int(name.split(".")[1]) >= shape.layers - top_layers
    return name.startswith(("norm.", "head."))


@pytest.mark.parametrize("shape", [LLAMA, GPT2, replace(GPT2, tied=True, dropout=0.2)])
@pytest.mark.parametrize("fit", FITS)
def test_every_fit_learns_the_same_bits_and_the_rest_stays(shape, fit):
    before = dict(build_model(shape, seed=3).named_parameters())
    engines, results = [engine(shape, PLAIN), engine(shape, fit)], []
    for each in engines:
        torch.manual_seed(4)
        results.append([step(each, seed) for seed in range(2)])
    assert results[0] == results[1]
    one, other = (dict(each.model.named_parameters()) for each in engines)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], before[name])} == {
        name for name in one if learns(name, shape)
    }


@pytest.mark.parametrize("shape", [LLAMA, GPT2])
def test_what_learns_has_the_gradients_of_the_whole_model(shape):
    whole, part = engine(shape, PLAIN, top_layers=None, clip=0.0), engine(shape, PLAIN, clip=0.0)
    for each in (whole, part):
        step(each)
    grads = {name: p.grad for name, p in whole.model.named_parameters()}
    for name, parameter in part.model.named_parameters():
        assert (parameter.grad is not None) == learns(name, shape)
        assert parameter.grad is None or torch.equal(parameter.grad, grads[name])


@pytest.mark.parametrize("fit", [PLAIN, *FITS])
def test_nothing_is_computed_twice_or_kept_below(fit):
    e, calls = engine(LLAMA, fit), [0] * 4
    for number, block in enumerate(e.model.blocks):
        block.register_forward_hook(lambda *_, number=number: calls.__setitem__(number, calls[number] + 1))
    below = {id(p) for block in e.model.blocks[:2] for p in block.parameters()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(id(t)) or t, lambda t: t):
        step(e)
    assert calls[:2] == [1, 1] and min(calls[2:]) >= 1
    assert not below & set(kept)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw-int8", "muon"])
def test_only_what_learns_has_a_state(optimizer):
    e = engine(LLAMA, PLAIN, optimizer=optimizer)
    step(e)
    named = {name.partition(".")[2] for name in state_tensors(e.model, e.optimizer)}
    assert named == {name for name, _ in e.model.named_parameters() if learns(name, LLAMA)}


@pytest.mark.parametrize("shape", [LLAMA, GPT2])
@pytest.mark.parametrize("fit", [PLAIN, FITS[0]])
def test_the_estimate_counts_what_learns(shape, fit):
    shape = replace(shape, context=64, width=128, hidden=320, layers=6)
    e = engine(shape, fit)
    expected = estimate_memory(shape, replace(fit, micro_batch=2), optimizer="adamw", top_layers=2)
    learned = sum(p.numel() for p in e.model.parameters() if p.requires_grad)
    assert expected.gradients_mb * 2**20 == 4 * learned and expected.optimizer_mb == 2 * expected.gradients_mb
    assert expected.weights_mb * 2**20 == 4 * sum(p.numel() for p in e.model.parameters())
    if fit.activation_checkpointing:
        return
    kept, mine = {}, {p.untyped_storage().data_ptr() for p in e.model.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine and tensor.is_floating_point():
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = e.model(torch.randint(300, (2, 64)))
    held_mb = (sum(size for size, _ in kept.values()) + hidden.untyped_storage().nbytes()) / 2**20
    inner_mb = 2 * 64 * BlockFloats.of(shape).inner * 4 / 2**20  # the last block goes back beside all that is kept
    assert expected.activations_mb == pytest.approx(held_mb + inner_mb, rel=0.1)


def wish(tmp_path, *changes):
    text = '[model]\nbase = "x"\n[train]\noptimizer = "adamw"\n[[data.sources]]\npath = "x.txt"\n'
    return parse_config(text, where="x.toml", base=tmp_path, changes=changes)


def test_the_plan_knows_that_less_learns(tmp_path):
    shape = replace(GPT2, vocab_size=50_257, context=256, layers=12, width=768, heads=12, kv_heads=12, hidden=3072)
    machine = Machine(flops_s=1e9, memory_mb=1500.0, cores=2)
    with pytest.raises(
        ResourceError, match=r"make train\.top_layers, model\.context, model\.vocabulary \(trimmed\) or"
    ):
        choose_fit(wish(tmp_path), shape, machine, batch=4, why={})
    shape = replace(shape, tied=True)
    config = wish(tmp_path, "train.top_layers=2")
    assert choose_fit(config, shape, machine, batch=4, why={}).micro_batch == 4
    known = ways(config, shape, batch=4, threads=2)
    assert max(max(way.fit.kept_blocks, way.fit.repeated_blocks) for way in known) == 2
    whole = ways(wish(tmp_path), shape, batch=4, threads=2)
    assert fastest(known, 9e9).time < 0.7 * fastest(whole, 9e9).time
    assert min(way.memory.total_mb for way in known) < min(way.memory.total_mb for way in whole) - 500


@pytest.fixture
def base(tmp_path):
    shape = replace(LLAMA, context=64)
    folder = tmp_path / "base"
    save_tokenizer(ByteTokenizer(), folder)
    write(
        folder / "model.safetensors", to_hugging_face(shape, build_model(shape, seed=77).state_dict()), {"format": "pt"}
    )
    write_json(folder / "config.json", hugging_face_config(shape))
    return folder


@pytest.fixture
def tuned(make, base):
    def build(*changes, name="tuned"):
        sizes = [f"model.base={base}", "model.layers=4", "model.width=32", "model.heads=4", "sample.count=0"]
        few = ["eval.count=0", "train.steps=6", "train.batch=2", "fit.micro_batch=2", "limits.save_every_steps=3"]
        return make(*sizes, *few, "train.top_layers=2", *changes, name=name)

    return build


def saved(run, step):
    with open_file(Store(run.checkpoints).open(step).path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


@pytest.mark.parametrize("changes", [("train.optimizer=adamw", "fit.layerwise=true"), ()], ids=["layerwise", "muon"])
def test_a_run_goes_on_bit_for_bit_and_needs_its_base_no_more(tuned, base, monkeypatch, changes):
    straight, killed = (tuned(*changes, name=name) for name in ("straight", "killed"))
    assert launch(straight, display=Silent()).outcome == "finished"
    begun, steps, plain = build_model(replace(LLAMA, context=64), seed=77).state_dict(), [], Engine.update

    def die(self, lr):
        steps.append(lr)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return plain(self, lr)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "update", die)
        with pytest.raises(KeyboardInterrupt):
            launch(killed, display=Silent())
    assert Store(killed.checkpoints).steps() == [3]
    shutil.rmtree(base)
    assert launch(killed, display=Silent()).outcome == "finished"
    mine, others = saved(killed, 6), saved(straight, 6)
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    stay = {name for name in mine if torch.equal(mine[name], begun[name])}
    assert stay == {name for name in mine if not learns(name, LLAMA)}
    checkpoint = Store(killed.checkpoints).open(6)
    assert torch.equal(load_decoder(killed, checkpoint).state_dict()["embed.weight"], begun["embed.weight"])
    with open_file(checkpoint.path / "optimizer.safetensors") as file:
        assert not [name for name in file.names if not learns(name.partition(".")[2], LLAMA)]


def test_a_fork_may_train_more_of_it(tuned):
    run = tuned("train.optimizer=adamw")
    launch(run, display=Silent())
    fork = plan_fork(
        run, Store(run.checkpoints).open(3), ForkWish(name="more", steps=2, changes=["train.top_layers=3"])
    )
    assert not fork.keeps_optimizer and any("begins anew" in note for note in fork.notes)
    child = fork_run(fork)
    assert launch(child, display=Silent()).outcome == "finished"
    before, after = saved(run, 3), saved(child, 5)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if learns(name, LLAMA, 3)
    }
    assert plan_fork(run, Store(run.checkpoints).open(3), ForkWish(name="same", steps=2)).keeps_optimizer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["train.top_layers=5"], "'train.top_layers' 5 is more than the 4 blocks of this model"),
        (["adapter.method=lora"], "does not go with adapter.method"),
        (["model.base="], "this model begins with nothing; name one with model.base"),
    ],
)
def test_what_cannot_be_is_refused(tuned, changes, said):
    with pytest.raises(UsageError) as caught:
        tuned(*changes)
    assert said in str(caught.value)


def test_the_plan_says_what_learns(tuned):
    recipe = tuned().read_recipe()
    assert recipe.train.top_layers == 2
    assert recipe.why["train.top_layers"].startswith("the last 2 of 4 blocks, the final norm learn: ")
