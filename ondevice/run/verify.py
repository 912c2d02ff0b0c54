"""Re-checks everything inside a run directory. ``ondevice.train.verify`` adds the data and the exports.

Takes no lock and writes nothing: on a live run, what looks damaged is looked at again and again, since it may have
changed during a look. Findings are data; who prints them decides what they mean for a person.
"""

from __future__ import annotations

import time

from ondevice.errors import OndeviceError
from ondevice.run.directory import LAYOUT, RunDir, lock_holder
from ondevice.run.finding import DAMAGE, Finding
from ondevice.run.papers import environment
from ondevice.run.verify_checkpoints import verify_checkpoints
from ondevice.run.verify_papers import readable_recipe, verify_papers
from ondevice.run.verify_present import strange, verify_present
from ondevice.run.verify_schedule import verify_schedule
from ondevice.run.verify_story import read_story

__all__ = ["verify_folder"]

_LOOKS, _WAIT_S = 4, 0.2


def verify_folder(run: RunDir) -> list[Finding]:
    """Findings in the order of reading: papers, story, checkpoints, what holds now.

    >>> any(finding.level == "damage" for finding in verify_folder(run))
    False
    """
    alive, found, looks = _is_alive(run), _look(run), 1
    while looks < _LOOKS and (alive or _is_alive(run)) and any(finding.level == DAMAGE for finding in found):
        time.sleep(_WAIT_S)
        alive = _is_alive(run)
        lasting = {(finding.file, finding.text) for finding in found if finding.level == DAMAGE}
        again, looks = _look(run), looks + 1
        found = [finding for finding in again if finding.level != DAMAGE or (finding.file, finding.text) in lasting]
    return found


def _is_alive(run: RunDir) -> bool:
    return lock_holder(run) is not None


def _look(run: RunDir) -> list[Finding]:
    story, now, recipe = read_story(run), environment(), readable_recipe(run)
    return [
        *verify_papers(run, story, now),
        *story.findings,
        *verify_checkpoints(run, story, recipe, now),
        *verify_schedule(run, story, recipe),
        *(verify_present(run, story) if _layout(run) == LAYOUT else strange(run)),
    ]


def _layout(run: RunDir) -> int:
    """The present one where it cannot be read."""
    try:
        return int(run.read_identity()["layout"])
    except OndeviceError:
        return LAYOUT
