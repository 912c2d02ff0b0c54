from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.errors import CheckpointError
from ondevice.model.safetensors import SafeFile, open_file, write
from ondevice.model.safetensors_header import MAX_HEADER
from ondevice.run.files import HashedFile, sha256_of

TENSORS = {
    "small": torch.arange(3, dtype=torch.uint8),
    "matrix": torch.randn(4, 5),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 7),
    "half": torch.randn(3).half(),
    "brain": torch.randn(5).bfloat16(),
    "flags": torch.tensor([True, False, True]),
    "transposed": torch.randn(6, 3).t(),
    "counts": torch.tensor([-5, 2**60]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def raw_file(path: Path, header: bytes | dict, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_was_written_is_read(path):
    write(path, TENSORS, {"format": "pt", "name": "é"})
    with open_file(path) as file:
        assert set(file.names) == set(TENSORS)
        assert file.metadata == {"format": "pt", "name": "é"}
        for name, tensor in TENSORS.items():
            assert file.shape(name) == tuple(tensor.shape)
            assert file.dtype(name) == tensor.dtype
            assert torch.equal(file.tensor(name), tensor)


@pytest.mark.parametrize(
    "dtype",
    [
        *("float64", "float32", "float16", "bfloat16", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    ],
)
def test_every_dtype(path, dtype):
    tensor = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(getattr(torch, dtype))
    write(path, {"x": tensor}, {})
    target = torch.zeros(2, 3, dtype=tensor.dtype)
    with open_file(path) as file:
        assert torch.equal(file.tensor("x"), tensor)
        file.copy_into("x", target)
    assert torch.equal(target, tensor)


def test_the_data_and_every_tensor_are_aligned(path):
    write(path, TENSORS, {})
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert length % 8 == 0
    with open_file(path) as file:
        assert all(file.tensor(name).data_ptr() % file.dtype(name).itemsize == 0 for name in TENSORS)


def test_order_is_that_given_within_an_item_size(path):
    write(path, {"b": torch.zeros(1), "wide": torch.zeros(1, dtype=torch.int64), "a": torch.zeros(1)}, {})
    with open_file(path) as file:
        assert file.names == ("wide", "b", "a")


def test_numpy_arrays_of_any_layout(path):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.arange(4, dtype=">i4"),
        "scalar": np.array(3.5, dtype=np.float32),
        "frozen": np.broadcast_to(np.arange(3, dtype=np.int16), (2, 3)),
    }
    write(path, arrays, {})
    with open_file(path) as file:
        for name, array in arrays.items():
            assert np.array_equal(file.tensor(name).numpy(), array)
            assert file.shape(name) == array.shape


@pytest.mark.parametrize("bad", [np.zeros(2, dtype=complex), np.array(["a"]), torch.zeros(2, dtype=torch.complex64)])
def test_dtypes_the_format_lacks_are_refused(path, bad):
    with pytest.raises(ValueError, match="'x'"):
        write(path, {"x": bad}, {})
    assert not path.exists()


def test_metadata_that_is_not_text_is_refused(path):
    with pytest.raises(TypeError):
        write(path, {}, {"step": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="__metadata__"):
        write(path, {"__metadata__": torch.zeros(1)}, {})


def test_it_writes_to_a_hashed_file(path):
    file = HashedFile(path)
    write(file, TENSORS, {})
    file.close()
    assert file.sha256 == sha256_of(path)
    with open_file(path) as read:
        assert set(read.names) == set(TENSORS)


def test_tensors_are_streamed_without_a_copy():
    tensor = torch.randn(1000)

    addresses: list[int] = []

    class Sink:
        def write(self, data, /):
            addresses.append(np.frombuffer(data, dtype=np.uint8).ctypes.data)

    write(Sink(), {"x": tensor}, {})
    assert addresses[1:] == [tensor.data_ptr()]


def test_tensors_outlive_the_file(path):
    write(path, {"x": torch.arange(5000)}, {})
    with open_file(path) as file:
        tensor = file.tensor("x")
    path.unlink()
    assert torch.equal(tensor, torch.arange(5000))
    with pytest.raises(ValueError, match="closed"):
        file.tensor("x")


def test_views_share_the_map_and_never_change_the_file(path):
    write(path, {"x": torch.arange(5)}, {})
    before = path.read_bytes()
    with open_file(path) as file:
        assert file.tensor("x").data_ptr() == file.tensor("x").data_ptr()
        file.tensor("x").zero_()
    assert path.read_bytes() == before


def test_copy_into_converts_and_fills_strided_tensors(path):
    write(path, {"x": torch.arange(6.0).reshape(2, 3)}, {})
    half, strided = torch.zeros(2, 3).half(), torch.zeros(3, 2).t()
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    with open_file(path) as file:
        for target in (half, strided, parameter):
            file.copy_into("x", target)
            assert torch.equal(target.float(), torch.arange(6.0).reshape(2, 3))
        with pytest.raises(CheckpointError, match="shape"):
            file.copy_into("x", torch.zeros(3, 2))


def test_a_missing_tensor_is_named_with_the_nearest(path):
    write(path, {"embed.weight": torch.zeros(1)}, {})
    with open_file(path) as file, pytest.raises(CheckpointError, match=r"embed\.wieght.*did you mean 'embed\.weight'"):
        file.tensor("embed.wieght")


def test_a_file_cut_while_it_is_read(path):
    write(path, {"x": torch.zeros(10_000)}, {})
    with open_file(path) as file:
        with open(path, "r+b") as other:
            other.truncate(5000)
        with pytest.raises(CheckpointError, match="shorter"):
            file.copy_into("x", torch.zeros(10_000))


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        SafeFile(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message
    return message


def test_a_missing_file(path):
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"\x01\x02", struct.pack("<Q", 50) + b"{}", b"\xff" * 20])
def test_files_without_a_whole_header(path, content):
    path.write_bytes(content)
    refusal(path)


def test_a_header_above_the_limit(path):
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER + 1))
        file.truncate(MAX_HEADER + 100)
    assert "limit" in refusal(path)


