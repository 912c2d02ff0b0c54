"""Plain English prose about the things that support tickets are about, for the base of the demonstration.

A model from elsewhere has read what an invoice is, and that whoever is charged twice has a matter of billing. One that
is trained here in half an hour has not, so it reads small stories, talks and definitions about money, defects, accounts
and parcels, with the everyday words of training and held-out tickets alike. It never reads a ticket, an answer, the
instruction, a product or a place of theirs, JSON, or five words in a row of a held-out ticket; the tests compare them.
Everything comes from a seed.
"""

from __future__ import annotations

import random
import re

__all__ = ["make_prose"]

# [a|b] is one of both, {my} and the like are persons; what went wrong, in the past.
_EVENTS = {
    "billing": (
        "the [shop|firm|bank|seller] [charged|billed] {my} card [twice|two times|again|once more] for {thing}",
        "the [invoice|bill|sum|price|payment|amount] for {thing} was [wrong|too high|higher than agreed|far too much]",
        "{number} [euros|dollars|pounds|crowns|francs] were [taken|gone] from {my} [card|purse] because of {thing}",
        "the makers of {thing} [kept|took] {my} money [and nobody had asked {me}|although {I} had cancelled]",
        "the [refund|money|payment] never came back after {I} had returned {thing}",
        "{I} [waited for|wanted|asked for] {my} money back, {number} [euros|dollars|pounds|crowns|francs]",
        "{I} [waited for|wanted|asked for] a refund of {number} [euros|dollars|pounds|crowns|francs] for {thing}",
        "{I} had paid {number} [dollars|francs|crowns|euros] for {thing} and [was asked again|it was one too many]",
        "the [price|sum] on the [bill|invoice] was not the one {I} had been told for {thing}",
        "somebody had made a payment for {thing} that was none of {mine}, yet {I} had to pay the bill",
    ),
    "bug": (
        "the [screen|page|chart|map|list|menu|table] of {thing} [froze|hung|went blank|stayed blank|was broken]",
        "{thing} [crashed|closed itself|hung|failed] when {I} [opened|pressed|clicked] the [menu|inbox|archive]",
        "[an error|the same error] [came|showed] when {I} [used|opened|touched] the [page|map] of {thing}",
        "nothing at all happened when {I} [pressed|clicked|touched] the [button|box|bar|menu|search|filter] in {thing}",
        "the [calendar|timeline|dashboard|report|archive|table] of {thing} had [old|wrong|no] numbers after the update",
        "the [export|import|printer|search|filter|view] in {thing} was broken and [failed|gave an error|did nothing]",
        "after the update the [opening page|search|chart] of {thing} would [crash|freeze|hang|close] every time",
    ),
    "account": (
        "{I} could not [sign in|log in|get in] to {thing} any longer",
        "{I} [stood outside and could not|was not able to] get into {thing}",
        "{my} [password|login|username|code] for {thing} was [refused|not taken|not known|rejected|forgotten|lost]",
        "{my} [profile|account|login] in {thing} was [locked|blocked|closed] [in the night|one morning|again]",
        "the [code|reset|mail with the code] for getting back into {thing} [never arrived|did not come|came too late]",
        "{I} had to [change|correct] the [name|email|username|address] in {my} profile of {thing}",
        "{thing} [did not know|had forgotten|no longer knew] {me} and let {me} not sign in",
        "{I} [lost|forgot] the [password|login|username] of {thing} and [wanted a new one|waited for the reset]",
        "{I} wanted a new [email|name|username] on {my} [profile|login] in {thing} before signing in",
    ),
    "shipping": (
        "the [parcel|box|package|delivery] with {thing} [was lost|did not arrive|went past {town}|was late]",
        "the [courier|driver|postman] [left|put] {thing} with [neighbours|strangers|somebody else] in {town}",
        "{thing} should have been [shipped|brought|sent] to {town} [a week|two weeks|days] before",
        "tracking [said|showed] that {thing} [stood still|was still on the road|had gone astray] near {town}",
        "nobody [brought|delivered] [the box|the parcel|{thing}] to {my} [door|house|street] in {town}",
        "the [courier|driver|delivery] drove past {town} and there was no [box|parcel|package] with {thing}",
        "{thing} was on the [way|road] to {town} [for weeks|for days|for two weeks|for a month]",
    ),
}
# The same as somebody says it who is in the middle of it.
_NOW = {
    "billing": (
        "someone [takes|took] money out of {my} card without [asking me|a word], {number} [euros|dollars|francs]",
        "{I} [want|need] {my} money for {thing} back, since {I} sent it back [already|last week]",
        "{thing} [costs|cost] more on the [bill|invoice] than anyone said, {number} [pounds|crowns] too often",
        "please send back what {I} paid for {thing}, {number} [dollars|euros] too much",
    ),
    "bug": (
        "whenever {I} [press|click|use|open] the [menu|settings|map|archive], {thing} [fails|hangs|closes by itself]",
        "the [page|report|view|chart] of {thing} [shows|says] nothing since the update",
        "an error comes up as soon as {I} [click|press] anything in {thing}, and the [search|inbox] stops",
        "{thing} [freezes|crashes|breaks] here and nothing happens any more",
    ),
    "account": (
        "{I} cannot [sign in|log in|get in] since {thing} [refuses|rejects] {my} [password|code|login]",
        "{thing} does not accept {my} [password|username] and locks {me} out",
        "please [give me|send] another [password|email|code] for {my} [profile|login] in {thing}",
        "{I} need to change {my} [username|email] in {thing} and it will not let {me} in",
    ),
    "shipping": (
        "nobody here has [seen|brought] the [parcel|box] with {thing}",
        "the [courier|driver] says {thing} went on to {town}, and it never comes",
        "{thing} is [lost|late|still] on its road to {town} since [March|Monday]",
        "somebody else in {town} has {my} [parcel|package], the courier gave it away",
    ),
}
# What was well.
_FINE = {
    "billing": (
        "the [invoice|bill|price|sum|payment] was [right|fine|in order|as agreed|paid|settled]",
        "[the refund|{my} money] had come [back|in time|in spring]",
        "{I} had no quarrel with the [invoice|bill|price|payment]",
    ),
    "bug": (
        "the [page|program|menu|search|screen] [works|worked|ran well|opened at once|did not freeze|never crashed]",
        "the [error|crash|defect] [is gone|was gone|had been mended|of the week before was mended]",
        "nothing [froze|crashed|was broken|hung] any longer",
    ),
    "account": (
        "{my} [password|login|username|profile|email] [works|worked|was fine|was in order|was right|was taken at once]",
        "{I} could [sign in|log in|get in] with ease",
        "signing in was easy",
    ),
    "shipping": (
        "the [parcel|box|package|delivery] [had been fine|was in good order|had arrived|came early|had been quick]",
        "the [courier|driver] was [kind|friendly|quick]",
        "tracking [works|worked] and the [box|parcel] [looks|looked] good",
    ),
}
_NOUNS = {
    "billing": (
        "an invoice", "a bill", "a refund", "a payment", "a price", "a sum of money", "a card that is charged",
        "money that must come back", "what was paid",
    ),
    "bug": (
        "a crash", "an error", "a page that stays blank", "a menu that does nothing", "a program that freezes",
        "a tool that hangs", "a broken screen", "a chart with wrong numbers", "something that closes itself",
    ),
    "account": (
        "a password", "a login", "a username", "a profile", "signing in", "an email in a profile",
        "a code to get in", "a reset", "whoever is locked out",
    ),
    "shipping": (
        "a parcel", "a box on its way", "a courier", "a delivery", "tracking", "a package", "what was shipped",
        "something left with a neighbour", "what nobody brought",
    ),
}  # fmt: skip
_ABOUT = {"billing": "billing", "bug": "a bug", "account": "an account", "shipping": "shipping"}
_URGENT = (
    "everything [had|has] stopped for it",
    "{I} [need|needed] [help|this|an answer] [tonight|today|by the evening|at once]",
    "please [hurry|do be quick|come at once|help tonight]",
    "[our|the|all] work [has stopped|stands still|stopped] [now|today]",
    "[it was|this is|this was|that is|that was] urgent",
    "it [has|had] to be done on that very day",
    "nobody could work without it",
)
_CALM = (
    "[thanks to all|thank you|thanks|thanks, dear people]",
    "[there is no hurry|without any hurry]",
    "[it was|this is|this was|that is|that was] not urgent",
    "[take your time|any day will do|it can wait|there is time]",
    "{I} [was|am] in no hurry",
    "",
)
_TURNS = (", but ", ". Only, ", "; yet ", ". And now ", ". Even so, ", ". However, ", "; in spite of that, ")
_ASIDES = (", but ", ". Besides, ", ", while ", ", although ", ", and yet ", ". By the way, ")
_MIXED = 0.7  # share of troubles that tell what went well too
_NAMED = 0.5  # share of things that have a name
_THINGS = ("the tool", "the set", "the program", "the kit", "the new one", "our order", "it")
_SYLLABLES = tuple(
    start + vowel + end for start in "bdfgklmnprstvz" for vowel in "aeiou" for end in ("", "n", "r", "l", "s")
)
_ENDS = ("ak", "ix", "uth", "ogg", "ey")
_WOMEN = ("Anna", "Maria", "Ruth", "Clara", "Eva", "Nora", "Ida", "Paula", "Vera")
_MEN = ("Tom", "Paul", "Max", "Ben", "Carl", "Hugo", "Emil")
_SHE = {"I": "she", "my": "her", "me": "her", "mine": "hers"}
_HE = {"I": "he", "my": "his", "me": "him", "mine": "his"}
_SELF = {"I": "I", "my": "my", "me": "me", "mine": "mine"}
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def make_prose(paragraphs: int, *, seed: int) -> str:
    """So many paragraphs, a blank line between them."""
    rng = random.Random(f"prose {seed}")
    kinds = (_story, _talk, _talk, _lesson, _lesson, _lesson, _haste, _haste, _series, _meaning)
    return "\n\n".join(rng.choice(kinds)(rng) for _ in range(paragraphs)) + "\n"


