"""Torch files made to do harm: each is refused in one sentence, runs nothing and takes no memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice.errors import CheckpointError, DataError, OndeviceError, ResourceError
from ondevice.model.torch_file import open_torch_file

PRISTINE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).bfloat16(), "c": torch.tensor(3)}


@dataclass(frozen=True)
class Part:
    """A member of a zip. What is None is told truly: ``told_*`` in the table, ``local_*`` before the bytes."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0
    told_size: int | None = None
    local_size: int | None = None
    told_crc: int | None = None
    told_at: int | None = None
    local_name: bytes | None = None
    after: bytes = b""


def zip_of(parts: list[Part], *, count: int | None = None, comment: bytes = b"", start: int | None = None) -> bytes:
    """A zip of parts as they are, lies included."""
    body, table = b"", b""
    for part in parts:
        crc = zlib.crc32(part.data) if part.told_crc is None else part.told_crc
        size = len(part.data) if part.told_size is None else part.told_size
        local = size if part.local_size is None else part.local_size
        at = len(body) if part.told_at is None else part.told_at
        wide = b""
        if size >= 2**32 - 1:
            wide, size, local = struct.pack("<2H2Q", 1, 16, size, size), 2**32 - 1, 2**32 - 1
        name = part.name if part.local_name is None else part.local_name
        body += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, part.flags, part.method, 0, 0, crc, local, local, len(name), len(wide)
        )
        body += name + wide + part.data + part.after
        entry = (20, 20, part.flags, part.method, 0, 0, crc, size, size, len(part.name), len(wide), 0, 0, 0, 0, at)
        table += struct.pack("<4s6H3L5H2L", b"PK\1\2", *entry) + part.name + wide
    count, start = len(parts) if count is None else count, len(body) if start is None else start
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(table), start, len(comment))
    return body + table + end + comment