def test_every_truncation_is_refused(path):
    write(path, TENSORS, {"format": "pt"})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refusal(path)


def test_nothing_but_a_regular_file_is_opened(tmp_path, path):
    write(path, TENSORS, {})
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(path)
    os.mkfifo(pipe)
    assert "symbolic link" in refusal(link)
    assert "not a regular file" in refusal(pipe)  # and no waiting for its writer
    assert "not a regular file" in refusal(tmp_path)


def test_refusals_leave_no_file_open(path):
    path.write_bytes(b"x" * 100)
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        refusal(path)
    assert len(os.listdir("/dev/fd")) == before


def test_names_without_measure_do_not_fill_the_screen(path):
    assert len(refusal(raw_file(path, {"x" * 100_000: 3}))) < 500
    assert len(refusal(raw_file(path, b'{"' + b"x" * 100_000 + b'":1,"' + b"x" * 100_000 + b'":1}'))) < 500
    assert "\x1b" not in refusal(raw_file(path, {"\x1b[2J": 3}))


def test_a_crowd_of_names_with_one_twice_takes_no_time(path):
    """Comparing each with each would take minutes."""
    names = b",".join(b'"%d":1' % number for number in (*range(60_000), 59_999))
    began = time.monotonic()
    assert "'59999' occurs twice" in refusal(raw_file(path, b"{" + names + b"}"))
    assert time.monotonic() - began < 20


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system has no /proc")
def test_a_header_that_claims_gigabytes_takes_none(path):
    """In a process that may take 32 MiB more than it has; the file is sparse, its size is real."""
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 1 << 32) + b"{")
        file.truncate(1 << 33)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ondevice.model.safetensors import open_file\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20),) * 2)\n"
        "try:\n    open_file(Path(sys.argv[1]))\nexcept Exception as error:\n    print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "CheckpointError\n", done.stderr


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        (b"[]", b"", "brace"),
        (b' {"a":1}', b"", "brace"),
        (b"{", b"", "JSON"),
        (b'{"a\xff":1}', b"", "UTF-8"),
        (b'{"\\ud800":{}}', b"", "UTF-8"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, b"", "not"),
        (b'{"a":1,"a":2}', b"", "'a' occurs twice"),
        (b'{"a":{"dtype":"F32","dtype":"F32"}}', b"", "twice"),
        (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', b"1234", "NaN"),
        (b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', b"1234", "1.0"),
        (b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', b"", "negative"),
        ({"a": 3}, b"", "'a'"),
        ({"a": {"dtype": "F32", "shape": []}}, b"", "'a'"),
        ({"__metadata__": {"step": 3}}, b"", "metadata"),
        ({"__metadata__": None}, b"", "metadata"),
        ({"a": entry("F99")}, b"x" * 8, "F99"),
        ({"a": entry(["F32"])}, b"x" * 8, "unknown dtype"),
        ({"a": entry(shape=(-2,))}, b"x" * 8, "negative"),
        ({"a": entry(shape=(True, 2))}, b"x" * 8, "absurd shape"),
        ({"a": entry(shape=("2",))}, b"x" * 8, "absurd shape"),
        ({"a": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}, b"", "absurd shape"),
        ({"a": entry(shape=(2**63 - 1, 2), offsets=(0, 8))}, b"x" * 8, "absurd shape"),
        ({"a": entry(shape=(10**30,))}, b"x" * 8, "absurdly large"),
        ({"a": entry(shape=[1] * 65, offsets=(0, 4))}, b"x" * 4, "absurd shape"),
        ({"a": entry(shape=(3,))}, b"x" * 8, "8 bytes"),
        ({"a": entry(offsets=(8, 0))}, b"x" * 8, "offsets"),
        ({"a": entry(offsets=(0, 8, 16))}, b"x" * 16, "offsets"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, b"x" * 12, "'b' overlaps"),
        ({"a": entry(), "b": entry(offsets=(0, 8))}, b"x" * 8, "overlaps"),
        ({"a": entry(), "b": entry(offsets=(12, 20))}, b"x" * 20, "gap"),
        ({"a": entry(offsets=(4, 12))}, b"x" * 12, "gap"),
        ({"a": entry("U8", (3,), (0, 3)), "b": entry("F32", (1,), (3, 7))}, b"x" * 7, "aligned"),
        ({"a": entry()}, b"x" * 9, "9 follow"),
        ({"a": entry()}, b"x" * 7, "7 follow"),
        ({}, b"x", "1 follow"),
    ],
)
def test_unsound_headers_are_refused(path, header, data, word):
    assert word in refusal(raw_file(path, header, data))


def test_a_header_that_leaves_the_data_unaligned_is_refused(path):
    text = json.dumps({"a": entry()}).encode()
    text += b" " * (3 - len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"x" * 8)
    assert "aligned" in refusal(path)


def test_a_file_without_tensors(path):
    write(path, {}, {"only": "metadata"})
    with open_file(path) as file:
        assert file.names == () and file.metadata == {"only": "metadata"}
