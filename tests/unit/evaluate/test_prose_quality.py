"""The prose score by hand, and language use with a scripted identifier."""

import pytest

from ondevice.errors import DeviceError
from ondevice.evaluate.natural_language import language_use, open_identifier
from ondevice.evaluate.prose_quality import Wording, score_prose

WORDING = Wording(["the cat sat on the mat and the dog ran home to see it"])


def score(text, ids=range(30), *, language="en", guessed="en", copy=False):
    return score_prose(text, list(ids), wording=WORDING, language=language, guessed=guessed, copied=copy)


def test_components_by_hand():
    found = score("the cat ran home to see, the zebra. ")  # 7 of 8 words are known
    assert found.known_words == pytest.approx(7 / 8) == found.rare_words  # too few words to call any frequent
    assert found.known_neighbours == pytest.approx(4 / 9)  # the cat, ran home, home to, to see; not cat ran
    assert found.different_words == 7
    assert found.score == pytest.approx(100 * (0.2 * 7 / 8 + 0.4 * (7 / 8 * 4 / 9) ** 0.5 + 0.4) * 7 / 8)


def test_held_out_text_has_all_of_it():
    text = "the cat ran home to see, the zebra. "
    wording = Wording(["the cat sat on the mat and the dog ran home to see it"], [text])
    found = score_prose(text, range(30), wording=wording, language="", guessed="", copied=False)
    assert found.score == pytest.approx(100 * 7 / 8) and found.known_neighbours == 1.0


def test_frequent_words_alone_are_not_enough():
    words = [f"{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnop"]
    corpus = " ".join(["the of and to in"] * 50 + words + words)
    wording = Wording([corpus], [corpus[2000:2400]])
    salad = "the of and to in the of and to in "
    found = score_prose(salad, range(9), wording=wording, language="", guessed="", copied=False)
    assert found.known_words == 1.0 and found.rare_words == 0.0


def test_what_must_score_low():
    assert score("").score == 0
    assert score("xqz wvv kjh qqq zzz bbb nnn mmm lll ").score < 45
    assert score("the cat " * 10, [1, 2] * 10).score < 25
    assert score("the cat sat on the mat and the dog ran home ", guessed="it").score == pytest.approx(90, abs=3)


def test_a_cut_word_does_not_count():
    assert score("the cat sa").known_words == 1.0
    whole = score_prose("the cat sa", [1], wording=WORDING, language="", guessed="", copied=False, ended=True)
    assert whole.known_words < 1


class Scripted:
    """Italian where a vowel ends most words."""

    def identify(self, text):
        italian = text.count("o ") + text.count("a ") > 2
        return ("it", 0.99) if italian else ("en", 0.99 if "sure" in text else 0.5)


ITALIAN = "questo gatto nero ama la casa vecchia. "
ENGLISH = "surely the black cat likes this house. "


def test_consistency_and_switching():
    pairs = [("it", ITALIAN), ("en", ITALIAN), (ENGLISH, ENGLISH), ("it", ITALIAN * 3 + ENGLISH), ("it", "no")]
    found = language_use(pairs, Scripted())
    assert (found.n, found.consistency, found.switch_rate) == (4, 0.75, 0.25)
    assert language_use([("it", "no")], Scripted()).consistency is None


def test_py3langid_or_a_reason():
    try:
        identifier = open_identifier()
    except DeviceError as error:
        pytest.skip(str(error))
    assert identifier.identify("Il gatto nero dorme sul divano della cucina.")[0] == "it"
    assert identifier.identify("The black cat sleeps on the kitchen sofa.")[0] == "en"
