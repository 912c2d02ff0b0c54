"""Weights in bf16: rounding by chance, whole runs, and what they do not go with."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ondevice.errors import UsageError
from ondevice.infer.open import load_decoder
from ondevice.model.build import build_model
from ondevice.model.layers import Embedding, Linear
from ondevice.model.narrow import narrow
from ondevice.model.safetensors import open_file
from ondevice.model.top_layers import freeze_below
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.adamw import AdamW
from ondevice.train.adamw_bf16 import AdamW8Bf16, AdamWBf16, round_into
from ondevice.train.engine import Engine
from ondevice.train.fork import fork_run, plan_fork
from ondevice.train.fork_config import ForkWish
from ondevice.train.launch import launch
from ondevice.train.memory import estimate_memory
from ondevice.train.optimizer import adamw, load_state, state_tensors
from tests.displays import Silent
from tests.left import left_after

COMMON = {"vocab_size": 120, "context": 32, "layers": 2, "width": 64, "heads": 4, "kv_heads": 4, "hidden": 96}
SHAPES = {"llama": ModelShape(arch="llama", **COMMON), "gpt2": ModelShape(arch="gpt2", tied=False, **COMMON)}
KINDS = {"fp32": AdamWBf16, "int8": AdamW8Bf16}
RATE = {"lr": 0.003, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


# --- rounding ---------------------------------------------------------------------------------------------------------


def neighbours(wide):
    """The bf16 numbers on both sides, that nearer zero first."""
    nearer = (wide.view(torch.int32) & -65536).view(torch.float32)
    return nearer, ((nearer.view(torch.int32) + 65536).view(torch.float32))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_on_average_nothing_is_lost(sign):
    generator = torch.Generator().manual_seed(3)
    wide = sign * torch.rand(400, generator=generator).mul_(3).add_(0.01)
    nearer, further = neighbours(wide)
    mean, steps = torch.zeros(400, dtype=torch.float64), 4096
    for step in range(1, steps + 1):
        rounded = torch.empty(400, dtype=torch.bfloat16)
        round_into(rounded, wide.clone(), step=step, number=5, piece=2)
        found = rounded.float()
        assert ((found == nearer) | (found == further)).all()
        mean += found.double() / steps
    spacing = (further - nearer).abs().double()
    error = (mean - wide.double()) / spacing
    assert error.abs().max() < 6 * 0.5 / steps**0.5  # of the deviation of so many throws
    assert abs(error.mean()) < 6 * 0.5 / (400 * steps) ** 0.5


def test_what_bf16_can_hold_stays_as_it_is():
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(1)).bfloat16()
    for step in range(20):
        rounded = torch.empty_like(exact)
        round_into(rounded, exact.float(), step=step, number=0, piece=0)
        assert torch.equal(rounded, exact)


def test_the_noise_depends_on_step_parameter_and_piece_alone():
    def rounded(**place):
        out = torch.empty(500, dtype=torch.bfloat16)
        round_into(out, torch.full((500,), 1.003), **{"step": 1, "number": 1, "piece": 1, **place})
        return out

    assert torch.equal(rounded(), rounded())
    assert all(not torch.equal(rounded(), rounded(**{name: 2})) for name in ("step", "number", "piece"))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_tiny_updates_are_not_lost(kind):
    """Steps of 1e-5 on weights of 1, whose neighbours are 0.004 and 0.008 away: rounded to the nearest none counts."""
    weight = nn.Parameter(torch.ones(80, 80).bfloat16())
    optimizer = kind([{"params": [weight], "weight_decay": 0.0}], lr=1e-5, betas=(0.9, 0.99), eps=1e-8)
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.float().mean().item() == pytest.approx(1 - 200 * 1e-5, abs=2e-4)


# --- learning ---------------------------------------------------------------------------------------------------------


def trained(shape, kind, *, precision="fp32", rows=2, layerwise=False, steps=12, top=None):
    """A narrow (``kind`` None: fp32) model after some steps on the same windows, its optimizer, and the last loss."""
    model = build_model(shape, seed=4)
    if top is not None:
        freeze_below(model, top)
    if kind is not None:
        narrow(model)
    optimizer = adamw(model, **RATE, kind=kind or AdamW)
    engine = Engine(model, optimizer, clip=1.0, precision=precision, loss_chunk_tokens=40)
    if layerwise:
        engine.use(
            Fit(micro_batch=rows, threads=1, activation_checkpointing=False, loss_chunk_tokens=40, layerwise=True)
        )
    ids_BT = torch.randint(120, (4, 33), generator=torch.Generator().manual_seed(9)).numpy()
    x_BT, y_BT = ids_BT[:, :-1].copy(), ids_BT[:, 1:].copy()
    for _ in range(steps):
        engine.begin(y_BT)
        for first in range(0, 4, rows):
            engine.accumulate(x_BT[first : first + rows], y_BT[first : first + rows])
        result = engine.update(0.003)
    return model, optimizer, result


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("arch", SHAPES)
def test_it_learns_as_fp32_does(arch, kind, precision):
    _, _, wanted = trained(SHAPES[arch], None)
    model, _, found = trained(SHAPES[arch], kind, precision=precision)
    assert found.loss == pytest.approx(wanted.loss, rel=0.03)
    assert found.grad_norm == pytest.approx(wanted.grad_norm, rel=0.25)
    for module in model.modules():
        if isinstance(module, Linear | Embedding) and module is not model.position:
            assert module.weight.dtype == module.weight.grad.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.ndim < 2} == {torch.float32}


def test_gradients_are_those_of_the_rounded_weights():
    """To the rounding of bf16: the products themselves are made in fp32."""
    shape = SHAPES["llama"]
    rounded, wide = build_model(shape, seed=4), build_model(shape, seed=4)
    narrow(rounded)
    with torch.no_grad():
        for a, b in zip(wide.parameters(), rounded.parameters(), strict=True):
            a.copy_(b)
    ids_BT = torch.randint(120, (2, 33), generator=torch.Generator().manual_seed(9)).numpy()
    for model in (rounded, wide):
        engine = Engine(model, adamw(model, **RATE), clip=0.0, precision="fp32", loss_chunk_tokens=40)
        engine.begin(ids_BT[:, 1:])
        engine.accumulate(ids_BT[:, :-1].copy(), ids_BT[:, 1:].copy())
    for a, b in zip(rounded.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(a.grad.float(), b.grad, rtol=2**-6, atol=float(b.grad.abs().max()) * 2**-8)


@pytest.mark.parametrize("arch", SHAPES)
def test_a_layerwise_step_learns_the_same_bits(arch):
    plain, _, _ = trained(SHAPES[arch], AdamW8Bf16, rows=4, steps=4)
    layerwise, _, _ = trained(SHAPES[arch], AdamW8Bf16, rows=4, steps=4, layerwise=True)
    assert same(plain, layerwise)


def test_frozen_blocks_below_stay_as_they_were_rounded():
    model, _, found = trained(SHAPES["llama"], AdamW8Bf16, top=1)
    before = build_model(SHAPES["llama"], seed=4)
    narrow(before)
    changed = {
        name
        for (name, now), was in zip(model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(now, was)
    }
    assert changed and all(name.startswith(("blocks.1.", "norm.")) for name in changed)
    assert found.loss < trained(SHAPES["llama"], AdamW8Bf16, top=1, steps=1)[2].loss


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_its_state_comes_back(kind):
    model, optimizer, _ = trained(SHAPES["llama"], kind, steps=3)
    again = adamw(model, **RATE, kind=kind)
    load_state(model, again, state_tensors(model, optimizer))
    before, after = state_tensors(model, optimizer), state_tensors(model, again)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


# --- runs -------------------------------------------------------------------------------------------------------------

WISH = ("train.optimizer=adamw", "train.weights=bf16", "eval.count=2", "sample.count=1")


def saved(run):
    checkpoint, _ = Store(run.checkpoints).latest()
    with open_file(checkpoint.path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


@pytest.mark.parametrize("state", KINDS)
def test_a_run_resumes_to_the_bit_and_is_read_by_all(make, state):
    wishes = (*WISH, f"train.optimizer_state={state}", "train.steps=6", "model.width=64")
    whole, cut = make(*wishes), make(*wishes, name="cut")
    assert whole.read_recipe().train.optimizer_state == ("adamw-bf16" if state == "fp32" else "adamw-bf16-int8")
    assert launch(whole, display=Silent()).outcome == "finished"
    left_after(cut, 3)
    assert launch(cut, display=Silent()).outcome == "finished"
    one, two = saved(whole), saved(cut)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert {tensor.dtype for tensor in one.values() if tensor.ndim == 2} == {torch.bfloat16}
    losses = [record["val_loss_mixed"] for record in read_records(whole.telemetry) if record["kind"] == "eval"]
    assert losses[-1] < losses[0]
    opened = load_decoder(whole, Store(whole.checkpoints).latest()[0])
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}
    assert all(torch.equal(parameter, one[name].float()) for name, parameter in opened.named_parameters())


def test_a_fork_goes_over_to_it_and_back(make):
    run = make("train.optimizer=adamw", "train.steps=2", "eval.count=0", "sample.count=0")
    assert launch(run, display=Silent()).outcome == "finished"

    def forked(parent, name, weights):
        checkpoint, _ = Store(parent.checkpoints).latest()
        wish = ForkWish(name=name, steps=2, changes=(f"train.weights={weights}",))
        child = fork_run(plan_fork(parent, checkpoint, wish))
        began = saved(child)
        assert launch(child, display=Silent()).outcome == "finished"
        return child, began

    first = saved(run)
    child, began = forked(run, "narrow", "bf16")
    assert all(torch.equal(began[name], first[name].to(began[name].dtype)) for name in first)
    assert began["embed.weight"].dtype == torch.bfloat16
    last = saved(child)
    _, began = forked(child, "wide", "fp32")
    assert all(torch.equal(began[name], last[name].float()) for name in last)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("train.optimizer=muon",), r"bf16 is adamw's: add train\.optimizer = 'adamw'"),
        (("train.average=0.1",), r"does not go with 'train\.average'"),
        (("adapter.method=lora", "model.base=/x"), r"what an adapter learns is little"),
    ],
)
def test_what_it_does_not_go_with_is_refused(changes, words):
    from pathlib import Path

    from ondevice.run.config import parse_config
    from ondevice.train.fitting import optimizer_state_of

    config = parse_config("", where="x", base=Path("/"), changes=(*WISH, *changes))
    with pytest.raises(UsageError, match=words):
        optimizer_state_of(config)


def test_the_estimate_knows_that_weights_and_gradients_take_half():
    shape = dataclasses.replace(SHAPES["llama"], width=512, hidden=1024, heads=8, kv_heads=8, layers=8)
    fit = Fit(micro_batch=1, threads=1, activation_checkpointing=True, loss_chunk_tokens=64)
    wide, half = (estimate_memory(shape, fit, optimizer=name) for name in ("adamw-int8", "adamw-bf16-int8"))
    assert half.weights_mb == wide.weights_mb / 2
    assert half.gradients_mb == pytest.approx(wide.gradients_mb / 2, rel=1e-3)  # norms stay fp32
    assert half.optimizer_mb == wide.optimizer_mb and half.total_mb < wide.total_mb
    layerwise = dataclasses.replace(fit, layerwise=True)
    least = estimate_memory(shape, layerwise, optimizer="adamw-bf16-int8", batch=1, waits=False)
    assert least.total_mb < half.total_mb
