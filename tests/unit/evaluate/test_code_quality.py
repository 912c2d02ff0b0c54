"""The code score: what must score low, what people wrote must score high, and each component by itself."""

import random
import re
from pathlib import Path

import pytest

import ondevice
from ondevice.evaluate.code_lexer import is_code, lex
from ondevice.evaluate.code_quality import code_tokens, cut, parses, score_code
from ondevice.evaluate.novelty import copied
from ondevice.evaluate.text_classifier import TextClassifier, confusion

PYTHON = "def area(width, height):\n"
C = "int area(int width, int height)\n{\n"
PIECE = re.compile(r"\w{1,5}|\s+|[^\w\s]")
PROSE = (
    "The quick brown fox jumps over the lazy dog and goes home. It is a fine day in the park, and nobody wants to "
    "leave before the sun has set behind the old trees on the hill.\n"
)


def score(context, text, language, *, copy=False):
    words = PIECE.findall(text)
    ids = [sorted(set(words)).index(word) for word in words]
    return score_code(context, text, ids, language=language, guessed=language, copied=copy)


@pytest.mark.parametrize("language", ["python", "c", "javascript", "shell", "perl", "tcl"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "    pass\n",
        PROSE,
        "# only a comment that goes on and on, with a good many words in it, yet without any code at all\n",
        "// only a comment that goes on and on, with a good many words in it, yet without any code at all\n",
        "    x = 1\n" * 20,
        "foo(" * 40,
        "a b " * 30,
    ],
    ids=["empty", "pass", "prose", "hash-comment", "slash-comment", "lines", "calls", "words"],
)
def test_what_is_no_code_scores_below_20(language, text):
    context = PYTHON if language == "python" else C
    assert score(context, text, language).score < 20


GOOD_PYTHON = (
    "    if width < 0 or height < 0:\n        raise ValueError(f'{width} x {height}')\n"
    "    total = width * height\n    print('area', total)\n    return total\n"
)
GOOD_C = (
    "    if (width < 0 || height < 0) {\n        return -1;\n    }\n"
    '    printf("area of %d\\n", width);\n    return width * height;\n}\n'
)


def test_good_code_scores_all_of_it():
    assert score(PYTHON, GOOD_PYTHON, "python").score > 95
    assert score(C, GOOD_C, "c").score > 95
    worse = score(PYTHON, GOOD_PYTHON, "python", copy=True)
    assert worse.novel == 0 and worse.score == pytest.approx(score(PYTHON, GOOD_PYTHON, "python").score - 10)


def test_the_score_is_the_declared_sum():
    found = score(PYTHON, "    return width\n", "python")
    assert (found.parses, found.continues, found.code_tokens) == (1.0, 1.0, 2)
    assert found.score == pytest.approx(100 * 2 / 20)


@pytest.mark.parametrize(
    ("context", "text", "language", "right"),
    [
        ("", "def f(:\n", "python", False),
        ("", "def f():\n", "python", True),  # a block that is not there yet
        ("try:\n", "    go()\n", "python", True),
        ("@wraps\n", "@other\n", "python", True),
        ("x = [\n", "  1,\n", "python", True),
        ("class A:\n", "def f(self): pass\n", "python", False),
        (C, "return a[1);\n", "c", False),
        (C, 'puts("it);\n', "c", False),
        (C, "if (a) {\n", "c", True),
        (C, "}\n}\n", "c", False),
        ("", "call(function () {\n", "javascript", True),
        ("", "call(1,\n", "javascript", False),
        ("", "case $x in\n  a) echo 'one';;\nesac\n", "shell", True),
        ("", "if ($x =~ /it's (/) { s/a'b/c/; }\n", "perl", True),
    ],
)
def test_parsing_in_context(context, text, language, right):
    assert parses(context, text, language) is right


def test_it_is_cut_at_the_last_line_that_says_something_whole():
    assert cut("", "a = 1;\nb = f(1,\n 2", "c", ended=False) == "a = 1;\n"
    assert cut("", 'a = 1\nb = """one\ntwo', "python", ended=False) == "a = 1\n"
    assert cut("", "a = 1;\nb = 2;", "c", ended=True) == "a = 1;\nb = 2;"
    assert cut("f(", "1,\n2,\n3", "c", ended=False) == "1,\n2,\n"  # the prompt left it open


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a = b + 1\n", 5),
        ("a = b + 1\n" * 9, 5),
        ("# one two\n", 0),
        ("static const unsigned long int a = 1;\n", 9),
        ("f(x) " * 9, 4),
    ],
)
def test_code_tokens_are_counted_once(text, tokens):
    assert code_tokens(text, lex(text, "python" if "#" in text else "c").tokens) == tokens


def test_what_people_wrote_scores_above_80():
    rng, rows = random.Random(1), []
    texts = [path.read_text("utf-8") for path in sorted(Path(ondevice.__file__).parent.glob("run/*.py"))]
    for text in filter(lambda text: "__all__" in text, texts):
        start = text.index("__all__")
        at = rng.randrange(start, max(start + 1, len(text) - 400))
        rows.append(score(text[:at], "".join(PIECE.findall(text[at:])[:80]), "python").score)
    assert len(rows) >= 25 and sum(rows) / len(rows) > 80, sum(rows) / len(rows)


def test_the_classifier_tells_languages_apart():
    python = [GOOD_PYTHON, "import os\nfor name in os.listdir('.'):\n    print(name)\n"]
    c = [GOOD_C, "#include <stdio.h>\nint main(void) { return 0; }\n"]
    classifier = TextClassifier({"python": python, "c": c})
    table = confusion(classifier, {"python": ["for x in y:\n    print(x)\n"], "c": ["int f(int a) { return a; }\n"]})
    assert table == {"python": {"python": 1}, "c": {"c": 1}}
    assert classifier.guess("  ") == ""
    assert TextClassifier({"python": python, "c": c}).fingerprint == classifier.fingerprint


class Stream(list):
    def read(self, start, count):
        import numpy as np

        return np.array(self[start : start + count], np.uint16)


def test_long_copies_are_found_and_short_ones_are_not():
    training = Stream([(7 * i * i + i) % 251 for i in range(3000)])
    whole, short = training[1000:1051], training[1000:1050]
    broken = [*training[1000:1025], 255, *training[1026:1051]]
    assert copied([whole, short, broken, [9, *whole], []], [Stream([1] * 9), training]) == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert copied([], [training]) == []


def test_languages_we_know():
    assert is_code("python") and is_code("cobol") and not is_code("") and not is_code("en")
    assert lex("\ufffd", "c").errors == 1