def _story(rng: random.Random) -> str:
    """Told of somebody: what went wrong, often what went well, what it was about, whether it could wait."""
    name = rng.choice((*_WOMEN, *_MEN))
    told, verdict = _trouble(rng, _SHE if name in _WOMEN else _HE)
    when = "[One day|Last week|In March|On Monday|This morning|Once]"
    return f"{_pick(rng, f'{when} {name} [wrote|said|told them|wrote down]')} that {told} {verdict}"


def _talk(rng: random.Random) -> str:
    """Told by somebody, and what somebody else says it is about."""
    told, verdict = _trouble(rng, _SELF)
    return f'"{_capital(told)}" "{verdict}" {_pick(rng, "[said|answered|thought]")} {rng.choice(_MEN)}.'


def _trouble(rng: random.Random, persons: dict[str, str]) -> tuple[str, str]:
    topic, other = rng.sample(tuple(_EVENTS), 2)
    told = event = _event(rng, topic, persons)
    fine = _fill(rng, rng.choice(_FINE[other]), persons)
    if mixed := rng.random() < _MIXED:
        told = rng.choice((f"{fine}{rng.choice(_TURNS)}{event}", f"{event}{rng.choice(_ASIDES)}{fine}"))
    feeling, urgent = _feeling(rng, persons)
    return f"{told}.{feeling}", _verdict(rng, topic, other if mixed else "", urgent=urgent)


