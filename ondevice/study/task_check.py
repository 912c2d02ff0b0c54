"""What `ondevice verify RUN` says of a run's rule, scores and decisions, and of its training rows. Only reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ondevice.data.tokenizer import load_tokenizer
from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.files import sha256_of
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.study.task_decision import BASELINE, decisions
from ondevice.study.task_rule import RULE_FILE, StatedRule, read_rule, task_folder
from ondevice.study.task_score import read_scored

__all__ = ["verify_task"]

_REMEDY = "Put back what was there; without it the decision proves nothing."


def verify_task(run: RunDir) -> list[Finding]:
    """Nothing for a run without a rule."""
    folder = task_folder(run)
    if not (folder / RULE_FILE).exists():
        return []
    try:
        rule = read_rule(folder, load_tokenizer(run.tokenizer))
        names = [path.stem for path in (folder / f"{BASELINE}.json", *sorted(folder.glob("tuned-*.json")))]
        scored = [name for name in names if read_scored(folder, name, rule) is not None]
        made = decisions(folder)
    except (OndeviceError, OSError) as error:
        return [damage("evals/task", str(error), _REMEDY)]
    told = f"the rule as stated, {len(scored)} scored, {len(made)} decided"
    return [ok("evals/task", told), *_trained_on(rule)]


def _trained_on(rule: StatedRule) -> Iterator[Finding]:
    for name, sha256 in rule.facts["trained_on"].items():
        path = Path(name)
        if not path.is_file():
            yield note(name, "the rows that were trained on are gone")
        elif sha256_of(path) != sha256:
            yield damage(name, "changed since it was trained on", "Put back what was there, or train a new run.")
