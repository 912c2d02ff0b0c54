"""``ondevice advise``: should this task be trained at all? A short dialogue, or flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict

from ondevice.cli.common import at_least, print_json
from ondevice.cli.folding import tell
from ondevice.errors import Interrupted, UsageError, nearest
from ondevice.evaluate.fit_gate import FIT_GATE_VERSION, QUESTIONS, Advice, Question, advise

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice advise                       asks a few questions
  ondevice advise --goal facts --source documents --changes monthly
  ondevice advise --goal labels --prompting fails --kinds one --inputs short --checkable yes --examples 800 --harm much
  ondevice advise --goal style --prompting untried --checkable no --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, question in QUESTIONS.items():
        text = question.text + "".join(f" {answer}: {meaning};" for answer, meaning in question.choices.items())
        if question.choices:
            parser.add_argument(f"--{name}", choices=tuple(question.choices), help=text.rstrip(";"))
        else:
            parser.add_argument(f"--{name}", type=at_least(0), metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object; nothing is asked")


def run(args: argparse.Namespace) -> int:
    dialogue = sys.stdin.isatty() and not args.json
    answers: dict[str, str] = {}

    def ask(name: str) -> str:
        given = getattr(args, name)
        if given is None and not dialogue:
            raise UsageError(_missing(name, answers))
        answers[name] = _asked(QUESTIONS[name]) if given is None else str(given)
        return answers[name]

    advice = advise(ask)
    if args.json:
        print_json({"v": FIT_GATE_VERSION, "answers": answers, **asdict(advice)})
    else:
        tell("\n".join(_lines(advice)))
    return 0


def _missing(name: str, answers: dict[str, str]) -> str:
    question = QUESTIONS[name]
    so_far = " after " + " ".join(f"--{key} {value}" for key, value in answers.items()) if answers else ""
    choices = f" ({', '.join(question.choices)})" if question.choices else ""
    return f"ondevice advise: --{name} is needed{so_far}: {question.text}{choices}"


def _asked(question: Question) -> str:
    """Asks until there is an answer. Raises Interrupted at the end of the input."""
    tell(question.text)
    for number, (answer, meaning) in enumerate(question.choices.items(), start=1):
        tell(f"  {number}  {answer}: {meaning}")
    while True:
        try:
            text = input("> ").strip().lower()
        except EOFError:
            raise Interrupted(
                "No answer, so no advice; the flags of `ondevice advise --help` say it at once."
            ) from None
        names = list(question.choices)
        if not names and text.isdecimal():
            return text
        if text.isdecimal() and 1 <= int(text) <= len(names):
            return names[int(text) - 1]
        if text in names:
            return text
        print(f"Please type {'a number' if not names else 'its number or word'}{nearest(text, names)}.")


def _lines(advice: Advice) -> Iterator[str]:
    yield advice.headline
    yield from (f"  {sentence}" for sentence in advice.why)
    for number, sentence in enumerate(advice.next):
        yield f"{'Next: ' if number == 0 else '      '}{sentence}"
