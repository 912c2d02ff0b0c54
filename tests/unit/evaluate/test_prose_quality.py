"""The prose score by hand, and language use with a scripted identifier."""

import pytest

from ondevice.errors import DeviceError
from ondevice.evaluate.natural_language import language_use, open_identifier
from ondevice.evaluate.prose_quality import Wording, score_prose

WORDING = Wording(["the cat sat on the mat and the dog ran home to see it"])


def score(text, ids=range(30), *, language="en", guessed="en", copy=False):
    return score_prose(text, list(ids), wording=WORDING, language=language, guessed=guessed, copied=copy)


def test_components_by_hand():
    found = score("the cat ran home to see the zebra. ")  # 7 of 8 words; pairs: the-cat ran-home home-to to-see of 7
    assert found.known_words == pytest.approx(7 / 8)
    assert found.known_pairs == pytest.approx(4 / 7)
    assert found.different_words == 7
    expected = 100 * (0.3 * 7 / 8 + 0.2 * 4 / 7 + 0.2 + 0.2 + 0.1) * 7 / 8
    assert found.score == pytest.approx(expected)


def test_what_must_score_low():
    assert score("").score == 0
    assert score("xqz wvv kjh qqq zzz bbb nnn mmm lll ").score < 55
    assert score("the cat " * 10, [1, 2] * 10).score < 25
    assert score("the cat sat on the mat and the dog ran home ", guessed="it").score == pytest.approx(80, abs=3)


def test_a_cut_word_does_not_count():
    assert score("the cat sa").known_words == 1.0
    assert (
        score_prose("the cat sa", [1], wording=WORDING, language="", guessed="", copied=False, ended=True).known_words
        < 1
    )


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
