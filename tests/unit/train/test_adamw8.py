"""AdamW with a state of 8 bits beside the one of 32."""

import pytest
import torch

from ondevice.errors import UsageError
from ondevice.model.build import build_model
from ondevice.model.safetensors import open_file
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.store import Store
from ondevice.train import adamw8
from ondevice.train.adamw import AdamW
from ondevice.train.adamw8 import BLOCK, SMALLEST, AdamW8
from ondevice.train.engine import Engine
from ondevice.train.launch import launch
from ondevice.train.memory import estimate_memory
from ondevice.train.optimizer import load_state, optimizer_of, state_tensors
from tests.displays import Silent
from tests.left import left_after

NOISELESS = torch.zeros(1)
SETTINGS = {"lr": 3e-3, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


def averages(count=4000):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, generator=generator) * torch.logspace(-6, 0, count)


def packed(numbers, *, square, noise=NOISELESS):
    blocks = -(-len(numbers) // BLOCK)
    full = torch.nn.functional.pad(numbers, (0, blocks * BLOCK - len(numbers)))
    codes = torch.zeros(len(numbers), dtype=torch.uint8 if square else torch.int8)
    scale = torch.zeros(blocks)
    (adamw8._pack_square if square else adamw8._pack)(full.clone(), noise, codes, scale)
    (adamw8._unpack_square if square else adamw8._unpack)(codes, scale, out=full)
    return full[: len(numbers)]


def test_codes_are_the_rounded_roots():
    numbers = averages(4096).square()
    share = (numbers.view(-1, BLOCK) / numbers.view(-1, BLOCK).amax(dim=1, keepdim=True)).view(-1)
    noise = torch.rand(4096, generator=torch.Generator().manual_seed(1)) - 0.5
    codes, scale = torch.zeros(4096, dtype=torch.uint8), torch.zeros(16)
    adamw8._pack_square(numbers.clone(), noise, codes, scale)
    assert torch.equal(codes, (share.sqrt().sqrt() * 255 + noise).round().clamp(1, 255).to(torch.uint8))
    assert codes.max() == 255 and codes.min() < 20 and (codes > 128).any()
    signed, codes = torch.where(noise > 0, numbers, -numbers), torch.zeros(4096, dtype=torch.int8)
    adamw8._pack(signed, noise, codes, scale)
    expected = (share.sqrt() * 127 + noise).round().clamp(0, 127).copysign(signed)
    assert torch.equal(codes, expected.to(torch.int8)) and codes.min() < -100 < 100 < codes.max()


def test_the_error_is_what_is_stated():
    average = averages()
    share = average.abs() / torch.cat([b.abs().max().expand(len(b)) for b in average.split(BLOCK)])
    error = (packed(average, square=False) - average).abs() / average.abs()
    assert error[share > 0.9].max() < 0.01 and error[share > 0.01].max() < 0.085
    root = packed(average.square(), square=True).sqrt()
    error = (root - average.abs()).abs() / average.abs()  # its root is what updates are divided by
    assert error[share > 0.9].max() < 0.005 and error[share > 0.01].max() < 0.045
    assert (root > 0).all()


def test_a_block_of_zeros_and_one_of_tiny_numbers():
    numbers = torch.cat([torch.zeros(BLOCK), torch.full((BLOCK,), 1e-20)])
    for square in (False, True):
        again = packed(numbers, square=square)
        assert not again[:BLOCK].any()
        torch.testing.assert_close(again[BLOCK:], numbers[BLOCK:])


def test_dither_lets_a_slow_average_move():
    """One percent a step is less than half a step of the codes: rounding alone would hold it for ever."""
    square = torch.full((BLOCK,), 0.25)
    square[0] = 1.0  # the block's largest stays
    for step in range(1, 301):
        square[1:] *= 0.99
        square = packed(square, square=True, noise=adamw8._noise(step, 0, BLOCK))
    assert square[1:].mean().item() == pytest.approx(0.25 * 0.99**300, rel=0.2)


SHAPE = ModelShape(arch="llama", vocab_size=211, context=32, layers=2, width=64, heads=4, kv_heads=2, hidden=96)


def trained(name, *, steps, state=None):
    """Model, optimizer and losses after steps on a text that can be learned; ``state`` is gone on from."""
    torch.set_num_threads(1)  # steps of a model this small are slower with more
    model = build_model(SHAPE, seed=3)
    optimizer = optimizer_of(name, model, **SETTINGS)
    engine = Engine(model, optimizer, clip=1.0, precision="fp32", loss_chunk_tokens=128)
    first, losses = 0, []
    if state is not None:
        first, weights, slots = state
        model.load_state_dict(weights)
        load_state(model, optimizer, slots)
    for step in range(first, steps):
        start = torch.randint(211, (8, 1), generator=torch.Generator().manual_seed(step))
        ids = ((start + torch.arange(33).square()) % 211).numpy()
        engine.begin(ids[:, 1:])
        engine.accumulate(ids[:, :-1].copy(), ids[:, 1:].copy())
        losses.append(engine.update(3e-3).loss)
    return model, optimizer, losses


def test_it_learns_as_well_as_with_the_whole_state():
    whole, packed = trained("adamw-fp32", steps=50)[2], trained("adamw-int8", steps=50)[2]
    assert whole[-1] < 0.8 * whole[0]
    assert sum(packed[-10:]) == pytest.approx(sum(whole[-10:]), rel=0.03)


def test_it_goes_on_to_the_bit():
    model, _, _ = trained("adamw-int8", steps=9)
    half, optimizer, _ = trained("adamw-int8", steps=4)
    weights = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    slots = {name: tensor.clone() for name, tensor in state_tensors(half, optimizer).items()}
    again, _, _ = trained("adamw-int8", steps=9, state=(4, weights, slots))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_its_state_takes_a_quarter_and_small_ones_stay_whole():
    model, optimizer, _ = trained("adamw-int8", steps=1)
    assert isinstance(optimizer, AdamW8)
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        taken = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        if parameter.numel() < SMALLEST:
            assert state["exp_avg"].dtype == torch.float32 and set(state) == {"exp_avg", "exp_avg_sq", "step"}
        else:
            assert taken <= 0.26 * 8 * parameter.numel() + 8


def test_pieces_change_nothing_but_the_noise(monkeypatch):
    """A parameter of several pieces, the last no whole block, is updated everywhere and as fp32 would in one step."""
    monkeypatch.setattr(adamw8, "_PIECE", 2 * BLOCK)
    generator = torch.Generator().manual_seed(1)
    one = torch.nn.Parameter(torch.randn(41, 103, generator=generator))
    two = torch.nn.Parameter(one.detach().clone())
    how = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8}
    for parameter, kind in ((one, AdamW8), (two, AdamW)):
        parameter.grad = torch.randn(41, 103, generator=torch.Generator().manual_seed(2))
        kind([{"params": [parameter], "weight_decay": 0.1}], **how).step()
    assert torch.equal(one, two)  # the first step begins with averages of zero, which are exact


def saved(run):
    with open_file(Store(run.checkpoints).latest()[0].path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


def test_a_run_asks_for_it_and_resumes_to_the_bit(make):
    wishes = ("train.optimizer=adamw", "train.optimizer_state=int8", "train.steps=6", "model.width=64")
    whole, cut = make(*wishes), make(*wishes, name="cut")
    assert whole.read_recipe().train.optimizer_state == "adamw-int8"
    assert launch(whole, display=Silent()).outcome == "finished"
    left_after(cut, 3)
    assert launch(cut, display=Silent()).outcome == "finished"
    one, two = saved(whole), saved(cut)
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(UsageError, match=r"add train\.optimizer = 'adamw'"):
        make("train.optimizer_state=int8")


def test_the_plan_counts_a_quarter():
    fit = Fit(micro_batch=1, threads=1, activation_checkpointing=False, loss_chunk_tokens=64)
    whole, packed = (estimate_memory(SHAPE, fit, optimizer=name) for name in ("adamw-fp32", "adamw-int8"))
    assert packed.optimizer_mb == pytest.approx(whole.optimizer_mb / 4, rel=0.02)
    assert packed.total_mb - packed.optimizer_mb == pytest.approx(whole.total_mb - whole.optimizer_mb)
