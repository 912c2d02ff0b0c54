"""The language a text is written in, by its letters and its commonest little words. A guess, and silent when unsure.

A text in a script of its own (Greek, Thai, ...) is known by its letters; of the languages that share one, each has its
thirty commonest words. Knows nothing of documents or configs.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

__all__ = ["LANGUAGES", "guess_language"]

_LETTERS = 4000  # of a text that are looked at: at its beginning, and as many in its middle
_MIN_WORDS = 8  # a shorter text may be in any language
_MIN_SHARE = 0.1  # of the words of a text: in running text a third or more are in the list of its language
_MIN_KNOWN = 3  # different words of the list of a language
_MIN_LEAD = 1.25  # over the second best
_LETTER_WEIGHT = 0.3  # words of one letter are also formulas, initials and lists

# Script -> the language that is meant where nothing in `_WORDS` says more. Ranges of code points.
_SCRIPTS = {
    "ja": "\u3040-\u30ff",
    "ko": "\uac00-\ud7a3\u1100-\u11ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff",
    "th": "\u0e00-\u0e7f",
    "ar": "\u0600-\u06ff\u0750-\u077f",
    "he": "\u0590-\u05ff",
    "el": "\u0370-\u03ff\u1f00-\u1fff",
    "hi": "\u0900-\u097f",
    "cyrillic": "\u0400-\u04ff",
    "latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
}

_WORDS = {
    "latin": {
        "cs": "a se v na je že to do s z o i jako za by ale pro tak po co jsem byl který která jsou při nebo od už",
        "da": "og i at det er en til på som med for af den der ikke de jeg et har var han men vi om sig fra eller blev",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus",
        "en": "the of and to in a is that for it as was with be by on not he his are this at from or have an which",
        "es": "de la que el en y a los se del las un por con una su para es al lo como más o pero sus le ha me sin",
        "fi": "ja on ei se että hän oli mutta kun niin ovat myös hänen joka sen ole tai kuin siitä mukaan jos minä nyt",
        "fr": "de la le et les des en un du une que est dans qui pour au sur il pas plus par ne se ce avec son sont",
        "hu": "a az és hogy nem is egy meg de ez csak volt már mint el ha vagy van még azt ki sem kell lesz igen",
        "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga ke saya ada adalah bisa oleh mereka",
        "it": "di e che la il un a per in è una sono non si da con del i le della dei nel al come più ma lo gli alla",
        "nl": "de van het een en in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog wordt door",
        "no": "og i det er som en på til av for at med ikke de har den jeg om et men var han seg vi fra eller skal hun",
        "pl": "w i na z się nie do to że jest o jak za po od ale co przez dla tym czy są tak był może już jego oraz",
        "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das foi à seu sua",
        "ro": "de și în a la cu că pe nu din se un o este mai pentru care sunt ca prin sau fost dar le au fi lui ce",
        "sv": "och i att det som en på är av för med den till inte om ett han men var jag sig från vi så kan när har",
        "tr": "ve bir bu da de için ile çok daha olarak gibi ama ne o en olan kadar sonra değil ben var ki mi her diye "
        "olduğu şey hiç böyle ya",
        "vi": "và của là có không được cho một trong người các với đã này những để khi từ cũng đến như về ra còn thì",
    },
    "cyrillic": {
        "bg": "на и да се в от за с е че не по са до си като при но това ще към след във или още има аз който беше",
        "ru": "и в не на что я с он а как это по но они к у из за от так о же вы бы мы для ее его если или был было",
        "sr": "и у је да се на су за од са не као који из то или али што би ће био која до по о бити има само ја већ",
        "uk": "і в на що не з та до як у це за він а по від я але є про або для й його було ми вони який щоб також",
    },
    "ar": {
        "ar": "في من على أن إلى هذا التي الذي عن مع كان لا ما هذه قد كل بين أو ذلك بعد لم وقد كانت هو هي كما وفي",
        "fa": "و در به از که این را با است برای آن یک خود تا بر می هم شد کرد ها های شده اما او پس نیز باید دو",
    },
}

# Letters that hardly any other of these languages has: each counts as one of its little words.
_MARKS = {"cs": "řěů", "da": "øæ", "de": "ß", "es": "ñ", "hu": "őű", "no": "øæ", "pl": "łżśęą", "pt": "ãõ", "ro": "țăș"}
_MARKS |= {"tr": "ğış", "vi": "ơưạảấầậắặếềệịọốồộớờợụứừự"}

LANGUAGES = tuple(
    sorted({*(name for table in _WORDS.values() for name in table), *(name for name in _SCRIPTS if len(name) == 2)})
)
"""Tags of the languages that are told apart."""

_SCRIPT = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_MARK = re.compile(f"[{''.join(_MARKS.values())}]")


def guess_language(text: str) -> str:
    """The tag of the language, such as ``tr``; empty for a short, mixed or unknown text.

    >>> guess_language("Bu kitap çok güzel ama o kadar da ucuz değil, yine de her gün bir sayfa okuyorum.")
    'tr'
    """
    middle = len(text) // 2
    sample = text if len(text) <= 2 * _LETTERS else f"{text[:_LETTERS]} {text[middle : middle + _LETTERS]}"
    script = _script(sample)
    if script not in _WORDS:
        return script
    words = _WORD.findall(sample.lower())
    return _by_words([*words, *_MARK.findall(sample)], script) if len(words) >= _MIN_WORDS else ""


def _script(sample: str) -> str:
    """The script of most letters; empty where none has three quarters of them. Japanese also writes Chinese letters."""
    if sample.isascii():
        return "latin"
    counts = Counter({name: len(pattern.findall(sample)) for name, pattern in _SCRIPT.items()})
    if counts["ja"] * 10 > counts["zh"]:
        counts["ja"] += counts.pop("zh")
    name, count = counts.most_common(1)[0]
    return name if count * 4 >= 3 * max(1, counts.total()) else ""


def _by_words(words: list[str], script: str) -> str:
    weights = _weights(script)
    scores: dict[str, float] = {}
    known: dict[str, set[str]] = {}
    for word in words:
        for name, weight in weights.get(word, ()):
            scores[name] = scores.get(name, 0.0) + weight
            known.setdefault(name, set()).add(word)
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    if not ranked or sum(word in known[ranked[0]] for word in words) < _MIN_SHARE * len(words):
        return ""
    second = scores[ranked[1]] if len(ranked) > 1 else 0.0
    sure = len(known[ranked[0]]) >= _MIN_KNOWN and scores[ranked[0]] >= _MIN_LEAD * second
    return ranked[0] if sure else ""


@cache
def _weights(script: str) -> dict[str, list[tuple[str, float]]]:
    """Little word -> the languages that have it, each with a weight that is small where many have it."""
    owners: dict[str, list[str]] = {}
    for name, words in _WORDS[script].items():
        for word in set(words.split()):
            owners.setdefault(word, []).append(name)
    for name, letters in _MARKS.items() if script == "latin" else ():
        for letter in letters:
            owners.setdefault(letter, []).append(name)
    return {word: [(name, _weight(word) / len(names) ** 0.5) for name in names] for word, names in owners.items()}


def _weight(word: str) -> float:
    return _LETTER_WEIGHT if len(word) == 1 and not _MARK.match(word) else 1.0
