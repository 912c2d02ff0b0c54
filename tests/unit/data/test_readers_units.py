"""Files, paragraphs and lines as documents; very long ones in pieces that join to the text exactly."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.readers_units import LINE, PARAGRAPH, Piece, cut_pieces, records
from ondevice.data.readers_utf8 import Chunk

TEXT = st.text(alphabet="ab ğ😀\n\n\t", max_size=200)
CUTS = st.lists(st.integers(0, 200), max_size=8)


def parts(text: str, cuts: list[int]) -> list[str]:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(borders)]


def chunks(text: str, cuts: list[int]) -> list[Chunk]:
    result, line = [], 1
    for part in parts(text, cuts):
        result.append(Chunk(part, line))
        line += part.count("\n")
    return result


@given(text=TEXT, cuts=CUTS, limit=st.integers(1, 50))
def test_pieces_join_to_the_text_whatever_its_parts(text, cuts, limit):
    pieces = list(cut_pieces(parts(text, cuts), limit))
    assert "".join(piece.text for piece in pieces) == text
    assert all(0 < len(piece.text) <= limit for piece in pieces)
    assert pieces == list(cut_pieces([text], limit))
    assert [p.number for p in pieces] == ([0] if len(pieces) == 1 else list(range(1, len(pieces) + 1)))


def test_pieces_end_at_the_best_border():
    assert [p.text for p in cut_pieces(["aaaa bb\n\ncc dd\nee"], 12)] == ["aaaa bb\n\n", "cc dd\nee"]
    assert [p.text for p in cut_pieces(["aaaa bbb\ncc dd"], 12)] == ["aaaa bbb\n", "cc dd"]
    assert [p.text for p in cut_pieces(["aaaa bbbb cc"], 11)] == ["aaaa bbbb ", "cc"]
    assert [p.text for p in cut_pieces(["a" * 7], 3)] == ["aaa", "aaa", "a"]


@given(text=TEXT, cuts=CUTS)
def test_paragraphs_are_what_blank_lines_separate(text, cuts):
    found = list(records(chunks(text, cuts), PARAGRAPH))
    plain = [re.sub(r"\A(?:[^\S\n]*\n)+", "", part).rstrip() for part in re.split(r"\n(?:[^\S\n]*\n)+", text)]
    assert [piece.text for piece in found] == [part for part in plain if part]
    lines = text.split("\n")
    for piece in found:
        assert piece.number == 0
        assert lines[piece.line - 1].startswith(piece.text.split("\n")[0])


@given(text=TEXT, cuts=CUTS)
def test_lines_and_their_numbers(text, cuts):
    expected = [Piece(line, 0, n) for n, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    assert list(records(chunks(text, cuts), LINE)) == expected


@given(text=TEXT, cuts=CUTS, limit=st.integers(2, 20))
def test_long_lines_come_in_pieces_that_join_to_the_line(text, cuts, limit):
    assert list(records(chunks(text, cuts), LINE, limit)) == list(records([Chunk(text, 1)], LINE, limit))
    lines: dict[int, str] = {}
    for piece in records(chunks(text, cuts), LINE, limit):
        assert len(piece.text) <= limit
        lines[piece.line] = lines.get(piece.line, "") + piece.text
    plain = dict(enumerate(text.split("\n"), 1))
    assert all(plain[number] == line for number, line in lines.items())
    assert {n for n, line in plain.items() if line.strip()} <= set(lines)


def test_line_numbers_go_on_after_lines_that_were_left_out():
    # line 2 was left out, in the middle of a paragraph; line 6 after one
    text = [Chunk("one\n", 1), Chunk("three\n\nfive\n", 3), Chunk("seven\n\nnine", 7)]
    assert list(records(text, PARAGRAPH)) == [
        Piece("one\nthree", 0, 1),
        Piece("five\nseven", 0, 5),
        Piece("nine", 0, 9),
    ]
    assert [piece.line for piece in records(text, LINE)] == [1, 3, 5, 7, 9]
