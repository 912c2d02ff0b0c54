"""The pickle inside a torch file, read without running it: which tensors it describes, over which storages.

Knows the few instructions that ``torch.save`` of plain weights writes and refuses every other, so that nothing is
called, and nothing allocated beyond a fixed multiple of the pickle. No torch, no files.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ondevice.errors import CheckpointError

__all__ = ["ITEM_SIZES", "MAX_PICKLE", "StorageSpec", "TensorSpec", "read_pickle"]

MAX_PICKLE = 1 << 23  # bytes; a model of a thousand tensors with its optimizer takes 0.3 MB
_MAX_STEPS = 500_000
_MAX_CALLS = 100_000  # each makes an object in torch for as little as three bytes here
_MAX_DIMENSIONS = 64
_MAX_NUMBER = 2**63 - 1
_LONGEST_NAME = 200

ITEM_SIZES = {
    **dict.fromkeys(("float64", "int64", "uint64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
}
_UNTYPED = ""  # a storage of bytes, whose tensors bring their dtype
_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.storage.UntypedStorage": _UNTYPED,
}
_DTYPES = {f"torch.{name}": name for name in ITEM_SIZES}


@dataclass(frozen=True, kw_only=True)
class StorageSpec:
    """The part ``data/<key>`` of the file. ``dtype`` is empty for bytes without one."""

    key: str
    dtype: str
    bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)  # two equal views are still two tensors
class TensorSpec:
    """A tensor as described. ``dtype`` is of `ITEM_SIZES`; the numbers are in elements."""

    storage: StorageSpec
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    name: str


class _Opaque:
    """A value of no interest: neither a tensor, nor a container, nor a number or text."""


class _BadPickle(Exception):
    """What is wrong, as the end of a sentence."""


def read_pickle(data: bytes, *, where: str) -> tuple[Any, list[TensorSpec]]:
    """The saved value with a `TensorSpec` for each tensor, and every tensor that loading would make, used or not.

    Containers may hold each other any number of times: nobody should walk them in depth.
    Raises CheckpointError, one sentence beginning with ``where``.
    """
    machine = _Machine(data)
    try:
        return machine.run(), machine.tensors
    except _BadPickle as problem:
        raise CheckpointError(f"{where}: not plain weights: {problem}.") from None
    except (IndexError, KeyError, UnicodeDecodeError):
        raise CheckpointError(f"{where}: not plain weights: its pickle is malformed.") from None


class _Machine:
    """The stack, the memo and the instructions; what a call means is decided below."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under the marks
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, StorageSpec] = {}
        self._calls = 0
        self.tensors: list[TensorSpec] = []

    def run(self) -> Any:
        _expect(len(self._data) <= MAX_PICKLE, f"its pickle has {len(self._data)} bytes, the limit is {MAX_PICKLE}")
        _expect(self._take(2) == b"\x80\x02", "its pickle is not of protocol 2, the one torch.save writes by itself")
        for _ in range(_MAX_STEPS):
            code = self._take(1)
            if code == b".":
                return self._result()
            if code not in _STEPS:
                raise _BadPickle(f"its pickle has the instruction {code!r}, which torch.save of weights never writes")
            _STEPS[code](self)
        raise _BadPickle(f"its pickle has more than {_MAX_STEPS} instructions")

    def _result(self) -> Any:
        _expect(self._at == len(self._data), "its pickle goes on after its end")
        _expect(not self._below and len(self._stack) == 1, "its pickle does not leave one value")
        return self._stack[0]

    def _take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        _expect(len(data) == count, "its pickle is cut short")
        self._at += count
        return data

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + _LONGEST_NAME)
        _expect(end >= 0, "its pickle has a name without an end")
        return self._take(end + 1 - self._at)[:-1].decode("utf-8")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pop(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def number(self, form: str) -> None:
        self._stack.append(self._number(form))

    def constant(self, value: Any) -> None:
        self._stack.append(value)

    def long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def text(self) -> None:
        self._stack.append(self._take(self._number("<I")).decode("utf-8"))

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def tuple_of(self, count: int | None) -> None:
        items = self._pop_mark() if count is None else self._pop(count)
        self._stack.append(tuple(items))

    def put(self, form: str) -> None:
        self._memo[self._number(form)] = self._stack[-1]

    def get(self, form: str) -> None:
        self._stack.append(self._memo[self._number(form)])

    def append(self, *, marked: bool) -> None:
        items = self._pop_mark() if marked else self._pop(1)
        target = self._stack[-1]
        _expect(type(target) is list, "its pickle appends to something that is no list")
        target.extend(items)

    def set_items(self, *, marked: bool) -> None:
        items = self._pop_mark() if marked else self._pop(2)
        target = self._stack[-1]
        _expect(type(target) in (dict, OrderedDict), "its pickle sets a key of something that is no dict")
        _expect(len(items) % 2 == 0, "its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Anything deeper than text and numbers could take for ever to hash.
            _expect(type(key) in (str, int), "a dict in it has a key that is neither text nor a whole number")
            target[key] = value

    def build(self) -> None:
        """What ``state_dict`` hangs on its dict: a note about versions, of no use here."""
        state = self._stack.pop()
        noted = type(self._stack[-1]) is OrderedDict and type(state) is dict and set(state) == {"_metadata"}
        _expect(noted, "its pickle gives attributes to an object")

    def find_global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        _expect(name in _KNOWN, _why_refused(name))
        self._stack.append(_Global(name))

    def load_storage(self) -> None:
        storage = _storage(self._stack.pop())
        known = self._storages.setdefault(storage.key, storage)
        _expect(known == storage, f"it describes part {storage.key!r} in two ways")
        self._stack.append(storage)

    def call(self) -> None:
        function, arguments = self._pop(2)
        self._calls += 1
        _expect(self._calls <= _MAX_CALLS, f"it makes more than {_MAX_CALLS} objects")
        _expect(type(function) is _Global and function.name in _CALLS, "its pickle calls what is no function")
        _expect(type(arguments) is tuple, "its pickle calls a function without arguments")
        result = _CALLS[function.name](arguments)
        if isinstance(result, TensorSpec):
            self.tensors.append(result)
        self._stack.append(result)


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"}": lambda machine: machine.constant({}),
    b"]": lambda machine: machine.constant([]),
    b")": lambda machine: machine.constant(()),
    b"N": lambda machine: machine.constant(None),
    b"\x88": lambda machine: machine.constant(True),
    b"\x89": lambda machine: machine.constant(False),
    b"J": lambda machine: machine.number("<i"),
    b"K": lambda machine: machine.number("<B"),
    b"M": lambda machine: machine.number("<H"),
    b"G": lambda machine: machine.number(">d"),
    b"\x8a": _Machine.long,
    b"X": _Machine.text,
    b"(": _Machine.mark,
    b"t": lambda machine: machine.tuple_of(None),
    b"\x85": lambda machine: machine.tuple_of(1),
    b"\x86": lambda machine: machine.tuple_of(2),
    b"\x87": lambda machine: machine.tuple_of(3),
    b"q": lambda machine: machine.put("<B"),
    b"r": lambda machine: machine.put("<I"),
    b"h": lambda machine: machine.get("<B"),
    b"j": lambda machine: machine.get("<I"),
    b"a": lambda machine: machine.append(marked=False),
    b"e": lambda machine: machine.append(marked=True),
    b"s": lambda machine: machine.set_items(marked=False),
    b"u": lambda machine: machine.set_items(marked=True),
    b"b": _Machine.build,
    b"c": _Machine.find_global,
    b"Q": _Machine.load_storage,
    b"R": _Machine.call,
}


def _why_refused(name: str) -> str:
    if name.startswith("torch."):
        return f"it has {name!r}, a kind of tensor that this program does not read"
    return (
        f"it names {name!r}, and loading that could run a program, so nothing was loaded; if you trust its maker, save "
        "it again with torch.save(model.state_dict(), FILE)"
    )


def _expect(sound: bool, problem: str) -> None:
    if not sound:
        raise _BadPickle(problem)


def _storage(identity: Any) -> StorageSpec:
    """``("storage", type, key, device, count of elements)``."""
    _expect(type(identity) is tuple and len(identity) == 5 and identity[0] == "storage", "it refers outside itself")
    _, kind, key, device, count = identity
    _expect(type(kind) is _Global and kind.name in _STORAGES, "it has a storage of unknown type")
    _expect(type(key) is str and key.isascii() and key.isdigit() and len(key) < 20, "it has a storage without a number")
    _expect(type(device) is str and _is_size(count), "it has a storage of absurd size")
    dtype = _STORAGES[kind.name]
    return StorageSpec(key=key, dtype=dtype, bytes=count * (ITEM_SIZES[dtype] if dtype else 1))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _sizes(value: Any) -> tuple[int, ...]:
    whole = type(value) is tuple and len(value) <= _MAX_DIMENSIONS and all(_is_size(size) for size in value)
    _expect(whole, "it has a tensor with a negative or absurd shape, stride or offset")
    sizes: tuple[int, ...] = value
    return sizes


def _typed_tensor(arguments: tuple[Any, ...]) -> TensorSpec:
    """``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])``."""
    _expect(len(arguments) in (6, 7), "it has a malformed tensor")
    storage = arguments[0]
    _expect(isinstance(storage, StorageSpec) and storage.dtype != _UNTYPED, "it has a tensor without a typed storage")
    _refuse_extras(*arguments[4:])
    return _tensor(arguments, storage.dtype)


def _untyped_tensor(arguments: tuple[Any, ...]) -> TensorSpec:
    """``_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])``."""
    _expect(len(arguments) in (7, 8), "it has a malformed tensor")
    storage, dtype = arguments[0], arguments[6]
    _expect(isinstance(storage, StorageSpec) and storage.dtype == _UNTYPED, "it has a tensor over a storage of a dtype")
    _expect(isinstance(dtype, _Global) and dtype.name in _DTYPES, "it has a tensor of unknown dtype")
    _refuse_extras(*arguments[4:6], *arguments[7:])
    return _tensor(arguments, _DTYPES[dtype.name])


def _tensor(arguments: tuple[Any, ...], dtype: str) -> TensorSpec:
    storage, offset, shape, stride = arguments[:4]
    _sizes((offset,))
    _expect(len(_sizes(shape)) == len(_sizes(stride)), "it has a tensor with more dimensions than strides, or fewer")
    return TensorSpec(storage=storage, dtype=dtype, offset=offset, shape=shape, stride=stride)


def _refuse_extras(grad: Any, hooks: Any, metadata: Any = None) -> None:
    """Hooks are functions, and metadata would make a tensor read as the negative of its bytes."""
    _expect(type(grad) is bool and type(hooks) is OrderedDict and not hooks, "it has a tensor with hooks")
    _expect(metadata is None, "it has a tensor with metadata")


def _parameter(arguments: tuple[Any, ...]) -> TensorSpec:
    """``_rebuild_parameter(tensor, requires_grad, hooks)``: the tensor, for us."""
    _expect(len(arguments) == 3 and isinstance(arguments[0], TensorSpec), "it has a parameter without a tensor")
    _refuse_extras(*arguments[1:])
    spec: TensorSpec = arguments[0]
    return spec


def _ordered_dict(arguments: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    _expect(arguments == (), "it makes a dict of something else")
    return OrderedDict()


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    _expect(len(arguments) == 1, "it has a malformed shape")
    return _sizes(arguments[0])


def _device(arguments: tuple[Any, ...]) -> _Opaque:
    plain = 1 <= len(arguments) <= 2 and type(arguments[0]) is str and all(_is_size(index) for index in arguments[1:])
    _expect(plain, "it has a malformed device")
    return _Opaque()


_CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor_v2": _typed_tensor,
    "torch._utils._rebuild_tensor_v3": _untyped_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch.device": _device,
}
_KNOWN = {*_CALLS, *_STORAGES, *_DTYPES}
