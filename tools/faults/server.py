"""Imports torch once and forks a victim for every life: a real process, there within milliseconds.

``python -m tools.faults.server BOARD`` reads one JSON request a line and answers one: ``{"job": ...}`` forks and gives
``{"pid"}``; ``{"wait": pid}`` gives ``{"status"}`` once that child is gone. No thread and no parallel region runs here,
so a fork copies nothing half done.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from .board import Board, Phase
from .marks import clock_of, hog_memory, hurry_sleep, mark_phases


class Silent:
    """A display nobody looks at."""

    def status(self, status: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def main() -> None:
    import ondevice.train.launch
    import ondevice.train.prepare  # noqa: F401  (imported here, not in every child)

    board = Board(Path(sys.argv[1]))
    gc.collect()
    gc.freeze()
    _answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _answer({"status": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])})
            continue
        pid = os.fork()
        if pid == 0:
            _live(request, board)
        _answer({"pid": pid})


def _answer(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _live(request: dict[str, Any], board: Board) -> None:
    """The child's whole life. Its result goes to a file; an unexpected error to the server's stderr."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        result = make(request) if request["job"] == "make" else train(request, board)
        Path(request["result"]).write_text(json.dumps(result), "utf-8")  # small enough for one write
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def make(request: dict[str, Any]) -> dict[str, Any]:
    """A run directory from a config text."""
    from ondevice.run.config import parse_config
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    config = parse_config(request["config"], where="config", base=Path(request["base"]), changes=request["changes"])
    config = dataclasses.replace(config, name=request["name"])
    dataset = make_dataset(config)
    prepared = prepare(config, dataset, cores=1, android=False, rate=1000.0)
    return {"run": str(make_run(config, prepared, dataset).path)}


def train(request: dict[str, Any], board: Board) -> dict[str, Any]:
    """One launch of a run; gives its outcome, or the error a person would see."""
    from ondevice.errors import OndeviceError
    from ondevice.run.directory import RunDir
    from ondevice.train.launch import launch

    if request["cgroup"]:
        Path(request["cgroup"], "cgroup.procs").write_text(str(os.getpid()))
    if request["hog"]:
        hog_memory(Phase(request["hog"][0]), request["hog"][1], board)
    if request["marked"]:
        mark_phases(board)
    if request["hurry"]:
        hurry_sleep(board, request["hurry"])
    try:
        with clock_of(board):
            outcome = launch(RunDir(Path(request["run"])), display=Silent())
    except OndeviceError as error:
        return {"error": type(error).__name__, "why": str(error)}
    return {"outcome": outcome.outcome, "step": outcome.step, "why": outcome.why}


if __name__ == "__main__":
    main()
