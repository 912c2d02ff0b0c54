"""Invalid UTF-8 is never replaced: exactly the lines that hold it go, whatever the size of blocks and lines."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import readers_utf8
from ondevice.data.readers import Leaf, sniff
from ondevice.data.readers_utf8 import first_invalid, lenient_text, lines_text, strict_text
from ondevice.errors import DataError

PARTS = st.sampled_from(
    [
        b"a",
        b"line",
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\r",
        "ğ".encode(),
        "日本".encode(),
        "😀".encode(),
        b"\xff",
        b"\xc3",
        b"\x80",
    ]
)
BYTES = st.lists(PARTS, max_size=60).map(b"".join)


def leaf(data: bytes, block: int = 5) -> Leaf:
    def blocks():
        for start in range(0, len(data), block):
            yield data[start : start + block]

    return Leaf("a.txt", "/x/a.txt", "a.txt", len(data), blocks)


def expected(data: bytes) -> tuple[str, list[int]]:
    """The good lines and the numbers of the bad ones, the plain way."""
    good, bad = [], []
    for number, line in enumerate(_lines(data.removeprefix(codecs.BOM_UTF8)), start=1):
        try:
            good.append(line.decode())
        except UnicodeDecodeError:
            bad.append(number)
    return "".join(good).replace("\r\n", "\n"), bad


def _lines(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + parts[-1:]


@pytest.mark.parametrize("long_line", [8, 1 << 20])
@given(data=BYTES, block=st.integers(3, 40), bom=st.booleans())
def test_exactly_the_bad_lines_are_left_out(long_line, data, block, bom):
    data = codecs.BOM_UTF8 * bom + data
    bad = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers_utf8, "LONG_LINE", long_line)
        text = "".join(chunk.text for chunk in lines_text(leaf(data, block), bad.append))
    assert (text, bad) == expected(data)


@pytest.mark.parametrize("long_line", [8, 1 << 20])
@given(data=BYTES, block=st.integers(3, 40))
def test_chunks_know_their_physical_line(long_line, data, block):
    lines = _lines(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers_utf8, "LONG_LINE", long_line)
        for text, number in lines_text(leaf(data, block), lambda line: None):
            physical = lines[number - 1].decode().replace("\r\n", "\n")
            assert text.split("\n")[0] in physical


@given(data=BYTES, block=st.integers(3, 40), bom=st.booleans())
def test_strict_text_is_all_or_an_error_with_the_line(data, block, bom):
    data = codecs.BOM_UTF8 * bom + data
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        wrong = first_invalid(leaf(data, block))
        assert wrong == expected(data)[1][0]
        with pytest.raises(DataError, match=rf"^/x/a.txt:{wrong}: .*skip_line"):
            list(strict_text(leaf(data, block)))
    else:
        assert first_invalid(leaf(data, block)) is None
        assert "".join(chunk.text for chunk in strict_text(leaf(data, block))) == text


@given(data=BYTES, block=st.integers(3, 40))
def test_lenient_text_marks_every_invalid_byte(data, block):
    text = "".join(chunk.text for chunk in lenient_text(leaf(data, block)))
    assert text == data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def test_a_file_that_changes_between_the_two_passes_is_refused():
    # good when looked through, bad when read
    passes = [b"x" * (1 << 21) + b"\xff", b"x" * (1 << 21)]

    def blocks():
        data = passes.pop(0)
        for start in range(0, len(data), 1 << 18):
            yield data[start : start + (1 << 18)]

    with pytest.raises(DataError, match="changed while it was read"):
        list(lines_text(Leaf("a", "/x/a", "a", 0, blocks), lambda line: None))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"", None),
        (b"plain", None),
        ("çok güzel".encode(), None),
        ("ğ".encode()[:1], None),
        (b"caf\xe9 ", None),
        ("日本語".encode()[:-1], None),
        (b"a\0b", "binary_file"),
        (bytes(range(128, 256)) * 8, "binary_file"),
        ("hello".encode("utf-16"), "utf16_file"),
        (b"\xfe\xff\0h", "utf16_file"),
    ],
)
def test_sniffing(head, reason):
    problem = sniff(head)
    assert (problem.reason if problem else None) == reason
