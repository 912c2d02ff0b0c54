"""Ordinary files of torch.save are read as torch reads them; attacks are in test_foreign_attacks.py."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice.errors import CheckpointError, ResourceError
from ondevice.model import torch_file
from ondevice.model.torch_file import open_torch_file

DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert list(got) == list(wanted)
    for name, tensor in wanted.items():
        found = got[name]
        assert type(found) is torch.Tensor and not found.requires_grad
        assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        assert (
            found.contiguous().view(-1).view(torch.uint8).equal(tensor.detach().contiguous().view(-1).view(torch.uint8))
        )


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_torch_file(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message and len(message) < 500
    return message


def test_every_kind_of_plain_tensor(path):
    base = torch.randn(6, 4)
    state = {
        "matrix": base,
        "brain": torch.randn(3).bfloat16(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 5),
        "end": torch.arange(5)[5:],
        "transposed": torch.randn(3, 5).t(),
        "rows": base[2:4],
        "column": base[:, 1],
        "one by many": torch.ones(1, 7).expand(1, 7),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "né.0": torch.ones(1),
    }
    torch.save(state, path)
    assert_same(open_torch_file(path), state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(path, dtype):
    state = {"x": torch.tensor([[0, 1, 1], [1, 0, 1]]).to(getattr(torch, dtype)), "y": torch.zeros(1)}
    torch.save(state, path)
    assert_same(open_torch_file(path), state)


def test_tied_weights_stay_tied(path):
    weight = torch.randn(8, 4)
    torch.save({"embed": weight, "head": weight, "part": weight[1:3]}, path)
    got = open_torch_file(path)
    assert got["embed"].data_ptr() == got["head"].data_ptr()
    assert got["part"].data_ptr() == got["embed"].data_ptr() + 16
    assert_same(got, {"embed": weight, "head": weight, "part": weight[1:3]})


def test_a_module_and_a_training_checkpoint_with_its_optimizer(path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    torch.save(model.state_dict(), path)
    assert_same(open_torch_file(path), model.state_dict())
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best_loss": torch.tensor(2.5),
        "config": {"lr": 1e-3, "shape": torch.Size([3, 4]), "device": torch.device("cpu"), "none": None, "t": (1, -2)},
        "dtype": torch.bfloat16,
        "step": 2**40,
    }
    torch.save(saved, path)
    assert_same(open_torch_file(path), model.state_dict())


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "module", "weights", "net"])
def test_one_dict_around_it_is_taken_off(path, key):
    state = {"a": torch.ones(2)}
    torch.save({key: OrderedDict(state), "step": 3}, path)
    assert_same(open_torch_file(path), state)


def test_a_known_key_goes_before_an_unknown_one(path):
    torch.save({"ema": {"a": torch.zeros(2)}, "model": {"a": torch.ones(2)}}, path)
    assert_same(open_torch_file(path), {"a": torch.ones(2)})


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (torch.ones(2), "holds one tensor, not a dict"),
        ([torch.ones(2)], "holds one list, not a dict"),
        (7, "holds one int"),
        ({}, "found none"),
        ({"a": {}, "b": 3}, "found none"),
        ({"x": {"y": {"a": torch.ones(1)}}}, "found none"),
        ({"x": {"a": torch.ones(1)}, "y": {"a": torch.ones(1)}}, "found several ('x', 'y')"),
        ({"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}}, "found several"),
        ({"a": torch.ones(1), "note": "text"}, "'note' is no tensor but stands among tensors (str)"),
        ({"a": torch.ones(1), 3: torch.ones(1)}, "3 is no tensor"),
        ({"a": torch.ones(1), "z" * 5000: 1}, "zzz...' is no tensor"),
        ({"a": torch.ones(1).to(torch.complex64)}, "ComplexFloatStorage', a kind of tensor that this program does not"),
        ({"a": torch.ones(1).to(torch.float8_e5m2)}, "float8_e5m2"),
        ({"a": torch.ones(2, 2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"a": torch.empty(2, device="meta")}, "_rebuild_meta_tensor_no_storage"),
        ({"a": torch.complex(torch.ones(2), torch.ones(2)).conj().imag}, "metadata"),
        ({"a": torch.ones(3).expand(5, 3)}, "'a' uses the same bytes for several of its elements"),
        ({"a": torch.zeros(50).as_strided((10, 10), (3, 1))}, "'a' uses the same bytes for several of its elements"),
        ({"a": torch.ones(1), "b": Path("x")}, "it names 'pathlib."),
        ({"a": torch.ones(1), "b": 1j}, "complex"),
        ({"a": torch.ones(1), "b": {(1, 2): 3}}, "a key that is neither text nor a whole number"),
    ],
)
def test_what_is_not_a_plain_state_dict_is_refused_in_one_sentence(path, saved, says):
    torch.save(saved, path)
    message = refusal(path)
    assert says in message, message


def test_the_old_formats_are_refused_with_the_way_out(path):
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    assert "write it again with torch.save" in refusal(path)
    path.write_bytes(b"data.pkl" + bytes(600))
    assert "not a torch file" in refusal(path)
    path.write_bytes(b"")
    assert "not a torch file" in refusal(path)


def test_another_pickle_protocol_is_refused(path):
    torch.save({"a": torch.ones(1)}, path, pickle_protocol=4)
    assert "protocol 2" in refusal(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_program_is_refused(path):
    with zipfile.ZipFile(path, "w") as file:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr(f"weights/{name}", b"x")
    assert "TorchScript" in refusal(path)


def test_writing_to_a_tensor_does_not_change_the_file(path):
    torch.save({"a": torch.ones(100)}, path)
    before = path.read_bytes()
    open_torch_file(path)["a"].zero_()
    assert path.read_bytes() == before


def test_tensors_are_mapped_and_outlive_the_name(path):
    torch.save({"a": torch.arange(5000)}, path)
    tensor = open_torch_file(path)["a"]
    path.unlink()
    assert tensor.equal(torch.arange(5000))


def test_a_file_without_checksums_is_read_and_a_wrong_one_refused(path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(5000)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert open_torch_file(path)["a"].equal(torch.arange(5000))
    torch.save({"a": torch.arange(5000)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(700, 705).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    assert "part 'data/0' is not what was written" in refusal(path)


def test_memory_is_asked_before_torch_is(path, monkeypatch):
    torch.save({"a": torch.zeros(1 << 18), "b": torch.zeros(1 << 18)}, path)
    open_torch_file(path, available_mb=2.0)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ResourceError, match=r"weights take 2 MiB and 1 MiB of memory are free"):
        open_torch_file(path, available_mb=1.0)


def test_sharing_without_measure_is_refused(path):
    weight = torch.zeros(100_000)
    torch.save({f"w{i}": weight for i in range(16)}, path)
    assert len(open_torch_file(path)) == 16
    torch.save({f"w{i}": weight for i in range(40)}, path)
    assert "no model shares that much" in refusal(path)


def test_a_name_that_ends_like_safetensors_does_not_change_the_reader(tmp_path):
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    assert_same(open_torch_file(path), {"a": torch.ones(2)})


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the system has no /proc")
def test_the_file_that_was_checked_is_the_one_that_is_read(path, monkeypatch):
    """Even when another takes its name in between."""
    torch.save({"a": torch.ones(2)}, path)
    load = torch.load

    def swap_then_load(*args, **options):
        path.unlink()
        torch.save({"a": torch.zeros(2)}, path)
        return load(*args, **options)

    monkeypatch.setattr(torch_file.torch, "load", swap_then_load)
    assert open_torch_file(path)["a"].equal(torch.ones(2))


@pytest.mark.parametrize(
    "other",
    [
        torch.ones(3),
        torch.ones(2, dtype=torch.float64),
        torch.ones(4)[::2],
        torch.ones(4)[1:3],
        torch.ones(2, device="meta"),
        torch.ones(2).to_sparse(),
        torch.ones(1).expand(2),
    ],
)
def test_torch_must_make_what_the_file_describes(path, monkeypatch, other):
    torch.save({"model": {"a": torch.ones(2)}}, path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: {"model": {"a": other}})
    assert "'a' is not what the file describes" in refusal(path)


def test_whatever_torch_raises_is_one_sentence(path, monkeypatch):
    torch.save({"a": torch.ones(2)}, path)

    def fail(*_, **__):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(torch, "load", fail)
    assert "torch does not read it (first line)" in refusal(path)


def test_nothing_but_a_regular_file_is_opened(tmp_path, path):
    torch.save({"a": torch.ones(2)}, path)
    link, pipe = tmp_path / "link.pt", tmp_path / "pipe.pt"
    link.symlink_to(path)
    os.mkfifo(pipe)
    assert "symbolic link" in refusal(link)
    assert "not a regular file" in refusal(pipe)
    assert "not a regular file" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none.pt")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system has no /proc")
def test_reading_takes_no_memory_of_its_own(path):
    """64 MiB of weights under a limit that leaves 40 MiB beside the map."""
    torch.save({"a": torch.ones(1 << 24)}, path)
    program = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from ondevice.model.torch_file import open_torch_file\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (104 << 20),) * 2)\n"
        "print(open_torch_file(Path(sys.argv[1]))['a'][-1].item())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "1.0\n", done.stderr


_shapes = st.lists(st.integers(0, 4), max_size=3)
_tensors = st.builds(
    lambda dtype, shape, turned: (
        torch.arange(max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()].reshape(shape).to(dtype).t()
        if turned and len(shape) == 2
        else torch.zeros(shape, dtype=dtype)
    ),
    st.sampled_from([getattr(torch, name) for name in DTYPES]),
    _shapes,
    st.booleans(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1, max_size=8), _tensors, min_size=1, max_size=6), st.booleans())
def test_any_state_dict_is_read_as_it_was_saved(tmp_path, state, nested):
    path = tmp_path / "any.pt"
    torch.save({"model": state} if nested else state, path)
    assert_same(open_torch_file(path), state)
