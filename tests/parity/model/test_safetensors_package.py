"""Our safetensors files against the package: each reads what the other writes, and we accept nothing it refuses."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file

from ondevice.errors import CheckpointError
from ondevice.model.safetensors import open_file, write

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
]


def tensors() -> st.SearchStrategy[dict[str, torch.Tensor]]:
    shapes = st.lists(st.integers(0, 4), max_size=3)
    tensor = st.builds(
        lambda shape, dtype, seed: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(
            dtype
        ),
        shapes,
        st.sampled_from(DTYPES),
        st.integers(0, 9),
    )
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")
    return st.dictionaries(names, tensor, max_size=5)


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape
        assert torch.equal(got[name], tensor)


def read_ours(path: Path) -> dict[str, torch.Tensor]:
    with open_file(path) as file:
        return {name: file.tensor(name).clone() for name in file.names}


quiet = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quiet
@given(tensors(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
def test_the_package_reads_ours(tmp_path, state, metadata):
    def readable(text: str) -> bool:
        return all(not 0xD800 <= ord(character) < 0xE000 for character in text)

    metadata = {key: value for key, value in metadata.items() if readable(key + value)}
    path = tmp_path / "ours.safetensors"
    write(path, state, metadata)
    assert_same(load(path.read_bytes()), state)
    with safe_open(path, framework="pt") as file:
        assert (file.metadata() or {}) == metadata
    assert_same(read_ours(path), state)


@quiet
@given(tensors(), st.dictionaries(st.text("abcé", max_size=5), st.text("abcé", max_size=5), max_size=2))
def test_we_read_the_package_s(tmp_path, state, metadata):
    path = tmp_path / "theirs.safetensors"
    save_file(state, path, metadata or None)
    assert_same(read_ours(path), state)
    with open_file(path) as file:
        assert file.metadata == metadata


def base_file() -> bytes:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
            "none": {"dtype": "I64", "shape": [0], "data_offsets": [32, 32]},
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(range(32))


BASE = base_file()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sound file with some bytes of the header replaced, removed or repeated, perhaps cut short."""
    data = bytearray(BASE)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 33))
        kind = draw(st.sampled_from(["byte", "json", "delete", "repeat", "number"]))
        if kind == "byte":
            data[at] = draw(st.integers(0, 255))
        elif kind == "json":
            data[at] = draw(st.sampled_from(b'{}[]",:0123456789-.eE\\u \n\t'))
        elif kind == "delete":
            del data[at]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        else:
            digits = [i for i, byte in enumerate(data[8:-32], start=8) if byte in b"0123456789"]
            if digits:
                data[draw(st.sampled_from(digits))] = draw(st.sampled_from(b"0123456789"))
    if draw(st.booleans()):  # a length that fits again, so that more than the length check is tested
        data[:8] = struct.pack("<Q", len(data) - 8 - 32)
    if draw(st.integers(0, 4)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_damage_is_refused_or_read_as_the_package_reads_it(tmp_path, data):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data)
    try:
        got = read_ours(path)
    except CheckpointError as refusal:
        assert str(path) in str(refusal)
        return
    assert_same(got, load(data))  # raises when the package refuses what we accepted


_sizes = st.sampled_from([0, 1, 2, 3, 4, 8, 2**31, 2**62, 2**63 - 1, 2**63, 2**64, -1, 1.0, True, None, "2"])
_small = st.integers(0, 3)


@st.composite
def plausible(draw: st.DrawFn) -> tuple[dict, int]:
    """A header whose parts are sound one by one, mostly, and how many bytes follow it."""
    item = {"F64": 8, "F32": 4, "BF16": 2, "I16": 2, "U8": 1, "BOOL": 1, "I64": 8, "F8_E4M3": 1, "X": 1}
    table: dict = {}
    position = 0
    for name in draw(st.lists(st.sampled_from(["a", "b", "c", "é", ""]), unique=True, max_size=3)):
        dtype = draw(st.sampled_from(sorted(item)))
        shape = draw(st.lists(_small, max_size=3))
        end = position + item[dtype] * math.prod(shape)
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        if draw(st.integers(0, 5)) == 0:
            table[name]["shape"] = [*shape, draw(_sizes)]
        if draw(st.integers(0, 9)) == 0:
            table[name]["data_offsets"][draw(st.integers(0, 1))] = draw(_sizes)
        position = end
    if draw(st.integers(0, 9)) == 0:
        table[draw(st.sampled_from(["__metadata__", "d"]))] = draw(
            st.sampled_from([{}, {"k": "v"}, {"k": 1}, None, []])
        )
    items = draw(st.permutations(list(table.items())))
    return dict(items), max(0, position + draw(st.sampled_from([0, 0, 0, 0, 1, -1])))


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plausible())
def test_plausible_headers_are_refused_or_read_as_the_package_reads_them(tmp_path, case):
    table, count = case
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    data = struct.pack("<Q", len(header)) + header + b"\1" * count
    path = tmp_path / "plausible.safetensors"
    path.write_bytes(data)
    try:
        got = read_ours(path)
    except CheckpointError:
        return
    assert_same(got, load(data))


def test_the_fuzz_starts_from_a_file_both_accept(tmp_path):
    (tmp_path / "base").write_bytes(BASE)
    assert_same(read_ours(tmp_path / "base"), load(BASE))


def test_the_package_refuses_what_we_refuse_for_gaps():
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}  '
    with pytest.raises(SafetensorError):
        load(struct.pack("<Q", len(header)) + header + bytes(8))
