"""Sets damaged checkpoints aside, so that training goes on from a sound one. Deletes nothing.

As long as no checkpoint is left to go on from, all stay where they are: a launch then refuses instead of beginning
anew over what may still be saved.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.files import fsync_folder, make_folder, write_error
from ondevice.run.store import Store
from ondevice.run.verify_checkpoints import DAMAGED, examine, headless, missing_steps
from ondevice.run.verify_papers import readable_recipe
from ondevice.run.verify_story import Story

__all__ = ["mend_checkpoints"]


def mend_checkpoints(run: RunDir, story: Story, dry: bool) -> Iterator[tuple[str, str]]:
    """Moves what is not sound to ``damaged/<time>-step-<n>``."""
    try:
        found = examine(run, story, readable_recipe(run))
    except OndeviceError:
        return
    if not any(each.complete for each in found):
        return
    lost = set(missing_steps(run, story, found))
    wrong = [each.path for each in found if not each.sound]
    wrong += [Store(run.checkpoints).path(step) for step in headless(run) if step in lost]
    for path in wrong:
        target = _target(run, path)
        if not dry:
            _move(path, target)
        yield f"checkpoints/{path.name}", f"damaged; set aside as {target.relative_to(run.path).as_posix()}"


def _target(run: RunDir, path: Path) -> Path:
    stamp, step = time.strftime("%Y%m%d-%H%M%S", time.gmtime()), int(path.name.removeprefix("step-"))
    names = itertools.chain([f"{stamp}-step-{step}"], (f"{stamp}-step-{step}.{n}" for n in itertools.count(2)))
    return next(run.path / DAMAGED / name for name in names if not os.path.lexists(run.path / DAMAGED / name))


def _move(path: Path, target: Path) -> None:
    try:
        make_folder(target.parent)
        path.rename(target)
        fsync_folder(target.parent)
        fsync_folder(path.parent)
    except OSError as error:
        raise write_error(target, error) from error