def _feeling(rng: random.Random, persons: dict[str, str]) -> tuple[str, bool]:
    """A sentence that tells whether it can wait, or none, and whether it is urgent."""
    tone, urgent = rng.choice(((_URGENT, True), (_CALM, False)))
    text = _fill(rng, rng.choice(tone), persons)
    return (f" {_capital(text)}." if text else ""), urgent


def _event(rng: random.Random, topic: str, persons: dict[str, str]) -> str:
    now = persons is _SELF and rng.random() < 0.5
    return _fill(rng, rng.choice((_NOW if now else _EVENTS)[topic]), persons)


def _verdict(rng: random.Random, topic: str, other: str, *, urgent: bool) -> str:
    """What it was about, at times what it was not, and whether it could wait."""
    denied = f", not {_ABOUT[other]}" if other and rng.random() < 0.5 else ""
    return f"{_about(rng, topic)}{denied}, and {'urgent' if urgent else 'could wait'}."


def _about(rng: random.Random, topic: str) -> str:
    what = "[So this|What was wrong|All this] [was about|had to do with|was a matter of]"
    return f"{_pick(rng, what)} {_ABOUT[topic]}"


def _lesson(rng: random.Random) -> str:
    """A single trouble, and at once what it is about: the shortest way to learn it."""
    topic = rng.choice(tuple(_EVENTS))
    event = _event(rng, topic, rng.choice((_SHE, _HE, _SELF, _SELF)))
    return f"{_capital(event)}. {_about(rng, topic)}."


def _haste(rng: random.Random) -> str:
    """A single trouble, and only whether it can wait."""
    persons = rng.choice((_SHE, _HE, _SELF, _SELF))
    event = _event(rng, rng.choice(tuple(_EVENTS)), persons)
    feeling, urgent = _feeling(rng, persons)
    return f"{_capital(event)}.{feeling} {_pick(rng, '[So it|All this|What was wrong]')} {_when(urgent)}."


def _when(urgent: bool) -> str:
    return "was urgent" if urgent else "could wait"


def _series(rng: random.Random) -> str:
    """Troubles of one kind in a row, so that each tells of the next."""
    topic = rng.choice(tuple(_EVENTS))
    events = (_event(rng, topic, _SELF) for _ in range(rng.choice((2, 3))))
    return f"{' '.join(f'{_capital(event)}.' for event in events)} {_about(rng, topic)}."


def _meaning(rng: random.Random) -> str:
    """What belongs to what."""
    return " ".join(_belongs(rng, topic) for topic in rng.sample(tuple(_NOUNS), 2))


def _belongs(rng: random.Random, topic: str) -> str:
    link = _pick(rng, "[belongs to|has to do with|is a matter of]")
    return f"{_capital(rng.choice(_NOUNS[topic]))} {link} {_ABOUT[topic]}."


def _fill(rng: random.Random, text: str, persons: dict[str, str]) -> str:
    thing = _made_up(rng) if rng.random() < _NAMED else rng.choice(_THINGS)
    town = _made_up(rng)
    return _pick(rng, text).format(number=rng.randrange(5, 400), thing=thing, town=town, **persons)


def _made_up(rng: random.Random) -> str:
    """A name that nobody has heard, as those of products."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.choice((1, 2, 2)))).capitalize() + rng.choice(_ENDS)


def _pick(rng: random.Random, text: str) -> str:
    return _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), text)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
