"""A whole launch of a run, in a process of its own: ``python -m tools.faults.victim_training RUN``.

Nothing differs from the product but that a failed save is tried again after a second, not after a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ondevice.train.keeper
from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.train.launch import launch

from .server import Silent

__all__ = ["main"]

_RETRY_S = 1.0


def main(words: list[str]) -> int:
    """Trains to the end; gives the exit code."""
    ondevice.train.keeper.RETRY_S = _RETRY_S
    try:
        outcome = launch(RunDir(Path(words[0])), display=Silent())
    except OndeviceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(outcome.outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
