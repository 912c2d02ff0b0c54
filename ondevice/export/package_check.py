"""Re-checks a package: every byte, scores and decision from the raw outputs, and on request the answers anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ondevice.data.tokenizer import load_tokenizer
from ondevice.errors import OndeviceError
from ondevice.evaluate.decision import decide
from ondevice.evaluate.task import compare
from ondevice.evaluate.task_answers import judge_answer
from ondevice.export.package import ADAPTER, MODEL, PACKAGE_FILE, PACKAGE_VERSION, TASK
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.base import build_for
from ondevice.model.decoder import Decoder
from ondevice.model.peft import load_adapter, open_peft
from ondevice.model.weights import load_weights
from ondevice.run.files import read_json, read_sealed, sha256_of
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.run.recipe import Recipe
from ondevice.study.task_decision import BASELINE, DECISION_VERSION
from ondevice.study.task_rule import StatedRule, read_rule
from ondevice.study.task_score import Scored, answer, read_scored

__all__ = ["answer_again", "verify_package"]

_REMEDY = "Fetch the package anew from where it came from."


def verify_package(folder: Path) -> list[Finding]:
    """Everything that is not what it was. Only reads."""
    try:
        body = read_sealed(folder / PACKAGE_FILE, version=PACKAGE_VERSION)
    except OndeviceError as error:
        return [damage(PACKAGE_FILE, str(error), _REMEDY)]
    found = [*_files(folder, body), *_trained_on(body)]
    if any(each.level == "damage" for each in found):
        return found
    return [*found, *_proof(folder, body)]


def _files(folder: Path, body: dict[str, Any]) -> Iterator[Finding]:
    sound = 0
    for name, facts in body["files"].items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            yield damage(name, "is gone", _REMEDY)
        elif path.stat().st_size != facts["bytes"] or sha256_of(path) != facts["sha256"]:
            yield damage(name, "its bytes are not those that were packed", _REMEDY)
        else:
            sound += 1
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    for name in sorted(there - set(body["files"]) - {PACKAGE_FILE}):
        yield damage(name, "was not packed", "Take it out of the folder.")
    if sound == len(body["files"]):
        yield ok("", f"{sound} files, every byte as packed")


def _trained_on(body: dict[str, Any]) -> Iterator[Finding]:
    """The training rows, where they are on this machine."""
    for name, sha256 in body["trained_on"].items():
        path = Path(name)
        if not path.is_file():
            yield note(name, "the rows that were trained on are not on this machine")
        elif sha256_of(path) != sha256:
            yield damage(name, "the rows are not those that were trained on", "Put back what was there, or train anew.")
        else:
            yield ok(name, "the rows that were trained on")


def _proof(folder: Path, body: dict[str, Any]) -> Iterator[Finding]:
    """Scores and decision follow from the raw outputs and the stated rule."""
    task = folder / TASK
    try:
        rule = read_rule(task, load_tokenizer(folder / "tokenizer"))
        sides = [read_scored(task, name, rule) for name in (BASELINE, f"tuned-{body['step']:08d}")]
        record = read_sealed(task / f"decision-{body['step']:08d}.json", version=DECISION_VERSION)
    except OndeviceError as error:
        yield damage(TASK, str(error), _REMEDY)
        return
    judged = []
    for side in sides:
        assert side is not None  # its files are in the list
        if any(_judged_anew(row, rule) != row["right"] for row in side.rows):
            yield damage(
                f"{TASK}/{side.facts['outputs']['file']}", "its judgements do not follow from the answers", _REMEDY
            )
        judged.append(side.judged)
    found = decide(rule.rule, {name: each.difference for name, each in compare(judged[0], judged[1]).items()})
    if found.verdict != record["verdict"] or found.why != record["why"]:
        yield damage(TASK, f"the raw outputs lead to {found.verdict}, not to {record['verdict']}", _REMEDY)
    else:
        yield ok(TASK, f"{len(rule.rows)} held-out rows; the raw outputs lead to {found.verdict}: {found.why}")


def _judged_anew(row: dict[str, Any], rule: StatedRule) -> dict[str, bool]:
    return dict(judge_answer(row["answer"], row["expected"], rule.contract.output).right)


def answer_again(folder: Path, *, base: Path | None = None) -> list[Finding]:
    """Lets the packed model answer the held-out rows on this machine. ``base`` is where its base model lies here.

    Raises CheckpointError where the base is gone or is another one.
    """
    body = read_sealed(folder / PACKAGE_FILE, version=PACKAGE_VERSION)
    tokenizer = load_tokenizer(folder / "tokenizer")
    rule = read_rule(folder / TASK, tokenizer)
    before = read_scored(folder / TASK, f"tuned-{body['step']:08d}", rule)
    assert before is not None
    model = _model(folder, base)
    rows = answer(TorchBackend(model), model.shape, tokenizer, rule)
    return [_compared(before, rows, rule)]


def _compared(before: Scored, rows: list[dict[str, Any]], rule: StatedRule) -> Finding:
    same = sum(row["answer"] == was["answer"] for row, was in zip(rows, before.rows, strict=True))
    right, was_right = (sum(row["right"][rule.rule.primary] for row in side) for side in (rows, before.rows))
    text = f"answered again: {same} of {len(rows)} answers are the same, {rule.rule.primary} {right} then {was_right}"
    if same == len(rows):
        return ok(TASK, text)
    told = "; another processor or torch may round otherwise"
    return note(TASK, text + told) if right == was_right else damage(TASK, text + told, "Compare the two machines.")


def _model(folder: Path, base: Path | None) -> Decoder:
    path = folder / "run" / "recipe.json"
    recipe = Recipe.from_json(read_json(path), where=str(path))
    if base is not None and recipe.base is not None:
        recipe = dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, path=str(base)))
    model = build_for(dataclasses.replace(recipe, vocabulary=None), fresh=False)  # a package has every token's rows
    if recipe.adapter is None:
        load_weights(folder / MODEL / "model.safetensors", model)
    else:
        load_adapter(model, open_peft(folder / ADAPTER, model.shape))
    return model.eval()
