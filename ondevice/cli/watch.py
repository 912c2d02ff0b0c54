"""``ondevice watch``: follows a run with one line a change; with ``--restart`` brings it back after a kill."""

from __future__ import annotations

import argparse
import shutil
import time
from typing import Any

from ondevice.cli.common import at_least, duration, for_terminal, print_json_line
from ondevice.cli.progress import status_line
from ondevice.cli.revive import Reviver, Verdict
from ondevice.device.vitals import read_scene
from ondevice.errors import Interrupted, OndeviceError, UsageError
from ondevice.run.directory import RunDir, find_run, list_runs, lock_holder
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.postmortem import examine, previous

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice watch notes                    a line for each change, until it ends
  ondevice watch notes --restart          ... and start it again whenever it is killed, or left to wait for long
  ondevice watch --all --once --restart   one pass over every run, for boot scripts and job schedulers

A run that was stopped, finished, failed or paused stays as it is. Ctrl-C ends only the watching."""

_ENDED = {"finished": 0, "stopped": 0, "failed": 1}
_SIGNS = ("launch", "saved_step", "best_loss", "hold", "wait", "last_error")  # whose change is worth a line
_FACTS = ("launch", "step", "steps", "loss", "best_loss", "saved_step", "hold", "eta_s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="name or path of the run")
    parser.add_argument("--restart", action="store_true", help="start it again after a kill")
    parser.add_argument("--all", action="store_true", help="every run")
    parser.add_argument("--once", action="store_true", help="look once, do what is to be done, and leave")
    parser.add_argument(
        "--interval", type=at_least(1, float), default=5.0, metavar="S", help="seconds between looks (5)"
    )
    parser.add_argument("--quiet", action="store_true", help="only restarts and the end")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def run(args: argparse.Namespace) -> int:
    if bool(args.run) == args.all:
        raise UsageError("Name a run, or write --all for every run; `ondevice runs list` shows them.")
    tell = _Teller(quiet=args.quiet, as_json=args.json, named=args.all)
    return _watch_all(args, tell) if args.all else _watch_one(args, tell)


def _watch_one(args: argparse.Namespace, tell: _Teller) -> int:
    watched = _Watched(find_run(args.run), tell, args)
    try:
        code = watched.look()
        while code is None and not args.once:
            time.sleep(args.interval)
            code = watched.look()
    except KeyboardInterrupt:
        raise Interrupted(f"No longer watching. {watched.goes_on()}") from None
    finally:
        watched.close()
    return 0 if args.once else code or 0


def _watch_all(args: argparse.Namespace, tell: _Teller) -> int:
    """Every run once, or again and again until someone interrupts."""
    known: dict[str, _Watched] = {}
    try:
        while True:
            for run_dir in list_runs():
                watched = known.setdefault(run_dir.name, _Watched(run_dir, tell, args))
                _look_safely(watched, tell)
            if args.once:
                return 0
            time.sleep(args.interval)
    except KeyboardInterrupt:
        trainers = [watched.goes_on() for watched in known.values() if watched.trainer]
        raise Interrupted(f"No longer watching. {' '.join(trainers) or 'No trainer runs.'}") from None
    finally:
        for watched in known.values():
            watched.close()


def _look_safely(watched: _Watched, tell: _Teller) -> None:
    """A run that cannot be read, or is not worth another try, hinders no other."""
    try:
        watched.look()
    except OndeviceError as error:
        tell(watched.run, "trouble", str(error), key=str(error))


class _Teller:
    """Prints what happens; the same thing about a run only once in a row."""

    def __init__(self, *, quiet: bool, as_json: bool, named: bool) -> None:
        self._quiet, self._as_json, self._named = quiet, as_json, named
        self._last: dict[str, Any] = {}

    def __call__(self, run_dir: RunDir, event: str, text: str, *, key: Any, **facts: Any) -> None:
        if self._last.get(run_dir.name) == (event, key) or (self._quiet and event == "change"):
            return
        self._last[run_dir.name] = (event, key)
        if self._as_json:
            head = {"kind": "watch", "t": round(time.time(), 3), "run": run_dir.name, "event": event}
            print_json_line({**head, **facts, "text": text})
        else:
            name = f"{run_dir.name}: " if self._named and not text.startswith(f"{run_dir.name}: ") else ""
            print(for_terminal(f"{time.strftime('%H:%M')} {name}{text}"), flush=True)


class _Watched:
    """One run under watch."""

    def __init__(self, run_dir: RunDir, tell: _Teller, args: argparse.Namespace) -> None:
        """Raises RunBusy where another process restarts the one run that was named."""
        self.run, self._tell, self._restart, self._once = run_dir, tell, args.restart, args.once
        self._reviver: Reviver | None = None
        if args.restart and not args.all and not args.once:
            self._reviver = Reviver(run_dir)

    @property
    def trainer(self) -> str:
        """Who trains it now: words of the lock's holder, or "" where nobody does."""
        starting = "it is starting" if self._reviver is not None and self._reviver.starting else ""
        return (lock_holder(self.run) or starting).partition(" boot ")[0]

    def goes_on(self) -> str:
        """What a person who stops watching wants to know."""
        name = self.run.name
        if trainer := self.trainer:
            return f"{name}: the trainer goes on ({trainer}); `ondevice stop {name}` ends it."
        return f"{name}: no trainer runs; `ondevice train {name}` starts one."

    def close(self) -> None:
        if self._reviver is not None:
            self._reviver.close()

    def look(self) -> int | None:
        """Tells what changed and does what is to be done; gives an exit code when there is nothing left to watch.

        Raises OndeviceError when restarting is given up.
        """
        alive, status = read_liveness(self.run), read_status(self.run)
        if alive.state == "killed":
            return self._gone(alive.state)
        if alive.left is not None and self._restart:
            return self._gone(alive.state)
        if alive.state in _ENDED:
            return self._ended(alive.state)
        share = 100 * (status.get("step") or 0) // (status.get("steps") or 1)
        key = (alive.state, share, *(str(status.get(sign)) for sign in _SIGNS))
        facts = {name: status.get(name) for name in _FACTS}
        self._tell(self.run, "change", _line(alive.state, status), key=key, state=alive.state, **facts)
        return None

    def _ended(self, state: str) -> int:
        end = previous(self.run, None, resumed_step=0) or {}
        text = f"{state} at step {end.get('step')}: {end.get('why')}."
        self._tell(self.run, "end", text, key=end.get("launch"), state=state, step=end.get("step"))
        return _ENDED[state]

    def _gone(self, state: str) -> int | None:
        """A run that was killed, or left for a while."""
        words = examine(self.run, read_scene()) or ("killed" if state == "killed" else "away for a while")
        if not self._restart:
            return self._left(f"{words}.", 1)
        if self._reviver is None:
            self._reviver = Reviver(self.run)
        verdict = self._reviver.look()
        if verdict.do == "give up":
            raise OndeviceError(f"{self.run.name}: gave up: {verdict.why.rstrip('.')}.")
        if verdict.do == "held":
            return self._left(f"{verdict.why}.", 0)
        if verdict.do == "start":
            self._started(f"{words}; started again.", state)
        elif verdict.do == "wait":
            self._waits(verdict, state)
        return None

    def _started(self, text: str, state: str) -> None:
        assert self._reviver is not None
        self._tell(self.run, "restart", text, key=time.monotonic(), state=state)
        if self._once and (why := self._reviver.await_start()):
            raise OndeviceError(f"{self.run.name}: {why}")

    def _waits(self, verdict: Verdict, state: str) -> None:
        text = f"waits {duration(verdict.wait_s)}: {verdict.why}." if verdict.wait_s > 1 else f"waits: {verdict.why}."
        self._tell(self.run, "change", text, key=verdict.why, state=state, wait_s=round(verdict.wait_s, 1))

    def _left(self, text: str, code: int) -> int:
        self._tell(self.run, "end", text, key=text, state="killed")
        return code


def _line(state: str, status: dict[str, Any]) -> str:
    """One line for a screen that may be as narrow as 40 columns."""
    if state == "new":
        return "made, not started yet"
    word = "" if state == "running" else f"{state} "
    width = shutil.get_terminal_size((80, 24)).columns - len("00:00 ") - len(word)
    return word + status_line(status, width)
