"""The guess of a language is right where it speaks, and silent on what is short, mixed or no running text."""

import re

import pytest

from ondevice.data.languages import LANGUAGES, guess_language

SENTENCES = {
    "ar": "الكلب ركض في الشارع ولم يكن قد رأى السيارة التي كانت على الطريق بعد ذلك",
    "bg": "Кучето пресече улицата и не видя колата, но за щастие нищо не се случи и всичко е наред.",
    "cs": "Včera jsem byl v lese a bylo to tak krásné, že jsem se tam chtěl vrátit ještě jednou, ale už bylo pozdě.",
    "de": "Der Hund lief über die Straße und sah nicht, dass ein Auto kam, aber es ist zum Glück nichts passiert.",
    "el": "Ο σκύλος έτρεξε στον δρόμο",
    "en": "The dog ran over the street and did not see that a car was coming, but nothing happened to it.",
    "es": "El perro cruzó la calle sin mirar y un coche tuvo que frenar, pero por suerte no pasó nada más.",
    "fa": "سگ در خیابان دوید و ماشین را ندید اما به خیر گذشت و او را به خانه برد که این خوب است",
    "fi": "Koira juoksi kadun yli eikä nähnyt autoa, mutta onneksi mitään ei tapahtunut, ja hän oli siitä iloinen.",
    "fr": "Le chien a traversé la rue sans regarder et une voiture a dû freiner, mais il ne lui est rien arrivé.",
    "he": "הכלב רץ ברחוב",
    "hi": "कुत्ता सड़क पार करके भागा",
    "hu": "A kutya átszaladt az úton és nem látta az autót, de szerencsére nem történt semmi baj.",
    "id": "Anjing itu berlari menyeberang jalan dan tidak melihat mobil yang datang, tetapi tidak ada yang luka.",
    "it": "Il cane ha attraversato la strada senza guardare e una macchina si è fermata, ma non è successo niente.",
    "ja": "犬は道を渡って走りました",
    "ko": "개가 길을 건너 뛰었다",
    "nl": "De hond rende over de straat en zag niet dat er een auto aankwam, maar het is gelukkig goed afgelopen.",
    "pl": "Pies przebiegł przez ulicę i nie zauważył samochodu, ale na szczęście nic się nie stało.",
    "pt": "O cão atravessou a rua sem olhar e um carro teve de travar, mas por sorte não lhe aconteceu nada de mais.",
    "ro": "Câinele a trecut strada și nu a văzut mașina care venea, dar din fericire nu s-a întâmplat nimic.",
    "ru": "Собака перебежала через дорогу и не заметила машину, но, к счастью, ничего не случилось, и он был рад.",
    "sr": "Пас је претрчао улицу и није видео ауто, али се на срећу није ништа десило и све је било у реду.",
    "sv": "Hunden sprang över gatan och såg inte att det kom en bil, men som tur var hände det inte något.",
    "th": "สุนัขวิ่งข้ามถนน",
    "tr": "Köpek caddeyi geçti ve gelen arabayı görmedi ama neyse ki hiçbir şey olmadı, şoför de çok korktu.",
    "uk": "Собака перебіг через дорогу і не побачив машину, але, на щастя, нічого не сталося, і він був радий.",
    "vi": "Con chó chạy qua đường và không nhìn thấy chiếc xe đang đến, nhưng may mắn là không có ai bị thương.",
    "zh": "狗跑过了马路，没有看见汽车",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_known(language):
    assert language in LANGUAGES
    assert guess_language(SENTENCES[language]) == language


def test_all_but_two_that_only_lists_of_words_tell_apart_have_a_sentence():
    assert set(LANGUAGES) - set(SENTENCES) == {"da", "no"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello world",
        "12 34 56 78 90 " * 5,
        "def f(x):\n    return x + y * (a - b) / c  # z i o a e u\n" * 3,
        f"{SENTENCES['en']} {SENTENCES['ru']}",
        "Ankara Istanbul Berlin Paris London Roma Madrid Lisboa Wien Bern",
    ],
)
def test_what_is_not_sure_has_no_language(text):
    assert guess_language(text) == ""


def test_capitals_and_repetition_change_nothing():
    for language in ("de", "it", "ru", "tr"):
        assert guess_language(SENTENCES[language].upper()) in (language, "")  # capital I of two Turkish letters
        assert guess_language(SENTENCES[language] * 500) == language


def test_no_word_stands_twice_in_one_list():
    from ondevice.data import languages

    for table in languages._WORDS.values():
        for words in table.values():
            assert len(words.split()) == len(set(words.split())) and not re.search(r"[^\w ]", words)
