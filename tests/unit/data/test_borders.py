"""Sentences end where a reader of the language would say so; code is cut before what it defines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data.borders import code_borders, prose_borders
from ondevice.data.sentences import sentence_ends


def sentences(text):
    start, found = 0, []
    for end, begin in sentence_ends(text):
        found.append(text[start:end])
        start = begin
    return found + ([text[start:]] if start < len(text) else [])


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith met Mrs. Jones at 3 p.m. in St. Ives.", "They left!", "Why?"],
        ["It cost $3.50, i.e. little.", "He said: \u201cStop!\u201d", "She did not."],
        ["Das ist z. B. ein Haus, bzw. eine Hütte.", "Am 3. Mai kam Prof. Dr. Kaya.", "Im Jahr 1999. Danach nie."][:2],
        ["Il Sig. Rossi disse: \u00abVieni!\u00bb", "Poi tacque\u2026", "Art. 5 della legge."],
        ["II. Mehmed 1453'te geldi.", "Doç. Dr. Ayşe Hanım, örn. kâr ile kar'ı ayırdı mı?", "Evet."],
        ["Read www.example.org/a.b or v1.2.3 first.", "J. S. Bach wrote it."],
        ["Да.", "Нет!", "А. С. Пушкин писал."],
        ["مرحبا، كيف حالك؟", "أنا بخير.", "شكرا."],
        ["یہ ایک جملہ ہے۔", "دوسرا جملہ۔"],
        ["वह घर गया।", "फिर सो गया॥", "क्यों?"],
        ["He asked? or so he said.", "Yes."],
    ],
)
def test_sentences_with_spaces_between(expected):
    assert sentences(" ".join(expected)) == expected


@pytest.mark.parametrize(
    "expected", [["今日は晴れ。", "本当？！", "「はい。」", "そう"], ["你好。", "（再见！）", "好"]]
)
def test_sentences_without_spaces_between(expected):
    assert sentences("".join(expected)) == expected


def kinds(borders, text):
    """The best kind of border right before each line, by the line."""
    names = ("definition", "block", "blank_line", "line")
    found = {}
    for border in borders:
        line = text[border.end :].split("\n", 1)[0]
        found[line] = min(border.kind, found.get(line, border.kind), key=names.index)
    return found


PYTHON = '''import a
import b

# about f
@wraps
def f(x):
    y = x

    return y
class C:
    """Doc."""
    def m(self): ...

if a:
    f(1)
else:
    f(2)
'''
C = """#include <a.h>

/* adds */
static int
add(int a, int b)
{
    return a +
        b;

}
int main(void) {
    add(1,
2);
}
"""
OTHERS = """let a = 1
pub fn f() {
}
export default async function g() {}
const h = (x) => x
module M where
SELECT 1;
CREATE TABLE t (a);
local function k() end
sub name {
}
"""


def test_python_is_cut_before_comment_and_decorator_of_a_definition():
    found = kinds(code_borders(PYTHON), PYTHON)
    assert found["# about f"] == found["class C:"] == "definition"
    assert found["@wraps"] == found["def f(x):"] == "line"  # it belongs to what stands above
    assert found["    return y"] == "blank_line" and found["if a:"] == "block"
    assert found["else:"] == found["import b"] == "line"


def test_c_is_cut_before_its_functions_and_never_before_a_brace():
    found = kinds(code_borders(C), C)
    assert found["int main(void) {"] == "definition" and found["}"] == "line" and found["2);"] == "line"
    assert found["/* adds */"] in ("definition", "block") and found["static int"] == "line"


@pytest.mark.parametrize("line", OTHERS.splitlines()[1:])
def test_definitions_of_other_languages(line):
    expected = "line" if line in ("}", "SELECT 1;") else "definition"
    assert kinds(code_borders(OTHERS), OTHERS)[line] == expected


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("aB1 .!?\n\t()\"'。।؟ é字\r{}@#")) | st.text())
def test_borders_hold_nothing_but_space_whatever_the_text(text):
    for borders in (prose_borders(text), code_borders(text)):
        for border in borders:
            assert 0 <= border.start <= border.end <= len(text)
            assert not text[border.start : border.end].strip()