class Call:
    """Pickles as a call of a function by name, whether it exists or not."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


@dataclass(frozen=True)
class Stored:
    """Pickles as a reference to a storage."""

    kind: str = "torch FloatStorage"
    key: Any = "0"
    count: Any = 4
    location: Any = "cpu"


class Writer:
    """A small pickler of protocol 2 that writes what no honest one would."""

    def __init__(self) -> None:
        self.out = io.BytesIO()

    def value(self, value: Any) -> None:
        write = self.out.write
        if isinstance(value, Call):
            write(b"c" + value.name.replace(" ", "\n").encode() + b"\n")
            self.value(value.arguments)
            write(b"R")
        elif isinstance(value, Stored):
            write(b"(")
            self.value("storage")
            write(b"c" + value.kind.replace(" ", "\n").encode() + b"\n")
            for item in (value.key, value.location, value.count):
                self.value(item)
            write(b"tQ")
        elif type(value) is tuple:
            write(b"(")
            for item in value:
                self.value(item)
            write(b"t")
        elif type(value) is dict:
            write(b"}(")
            for pair in value.items():
                for item in pair:
                    self.value(item)
            write(b"u")
        else:
            write(pickle.dumps(value, protocol=2)[2:-1])


def pickled(value: Any) -> bytes:
    writer = Writer()
    writer.value(value)
    return b"\x80\x02" + writer.out.getvalue() + b"."


def tensor(storage: Any = None, offset: Any = 0, shape: Any = (4,), stride: Any = (1,), *more: Any) -> Call:
    hooks = Call("collections OrderedDict")
    rest = more or (False, hooks)
    return Call("torch._utils _rebuild_tensor_v2", storage or Stored(), offset, shape, stride, *rest)


def torch_parts(data: bytes, storages: dict[str, bytes]) -> list[Part]:
    parts = [Part(b"w/data.pkl", data), Part(b"w/byteorder", b"little"), Part(b"w/version", b"3\n")]
    for key, content in storages.items():
        used = sum(30 + len(part.name) + len(part.data) for part in parts)
        pad = -(used + 30 + len(f"w/pad{key}") + 30 + len(f"w/data/{key}")) % 64
        parts += [Part(f"w/pad{key}".encode(), bytes(pad)), Part(f"w/data/{key}".encode(), content)]
    return parts


def torch_zip(value: Any, storages: dict[str, bytes] | None = None) -> bytes:
    data = value if isinstance(value, bytes) else pickled(value)
    return zip_of(torch_parts(data, {"0": bytes(16)} if storages is None else storages))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_torch_file(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message and len(message) < 500
    return message


def test_the_builders_make_what_is_read(path):
    """So that each attack below is refused for its one lie."""
    path.write_bytes(torch_zip({"x": tensor(shape=(2, 2), stride=(2, 1))}))
    assert open_torch_file(path)["x"].equal(torch.zeros(2, 2))
    assert torch.load(path, weights_only=True)["x"].equal(torch.zeros(2, 2))
    assert zipfile.ZipFile(path).testzip() is None


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (tensor(shape=(2, 2), stride=(0, 1)), "'x' uses the same bytes"),
        (tensor(shape=(2**20,), stride=(0,)), "'x' uses the same bytes"),
        (tensor(shape=(3, 2), stride=(1, 1)), "'x' uses the same bytes"),
        (tensor(shape=(2, 2), stride=(1, 1)), "'x' uses the same bytes"),
        (tensor(shape=(5,)), "'x' wants more than the 16 bytes"),
        (tensor(shape=(2, 2), stride=(3, 1)), "'x' wants more than the 16 bytes"),
        (tensor(offset=1), "'x' wants more"),
        (tensor(offset=2**62, shape=(1,)), "'x' wants more"),
        (tensor(offset=5, shape=(0,)), "'x' lies outside its storage"),
        (tensor(shape=(2**62, 4), stride=(0, 1)), "'x' has an absurd shape"),
        (tensor(shape=(2**40, 2**40, 0), stride=(1, 1, 1)), "'x' has an absurd shape"),
        (tensor(shape=(2**63 - 1,), stride=(2**63 - 1,)), "'x' has an absurd shape"),
        (tensor(shape=(2**63,)), "absurd shape, stride or offset"),
        (tensor(shape=(-4,)), "negative"),
        (tensor(stride=(-1,)), "negative"),
        (tensor(offset=-1), "negative"),
        (tensor(shape=(True,)), "absurd"),
        (tensor(shape=(4.0,)), "absurd"),
        (tensor(shape=4), "absurd"),
        (tensor(shape=(1,) * 65, stride=(1,) * 65), "absurd"),
        (tensor(shape=(2, 2)), "more dimensions than strides"),
        (tensor(Stored(key="1")), "'x' has no bytes in it where its storage needs 16"),
        (tensor(Stored(count=2**40)), "'x' has 16 bytes in it where its storage needs 4398046511104"),
        (tensor(Stored(count=0), shape=(10**12,)), "'x' has 16 bytes in it where its storage needs 0"),
        (tensor(Stored(count=-4)), "absurd size"),
        (tensor(Stored(count=2**80)), "absurd size"),
        (tensor(Stored(key="../../0")), "without a number"),
        (tensor(Stored(key=0)), "without a number"),
        (tensor(Stored(location=3)), "absurd size"),
        (tensor(Stored("torch float32")), "unknown type"),
        (tensor(Stored("torch.storage UntypedStorage", count=16)), "without a typed storage"),
        (tensor("storage"), "without a typed storage"),
        (tensor(None, 0, (4,), (1,), True, {"hook": 1}), "hooks"),
        (tensor(None, 0, (4,), (1,), False, Call("collections OrderedDict"), {"neg": True}), "metadata"),
        (Call("torch._utils _rebuild_tensor_v2", Stored()), "malformed tensor"),
        (Call("torch._utils _rebuild_tensor_v2"), "malformed tensor"),
        (Call("torch._utils _rebuild_tensor_v3", *range(7)), "a storage of a dtype"),
        (Call("torch._utils _rebuild_parameter", 1, True, 2), "parameter without a tensor"),
        (Call("torch FloatStorage", 10**12), "calls what is no function"),
        (Call("torch FloatTensor", 10**12), "'torch.FloatTensor', a kind of tensor"),
        (Call("torch.storage UntypedStorage", 10**12), "calls what is no function"),
        (Call("builtins bytearray", 10**12), "it names 'builtins.bytearray'"),
        (Call("_codecs encode", "x" * 1000, "utf-8"), "it names '_codecs.encode'"),
        (Call("torch.nn.parameter Parameter", 1), "a kind of tensor"),
        (Call("torch Size", (10,) * 65), "absurd"),
        (Call("torch device", {"a": 1}), "malformed device"),
    ],
)
def test_a_tensor_that_its_bytes_do_not_account_for(path, bad, says):
    assert says in refusal(path, torch_zip({"x": bad}))
    beside = {"model": {"x": tensor(Stored(key="9"))}, "y": [1], "z": bad}  # torch would make z all the same
    message = refusal(path, torch_zip(beside, {"0": bytes(16), "9": bytes(16)}))
    assert says.replace("'x'", "a tensor beside the weights") in message


def test_one_storage_may_not_be_two_things(path):
    twice = {"x": tensor(), "y": tensor(Stored("torch DoubleStorage", count=2), shape=(2,))}
    assert "part '0' in two ways" in refusal(path, torch_zip(twice))


def test_an_empty_storage_does_not_grow(path):
    data = torch_zip({"x": tensor(Stored(count=0), shape=(10**12,))}, {"0": b""})
    assert "'x' wants more than the 0 bytes" in refusal(path, data)


def test_unaligned_bytes_are_refused(path):
    """Of two folders whose names differ by a letter, one at most leaves the storage at a multiple of 4."""
    messages = []
    for folder in (b"w", b"ww"):
        parts = [Part(folder + b"/data.pkl", pickled({"x": tensor()})), Part(folder + b"/data/0", bytes(16))]
        path.write_bytes(zip_of(parts))
        try:
            open_torch_file(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert any("'x' is not aligned" in message for message in messages)


class TestPickles:
    """Nothing is ever called, and every loop has an end."""

    @pytest.mark.parametrize(
        "name", ["os system", "posix system", "builtins eval", "subprocess getoutput", "torch.hub load"]
    )
    def test_a_call_of_a_program(self, path, name):
        marker = path.with_name("ran")
        data = torch_zip({"x": tensor(), "y": Call(name, f"touch {marker}")})
        assert name.replace(" ", ".") in refusal(path, data)
        assert not marker.exists()

    @pytest.mark.parametrize(
        "program",
        [
            b"(S'touch MARK'\nios\nsystem\n.",
            b"\x8c\x02os\x8c\x06system\x93\x8c\nMARK\x85R.",
            b"cos\nsystem\n(X\x04\x00\x00\x00MARKtR.",
            b"ccollections\nOrderedDict\n)\x81.",
            b"\x82\x01.",
            b"U\x04MARK.",
            b"P0\n.",
        ],
    )
    def test_instructions_that_weights_do_not_need(self, path, program, monkeypatch):
        monkeypatch.chdir(path.parent)
        assert "not plain weights" in refusal(path, torch_zip(b"\x80\x02" + program))
        assert os.listdir(path.parent) == [path.name]

    @pytest.mark.parametrize(
        "program",
        [
            b"",
            b"}",
            b"}.more",
            b"(}.",
            b"}}.",
            b"t.",
            b"R.",
            b"))R.",
            b"h\x05.",
            b"q\x00.",
            b"s.",
            b"]K\x01K\x02s.",
            b"}K\x01a.",
            b"}(K\x01u.",
            b"}]K\x01s.",
            b"}}b.",
            b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
            b"ccollections\nOrderedDict\n]R.",
            b"ccollections\nOrderedDict\n](K\x01t\x85R.",
            b"X\xff\xff\xff\xffab.",
            b"X\x02\x00\x00\x00\xff\xfe.",
            b"\x8a\xffab.",
            b"c" + b"a" * 300 + b"\nb\n.",
            b"cos",
            b"NQ.",
            b"(X\x07\x00\x00\x00storageNtQ.",
            b"ctorch\nFloatStorage\n.",
        ],
    )
    def test_malformed_ones(self, path, program):
        refusal(path, torch_zip(b"\x80\x02" + program))

    def test_nesting_calls_and_repetition_have_limits(self, path):
        deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
        calls = b"\x80\x02](" + b"ccollections\nOrderedDict\nq\x00)q\x01R" + b"h\x00h\x01R" * 120_000 + b"e."
        endless = b"\x80\x02(" + b"N" * 600_000 + b"t."
        wide = b"\x80\x02(" + b"X\xf0\xff\x00\x00" + b"x" * 0xFFF0 + b"t."
        for data, says in (
            (deep, "holds one list"),
            (calls, "more than 100000 objects"),
            (endless, "more than 500000 instructions"),
            (wide, "holds one tuple"),
            (b"\x80\x02" + b"N" * 9_000_000, "part 'data.pkl' has 9000002 bytes"),
        ):
            assert says in refusal(path, torch_zip(data))

    def test_towers_of_tuples_are_never_walked(self, path):
        """Each a pair of the one before: 2**200 steps to hash, to compare or to print it."""
        tower = b")" + b"q\x00h\x00\x86" * 200
        assert "a key that is neither" in refusal(path, torch_zip(b"\x80\x02}" + tower + b"Ns."))
        for value in (tower, b"](" + tower + b"e", b"ctorch\ndevice\n" + tower + b"R", tower + b"Q"):
            data = b"\x80\x02}(" + pickled("n")[2:-1] + pickled({"x": 1})[2:-1] + pickled("y")[2:-1] + value + b"u."
            refusal(path, torch_zip(data))
        data = pickled({"model": {"x": tensor()}})[:-1] + pickled("y")[2:-1] + tower + b"s."
        path.write_bytes(torch_zip(data))
        assert open_torch_file(path)["x"].equal(torch.zeros(4))


class TestZips:
    """The table of contents against the bytes."""

    honest = staticmethod(lambda: torch_parts(pickled({"x": tensor()}), {"0": bytes(16)}))

    @pytest.mark.parametrize(
        "name",
        [b"/data/1", b"../data/1", b"w/../../x", b"w/./x", b"w\\x", b"w//x", b"w/", b"", b"\xff", b"w/\nx", b"w" * 600],
    )
    def test_names_that_lead_elsewhere(self, path, name):
        assert "not a sound torch file" in refusal(path, zip_of([*self.honest(), Part(name, b"x")]))

    @pytest.mark.parametrize("name", [b"w/data/0", b"w/DATA/0", b"W/data.PKL"])
    def test_a_name_twice(self, path, name):
        assert "occurs twice" in refusal(path, zip_of([*self.honest(), Part(name, b"x")]))

    def test_members_of_two_folders(self, path):
        assert "not one that torch.save made" in refusal(path, zip_of([*self.honest(), Part(b"v/x", b"x")]))
        assert "not one that torch.save made" in refusal(path, zip_of([Part(b"w/other", b"x")]))

    @pytest.mark.parametrize(
        ("lie", "says"),
        [
            ({"told_size": 10**6, "local_size": 10**6}, "claims 1000000 bytes"),
            ({"told_size": 10**13}, "claims 10000000000000 bytes"),
            ({"told_size": 8}, "hidden before|do not end where"),
            ({"told_size": 8, "local_size": 16}, "described in two ways"),
            ({"local_size": 8}, "described in two ways"),
            ({"local_size": 0}, "described in two ways"),
            ({"told_crc": 7}, "part 'data/0' is not what was written"),
            ({"told_at": 0}, "not where its table says"),
            ({"told_at": 2**31}, "lies outside the file"),
            ({"local_name": b"w/data/9"}, "not where its table says"),
            ({"method": 8}, "compressed"),
            ({"flags": 1}, "encrypted"),
            ({"flags": 64}, "encrypted"),
            ({"after": b"hidden"}, "do not end where"),
            ({"flags": 8, "after": bytes(25)}, "do not end where"),
        ],
    )
    def test_a_member_that_lies(self, path, lie, says):
        import re

        *parts, last = self.honest()
        assert re.search(says, refusal(path, zip_of([*parts, Part(last.name, last.data, **lie)])))

    @pytest.mark.parametrize("length", [0, 12, 16, 24])
    @pytest.mark.parametrize("local_size", [0, None])
    def test_descriptions_after_the_bytes_are_fine(self, path, length, local_size):
        """As torch writes them: the sizes before the bytes may be zero then, the table decides."""
        *parts, last = self.honest()
        path.write_bytes(
            zip_of([*parts, Part(last.name, last.data, flags=8, local_size=local_size, after=bytes(length))])
        )
        assert open_torch_file(path)["x"].equal(torch.zeros(4))

    def test_two_members_on_the_same_bytes(self, path):
        inner = zip_of([Part(b"w/data/1", bytes(40))])[: 30 + 8 + 40]
        *parts, _ = self.honest()
        outer = Part(b"w/data/0", bytes(16) + inner)
        start = sum(30 + len(part.name) + len(part.data) for part in parts) + 30 + len(outer.name) + 16
        body = [*parts, outer]
        table_only = Part(b"w/data/1", bytes(40), told_at=start)
        whole = zip_of([*body, table_only])
        cut = len(zip_of(body)[: zip_of(body).index(b"PK\1\2")])
        table_at = whole.index(b"PK\1\2")
        data = bytearray(whole[:cut] + whole[table_at:])
        data[-6:-2] = struct.pack("<L", cut)
        assert "lies on the bytes of another" in refusal(path, bytes(data))

    def test_something_before_between_or_after(self, path):
        honest = zip_of(self.honest())
        assert "not a torch file" in refusal(path, b"#!/bin/sh\n" + honest)
        assert "not where it should be" in refusal(path, b"PK\3\4" + honest)
        assert "does not end as a zip does" in refusal(path, honest + b"x")
        assert "does not end as a zip does" in refusal(path, zip_of(self.honest(), comment=b"hello"))
        first, *rest = self.honest()
        gap = Part(first.name, first.data, after=b"hidden")
        assert "hidden before" in refusal(path, zip_of([gap, *rest]))

    def test_counts_and_limits(self, path):
        assert "longer than its members" in refusal(path, zip_of(self.honest(), count=4))
        assert "cut short" in refusal(path, zip_of(self.honest(), count=60))
        assert "above the limit of 20000" in refusal(path, zip_of(self.honest(), count=20_001))
        assert "not where it should be" in refusal(path, zip_of(self.honest(), start=3))
        big = Part(b"w/byteorder2", bytes(70_000))
        assert "part 'byteorder2' has 70000 bytes" in refusal(path, zip_of([*self.honest(), big]))

    def test_two_ends_that_disagree(self, path):
        torch.save(PRISTINE, path)
        data = bytearray(path.read_bytes())
        data[-12:-10] = struct.pack("<H", 3)
        assert "two ends contradict" in refusal(path, bytes(data))
        data[-12:-10] = b"\xff\xff"  # "look in the 64-bit one", which is what it says then
        path.write_bytes(data)
        assert len(open_torch_file(path)) == 3
        at = data.rindex(b"PK\6\7") + 8
        data[at : at + 8] = struct.pack("<Q", 0)
        assert "64-bit end record" in refusal(path, bytes(data))

    def test_another_byte_order(self, path):
        parts = [Part(part.name, b"big" if part.name.endswith(b"order") else part.data) for part in self.honest()]
        assert "byte order" in refusal(path, zip_of(parts))


BOMBS = """
import resource, sys
from pathlib import Path
import torch
from ondevice.errors import CheckpointError
from ondevice.model.torch_file import open_torch_file
torch.zeros(10).sum()
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (96 << 20),) * 2)
for name in sys.argv[1:]:
    try:
        open_torch_file(Path(name))
    except CheckpointError as refusal:
        print(refusal)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system has no /proc")
