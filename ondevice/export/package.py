"""A tuned model with its proof in one folder: adapter or weights, contract, held-out rows, outputs, decision, papers.

``package.json`` (sealed) has the hash of every file and of what was trained on; `ondevice.export.package_check` reads
it. A clean folder on another machine can verify it, and with the base model answer the held-out rows again.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ondevice
from ondevice.errors import UsageError
from ondevice.export.place import check_place, folder_in_place
from ondevice.infer.open import load_adapted
from ondevice.model import safetensors
from ondevice.model.base import build_for
from ondevice.model.peft import write_peft
from ondevice.model.weights import load_weights
from ondevice.run.directory import RunDir
from ondevice.run.files import read_json, read_sealed, sha256_of, write_atomic, write_sealed
from ondevice.run.recipe import Recipe
from ondevice.run.store import Checkpoint, Store
from ondevice.study.task_decision import BASELINE, DECISION_TEXT, DECISION_VERSION
from ondevice.study.task_rule import CONTRACT_FILE, HELD_OUT_FILE, RULE_FILE, task_folder

__all__ = ["ADAPTER", "MODEL", "PACKAGE_FILE", "PACKAGE_VERSION", "TASK", "package_run"]

PACKAGE_FILE, PACKAGE_VERSION = "package.json", 1
ADAPTER, MODEL, TASK = "adapter", "model", "task"
_WEIGHTS = "model.safetensors"


def package_run(
    run: RunDir, step: int, folder: Path, *, with_data: bool = False, anyway: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Writes the package of a decided step and gives the body of its ``package.json``.

    ``with_data`` puts the training rows in; else only their hashes. ``anyway``: also what was not decided to be kept.
    Raises UsageError without a decision, CheckpointError, ResourceError; nothing is left behind then.
    """
    decision = _decision(run, step, anyway=anyway)
    recipe = run.read_recipe()
    check_place(folder, marker=PACKAGE_FILE, overwrite=overwrite)
    with Store(run.checkpoints).lease(step) as checkpoint:
        if checkpoint.sha256 != decision["checkpoint_sha256"]:
            raise UsageError(f"{run.name}: step {step} is another checkpoint than the one decided on; decide anew.")
        data = _rows_of(run) if with_data else []
        need = 2 * (checkpoint.path / _WEIGHTS).stat().st_size + sum(path.stat().st_size for path in data)
        with folder_in_place(folder, need_bytes=need) as temporary:
            _write_model(temporary, run, recipe, checkpoint)
            _copy_papers(temporary, run, step)
            for number, path in enumerate(data):
                _copy(path, temporary / "data" / f"{number:02d}-{path.name}")
            write_atomic(temporary / "README.md", _readme(decision, recipe).encode())
            body = {**_facts(run, recipe, checkpoint, decision), "files": _hashes(temporary)}
            write_sealed(temporary / PACKAGE_FILE, body)
    return body


def _decision(run: RunDir, step: int, *, anyway: bool) -> dict[str, Any]:
    path = task_folder(run) / f"decision-{step:08d}.json"
    if not path.exists():
        raise UsageError(f"{run.name}: step {step} was never decided on; `ondevice decide {run.name} --step {step}`.")
    decision = read_sealed(path, version=DECISION_VERSION)
    if decision["verdict"] != "keep" and not anyway:
        raise UsageError(
            f"{run.name}: the decision on step {step} is {decision['verdict']}, not keep; --anyway packs it with that."
        )
    return decision


def _rows_of(run: RunDir) -> list[Path]:
    """The files that were trained on. Raises UsageError where one is gone or changed."""
    rule = read_json(task_folder(run) / RULE_FILE)
    paths = {Path(name): sha256 for name, sha256 in rule["trained_on"].items()}
    for path, sha256 in paths.items():
        if not path.is_file() or sha256_of(path) != sha256:
            raise UsageError(f"{path}: gone or changed since it was trained on; leave --with-data out.")
    return list(paths)


def _write_model(folder: Path, run: RunDir, recipe: Recipe, checkpoint: Checkpoint) -> None:
    """The adapter as PEFT loads it, or all weights under our names, every token's among them."""
    if recipe.adapter is None or recipe.base is None:
        if recipe.vocabulary is None:
            _copy(checkpoint.path / _WEIGHTS, folder / MODEL / _WEIGHTS)
        else:
            (folder / MODEL).mkdir()
            whole = dict(load_adapted(run, checkpoint).named_parameters())
            safetensors.write(folder / MODEL / _WEIGHTS, whole, {"recipe": recipe.sha256})
        return
    model = build_for(recipe, fresh=False)
    load_weights(checkpoint.path / _WEIGHTS, model)
    (folder / ADAPTER).mkdir()
    write_peft(folder / ADAPTER, model, recipe.adapter, base=recipe.base.path, base_sha256=recipe.base.sha256)


def _copy_papers(folder: Path, run: RunDir, step: int) -> None:
    task = task_folder(run)
    names = [RULE_FILE, CONTRACT_FILE, HELD_OUT_FILE, DECISION_TEXT, f"decision-{step:08d}.json"]
    names += [f"{side}.{kind}" for side in (BASELINE, f"tuned-{step:08d}") for kind in ("json", "jsonl")]
    for name in names:
        _copy(task / name, folder / TASK / name)
    for path in (run.identity, run.recipe, run.config):
        _copy(path, folder / "run" / path.name)
    for path in sorted(run.tokenizer.rglob("*")):
        if path.is_file():
            _copy(path, folder / "tokenizer" / path.relative_to(run.tokenizer))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _facts(run: RunDir, recipe: Recipe, checkpoint: Checkpoint, decision: dict[str, Any]) -> dict[str, Any]:
    """What was done with what: enough to do it again."""
    identity, rule = run.read_identity(), read_json(task_folder(run) / RULE_FILE)
    return {
        "v": PACKAGE_VERSION,
        "task": decision["task"],
        "verdict": decision["verdict"],
        "why": decision["why"],
        "run": run.name,
        "run_id": identity["id"],
        "step": checkpoint.step,
        "checkpoint_sha256": checkpoint.sha256,
        "recipe_sha256": recipe.sha256,
        "seed": recipe.train.seed,
        "planned_updates": decision["planned_updates"],
        "done_updates": decision["done_updates"],
        "command": identity.get("command"),
        "environment": identity.get("environment"),
        "base": None if recipe.base is None else asdict(recipe.base),
        "dataset_sha256": recipe.data.dataset_sha256,
        "trained_on": rule["trained_on"],
        "packed_by": ondevice.__version__,
    }


def _hashes(folder: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}


def _readme(decision: dict[str, Any], recipe: Recipe) -> str:
    base = f"\nThe adapter needs its base model: {recipe.base.path}\n" if recipe.adapter and recipe.base else ""
    return (
        f"# {decision['task']}: {decision['verdict']}\n\n{decision['why']}\n{base}\n"
        "- task/decision.md: what was compared, and the rule stated before\n"
        "- task/*.jsonl: held-out rows and the raw outputs of both models\n"
        "- run/: how it was trained; tokenizer/, and adapter/ or model/: what was learned\n\n"
        "`ondevice verify .` re-checks bytes and decision; `ondevice verify . --again` answers the rows anew.\n"
    )
