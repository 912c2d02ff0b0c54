"""``ondevice doctor RUN``: mends a run under its lock, says what it did, and refuses what it cannot mend."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack

from ondevice.cli.common import print_json
from ondevice.cli.folding import tell
from ondevice.errors import CheckpointError, RunBusy
from ondevice.run.directory import RunDir, find_run, lock_holder, offline_lock
from ondevice.run.finding import DAMAGE, Finding
from ondevice.run.repair import Before, Repair, repair

__all__ = ["doctor_run"]

_BACKUP = "Nothing that is left tells what it was; copy it back from a backup."
_LAST_RESORT = {  # where doctor itself was the remedy
    "limits.json": "Delete it to go back to the limits of config.toml.",
    "checkpoints/pins.json": "Delete it to unpin every step.",
    "status.json": "Delete it; the next launch writes its own.",
}


def doctor_run(name: str, *, dry_run: bool, as_json: bool) -> int:
    """Mends the run of that name. Returns 0 when it is sound now, else the exit code of CheckpointError.

    Raises RunBusy while a trainer lives.
    """
    from ondevice.train.verify import verify_run

    run_dir = find_run(name, even_damaged=True)
    before = Before.of(run_dir)
    with ExitStack() as held:
        if dry_run:
            _refuse_live(run_dir)
        else:
            held.enter_context(offline_lock(run_dir, what="ondevice doctor"))
        done = repair(run_dir, before, dry_run=dry_run)
        found = [finding for finding in verify_run(run_dir) if finding.level == DAMAGE]
    if dry_run:
        mended = {each.file for each in done}
        found = [finding for finding in found if finding.file not in mended]
    refused = [_with_last_resort(finding) for finding in found]
    if as_json:
        print_json(_as_json(run_dir, dry_run, done, refused))
    else:
        tell("\n".join(_lines(run_dir, dry_run, done, refused)))
    return CheckpointError.exit_code if refused else 0


def _refuse_live(run_dir: RunDir) -> None:
    if holder := lock_holder(run_dir):
        raise RunBusy(
            f"{run_dir.name}: another process holds this run ({holder}); end it with `ondevice stop {run_dir.name}`, "
            f"or look at it with `ondevice verify {run_dir.name}`."
        )


def _with_last_resort(finding: Finding) -> Finding:
    if finding.remedy and not finding.remedy.startswith("`ondevice doctor"):
        return finding
    return dataclasses.replace(finding, remedy=_LAST_RESORT.get(finding.file, _BACKUP))


def _lines(run_dir: RunDir, dry_run: bool, done: Sequence[Repair], refused: Sequence[Finding]) -> list[str]:
    lines = [f"{'to mend' if dry_run else 'mended':<9} {each.file or run_dir.name}: {each.text}." for each in done]
    lines += [f"{'refused':<9} {each.file or run_dir.name}: {each.text}. {each.remedy}" for each in refused]
    if not done and not refused:
        return [f"{run_dir.name}: nothing to mend."]
    if refused:
        things = "1 thing needs" if len(refused) == 1 else f"{len(refused)} things need"
        return [*lines, f"{run_dir.name}: {things} you."]
    return [*lines, f"{run_dir.name}: {'nothing else is wrong' if dry_run else 'sound now'}."]


def _as_json(run_dir: RunDir, dry_run: bool, done: Sequence[Repair], refused: Sequence[Finding]) -> dict[str, object]:
    return {
        "run": run_dir.name,
        "path": str(run_dir.path),
        "dry_run": dry_run,
        "sound": not refused,
        "repaired": [dataclasses.asdict(each) for each in done],
        "refused": [dataclasses.asdict(each) for each in refused],
    }
