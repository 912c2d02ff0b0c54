"""A run that was left in the midst of its work, as a launch leaves it that is gone after a save."""

from __future__ import annotations

from ondevice.run.directory import RunDir
from ondevice.train.launch import make_loop
from tests.displays import Silent


def left_after(run: RunDir, steps: int) -> None:
    """So many steps, a checkpoint of the last, and nothing of an end."""
    loop = make_loop(run, display=Silent())
    for _ in range(steps):
        loop._step()
    loop._save()
    loop.telemetry.close()
