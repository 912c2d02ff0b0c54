"""Keep, iterate or discard: baseline and tuned model on the same held-out rows, by the rule that was stated before.

Every decision stays on record as ``evals/task/decision-<step>.json`` (sealed); ``decision.md`` tells the newest in
words and lists the earlier ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import UsageError
from ondevice.evaluate.decision import decide
from ondevice.evaluate.task import compare
from ondevice.infer.open import load_adapted
from ondevice.run.directory import RunDir
from ondevice.run.files import read_sealed, write_atomic, write_sealed
from ondevice.run.store import Store
from ondevice.study.task_rule import StatedRule, read_rule, task_folder
from ondevice.study.task_score import Scored, baseline_model, read_scored, score

__all__ = [
    "BASELINE",
    "DECISION_TEXT",
    "DECISION_VERSION",
    "decide_run",
    "decision_text",
    "decisions",
    "score_baseline",
]

DECISION_VERSION = 1
BASELINE, DECISION_TEXT = "baseline", "decision.md"
_SHOWN = 5  # rows that are told in full


def score_baseline(run: RunDir, tokenizer: Tokenizer) -> Scored:
    """The answers of the model that the run begins with; those that are there already stay."""
    folder = task_folder(run)
    rule = read_rule(folder, tokenizer)
    there = read_scored(folder, BASELINE, rule)
    if there is not None:
        return there
    recipe = run.read_recipe()
    trained = max(Store(run.checkpoints).steps(), default=0)
    about = {
        "model": "baseline",
        "base": asdict(recipe.base) if recipe.base is not None else {"seed": recipe.train.seed},
        "scored_before_training": trained == 0,
    }
    if recipe.adapter is not None and recipe.adapter.parent is not None:
        about["adapter"] = asdict(recipe.adapter.parent)
    return score(baseline_model(run), tokenizer, rule, folder, name=BASELINE, about=about)


def decide_run(run: RunDir, step: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """Scores a checkpoint, compares and decides; the record is written and given.

    Raises UsageError where no baseline was scored, DataError where what was stated or scored was changed since.
    """
    folder = task_folder(run)
    rule = read_rule(folder, tokenizer)
    baseline = read_scored(folder, BASELINE, rule)
    if baseline is None:
        raise UsageError(
            f"{run.name}: its baseline was never scored, and without one nobody knows what training changed; "
            "score it now with --late, which the decision will say."
        )
    with Store(run.checkpoints).lease(step) as checkpoint:
        name = f"tuned-{step:08d}"
        tuned = read_scored(folder, name, rule)
        if tuned is None or tuned.facts["checkpoint_sha256"] != checkpoint.sha256:
            about = {"model": "tuned", "step": step, "checkpoint_sha256": checkpoint.sha256}
            tuned = score(load_adapted(run, checkpoint), tokenizer, rule, folder, name=name, about=about)
    record = _record(run, step, rule, baseline, tuned)
    write_sealed(folder / f"decision-{step:08d}.json", record)
    write_atomic(folder / DECISION_TEXT, decision_text(folder, record).encode())
    return record


def _record(run: RunDir, step: int, rule: StatedRule, baseline: Scored, tuned: Scored) -> dict[str, Any]:
    compared = compare(baseline.judged, tuned.judged)
    decision = decide(rule.rule, {name: each.difference for name, each in compared.items()})
    recipe = run.read_recipe()
    return {
        "v": DECISION_VERSION,
        "verdict": decision.verdict,
        "why": decision.why,
        "task": rule.facts["task"],
        "run": run.name,
        "run_id": run.read_identity()["id"],
        "step": step,
        "checkpoint_sha256": tuned.facts["checkpoint_sha256"],
        "rule": rule.facts["rule"],
        "rule_sha256": rule.sha256,
        "note": rule.facts["note"],
        "stated_before_training": rule.facts["stated_step"] == 0,
        "baseline_before_training": baseline.facts["scored_before_training"],
        "baseline_adapter": baseline.facts.get("adapter"),
        "rows": len(baseline.rows),
        "baseline": baseline.facts["scores"],
        "tuned": tuned.facts["scores"],
        "compared": {name: each.to_json() for name, each in compared.items()},
        "worse": _changed(baseline, tuned, rule.rule.primary, right_before=True),
        "better": _changed(baseline, tuned, rule.rule.primary, right_before=False),
        "planned_updates": recipe.train.steps - recipe.train.start_step,
        "done_updates": step - recipe.train.start_step,
        "decided_t": round(time.time(), 3),
    }


def _changed(baseline: Scored, tuned: Scored, metric: str, *, right_before: bool) -> list[int]:
    """Lines of the held-out rows whose primary metric changed."""
    pairs = zip(baseline.rows, tuned.rows, strict=True)
    return [
        a["line"] for a, b in pairs if a["right"][metric] is right_before and b["right"][metric] is not right_before
    ]


def decisions(folder: Path) -> list[dict[str, Any]]:
    """Every decision on record, oldest first."""
    found = [read_sealed(path, version=DECISION_VERSION) for path in folder.glob("decision-*.json")]
    return sorted(found, key=lambda record: record["decided_t"])


# --- for people -------------------------------------------------------------------------------------------------------

_MEANS = {
    "keep": "The tuned model is to be kept.",
    "iterate": "Neither kept nor discarded: change something and train again.",
    "discard": "The tuned model is not to be used; this record stays.",
}
_THEN = {
    "keep": "Pack it with its proof: `ondevice package {run}`.",
    "iterate": "More rows, above all of what it still gets wrong, or another learning rate; then decide anew.",
    "discard": "Read the rows that got worse: contradicting or missing examples are the commonest reason.",
}
_UNMOVED = "No row got worse, and too few got better: more updates, more rows or another learning rate may teach it."


def decision_text(folder: Path, record: Mapping[str, Any]) -> str:
    """The decision in Markdown."""
    return "\n".join(_lines(folder, record)) + "\n"


def _lines(folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {record['task']}: {record['verdict']}\n"
    yield f"{_MEANS[record['verdict']]} {record['why']}\n"
    updates = f"{record['done_updates']:,} of {record['planned_updates']:,} planned updates"
    yield f"Run {record['run']}, step {record['step']:,} ({updates}), {record['rows']:,} held-out rows."
    yield f"Decided {_time(record['decided_t'])}.\n"
    yield from _rule_lines(record)
    yield "## Scores\n"
    if record.get("baseline_adapter"):
        began = record["baseline_adapter"]
        yield f"The baseline is the base with the adapter that training went on with: {began['path']}.\n"
    yield "Shares with 95 % intervals (Wilson); difference on the same rows (Newcombe), p by McNemar's exact test.\n"
    yield "| metric | baseline | tuned | difference | p |"
    yield "|---|---|---|---|---|"
    for name, compared in record["compared"].items():
        sides = " | ".join(_share(record[side][name]) for side in ("baseline", "tuned"))
        yield f"| {name} | {sides} | {_difference(compared['difference'])} | {compared['p']:.4f} |"
    yield ""
    yield from _row_lines(record)
    unmoved = record["verdict"] == "discard" and not record["worse"]
    then = _UNMOVED if unmoved else _THEN[record["verdict"]].format(run=record["run"])
    yield f"## Next\n\n{then}\n"
    yield from _earlier_lines(folder, record)


def _rule_lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield "## Rule\n"
    guards = ", ".join(f"{name} may fall by at most {each:g}" for name, each in record["rule"]["guards"].items())
    yield f"{record['rule']['primary']} must rise, by more than chance{'; ' + guards if guards else ''}."
    yield "Keep: the interval of the primary difference lies above 0 and no guarded metric falls by more than it may."
    yield "Discard: the primary does not rise, or a guarded metric surely falls by more. Iterate: otherwise.\n"
    if record["note"]:
        yield f"{record['note']}\n"
    if not record["stated_before_training"]:
        yield "**The rule was stated after training had begun**, so it may have been chosen to fit.\n"
    if not record["baseline_before_training"]:
        yield "**The baseline was scored after training had begun**, from the same base.\n"


def _row_lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Rows whose {record['rule']['primary']} changed\n"
    for name in ("better", "worse"):
        rows = record[name]
        more = f" and {len(rows) - 40} more" if len(rows) > 40 else ""
        listed = f", lines {', '.join(map(str, rows[:40]))}{more} of held-out.jsonl" if rows else ""
        yield f"- {name}: {len(rows)}{listed}"
    yield f"\nRaw outputs: baseline.jsonl and tuned-{record['step']:08d}.jsonl, line by line.\n"


def _earlier_lines(folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    earlier = [each for each in decisions(folder) if each["step"] != record["step"]]
    if not earlier:
        return
    yield "## Earlier decisions on the same rows\n"
    for each in earlier:
        yield f"- step {each['step']:,}, {_time(each['decided_t'])}: {each['verdict']}. {each['why']}"
    yield "\nThe oftener the same rows decide, the likelier a lucky step is kept; fresh held-out rows settle it.\n"


def _time(t: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(t))


def _share(score: Mapping[str, Any]) -> str:
    return f"{score['estimate']:.1%} ({score['low']:.1%} to {score['high']:.1%})"


def _difference(each: Mapping[str, Any]) -> str:
    return f"{100 * each['estimate']:+.1f} points ({100 * each['low']:+.1f} to {100 * each['high']:+.1f})"