def test_bombs_are_refused_without_the_memory_they_ask_for(tmp_path):
    """In a process that may take 96 MiB more than it has: torch.load alone dies of some of them, even restricted."""
    deflated = tmp_path / "deflated.pt"
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        file.writestr("w/data.pkl", pickled({"x": tensor(Stored(count=50 << 20), shape=(50 << 20,))}))
        with file.open("w/data/0", "w") as member:
            for _ in range(200):
                member.write(bytes(1 << 20))
    assert deflated.stat().st_size < 250_000
    assert "compressed" in refusal(deflated, deflated.read_bytes())
    bombs = {
        "lying": zip_of([*torch_parts(pickled({"x": tensor()}), {}), Part(b"w/data/0", b"", told_size=200 << 20)]),
        "storage": torch_zip({"x": tensor(Stored(count=10**9), shape=(10**9,))}),
        "expanded": torch_zip({"x": tensor(shape=(10**9,), stride=(0,))}),
        "grown": torch_zip({"x": tensor(Stored(count=0), shape=(10**9,))}, {"0": b""}),
        "bytearray": torch_zip({"x": tensor(), "y": Call("builtins bytearray", 10**9)}),
        "tensor": torch_zip({"x": tensor(), "y": Call("torch FloatTensor", 10**9)}),
        "calls": torch_zip(
            b"\x80\x02](ctorch\nSize\nq\x00((" + b"K\x01" * 1000 + b"t\x85q\x01" + b"h\x00h\x01R" * 9**6 + b"e."
        ),
        "table": zip_of([Part(b"w/%d" % i, b"") for i in range(20_001)]),
        "objects": torch_zip(b"\x80\x02](" + b"}" * 490_000 + b"e."),
    }
    paths = [deflated]
    for name, data in bombs.items():
        paths.append(tmp_path / f"{name}.pt")
        paths[-1].write_bytes(data)
    command = [sys.executable, "-c", BOMBS, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [str(path) for path in paths]


def saved(**options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(PRISTINE, out, **options)
    return out.getvalue()


def saved_without_checksums() -> bytes:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        return saved()
    finally:
        torch.serialization.set_crc32_options(before)


WHOLE, UNSUMMED = saved(), saved_without_checksums()


def outcome(path: Path, data: bytes) -> dict[str, torch.Tensor] | None:
    """What is read, or None where it is refused in one sentence."""
    path.write_bytes(data)
    try:
        return open_torch_file(path)
    except (CheckpointError, ResourceError, DataError) as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 500
        return None


def assert_pristine(got: dict[str, torch.Tensor] | None) -> None:
    if got is not None:
        assert list(got) == list(PRISTINE)
        assert all(got[name].dtype is tensor.dtype and got[name].equal(tensor) for name, tensor in PRISTINE.items())


def test_every_truncation_is_refused(path):
    for length in range(0, len(WHOLE), 3):
        refusal(path, WHOLE[:length])


_flips = st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=4)
_fuzz: Callable[..., Any] = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_fuzz
@given(_flips)
def test_flipped_bytes_are_noticed_or_harmless(tmp_path, flips):
    data = bytearray(WHOLE)
    for at, mask in flips:
        data[at] ^= mask
    assert_pristine(outcome(tmp_path / "flipped.pt", bytes(data)))


@_fuzz
@given(st.data())
def test_without_checksums_it_is_refused_or_read_as_torch_reads_it(tmp_path, data):
    """Where nothing tells damage, at least there is one reading of the file."""
    path = tmp_path / "unsummed.pt"
    start, length = UNSUMMED.index(b"\x80\x02}"), UNSUMMED.index(b"u.") - UNSUMMED.index(b"\x80\x02}") + 2
    changed = bytearray(UNSUMMED)
    for _ in range(data.draw(st.integers(1, 3))):
        at = start + data.draw(st.integers(0, length - 1))
        changed[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b"KqhQR)(t}us.\x85\x86\x88\x89X012ab")))
    got = outcome(path, bytes(changed))
    if got is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.load(path, weights_only=True, map_location="cpu")
    assert isinstance(theirs, dict) and list(theirs) == list(got)
    for name, found in got.items():
        assert found.shape == theirs[name].shape and found.dtype is theirs[name].dtype
        assert found.view(torch.uint8).equal(theirs[name].view(torch.uint8)) if found.ndim else True


@_fuzz
@given(st.binary(max_size=60), st.booleans())
def test_any_pickle_ends_in_a_sentence(tmp_path, program, framed):
    path = tmp_path / "any.pt"
    path.write_bytes(torch_zip(b"\x80\x02" + program + b"." if framed else program))
    with pytest.raises(OndeviceError):
        open_torch_file(path)


def test_an_ordered_dict_cannot_be_given_methods(path):
    """torch lets a pickle set attributes of one, so that ``state.items`` could be anything."""
    data = b"\x80\x02ccollections\nOrderedDict\n)R" + pickled({"items": 1})[2:-1] + b"b."
    assert "gives attributes to an object" in refusal(path, torch_zip(data))
