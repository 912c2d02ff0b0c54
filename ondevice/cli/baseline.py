"""Before a run with a contract takes its first step: the rule is stated, and the base answers the held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.cli.progress import QuietDisplay
from ondevice.errors import DataError, UsageError

if TYPE_CHECKING:
    from ondevice.run.directory import RunDir

__all__ = ["prepare_decision", "state_and_score"]


def prepare_decision(run_dir: RunDir, display: QuietDisplay, *, skip: bool) -> None:
    """What `ondevice train` does first where the config names a contract that decides; nothing for other runs.

    ``skip`` leaves the baseline out, aloud. Raises UsageError, DataError.
    """
    from ondevice.run.store import Store
    from ondevice.study.task_rule import RULE_FILE, task_folder

    contract = _deciding(run_dir)
    if contract is None:
        if skip:
            raise UsageError("--no-baseline: no contract with a [decision] is named (data.contract), so leave it out.")
        return
    if (task_folder(run_dir) / "baseline.json").exists():
        return
    began = bool(Store(run_dir.checkpoints).steps())
    if skip or began:
        told = "training began without it" if began else "left out by --no-baseline"
        display.say(f"Warning: no baseline ({told}); `ondevice decide {run_dir.name}` will want it.")
        if (task_folder(run_dir) / RULE_FILE).exists() or began:
            return
    state_and_score(run_dir, contract, display, baseline=not skip)


def _deciding(run_dir: RunDir) -> Path | None:
    """The contract of a run that has held-out rows and a rule."""
    from ondevice.run.config import read_wish

    try:
        name = read_wish(run_dir.config).data.contract
    except (UsageError, DataError):  # lost or edited: the launch puts it back or refuses it
        return None
    if not name:
        return None
    from ondevice.data.contract import read_contract
    from ondevice.study.task_rule import RULE_FILE, task_folder

    if (task_folder(run_dir) / RULE_FILE).exists():
        return Path(name)
    contract = read_contract(Path(name))
    return Path(name) if contract.decision is not None and contract.held_out is not None else None


def state_and_score(run_dir: RunDir, contract: Path, display: QuietDisplay, *, baseline: bool = True) -> None:
    """States the rule where it is not, and scores the base."""
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.device.memory import give_back_memory
    from ondevice.run.config import read_wish
    from ondevice.study.task_decision import score_baseline
    from ondevice.study.task_rule import RULE_FILE, state_rule, task_folder

    tokenizer = load_tokenizer(run_dir.tokenizer)
    if not (task_folder(run_dir) / RULE_FILE).exists():
        trained_on = [Path(source.path) for source in read_wish(run_dir.config).data.sources]
        state_rule(run_dir, contract, trained_on=trained_on, tokenizer=tokenizer)
    if not baseline:
        return
    display.say("The base answers the held-out rows, before the first step ...")
    scores = score_baseline(run_dir, tokenizer).facts["scores"]
    give_back_memory()
    told = ", ".join(f"{name} {each['estimate']:.0%}" for name, each in scores.items())
    display.say(f"Baseline: {told} of {next(iter(scores.values()))['n']} rows.")
