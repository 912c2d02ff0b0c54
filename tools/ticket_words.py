"""The words of the support tickets, for three sides that share no template and no slot: what is trained on, what
settings are chosen on, and what is judged once. Only data; how a ticket is put together is in tools/tickets.py."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SIDES", "Words"]


@dataclass(frozen=True, kw_only=True)
class Words:
    """One side. Templates name slots in braces; ``matters`` and ``asides`` by label."""

    slots: dict[str, tuple[str, ...]]
    matters: dict[str, tuple[str, ...]]  # what a ticket is about
    asides: dict[str, tuple[str, ...]]  # another matter that is fine, done, or merely mentioned
    frames: tuple[str, ...]
    plain: tuple[str, ...]
    hurry: tuple[str, ...]
    calm: tuple[str, ...]


_TRAIN = Words(
    slots={
        "product": (
            "Lumina",
            "Torvik",
            "Baselo",
            "Quanto",
            "Merrin",
            "Osprey",
            "Fendal",
            "Zephra",
        ),
        "part": (
            "calendar",
            "export",
            "search box",
            "dashboard",
            "report view",
            "chart",
            "inbox",
            "printer menu",
        ),
        "amount": (
            "12 euros",
            "40 dollars",
            "75 euros",
            "9 pounds",
            "120 dollars",
            "33 euros",
        ),
        "place": (
            "Leeds",
            "Turin",
            "Oslo",
            "Porto",
            "Gdansk",
            "Lyon",
        ),
    },
    matters={
        "billing": (
            "I was charged {amount} twice for {product}",
            "please send the refund of {amount} for {product}",
            "the invoice for {product} shows {amount} too much",
            "my payment of {amount} for {product} was taken although I cancelled",
            "the price of {product} on my bill is not the agreed {amount}",
        ),
        "bug": (
            "the {part} of {product} freezes when I click on it",
            "{product} crashes as soon as I open the {part}",
            "the {part} of {product} stays blank since the update",
            "{product} shows an error whenever I use the {part}",
            "the {part} in {product} is broken and shows old numbers",
        ),
        "account": (
            "I cannot sign in to {product} any more",
            "my password for {product} is not accepted",
            "please change the email of my {product} profile",
            "I lost the login of {product} and the reset never comes",
            "my {product} profile was locked overnight",
        ),
        "shipping": (
            "the parcel with {product} never came to {place}",
            "tracking says {product} is still in {place}",
            "the courier left {product} with strangers in {place}",
            "{product} should have been shipped to {place} last week",
            "the delivery of {product} to {place} is late again",
        ),
    },
    asides={
        "billing": (
            "the invoice is fine",
            "I paid the bill already",
            "the refund came, thank you",
            "the price is right",
        ),
        "bug": (
            "the error is gone",
            "nothing is broken now",
            "the crash of last week is mended",
            "it never freezes",
        ),
        "account": (
            "my password works",
            "the login is fine",
            "I can sign in",
            "my profile is right",
        ),
        "shipping": (
            "the parcel arrived",
            "the delivery was fast",
            "the courier was kind",
            "tracking works",
        ),
    },
    frames=(
        "{aside}, but {matter}.",
        "{matter}. By the way, {aside}.",
        "Hello, {aside}. However, {matter}.",
    ),
    plain=(
        "{matter}.",
        "Hello, {matter}.",
    ),
    hurry=(
        " I need it today.",
        " Please hurry.",
        " This is urgent, our work has stopped.",
        " Do be quick, please.",
        " It cannot wait.",
        " Help is needed at once.",
        " Everything here has stopped.",
        " I must have it this evening.",
        " It has to be done now.",
        " Urgent, please!",
        " My team cannot go on without it.",
        " Answer today, not next week.",
        " There is no time left.",
        " Thank you for coming at once.",
        " I am in a hurry.",
        " Our shop stands still because of it.",
    ),
    calm=(
        "",
        " There is no hurry.",
        " Thank you.",
        " Any time this week is fine.",
        " This is not urgent.",
        " Take your time.",
        " It can wait.",
        " No need to be quick.",
        " Nothing has stopped, all goes on.",
        " I am in no hurry.",
        " Next week is soon enough.",
        " Whenever you have time.",
        " Thanks for your help.",
        " My team can go on without it.",
        " You need not answer today.",
        " Please do not hurry.",
        " There is time left.",
    ),
)
"""The endings were chosen on the develop side: of some 150 a base of 2 M learned less (tools/LOG.md)."""

_DEVELOP = Words(
    slots={
        "product": (
            "Kestral",
            "Vantor",
            "Helixa",
            "Ombrio",
            "Pallas",
            "Drovan",
        ),
        "part": (
            "timeline",
            "import",
            "filter bar",
            "start page",
            "table view",
            "map",
            "archive",
            "settings menu",
        ),
        "amount": (
            "18 francs",
            "61 dollars",
            "250 crowns",
            "27 pounds",
        ),
        "place": (
            "Ghent",
            "Malmo",
            "Bilbao",
            "Cork",
            "Bremen",
        ),
    },
    matters={
        "billing": (
            "someone took {amount} from my card for {product} without asking",
            "{amount} for {product} must come back to me, I returned it",
            "I want my {amount} back for {product}",
            "the sum for {product} is wrong by {amount}",
            "{product} charged me {amount} once too often, I want a refund",
            "a payment of {amount} for {product} was not mine and I never paid it",
        ),
        "bug": (
            "nothing happens in {product} when I press the {part}",
            "the {part} of {product} shows wrong numbers since the update",
            "{product} closes by itself when I open the {part}",
            "when I click on the {part}, {product} hangs",
            "an error comes up in {product} and the {part} fails",
            "the {part} stays broken and blank in {product}",
        ),
        "account": (
            "{product} does not know me any more and I cannot get in",
            "I cannot get into {product} since it was locked",
            "I want to change the name on my {product} profile",
            "the code to get back into {product} never comes",
            "{product} refuses my login and my password",
            "I want another email in {product} before I sign in",
        ),
        "shipping": (
            "{product} is still on its way to {place} after two weeks",
            "nobody brought {product} to {place} last week",
            "the box with {product} never came to {place}",
            "{product} was left with a neighbour in {place}",
            "the delivery went past {place} and no parcel with {product} came",
            "tracking lost {product} and so did the courier in {place}",
        ),
    },
    asides={
        "billing": (
            "no question about the invoice",
            "the bill is settled",
            "the refund of March came",
        ),
        "bug": (
            "the old error is mended",
            "no broken page this time",
            "nothing freezes",
        ),
        "account": (
            "my password is in order",
            "the login was easy",
            "my username is right",
        ),
        "shipping": (
            "the parcel was fine",
            "the delivery was quick",
            "the package looks good",
        ),
    },
    frames=(
        "{aside}; still, {matter}.",
        "Dear team, {matter}, though {aside}.",
        "{aside}. All the same {matter}.",
    ),
    plain=(
        "Dear team, {matter}.",
        "Good day, {matter}.",
    ),
    hurry=(
        " We need it by tonight.",
        " It is urgent.",
        " Please be quick, work has stopped here.",
    ),
    calm=(
        "",
        " No hurry at all.",
        " Many thanks.",
        " It is not urgent.",
    ),
)
"""Looked at as often as one likes: all settings were chosen on these."""

_HELD_OUT = Words(
    slots={
        "product": (
            "Sorbin",
            "Calyx",
            "Wendor",
            "Tamiko",
            "Radulo",
            "Escarn",
        ),
        "part": (
            "toolbar",
            "history",
            "task list",
            "photo view",
            "notes page",
            "contact list",
        ),
        "amount": (
            "47 crowns",
            "130 francs",
            "22 crowns",
            "64 francs",
        ),
        "place": (
            "Delft",
            "Graz",
            "Nantes",
            "Tartu",
            "Split",
        ),
    },
    matters={
        "billing": (
            "the shop sent a second bill of {amount} for {product}",
            "my bank says that {product} took {amount} again after I had cancelled",
            "I still wait for my {amount}, since {product} went back",
            "{amount} is far more than I was told for {product}",
            "my card was billed {amount} and I never asked for {product}",
            "{product} is on my invoice twice, {amount} each",
        ),
        "bug": (
            "the {part} of {product} hangs at every click",
            "{product} goes blank as soon as I touch the {part}",
            "since the update the {part} in {product} does nothing at all",
            "the {part} of {product} closes before I can use it",
            "I see old numbers in the {part} of {product}",
            "{product} gives an error where the {part} should be",
        ),
        "account": (
            "{product} says it does not know my username",
            "I forgot the code for {product} and stand outside",
            "my email in {product} has to be another one",
            "{product} locked me out last night",
            "the reset of {product} came too late and is refused",
            "whatever I try, I do not get into {product}",
        ),
        "shipping": (
            "{product} has been on the road to {place} for a month",
            "the driver put {product} before the wrong house in {place}",
            "strangers in {place} have the box with {product} now",
            "no courier with {product} was ever seen in {place}",
            "{product} went astray somewhere near {place}",
            "we stand at the door in {place} and {product} does not come",
        ),
    },
    asides={
        "billing": (
            "the sum was right",
            "what I paid is in order",
            "my money came back in spring",
        ),
        "bug": (
            "every page opens at once",
            "the crash of May is gone",
            "the screen is not blank any more",
        ),
        "account": (
            "signing in was easy for once",
            "the new password was taken",
            "my profile is as it should be",
        ),
        "shipping": (
            "the box looked good",
            "the driver was friendly",
            "everything came early",
        ),
    },
    frames=(
        "{aside}. Nevertheless {matter}.",
        "Good morning, {matter}; {aside}, though.",
        "True, {aside}; now {matter}.",
    ),
    plain=(
        "Good morning, {matter}.",
        "Dear Sir or Madam, {matter}.",
    ),
    hurry=(
        " We cannot wait until tomorrow.",
        " Help us at once, please.",
        " No one can work now.",
        " An answer tonight, please.",
        " The matter is urgent for us.",
    ),
    calm=(
        "",
        " With thanks.",
        " Do it without any hurry.",
        " Some day next month is early enough.",
        " Not urgent at all.",
        " It may wait a while.",
    ),
)
"""Written before any score of them, and not to be changed after one."""

SIDES = {"train": _TRAIN, "develop": _DEVELOP, "held_out": _HELD_OUT}
