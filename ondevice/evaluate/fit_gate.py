"""The question before any training: is fine-tuning the right tool for this task? Answers in, advice with reasons out.

A tree over a person's answers; only the questions that matter are asked. Pure; knows no models and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["FIT_GATE_VERSION", "QUESTIONS", "Advice", "Question", "advise"]

FIT_GATE_VERSION = 1
ENOUGH = 100  # examples below which an epoch teaches little
ASK = Callable[[str], str]


@dataclass(frozen=True)
class Question:
    """``choices``: answer -> what it means; none where a number is asked for."""

    text: str
    choices: Mapping[str, str]


QUESTIONS: dict[str, Question] = {
    "goal": Question(
        "What should the model do better?",
        {
            "format": "answer in one fixed form, such as JSON with set keys",
            "labels": "choose from a fixed set of labels",
            "style": "write in a certain tone or house style",
            "facts": "know things: answer from documents or records",
            "text": "write longer text about what it is given, such as summaries",
        },
    ),
    "source": Question(
        "Where do the facts stand?",
        {
            "documents": "in documents: handbooks, manuals, policies, notes",
            "records": "in records: a catalogue, a table, a database",
        },
    ),
    "changes": Question(
        "How often do the facts change?",
        {
            "never": "not in the life of the model",
            "yearly": "about once a year",
            "monthly": "every month or so",
            "daily": "every day or oftener",
        },
    ),
    "kinds": Question(
        "How many kinds of documents come in?",
        {"one": "one, always built alike", "few": "two or three", "many": "many, each built differently"},
    ),
    "inputs": Question("How long is what comes in?", {"short": "a page at most", "long": "many pages"}),
    "prompting": Question(
        "Has a good prompt with a few examples in it been tried?",
        {"untried": "not yet", "fails": "yes, and it is not good enough", "works": "yes, and it is good enough"},
    ),
    "checkable": Question(
        "Can it be said of an answer whether it is right?", {"yes": "yes, by a program or at a glance", "no": "no"}
    ),
    "harm": Question("What does a wrong answer cost?", {"little": "little, someone notices", "much": "much"}),
    "examples": Question("How many examples with right answers are there, or can be written?", {}),
}
"""In the order in which they are asked."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """``methods`` are what to do, the first first; ``why`` and ``next`` are sentences."""

    verdict: Literal["train", "compare", "retrieve", "redesign", "prepare", "prompt"]
    methods: tuple[str, ...]
    headline: str
    why: tuple[str, ...]
    next: tuple[str, ...] = ()


_JUDGED = (
    "Write contract.toml: the form of every answer, held-out rows, and the rule that decides; `ondevice data check "
    "contract.toml` checks it."
)
_TRAIN = "`ondevice train` with data.contract scores the base first; `ondevice decide` says keep, iterate or discard."


def advise(ask: ASK) -> Advice:
    """``ask`` gives the answer to one of `QUESTIONS`; it is called for those that matter only.

    >>> advise({"goal": "facts", "source": "documents", "changes": "monthly"}.__getitem__).methods
    ('retrieval',)
    """
    goal = ask("goal")
    if goal == "facts":
        return _facts(ask)
    if goal == "text":
        return _text(ask)
    if ask("prompting") == "works":
        return _prompt("A prompt that works costs no training, and changes when the task changes.")
    return _style(ask) if goal == "style" else _fixed(goal, ask)


def _prompt(why: str) -> Advice:
    return Advice(
        verdict="prompt", methods=("prompting",), headline="Keep the prompt; there is nothing to train.", why=(why,)
    )


def _facts(ask: ASK) -> Advice:
    if ask("source") == "records":
        return Advice(
            verdict="retrieve",
            methods=("retrieval", "database"),
            headline="Do not train: look the records up, by retrieval or by database tools.",
            why=(
                "Records are looked up exactly or they are wrong; weights remember a catalogue approximately.",
                "A row that changes would need new training; in a database it is changed at once.",
            ),
            next=("Let a query find the rows and put them into the prompt; train later, if only the form is lacking.",),
        )
    changes = ask("changes")
    again = {
        "monthly": "What changes every month would be stale in the weights within a month.",
        "daily": "What changes every day is stale in the weights before training has ended.",
        "yearly": "What changes would need new training each time, and the old facts are not unlearned.",
        "never": "Even facts that stay are learned unreliably by a small model, and it cannot say where they stand.",
    }
    return Advice(
        verdict="retrieve",
        methods=("retrieval",),
        headline="Do not train: find the passage and put it into the prompt (retrieval).",
        why=(again[changes], "An answer from a passage can name its source; one from weights cannot be checked."),
        next=("Train afterwards only where the form or the tone of the answers is lacking.",),
    )


def _text(ask: ASK) -> Advice:
    if ask("kinds") == "many":
        return Advice(
            verdict="redesign",
            methods=("narrow", "retrieval with review"),
            headline="Not first: narrow the task to one kind of document, or use retrieval with a person's review.",
            why=(
                "Many kinds of documents are many tasks; a small model and a few examples of each learn none well.",
                "Long free text has no single right answer, so it could not be measured whether training helped.",
            ),
            next=("Choose the kind that comes most often, fix one form for its summary, and ask again.",),
        )
    if ask("prompting") == "works":
        return _prompt("A prompt that works costs no training, and changes when the task changes.")
    if ask("inputs") == "long":
        return _redesign_long()
    careful = ("A wrong answer costs much: let a person review each.",) if ask("harm") == "much" else ()
    if ask("checkable") == "no":
        return Advice(
            verdict="redesign",
            methods=("narrow", "retrieval with review"),
            headline="Not yet: first make answers that can be judged.",
            why=("Where nobody can say which answer is right, training cannot be shown to help.", *careful),
            next=("Ask for a fixed form, such as five fields, instead of free text, and ask again.",),
        )
    return _compare(("Free text is often a matter of the prompt; LoRA has to beat a good one.", *careful))


def _style(ask: ASK) -> Advice:
    careful = () if ask("checkable") == "yes" else ("Let two people choose blindly between pairs of answers.",)
    return _compare(
        (
            "Tone is what a few examples in the prompt often give already; training has to be better than that.",
            "LoRA gives it without a long prompt each time, which counts on a small machine.",
            *careful,
        )
    )


def _compare(why: tuple[str, ...]) -> Advice:
    return Advice(
        verdict="compare",
        methods=("prompting", "LoRA"),
        headline="Compare: a prompt with examples against LoRA, on the same held-out rows.",
        why=why,
        next=(_JUDGED, _TRAIN),
    )


def _redesign_long() -> Advice:
    return Advice(
        verdict="redesign",
        methods=("narrow", "retrieval with review"),
        headline="Not first: make the inputs short.",
        why=("Many pages do not fit into what a small model reads at once, and what does not fit is not learned.",),
        next=("Cut out the passage that holds the answer, by rules or retrieval, and ask again.",),
    )


def _fixed(goal: str, ask: ASK) -> Advice:
    """Answers of a fixed form, or labels: what fine-tuning is good at, given short inputs and checks."""
    if ask("kinds") == "many":
        return Advice(
            verdict="redesign",
            methods=("narrow",),
            headline="Not first: narrow the task to one kind of input.",
            why=("Many kinds of inputs are many tasks; a small model learns one of them well.",),
            next=("Choose the kind that comes most often and ask again.",),
        )
    if ask("inputs") == "long":
        return _redesign_long()
    if ask("checkable") == "no":
        return _prepare(
            "Nobody could say whether training helped.", "Decide which answer is right for 100 inputs first."
        )
    examples = int(ask("examples"))
    if examples < ENOUGH:
        few = f"{examples:,} examples are a handful of updates: enough to change the form, too few to learn the task."
        return _prepare(few, f"Write at least {ENOUGH} examples, and as many held-out rows; until then, use a prompt.")
    careful = ("A wrong answer costs much: let a person review each.",) if ask("harm") == "much" else ()
    return _lora(goal, careful)


def _prepare(why: str, then: str) -> Advice:
    return Advice(
        verdict="prepare",
        methods=("prompting",),
        headline="Not yet: use a prompt, and collect examples that can be checked.",
        why=(why,),
        next=(then, _JUDGED),
    )


def _lora(goal: str, careful: tuple[str, ...]) -> Advice:
    if goal == "labels":
        return Advice(
            verdict="train",
            methods=("LoRA", "QLoRA", "held-out checks"),
            headline="Train: LoRA, or QLoRA where memory is short, with held-out checks.",
            why=(
                "Short inputs with labels from a fixed set are learned well from some hundred examples.",
                "Right and wrong are exact, so held-out rows tell with an interval whether it got better.",
                *careful,
            ),
            next=("QLoRA is adapter.base_format=nf4.", _JUDGED, _TRAIN),
        )
    return Advice(
        verdict="train",
        methods=("LoRA",),
        headline="Train: LoRA on a small instruct model.",
        why=(
            "A fixed form is habit, not knowledge: low-rank updates of a small model learn it.",
            "Every answer can be parsed by a program, so the gain is measured and not believed.",
            *careful,
        ),
        next=("Such as `ondevice pull HuggingFaceTB/SmolLM2-135M-Instruct`.", _JUDGED, _TRAIN),
    )
