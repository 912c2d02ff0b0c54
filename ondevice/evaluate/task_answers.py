"""Answers to held-out rows, judged by what a contract says of them: parsed, keys, labels; or exactly as expected.

Of a JSON answer every declared field counts as ``label:NAME``; ``labels`` are all of them but free text, which nobody
can be expected to write letter by letter (where all fields are free text, ``labels`` are those). Knows no models.
"""

from __future__ import annotations

import json

from ondevice.data.contract import OutputRule
from ondevice.evaluate.task import Judged, judge

__all__ = ["ANSWERS_VERSION", "judge_answer"]

ANSWERS_VERSION = 1


def judge_answer(answer: str, expected: str, rule: OutputRule) -> Judged:
    """``expected`` is an answer that keeps the contract. White space around an answer does not count.

    >>> judge_answer('{"label": "bug"}', '{"label": "bug"}', rule).right
    {'parse': True, 'keys': True, 'label:label': True, 'labels': True}
    """
    answer, expected = answer.strip(), expected.strip()
    if rule.form != "json":
        return Judged(parsed=None, right={"exact": answer == expected})
    wanted = json.loads(expected)
    free = [name for name, allowed in rule.fields.items() if allowed == "string"]
    checked = [name for name in rule.fields if name not in free] or free
    judged = judge(answer, wanted, labels=checked)
    rest = judge(answer, wanted, labels=[name for name in free if name not in checked])
    more = {name: right for name, right in rest.right.items() if name.startswith("label:")}
    return Judged(parsed=judged.parsed, right={**judged.right, **more})
