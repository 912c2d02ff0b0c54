"""Rules leave out what they name and nothing else, count it with examples, and change no letter that counts."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.build import build_dataset
from ondevice.data.clean import cleaned, rules_of
from ondevice.data.documents import Document, Problems
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import CleanConfig, DataConfig, SourceConfig, TokenizerConfig

TURKISH = "Köpek caddeyi geçti ve gelen arabayı görmedi ama neyse ki hiçbir şey olmadı, şoför de çok korktu."
ENGLISH = "The dog ran over the street and did not see that a car was coming, but nothing happened to it."
ITALIAN = "Il cane ha attraversato la strada senza guardare e una macchina si è fermata, ma non è successo niente."


def keep(*texts, **rules):
    """Texts that stay, and the problems."""
    problems = Problems()
    documents = iter([Document(text, "s", "", f"f.txt:{i}") for i, text in enumerate(texts, 1)])
    return [document.text for document in cleaned(documents, CleanConfig(**rules), problems)], problems


def test_without_rules_nothing_is_touched():
    documents = iter([])
    assert cleaned(documents, CleanConfig(), Problems()) is documents and rules_of(CleanConfig()) == {}


@pytest.mark.parametrize(
    ("text", "words"), [("one two  three\nfour", 4), ("", 0), ("犬は走る", 4), ("犬 is dog", 3), ("…  -", 2)]
)
def test_words_are_counted(text, words):
    assert keep(text, min_words=words)[0] == [text]
    left, problems = keep(text, min_words=words + 1)
    assert left == [] and problems.count("few_words", "s") == 1


def test_long_words_are_left_out_and_letters_without_spaces_are_no_word():
    texts = ["a short one", "x" * 41, "y " + "z" * 40, "犬は道を渡って走りました" * 9]
    left, problems = keep(*texts, max_word_chars=40)
    assert left == [texts[0], *texts[2:]]
    assert problems.examples("s", "long_word") == (f"f.txt:2 '{'x' * 40}...'",)


def test_languages_are_kept_or_dropped_and_the_unsure_stay():
    texts = [TURKISH, ENGLISH, ITALIAN, "OK", "1 2 3"]
    assert keep(*texts, keep_languages=("tr", "it"))[0] == [TURKISH, ITALIAN, "OK", "1 2 3"]
    left, problems = keep(*texts, drop_languages=("en",))
    assert left == [TURKISH, ITALIAN, "OK", "1 2 3"]
    assert problems.summary() == [
        "s: 1 documents in another language (en) left out (f.txt:2 'The dog ran over the street and did not ...')."
    ]


def test_comments_of_code_do_not_decide():
    problems = Problems()
    code = Document(f"# {ENGLISH}\nx = 1\n", "s.python", "python", "a.py")
    assert list(cleaned(iter([code]), CleanConfig(drop_languages=("en",)), problems)) == [code]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"keep_languages": ("tk",)}, r"data.clean.keep_languages: 'tk' .*they are: ar, bg"),
        ({"keep_languages": ("tr",), "drop_languages": ("tr",)}, r"'tr' is in keep_languages and in drop_languages"),
    ],
)
def test_a_slip_in_the_rules_is_named(rules, message):
    with pytest.raises(UsageError, match=message):
        keep("text", **rules)


def test_one_form_of_unicode_keeps_every_turkish_letter():
    letters = "iıİIçÇğĞöÖşŞüÜâÂîÎûÛ"
    words = ["kar", "kâr", "hala", "hâlâ", "ılık", "ilik", "sınır", "sinir", "İzmir", "IRAK", "şük", "suk"]
    for word in [*letters, *words]:
        assert keep(word, unicode="nfc")[0] == [word]
    assert keep("ka\u0302r I\u0307zmir s\u0327u\u0308k", unicode="nfc")[0] == ["kâr İzmir şük"]
    assert keep("ka\u0302r")[0] == ["ka\u0302r"]  # only where it was asked for


@given(st.text(max_size=60))
def test_one_form_is_canonical_and_folds_nothing_else(text):
    (found,) = keep(f"x{text}", unicode="nfc")[0]
    assert unicodedata.normalize("NFD", found) == unicodedata.normalize("NFD", f"x{text}")
    assert keep(found, unicode="nfc")[0] == [found]


@pytest.fixture
def mixed(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join([TURKISH, "ka\u0302r", ENGLISH, "x" * 99, TURKISH + " Son."]))
    return tmp_path


def _build(folder, name, **rules):
    data = DataConfig(
        sources=(SourceConfig(path="a.txt", document="line"),), split="hash:0", clean=CleanConfig(**rules)
    )
    return build_dataset(data, TokenizerConfig(kind="byte"), base=folder, folder=folder / name)


def _text(dataset):
    stream = dataset.stream("a", "train")
    return dataset.tokenizer().decode(stream.read(0, len(stream)).tolist())


def test_a_build_follows_the_rules_and_tells_what_it_left_out(mixed):
    dataset = _build(mixed, "one", unicode="nfc", max_word_chars=50, drop_languages=("en",))
    assert _text(dataset) == f"{TURKISH}kâr{TURKISH} Son."
    told = json.loads((mixed / "one" / "dataset.json").read_text())["problems"]["a"]
    assert {reason: entry["count"] for reason, entry in told.items()} == {"language_en": 1, "long_word": 1}
    assert told["long_word"]["examples"] == [f"a.txt:4 '{'x' * 40}...'"]
    assert dataset.sources[0].documents == 3


def test_a_build_with_other_rules_is_another_and_without_rules_the_same(mixed):
    plain = _build(mixed, "one").manifest
    assert plain["inputs"] == _build(mixed, "two", min_words=0).manifest["inputs"]
    assert plain["inputs"] != _build(mixed, "one", min_words=2).manifest["inputs"]
    assert _build(mixed, "one").sha256 == plain["sha256"]


def test_rules_that_leave_nothing_say_why(mixed):
    with pytest.raises(DataError, match=r"no text was found \(a: 5 documents with too few words"):
        _build(mixed, "one", min_words=1000)
