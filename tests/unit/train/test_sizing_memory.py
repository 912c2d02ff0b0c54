"""The estimate counts what training holds; against real processes it is measured by tools/bench/memory.py."""

import pytest
import torch

from ondevice.model.build import build_model
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


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_activations_are_what_backward_keeps(arch):
    shape = shape_of(arch)
    model = build_model(shape, seed=0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.is_floating_point():
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, so that its place is not given anew
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model(torch.randint(512, (2, 64)))
    held_mb = (sum(size for size, _ in kept.values()) + hidden.untyped_storage().nbytes()) / MIB
    assert estimate_memory(shape, fit_of(), optimizer="adamw").activations_mb == pytest.approx(held_mb, rel=0.1)


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
