"""The wire format against protobuf's own examples and, through the onnx package, its own parser."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.export import onnx_format
from ondevice.export.protobuf import Message, varint, write_pieces


class Payload:
    """A blob of two blocks."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def blocks(self):
        yield self.data[:1]
        yield memoryview(self.data)[1:]


def encoded(message: Message) -> bytes:
    file = io.BytesIO()
    write_pieces(file, message.pieces)
    assert file.tell() == message.size
    return file.getvalue()


def decoded_varint(data: bytes) -> int:
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (150, "9601"), (300, "ac02"), (-1, "ff" * 9 + "01")],
)
def test_varint_examples(value: int, wanted: str) -> None:
    assert varint(value).hex() == wanted


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_varint_round_trip(value: int) -> None:
    data = varint(value)
    assert decoded_varint(data) == value % (1 << 64)
    assert all(byte & 0x80 for byte in data[:-1]) and not data[-1] & 0x80
    assert len(data) == 10 if value < 0 else len(data) <= 10


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_varint_refuses_what_does_not_fit(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        varint(value)


def test_documented_messages() -> None:
    assert encoded(Message().varint(1, 150)).hex() == "089601"  # protobuf.dev, "A Simple Message"
    assert encoded(Message().text(2, "testing")).hex() == "120774657374696e67"
    assert encoded(Message().message(3, Message().varint(1, 150))).hex() == "1a03089601"
    assert encoded(Message().packed(6, [3, 270, 86942])).hex() == "3206038e029ea705"
    assert encoded(Message().packed(6, [])) == b""
    assert encoded(Message().float32(1, 1.0)).hex() == "0d0000803f"
    assert encoded(Message().float64(1, 1.0)).hex() == "09000000000000f03f"


def test_blobs_are_written_in_place_and_counted() -> None:
    message = Message().text(1, "a").message(2, Message().blob(3, Payload(b"xyz")).varint(4, 1))
    assert encoded(message) == b"\x0a\x01a\x12\x07\x1a\x03xyz\x20\x01"


@given(
    name=st.text(max_size=20),
    number=st.integers(-(1 << 63), (1 << 63) - 1),
    numbers=st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=5),
    fraction=st.floats(width=32, allow_nan=False),
    fractions=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5),
    text=st.text(max_size=20),
)
def test_nodes_and_attributes_parse_as_written(name, number, numbers, fraction, fractions, text) -> None:
    onnx = pytest.importorskip("onnx")
    values = {"i": number, "is": numbers, "f": fraction, "fs": fractions, "s": text}
    parsed = onnx.NodeProto.FromString(encoded(onnx_format.node("Op", ["x", ""], ["y"], values, name=name)))
    assert (parsed.op_type, list(parsed.input), list(parsed.output), parsed.name) == ("Op", ["x", ""], ["y"], name)
    got = {each.name: onnx.helper.get_attribute_value(each) for each in parsed.attribute}
    assert got == {**values, "s": text.encode()}
    kinds = {each.name: onnx.AttributeProto.AttributeType.Name(each.type) for each in parsed.attribute}
    assert kinds == {"i": "INT", "is": "INTS", "f": "FLOAT", "fs": "FLOATS", "s": "STRING"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "int8", "uint8", "bool"])
def test_tensors_equal_the_packages_own_bytes(dtype: str) -> None:
    onnx = pytest.importorskip("onnx")
    array = np.arange(6).reshape(2, 3).astype(dtype)
    ours = encoded(onnx_format.tensor("weight", array.shape, dtype, Payload(array.tobytes())))
    assert ours == onnx.numpy_helper.from_array(array, "weight").SerializeToString()


def test_value_infos_equal_the_packages_own_bytes() -> None:
    onnx = pytest.importorskip("onnx")
    ours = encoded(onnx_format.value_info("x", "int64", ["batch", 3, 0]))
    wanted = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["batch", 3, 0])
    assert ours == wanted.SerializeToString()


def test_a_model_parses_to_what_the_package_builds() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    array = np.ones((2,), dtype=np.float32)
    info = onnx_format.value_info("x", "float32", ["n"])
    graph = onnx_format.graph(
        "g",
        nodes=[onnx_format.node("Add", ["x", "w"], ["y"], {}, name="a", domain="some.domain")],
        initializers=[onnx_format.tensor("w", array.shape, "float32", Payload(array.tobytes()))],
        inputs=[info],
        outputs=[onnx_format.value_info("y", "float32", ["n"])],
    )
    ours = onnx.ModelProto.FromString(
        encoded(onnx_format.model(graph, producer="p", producer_version="1", metadata={"key": "value"}))
    )
    wanted = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"], name="a", domain="some.domain")],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])],
            [onnx.numpy_helper.from_array(array, "w")],
        ),
        producer_name="p",
        producer_version="1",
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    helper.set_model_props(wanted, {"key": "value"})
    assert ours == wanted
