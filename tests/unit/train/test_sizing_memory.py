"""The estimate counts what training holds; against real processes it is measured by tools/bench/memory.py."""

import itertools

import pytest
import torch

from ondevice.model.build import build_model
from ondevice.model.narrow import is_narrow, narrow
from ondevice.run.recipe import Fit, ModelShape
from ondevice.train.engine import Engine
from ondevice.train.memory import estimate_memory
from ondevice.train.optimizer import optimizer_of

MIB = 2**20


def shape_of(arch, **changes):
    values = {
        "arch": arch,
        "vocab_size": 512,
        "context": 64,
        "layers": 3,
        "width": 64,
        "heads": 4,
        "kv_heads": 4 if arch == "gpt2" else 2,
        "hidden": 160,
        "tied": True,
        "dropout": 0.0,
        "rope_theta": 10_000.0,
        "norm_eps": 1e-5,
    }
    return ModelShape(**{**values, **changes})


def fit_of(**changes):
    values = {"micro_batch": 2, "threads": 1, "activation_checkpointing": False, "loss_chunk_tokens": 64}
    return Fit(**{**values, **changes})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_weights_gradients_and_state_are_counted_to_the_number(arch, optimizer):
    shape = shape_of(arch)
    model = build_model(shape, seed=0)
    chosen = optimizer_of(optimizer, model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.95, eps=1e-8)
    engine = Engine(model, chosen, clip=1.0, precision="fp32", loss_chunk_tokens=64)
    x_BT = torch.randint(512, (2, 64)).numpy()
    engine.begin(x_BT)
    engine.accumulate(x_BT, x_BT)
    engine.update(1e-3)
    state = sum(tensor.numel() for slots in chosen.state.values() for name, tensor in slots.items() if name != "step")
    expected = estimate_memory(shape, fit_of(), optimizer=optimizer)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert expected.weights_mb == expected.gradients_mb == pytest.approx(weights * 4 / MIB)
    # Muon's biases of gpt2 are AdamW's, and counted with the matrices they belong to.
    assert expected.optimizer_mb == pytest.approx(state * 4 / MIB, rel=0.02)


def traced_mb(step):
    """The most that one step holds of what it allocates, by the events of torch's allocator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    events = (each for each in trace.profiler.kineto_results.events() if each.name() == "[memory]")
    sizes = [each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())]
    return max(itertools.accumulate(sizes)) / MIB


COUNTED = {"context": 128, "layers": 4, "width": 128, "hidden": 336}  # large beside what a step has of single numbers


@pytest.mark.parametrize(
    ("shape", "fit", "optimizer", "precision"),
    [
        (shape_of("llama", **COUNTED), {}, "adamw", "fp32"),
        (shape_of("llama", **COUNTED), {"activation_checkpointing": True}, "adamw-int8", "fp32"),
        (shape_of("llama", **COUNTED), {"activation_checkpointing": True, "micro_batch": 4}, "adamw", "fp32"),
        (shape_of("gpt2", **COUNTED, vocab_size=9000, tied=False), {"activation_checkpointing": True}, "adamw", "fp32"),
        (shape_of("llama", **COUNTED, vocab_size=9000), {"activation_checkpointing": True}, "adamw-bf16", "fp32"),
        (shape_of("llama", **COUNTED, vocab_size=9000), {"activation_checkpointing": True}, "adamw", "bf16"),
        (shape_of("gpt2", **COUNTED), {"layerwise": True, "micro_batch": 4, "kept_blocks": 4}, "adamw", "fp32"),
        (shape_of("gpt2", **COUNTED), {"layerwise": True, "kept_blocks": 1, "repeated_blocks": 2}, "adamw", "fp32"),
        (shape_of("llama", **COUNTED), {"layerwise": True, "micro_batch": 1, "repeated_blocks": 4}, "adamw", "fp32"),
    ],
)
def test_a_step_holds_what_is_counted(shape, fit, optimizer, precision):
    model, fit = build_model(shape, seed=0), fit_of(**fit)
    if is_narrow(optimizer):
        narrow(model)
    chosen = optimizer_of(optimizer, model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.95, eps=1e-8)
    engine = Engine(model, chosen, clip=1.0, precision=precision, loss_chunk_tokens=64)
    engine.use(fit)
    ids_BT = torch.randint(512, (4, shape.context)).numpy()

    def step():
        engine.begin(ids_BT)
        for first in range(0, 4, fit.micro_batch):
            engine.accumulate(*2 * [ids_BT[first : first + fit.micro_batch]])
        engine.update(1e-3)
        chosen.zero_grad(set_to_none=True)

    step()
    stays = not (is_narrow(optimizer) or fit.layerwise)  # the head's gradient, between steps
    kept_mb = stays * shape.vocab_size * shape.width * 4 / MIB
    found = estimate_memory(shape, fit, optimizer=optimizer, batch=4, precision=precision)
    counted_mb = found.gradients_mb + found.activations_mb + found.head_mb
    assert counted_mb == pytest.approx(traced_mb(step) + kept_mb, rel=0.06)


def test_muon_has_half_the_state_and_scratch_of_its_own():
    shape = shape_of("llama", layers=8, width=256, heads=8, kv_heads=8, hidden=704)
    adamw, muon = (estimate_memory(shape, fit_of(), optimizer=name) for name in ("adamw", "muon"))
    assert 0.5 * adamw.optimizer_mb < muon.optimizer_mb < 0.6 * adamw.optimizer_mb
    assert adamw.scratch_mb == 0.0
    # eight squares of the smaller side at a time, six times each
    assert muon.scratch_mb == pytest.approx(6 * 8 * 256 * 256 * 4 / MIB)
    # recipes before version 7: gate and up of every layer in one stack, three times itself and twice its smaller square
    before = estimate_memory(shape, fit_of(), optimizer="muon-adamw-fp32")
    assert before.scratch_mb == pytest.approx(16 * (3 * 704 * 256 + 2 * 256 * 256) * 4 / MIB)


def test_a_micro_batch_and_recomputing_change_activations_alone():
    shape = shape_of("llama", layers=12, width=256, heads=8, kv_heads=8, hidden=704)
    one, two = (estimate_memory(shape, fit_of(micro_batch=n), optimizer="adamw") for n in (1, 2))
    assert two.activations_mb == 2 * one.activations_mb and two.optimizer_mb == one.optimizer_mb
    again = estimate_memory(shape, fit_of(activation_checkpointing=True), optimizer="adamw")
    assert again.activations_mb < 0.3 * two.activations_mb
    parts = [again.runtime_mb, again.weights_mb, again.gradients_mb, again.optimizer_mb]
    parts += [again.activations_mb, again.head_mb, again.scratch_mb, again.allocator_mb]
    assert again.total_mb == pytest.approx(sum(parts))
